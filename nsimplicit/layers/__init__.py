"""Layers: problems that people solve inside a model, with their derivatives."""

from nsimplicit.layers.deq import deq as deq
from nsimplicit.layers.deq import jacobian_penalty as jacobian_penalty
from nsimplicit.layers.deq import spectral_radius as spectral_radius
from nsimplicit.layers.sum import Sum

__all__ = ["Sum", "deq", "jacobian_penalty", "spectral_radius"]
