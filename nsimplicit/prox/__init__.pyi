from nsimplicit.prox.activations import Activation, activation
from nsimplicit.prox.affine import AffineSet
from nsimplicit.prox.balls import L1Ball, L2Ball, LInfBall
from nsimplicit.prox.base import Function, Set
from nsimplicit.prox.box_section import BoxSection
from nsimplicit.prox.cardinality import L0, L0Ball
from nsimplicit.prox.cones import FreeCone, ZeroCone
from nsimplicit.prox.conjugate import Conjugate
from nsimplicit.prox.distances import DistanceTo, SquaredDistanceTo
from nsimplicit.prox.eigenvalues import PSDCone, SumEigenvalues
from nsimplicit.prox.entropies import KL, Entropy, LogBarrier
from nsimplicit.prox.envelope import MoreauEnvelope
from nsimplicit.prox.exponential_cone import DualExponentialCone, ExponentialCone
from nsimplicit.prox.folded import MCP, SCAD, CappedL1
from nsimplicit.prox.functions import FromFunction, Smooth, from_function, smooth
from nsimplicit.prox.groups import L2, GroupL2
from nsimplicit.prox.halfspaces import Halfspace, Hyperplane, Hyperslab
from nsimplicit.prox.hinges import Hinge, SmoothedHinge, SquaredHinge
from nsimplicit.prox.huber import Huber
from nsimplicit.prox.isotonic import Isotonic
from nsimplicit.prox.largest import Maximum, SumLargest
from nsimplicit.prox.log_sum import LogSum
from nsimplicit.prox.logistic import CrossEntropy, Logistic
from nsimplicit.prox.losses import Linear, SquaredL2, Zero
from nsimplicit.prox.low_rank import RankBall, Stiefel
from nsimplicit.prox.max_norms import LInf, SquaredLInf
from nsimplicit.prox.norms import L1, ElasticNet, NonnegativeL1
from nsimplicit.prox.nuclear import NuclearNorm, SpectralNormBall
from nsimplicit.prox.perspective import PerspectiveOfSquare
from nsimplicit.prox.polyhedron import Polyhedron
from nsimplicit.prox.power_cone import DualPowerCone, PowerCone
from nsimplicit.prox.precompose import PrecomposeDiagonal, PrecomposeOrthogonal
from nsimplicit.prox.quadratic import LeastSquares, Quadratic
from nsimplicit.prox.rules import PostScale, PreScale, Translate
from nsimplicit.prox.second_order_cone import RotatedSecondOrderCone, SecondOrderCone
from nsimplicit.prox.separable import SeparableSum
from nsimplicit.prox.sets import Box, Nonnegative
from nsimplicit.prox.simplex import CappedSimplex, Simplex, SparseSimplex
from nsimplicit.prox.sorted_l1 import OSCAR, SLOPE
from nsimplicit.prox.sparse_groups import L1PlusGroupL2
from nsimplicit.prox.spectral import LogDet
from nsimplicit.prox.spheres import L1Sphere, L2Sphere
from nsimplicit.prox.tilts import Regularize, Tilt
from nsimplicit.prox.total_variation import TotalVariation1D
from nsimplicit.prox.transport import Birkhoff, TransportPolytope

__all__ = [
    "KL",
    "L0",
    "L1",
    "L2",
    "MCP",
    "OSCAR",
    "SCAD",
    "SLOPE",
    "Activation",
    "AffineSet",
    "Birkhoff",
    "Box",
    "BoxSection",
    "CappedL1",
    "CappedSimplex",
    "Conjugate",
    "CrossEntropy",
    "DistanceTo",
    "DualExponentialCone",
    "DualPowerCone",
    "ElasticNet",
    "Entropy",
    "ExponentialCone",
    "FreeCone",
    "FromFunction",
    "Function",
    "GroupL2",
    "Halfspace",
    "Hinge",
    "Huber",
    "Hyperplane",
    "Hyperslab",
    "Isotonic",
    "L0Ball",
    "L1Ball",
    "L1PlusGroupL2",
    "L1Sphere",
    "L2Ball",
    "L2Sphere",
    "LInf",
    "LInfBall",
    "LeastSquares",
    "Linear",
    "LogBarrier",
    "LogDet",
    "LogSum",
    "Logistic",
    "Maximum",
    "MoreauEnvelope",
    "Nonnegative",
    "NonnegativeL1",
    "NuclearNorm",
    "PSDCone",
    "PerspectiveOfSquare",
    "Polyhedron",
    "PostScale",
    "PowerCone",
    "PreScale",
    "PrecomposeDiagonal",
    "PrecomposeOrthogonal",
    "Quadratic",
    "RankBall",
    "Regularize",
    "RotatedSecondOrderCone",
    "SecondOrderCone",
    "SeparableSum",
    "Set",
    "Simplex",
    "Smooth",
    "SmoothedHinge",
    "SparseSimplex",
    "SpectralNormBall",
    "SquaredDistanceTo",
    "SquaredHinge",
    "SquaredL2",
    "SquaredLInf",
    "Stiefel",
    "SumEigenvalues",
    "SumLargest",
    "Tilt",
    "TotalVariation1D",
    "Translate",
    "TransportPolytope",
    "Zero",
    "ZeroCone",
    "activation",
    "from_function",
    "smooth",
]
