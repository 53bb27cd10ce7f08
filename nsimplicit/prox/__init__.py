"""Functions with a prox, and sets with a projection: the terms of an optimisation problem.

Each object is a pytree whose array leaves are its parameters, differentiated like any argument.
"""

from nsimplicit import _lazy

__all__, __getattr__ = _lazy.menu(__name__, __file__)
