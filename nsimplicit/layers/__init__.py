"""Layers: problems that people solve inside a model, with their derivatives."""

from nsimplicit.layers.cone_program import ConeSolution as ConeSolution
from nsimplicit.layers.cone_program import cone_program as cone_program
from nsimplicit.layers.deq import deq as deq
from nsimplicit.layers.deq import jacobian_penalty as jacobian_penalty
from nsimplicit.layers.deq import spectral_radius as spectral_radius
from nsimplicit.layers.monotone_deq import MonotoneDEQ
from nsimplicit.layers.monotone_operator import MonotoneConv, MonotoneDense
from nsimplicit.layers.qp import QPSolution as QPSolution
from nsimplicit.layers.qp import qp as qp
from nsimplicit.layers.sinkhorn import Transport as Transport
from nsimplicit.layers.sinkhorn import sinkhorn as sinkhorn
from nsimplicit.layers.sum import Sum

__all__ = [
    "ConeSolution",
    "MonotoneConv",
    "MonotoneDEQ",
    "MonotoneDense",
    "QPSolution",
    "Sum",
    "Transport",
    "cone_program",
    "deq",
    "jacobian_penalty",
    "qp",
    "sinkhorn",
    "spectral_radius",
]
