"""Functions with a prox, and sets with a projection: the terms of an optimisation problem.

Each object is a pytree whose array leaves are its parameters, differentiated like any argument.
"""

from nsimplicit.prox.base import Function, Set
from nsimplicit.prox.cones import FreeCone, ZeroCone
from nsimplicit.prox.conjugate import Conjugate
from nsimplicit.prox.entropies import KL, Entropy, LogBarrier
from nsimplicit.prox.functions import FromFunction, Smooth, from_function, smooth
from nsimplicit.prox.groups import L2, GroupL2
from nsimplicit.prox.hinges import Hinge, SmoothedHinge, SquaredHinge
from nsimplicit.prox.logistic import CrossEntropy, Logistic
from nsimplicit.prox.losses import Linear, SquaredL2, Zero
from nsimplicit.prox.norms import L1, ElasticNet
from nsimplicit.prox.quadratic import LeastSquares, Quadratic
from nsimplicit.prox.rules import PostScale, PreScale, Translate
from nsimplicit.prox.second_order_cone import RotatedSecondOrderCone, SecondOrderCone
from nsimplicit.prox.separable import SeparableSum
from nsimplicit.prox.sets import Box, Nonnegative
from nsimplicit.prox.simplex import Simplex
from nsimplicit.prox.spectral import LogDet

__all__ = [
    "L1",
    "L2",
    "Box",
    "Conjugate",
    "ElasticNet",
    "FreeCone",
    "FromFunction",
    "Function",
    "GroupL2",
    "LeastSquares",
    "Linear",
    "LogDet",
    "Nonnegative",
    "PostScale",
    "PreScale",
    "Quadratic",
    "RotatedSecondOrderCone",
    "SecondOrderCone",
    "SeparableSum",
    "Set",
    "Simplex",
    "Smooth",
    "SquaredL2",
    "Translate",
    "Zero",
    "ZeroCone",
    "from_function",
    "smooth",
    "Hinge",
    "SquaredHinge",
    "SmoothedHinge",
    "Logistic",
    "CrossEntropy",
    "KL",
    "LogBarrier",
    "Entropy",
]
