"""Sorted weights: the larger an entry, the larger the weight on it, which makes entries equal (OWL, SLOPE, OSCAR)."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import Function, as_float, concrete, modulus, require
from nsimplicit.prox.boundary import snap
from nsimplicit.prox.pooling import pool, weight
from nsimplicit.prox.threshold import direction

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


def _falling(x: jax.Array) -> jax.Array:
    """The moduli of the entries, largest first."""
    return primitives.sort(modulus(x.reshape(-1)), descending=True)


def _prox(x: jax.Array, weights: jax.Array, selection: Any) -> jax.Array:
    """Weights (n,) that fall, taken off the moduli as they fall; entries then out of order are averaged."""
    flat = x.reshape(-1)
    y = modulus(flat)
    wide = jnp.result_type(y, jnp.float32)
    order = jnp.argsort(-lax.stop_gradient(y))
    y, weights = y[order].astype(wide), weights.astype(wide)
    # Two entries with equal weights are never out of order.
    alike = weights[1:] == weights[:-1]
    z = -pool(weights - y, jnp.ones_like(y), jnp.zeros_like(y[1:, None]), selection, alike)
    kept = _cut_off(z, *lax.stop_gradient((z, y + weights, weights)), selection)
    kept = jnp.zeros_like(kept).at[order].set(kept, unique_indices=True)
    unit = direction(flat)
    unit = unit if jnp.iscomplexobj(flat) else jnp.where(flat == 0, 1, unit)
    return (unit * kept.astype(unit.dtype)).astype(x.dtype).reshape(x.shape)


def _cut_off(z: jax.Array, fixed: jax.Array, size: jax.Array, taken: jax.Array, selection: Any) -> jax.Array:
    """max(z, 0) for averages over blocks: a switch for an entry that is a block, coupled in a larger one."""
    block = jnp.append(0, jnp.cumsum(fixed[1:] != fixed[:-1]))
    size, taken = (jax.ops.segment_max(c, block, z.size, indices_are_sorted=True)[block] for c in (size, taken))
    sole = jax.ops.segment_sum(jnp.ones_like(block), block, z.size, indices_are_sorted=True)[block] == 1
    largest = jnp.max(size)
    away = jnp.where(largest > 0, largest, 1)
    # Where no weight is taken off there is no kink at zero: the prox is the identity there.
    u, zero = jnp.where(taken > 0, snap(z, size), away), jnp.zeros_like(z)
    positive, fallen = lax.stop_gradient(u) > 0, jnp.where(sole, zero, z)
    value = jnp.where(positive, fixed, lax.stop_gradient(fallen))
    alone = primitives.switch(jnp.where(sole, u, away), z, fallen, selection=selection, value=value)
    value = jnp.where(positive, fixed, 0)
    return coupled_switch(jnp.where(sole, away, u), alone, zero, selection=selection, value=value)


class _Sorted(Function):
    """A norm with one weight for each place in the order of the moduli."""

    selection: Any

    @abc.abstractmethod
    def _weights(self, x: jax.Array) -> jax.Array:
        """The weights, in falling order, for an x of this size."""

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = as_float(x)
        return jnp.sum(self._weights(x) * _falling(x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            weights = self._weights(x)
            selection = weight(self.selection, f"prox.{type(self).__name__}")
            return _prox(x, jnp.asarray(step, weights.dtype) * weights, selection)

        return prox


@data
class SLOPE(_Sorted):
    """Sum of the moduli of the entries, with the largest weight on the largest: also called OWL.

    Formula: ``g(x) = sum(w * sort(abs(x)))``, both in falling order. The prox takes ``s * w`` off the
    sorted moduli, averages over blocks that are out of order then, and cuts off at zero.

    Args:
        weights: w >= 0 that do not rise: one for each entry of x, or one number, which is :class:`L1`.
        selection: what two neighbours, or a block at zero, do at a kink: the weight in [0, 1] on the
            branch where neighbours part and a block is not zero, ``"split"`` (1) or ``"pooled"`` (0).
            Static.

    Entries of x may be complex; x may have any shape, and its entries are compared with each other.

    Kinks:
        As in :class:`Isotonic`, a pair of equal moduli in the result whose multiplier is zero; and a
        block whose average is zero. Ties of x are no kink: falling weights pool them, equal ones
        treat them alike. Default 0: pooled, and zero.

    Cost:
        O(n log n): one sort; then one entry after the other, slow for a long vector on an accelerator.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SLOPE(jnp.array([2.0, 1.0, 0.5])).prox(jnp.array([-3.0, 3.5, 0.2]), 1.0).tolist()
        [-1.75, 1.75, 0.0]

    References:
        Bogdan, van den Berg, Sabatti, Su, Candes, SLOPE: adaptive variable selection via convex
        optimization (2015), algorithm 4.
        Zeng, Figueiredo, The ordered weighted l1 norm (2014).
    """

    weights: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weights, "prox.SLOPE", "weights", CONCAVE)
        numbers = concrete(self.weights)
        if numbers is not None and numbers.ndim and np.any(np.diff(numbers) > 0):
            found = f"the weights rise, by up to {np.max(np.diff(numbers)):g}."
            meaning = "The largest weight is on the largest entry; otherwise the function is not convex."
            raise InputError(message("prox.SLOPE(weights=...)", found, meaning, "numpy.sort(weights)[::-1]"))

    def _weights(self, x: jax.Array) -> jax.Array:
        shape = jnp.shape(self.weights)
        if shape not in ((), (x.size,)):
            found = f"has shape {shape}, and x has {x.size} entries."
            meaning = "There is a weight for each place in the order of the entries, or one for all."
            tries = "a scalar", f"an array of shape ({x.size},)"
            raise InputError(message("prox.SLOPE(weights=...)", found, meaning, *tries))
        return jnp.broadcast_to(jnp.asarray(self.weights, jnp.finfo(x.dtype).dtype), (x.size,))


@data
class OSCAR(_Sorted):
    """The l1 norm and the larger modulus of every pair of entries: :class:`SLOPE` with weights on a line.

    Formula: ``g(x) = l1 * sum(abs(x)) + l2 * sum(maximum(abs(x[i]), abs(x[j])) for i < j)``, which is
    ``sum((l1 + l2 * (n - 1 - k)) * sort(abs(x))[k] for k < n)`` in falling order.

    Args:
        l1: >= 0, one number.
        l2: >= 0, one number.
        selection: as in :class:`SLOPE`. Static.

    Kinks:
        Those of :class:`SLOPE`.

    Cost:
        That of :class:`SLOPE`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.OSCAR(0.5, 1.0).prox(jnp.array([-3.0, 3.5, 0.25]), 1.0).tolist()
        [-1.25, 1.25, 0.0]

    References:
        Bondell, Reich, Simultaneous regression shrinkage, variable selection, and supervised clustering
        of predictors with OSCAR (2008).
    """

    l1: Any
    l2: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.l1, "prox.OSCAR", "l1", CONCAVE)
        require("nonnegative", self.l2, "prox.OSCAR", "l2", CONCAVE)

    def _weights(self, x: jax.Array) -> jax.Array:
        dtype = jnp.finfo(x.dtype).dtype
        return jnp.asarray(self.l1, dtype) + jnp.asarray(self.l2, dtype) * jnp.arange(x.size - 1, -1, -1, dtype)
