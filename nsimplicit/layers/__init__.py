"""Layers: problems that people solve inside a model, with their derivatives."""

from nsimplicit.layers.deq import deq as deq
from nsimplicit.layers.deq import jacobian_penalty as jacobian_penalty
from nsimplicit.layers.deq import spectral_radius as spectral_radius
from nsimplicit.layers.sinkhorn import Transport as Transport
from nsimplicit.layers.sinkhorn import sinkhorn as sinkhorn
from nsimplicit.layers.sum import Sum

__all__ = ["Sum", "Transport", "deq", "jacobian_penalty", "sinkhorn", "spectral_radius"]
