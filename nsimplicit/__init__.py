"""Nonsmooth implicit differentiation for JAX.

Derivatives of solutions that are right where the equation is smooth, *named* where it has a kink,
and *guarded* where the implicit function theorem does not apply. Five places to start:

    nsi.relu, nsi.max, nsi.norm ...    JAX's functions, with the derivative you choose at a kink
    nsi.custom_root(F)(solver)         the derivative of F's root for a solver you have
    nsi.fixed_point(T, z0, ...)        solve and differentiate: splitting × solver × derivative
    nsi.certify(problem)(...)          whether the implicit function theorem applies, every selection
    nsi.diagnose(problem)(...)         one screen on whether a derivative can be trusted
"""

import importlib
from typing import TYPE_CHECKING, Any

from nsimplicit import calculus, derivatives, linear_solvers, prox, selections, solvers, splittings
from nsimplicit._errors import DerivativeError, InputError, NsimplicitError
from nsimplicit._version import __version__
from nsimplicit.calculus.kinks import KinkReport, kinks
from nsimplicit.calculus.with_selection import with_selection
from nsimplicit.certificates.certificate import Certificate
from nsimplicit.certify import certify
from nsimplicit.compare import compare
from nsimplicit.custom_root import custom_fixed_point, custom_root, root_jvp, root_vjp
from nsimplicit.diagnose import Diagnosis, diagnose
from nsimplicit.fixed_point import Solution, fixed_point, root
from nsimplicit.history import history
from nsimplicit.host import host
from nsimplicit.implicit import Report, equation_of, guards, tap
from nsimplicit.primitives import abs as abs
from nsimplicit.primitives import (
    clip,
    hard_tanh,
    leaky_relu,
    max_pool,
    maximum,
    median,
    minimum,
    norm,
    ordering,
    relu,
    relu6,
    soft_threshold,
    sort,
    switch,
    top_k,
)
from nsimplicit.primitives import max as max
from nsimplicit.primitives import min as min
from nsimplicit.prox import smooth
from nsimplicit.selections import Along

if TYPE_CHECKING:
    from nsimplicit import layers, testing

# `abs`, `max` and `min` are left out: a star import must not shadow the builtins.
__all__ = [
    "Along",
    "Certificate",
    "DerivativeError",
    "Diagnosis",
    "InputError",
    "KinkReport",
    "NsimplicitError",
    "Report",
    "Solution",
    "__version__",
    "calculus",
    "certify",
    "clip",
    "compare",
    "custom_fixed_point",
    "custom_root",
    "derivatives",
    "diagnose",
    "equation_of",
    "fixed_point",
    "guards",
    "hard_tanh",
    "history",
    "host",
    "kinks",
    "layers",
    "leaky_relu",
    "linear_solvers",
    "max_pool",
    "maximum",
    "median",
    "minimum",
    "norm",
    "ordering",
    "prox",
    "relu",
    "relu6",
    "root",
    "root_jvp",
    "root_vjp",
    "selections",
    "smooth",
    "soft_threshold",
    "solvers",
    "sort",
    "splittings",
    "switch",
    "tap",
    "testing",
    "top_k",
    "with_selection",
]


def __getattr__(name: str) -> Any:
    """The menus that not every program needs are imported when they are asked for."""
    if name in ("layers", "testing"):
        return importlib.import_module(f"nsimplicit.{name}")
    raise AttributeError(f"module 'nsimplicit' has no attribute {name!r}")
