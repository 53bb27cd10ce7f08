"""The perspective of half the squared norm: a quadratic function over a linear one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, fit, real, require
from nsimplicit.prox.logistic import wide
from nsimplicit.prox.scalar_newton import root


@data
class PerspectiveOfSquare(Function):
    """The perspective of half the squared norm, of vectors (t, z) along an axis, t first.

    Formula: ``g(t, z) = w * norm(z)**2 / (2 * t)`` for t > 0, 0 at the origin, inf elsewhere; its
    prox is 0 where t + norm(z)^2 / (2 s w) <= 0, and elsewhere (v, z v / (v + s w)) with v > 0 the
    root of v - s w norm(z)^2 / (2 (v + s w)^2) = t.

    Args:
        weight: w > 0: one number, or one for each vector in x.
        axis: the axis of x that holds t and z. Static.
        selection: what x on the parabola t + norm(z)^2 / (2 s w) = 0 does: the weight in [0, 1] on
            the branch outside it, or a name. Static.

    Kinks:
        On that parabola, where the Jacobian is between 0 and the projection on its normal; default 0.

    Cost:
        Some ten steps of Newton's method for one number per vector.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PerspectiveOfSquare().prox(jnp.array([0.5, 2.0]), 1.0).round(4).tolist()
        [1.0, 1.0]

    References:
        Combettes, Mueller, Perspective functions: proximal calculus and applications in
        high-dimensional statistics (2018), example 2.4.
    """

    weight: Any = 1.0
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.weight, "prox.PerspectiveOfSquare", "weight", "Without a weight t >= 0 remains.")

    def _split(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """t, z, and the weight, with the axis last."""
        x = jnp.moveaxis(wide(real(x, "prox.PerspectiveOfSquare")), self.axis, -1)
        weight = fit(self.weight, x[..., 0], "prox.PerspectiveOfSquare(weight=...)")
        return x[..., :1], x[..., 1:], jnp.broadcast_to(weight, x.shape[:-1])[..., None]

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        t, z, weight = self._split(x)
        squared = jnp.sum(z * z, axis=-1, keepdims=True)
        values = jnp.where(t > 0, weight * squared / (2 * jnp.where(t > 0, t, 1)), jnp.inf)
        return jnp.sum(jnp.where((t == 0) & (squared == 0), 0, values)).astype(
            real(x, "prox.PerspectiveOfSquare").dtype
        )

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            t, z, weight = self._split(x)
            s = fit(step, t[..., 0], "prox.PerspectiveOfSquare.prox(step=...)")
            length = weight * jnp.broadcast_to(s, t.shape[:-1])[..., None]
            squared = jnp.sum(z * z, axis=-1, keepdims=True)
            excess = t + squared / (2 * length)
            # Inside the parabola there is no positive root: a problem is put there that has the root 0.
            outside = lax.stop_gradient(excess) >= 0
            start, pull = jnp.where(outside, t, 0), jnp.where(outside, squared, 0)
            low = jnp.where(start > 0, start, 0)
            # The root moves by at most either of these: the second is the shorter one for small steps.
            reach, cubic = pull / (2 * length), jnp.cbrt(length * lax.stop_gradient(pull) / 2)
            v = root(_balance, low, low + jnp.where(reach < cubic, reach, cubic), start, pull, length)
            moved = jnp.concatenate([v, z * (v / (v + length))], axis=-1)
            sided = jnp.broadcast_to(excess, moved.shape)
            out = primitives.switch(sided, moved, jnp.zeros_like(moved), selection=self.selection)
            return jnp.moveaxis(out, -1, self.axis).astype(real(x, "prox.PerspectiveOfSquare").dtype)

        return prox


def _balance(v: jax.Array, t: jax.Array, squared: jax.Array, length: jax.Array) -> jax.Array:
    return v - t - length * squared / (2 * (v + length) ** 2)
