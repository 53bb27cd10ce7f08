"""Other libraries' interfaces on top of this one's rule. Nothing is imported before you ask for it.

``from nsimplicit.compat import jaxopt`` has jaxopt's names and does not need jaxopt;
``from nsimplicit.compat import optimistix`` has an adjoint for optimistix, which must be installed.
"""
