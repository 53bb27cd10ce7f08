"""Monotone vectors: isotonic regression."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, fit, indicator, real, require
from nsimplicit.prox.pooling import pool, weight


@data
class Isotonic(Set):
    """Increasing vectors; the projection is isotonic regression.

    Formula: ``x[i] <= x[i + 1]`` for every i; ``project(x)`` minimises ``sum(w * (p - x)**2)``, and
    is the average of x, weighted by w, over each of some blocks of neighbours.

    Args:
        weights: w > 0: one number, or an array that broadcasts to the shape of x. With weights that
            differ this is the projection in the norm ``sum(w * x**2)``: no prox in the usual norm.
        decreasing: whether entries fall instead. Static.
        axis: the axis of x along which they rise. Static.
        selection: what a pair of neighbours at a kink does: the weight in [0, 1] on the branch where
            it parts, ``"split"`` (1) or ``"pooled"`` (0). Static.

    Kinks:
        A pair of equal neighbours whose constraint has multiplier zero: blocks that meet at one
        value, or a block that could be parted with no change of its averages. Ties of x itself are
        no kink unless they are this. The Jacobian averages over blocks; that of a block with one
        such pair is s times that with the pair parted plus (1 - s) times that with it pooled. The
        pairs of a block with many of them part together, and a report shows a switch for each pair.
        Default 0, pooled.

    Cost:
        O(n), one entry after the other: fast on a CPU, slow for a long vector on an accelerator.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Isotonic().project(jnp.array([1.0, 4.0, 2.0, 5.0])).tolist()
        [1.0, 3.0, 3.0, 5.0]

    References:
        Best, Chakravarti, Active set algorithms for isotonic regression (1990).
        Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation (2013).
    """

    weights: Any = 1.0
    decreasing: bool = static(False)
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.weights, "prox.Isotonic", "weights", "An entry without weight could be anything.")

    def __call__(self, x: Any) -> jax.Array:
        """0 where the entries are in order; inf elsewhere."""
        x = real(x, "prox.Isotonic")
        steps = jnp.diff(x, axis=self.axis)
        ordered = jnp.all(steps <= 0 if self.decreasing else steps >= 0)
        return indicator(ordered, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest increasing vector."""
        x = real(x, "prox.Isotonic")
        w = jnp.broadcast_to(fit(self.weights, x, "prox.Isotonic(weights=...)"), x.shape)
        wide = jnp.result_type(x, jnp.float32)
        rows, w = (jnp.moveaxis(a, self.axis, -1).astype(wide) for a in (x, w))
        sign = -1 if self.decreasing else 1
        limits = jnp.zeros_like(rows[..., 1:, None])
        out = sign * pool(sign * rows, w, limits, weight(self.selection, "prox.Isotonic"))
        return jnp.moveaxis(out, -1, self.axis).astype(x.dtype)
