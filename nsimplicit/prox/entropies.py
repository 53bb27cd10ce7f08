"""Entropies and barriers: functions of positive entries whose slope at zero is infinite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, extreme, fit, leafwise, real, require
from nsimplicit.prox.logistic import wide
from nsimplicit.prox.omega import omega, shares
from nsimplicit.prox.positive_root import positive_root
from nsimplicit.prox.simplex import Simplex


def _x_log_ratio(x: jax.Array, y: Any) -> jax.Array:
    """x log(x/y), 0 at x = 0, inf below and where y = 0 < x; finite derivatives at 0."""
    inside = (x > 0) & (y > 0)
    safe, scale = jnp.where(inside, x, 1), jnp.where(inside, y, 1)
    return jnp.where(inside, safe * (jnp.log(safe) - jnp.log(scale)), jnp.where(x == 0, 0, jnp.inf))


@data
class KL(Function):
    """The relative entropy (Kullback-Leibler divergence) of x with respect to a target.

    Formula: ``g(x) = sum(w * (x * log(x / y) - x + y))`` for x >= 0; ``prox(x, s) =
    t * omega(x / t + log(y / t))`` with t = s w, where r = omega(c) has r + log(r) = c.

    Args:
        target: y >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x. Where it is 0 the prox is 0.
        weight: w > 0, likewise.

    The divergence in its other argument, of counts y with respect to their means x, is
    ``prox.Tilt(prox.LogBarrier(y), 1.0)`` up to a constant.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> float(prox.KL(jnp.exp(1.0)).prox(jnp.array(0.0), 1.0))
        1.0

    References:
        Combettes, Pesquet, Proximal splitting methods in signal processing (2011), table 10.2.
    """

    target: Any = 1.0
    weight: Any = 1.0

    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.target, "prox.KL", "target", "The divergence is that of nonnegative measures.")
        require("positive", self.weight, "prox.KL", "weight", "Without a weight x >= 0 remains: prox.Nonnegative.")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, target: Any, weight: Any) -> jax.Array:
            x = real(x, "prox.KL")
            y, weight = fit(target, x, "prox.KL(target=...)"), fit(weight, x, "prox.KL(weight=...)")
            return weight * (_x_log_ratio(x, y) - x + y)

        return add_up(leafwise(leaf, x, self.target, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, target: Any, weight: Any) -> jax.Array:
            z = wide(real(x, "prox.KL"))
            y, weight = fit(target, z, "prox.KL(target=...)"), fit(weight, z, "prox.KL(weight=...)")
            t = fit(step, z, "prox.KL.prox(step=...)") * weight
            some = lax.stop_gradient(y) > 0
            u = t * omega(z / t + jnp.log(jnp.where(some, y, 1)) - jnp.log(t))
            return jnp.where(some, u, 0).astype(x.dtype)

        return lambda x: leafwise(leaf, x, self.target, self.weight)


@data
class LogBarrier(Function):
    """Minus the sum of logarithms: the barrier of the positive orthant.

    Formula: ``g(x) = -sum(w * log(x))`` for x > 0;
    ``prox(x, s) = (x + sqrt(x**2 + 4 * s * w)) / 2``.

    Args:
        weight: w > 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.LogBarrier(2.0).prox(jnp.array([1.0, -1.0]), 1.0).tolist()
        [2.0, 1.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.1.3.
    """

    weight: Any = 1.0

    is_smooth = is_separable = True

    def __post_init__(self) -> None:
        meaning = "Without a weight x >= 0 remains: prox.Nonnegative."
        require("positive", self.weight, "prox.LogBarrier", "weight", meaning)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x; inf unless all entries are positive."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            x = real(x, "prox.LogBarrier")
            weight, inside = fit(weight, x, "prox.LogBarrier(weight=...)"), x > 0
            return jnp.where(inside, -weight * jnp.log(jnp.where(inside, x, 1)), jnp.inf)

        return add_up(leafwise(leaf, x, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            z = wide(real(x, "prox.LogBarrier"))
            t = fit(step, z, "prox.LogBarrier.prox(step=...)") * fit(weight, z, "prox.LogBarrier(weight=...)")
            return positive_root(z, t).astype(x.dtype)

        return lambda x: leafwise(leaf, x, self.weight)


@data
class Entropy(Function):
    """The negative entropy of nonnegative vectors with a given sum.

    Formula: ``g(x) = sum(w * x * log(x))`` for x >= 0 with sum(x) = total; ``prox(x, s) =
    t * omega(x / t - shift)`` with t = s w, where r = omega(c) has r + log(r) = c, and the shift is
    the one with the right sum.

    Args:
        weight: w > 0: one number, or one for each vector in x.
        total: the sum, > 0, likewise.
        axis: the axis of x along which the sum is taken. Static.

    With p the prox and q = p / (p + t) the Jacobian is ``diag(q) - outer(q, q) / sum(q)``: that of
    :class:`Simplex`, which is the limit w = 0, without its kinks.

    Cost:
        O(n) per step of Newton's method for the shift; some ten steps, more for extreme steps. The derivative costs
        O(n).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Entropy().prox(jnp.array([0.3, 0.3]), 1.0).round(4).tolist()
        [0.5, 0.5]
    """

    weight: Any = 1.0
    total: Any = 1.0
    axis: int = static(-1)

    def __post_init__(self) -> None:
        require("positive", self.weight, "prox.Entropy", "weight", "Without a weight the simplex remains.")
        require("positive", self.total, "prox.Entropy", "total", "Only 0 has nonnegative entries with sum 0.")

    @property
    def strong_convexity(self) -> jax.Array:
        """The smallest weight over the largest total."""
        return extreme(jnp.min, self.weight) / extreme(jnp.max, self.total)

    def _fit(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x with the axis last, the weight and the total of each vector."""
        x = jnp.moveaxis(x, self.axis, -1)
        like = x[..., 0]
        return x, fit(self.weight, like, "prox.Entropy(weight=...)"), fit(self.total, like, "prox.Entropy(total=...)")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x; inf off the simplex, up to rounding in the sum."""
        x = real(x, "prox.Entropy")
        z, weight, _ = self._fit(x)
        return jnp.sum(weight * jnp.sum(_x_log_ratio(z, 1), axis=-1)) + Simplex(self.total, axis=self.axis)(x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = real(x, "prox.Entropy")
            z, weight, total = self._fit(wide(x))
            t = fit(step, z[..., 0], "prox.Entropy.prox(step=...)") * weight
            t, total = (jnp.broadcast_to(a, z.shape[:-1])[..., None] for a in (t, total))
            return jnp.moveaxis(t * shares(z / t, total / t), -1, self.axis).astype(x.dtype)

        return prox
