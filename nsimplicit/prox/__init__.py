"""Functions with a prox, and sets with a projection: the terms of an optimisation problem.

Each object is a pytree whose array leaves are its parameters, differentiated like any argument.
"""

from nsimplicit.prox.base import Function, Set
from nsimplicit.prox.losses import Linear, SquaredL2, Zero
from nsimplicit.prox.norms import L1, L2, ElasticNet
from nsimplicit.prox.quadratic import LeastSquares, Quadratic
from nsimplicit.prox.sets import Box, Nonnegative

__all__ = [
    "L1",
    "L2",
    "Box",
    "ElasticNet",
    "Function",
    "LeastSquares",
    "Linear",
    "Nonnegative",
    "Quadratic",
    "Set",
    "SquaredL2",
    "Zero",
]
