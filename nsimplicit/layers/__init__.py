"""Layers: problems that people solve inside a model, with their derivatives."""

from nsimplicit.layers.sum import Sum

__all__ = ["Sum"]
