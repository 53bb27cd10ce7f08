"""Total variation of a signal: the exact prox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, fit, real, require
from nsimplicit.prox.pooling import pool, weight


@data
class TotalVariation1D(Function):
    """Weighted sum of the absolute differences of neighbours: the fused lasso's fusion.

    Formula: ``g(x) = sum(w * abs(x[1:] - x[:-1]))``. The prox is constant over blocks of neighbours,
    each the average of x there, moved by ``s * w`` towards the blocks beside it.

    Args:
        weight: w >= 0: one number, or an array that broadcasts to the differences of neighbours.
        axis: the axis of x along which the signals run. Static.
        selection: what a pair of neighbours at a kink does: the weight in [0, 1] on the branch where
            it parts, ``"split"`` (1) or ``"pooled"`` (0). Static.

    Kinks:
        A pair of equal neighbours in the result whose multiplier is exactly ``s * w`` or ``-s * w``,
        as in :class:`Isotonic`; default 0, pooled. Where w = 0 there is none.

    Cost:
        O(n), one entry after the other: fast on a CPU, slow for a long signal on an accelerator.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.TotalVariation1D(1.0).prox(jnp.array([1.0, 2.0, 8.0, 6.0]), 1.0).tolist()
        [2.0, 2.0, 6.5, 6.5]

    References:
        Condat, A direct algorithm for 1-D total variation denoising (2013).
        Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation (2013).
    """

    weight: Any
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        meaning = "A negative weight makes the function concave, and then it has no prox."
        require("nonnegative", self.weight, "prox.TotalVariation1D", "weight", meaning)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        steps = jnp.diff(real(x, "prox.TotalVariation1D"), axis=self.axis)
        return jnp.sum(fit(self.weight, steps, "prox.TotalVariation1D(weight=...)") * primitives.abs(steps))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = real(x, "prox.TotalVariation1D")
            steps = jnp.diff(x, axis=self.axis)
            w = jnp.broadcast_to(fit(step * self.weight, steps, "prox.TotalVariation1D(weight=...)"), steps.shape)
            wide = jnp.result_type(x, jnp.float32)
            rows, w = (jnp.moveaxis(a, self.axis, -1).astype(wide) for a in (x, w))
            limits = jnp.stack([w, w], axis=-1)
            out = pool(rows, jnp.ones_like(rows), limits, weight(self.selection, "prox.TotalVariation1D"))
            return jnp.moveaxis(out, -1, self.axis).astype(x.dtype)

        return prox
