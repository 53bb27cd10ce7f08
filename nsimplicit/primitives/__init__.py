"""Nonsmooth operations whose derivative at a kink you choose; elsewhere they are JAX's own.

``from nsimplicit.primitives import *`` leaves out the names that would shadow builtins
(``abs``, ``max``, ``min``); they are attributes all the same.
"""

from nsimplicit.primitives.elementwise import abs as abs
from nsimplicit.primitives.elementwise import leaky_relu, maximum, minimum, relu
from nsimplicit.primitives.extremes import max as max
from nsimplicit.primitives.extremes import max_pool
from nsimplicit.primitives.extremes import min as min
from nsimplicit.primitives.norms import norm
from nsimplicit.primitives.order import median, sort, top_k
from nsimplicit.primitives.ordering import ordering
from nsimplicit.primitives.switch import switch
from nsimplicit.primitives.thresholds import clip, hard_tanh, relu6, soft_threshold

__all__ = [
    "clip",
    "hard_tanh",
    "leaky_relu",
    "max_pool",
    "maximum",
    "median",
    "minimum",
    "norm",
    "ordering",
    "relu",
    "relu6",
    "soft_threshold",
    "sort",
    "switch",
    "top_k",
]
