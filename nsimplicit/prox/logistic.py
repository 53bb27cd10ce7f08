"""Logistic losses: the log-likelihood of labels, for two classes and for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, extreme, fit, leafwise, real, require
from nsimplicit.prox.hinges import CONCAVE
from nsimplicit.prox.omega import shares
from nsimplicit.prox.scalar_newton import root


def wide(x: jax.Array) -> jax.Array:
    """``x`` in at least float32: 16 bits are too few to iterate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _balance(u: jax.Array, x: jax.Array, y: jax.Array, length: jax.Array) -> jax.Array:
    return u - x - length * y * jax.nn.sigmoid(-y * u)


@data
class Logistic(Function):
    """The logistic loss of two classes.

    Formula: ``g(x) = sum(w * log(1 + exp(-y * x)))``; prox(x, s) is the root u of
    u - s w y / (1 + exp(y u)) = x.

    Args:
        labels: y, real, usually -1 or 1: one number, an array that broadcasts to the shape of x, or
            a pytree of those with the structure of x.
        weight: w >= 0, likewise.

    Cost:
        Some five to ten steps of Newton's method for the slowest entry. Its derivative is that of the root.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> float(prox.Logistic(1.0).prox(jnp.array(-0.5), 1.0))
        0.0

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.1.2.
    """

    labels: Any = 1.0
    weight: Any = 1.0

    is_smooth = is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.Logistic", "weight", CONCAVE)

    @property
    def lipschitz(self) -> jax.Array:
        """A quarter of the largest w y^2."""
        return extreme(jnp.max, jax.tree.map(jnp.square, self.labels)) * extreme(jnp.max, self.weight) / 4

    def _fit(self, x: jax.Array, labels: Any, weight: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = wide(real(x, "prox.Logistic"))
        return x, fit(labels, x, "prox.Logistic(labels=...)"), fit(weight, x, "prox.Logistic(weight=...)")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            z, y, weight = self._fit(x, labels, weight)
            return (weight * jax.nn.softplus(-y * z)).astype(x.dtype)

        return add_up(leafwise(leaf, x, self.labels, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            z, y, weight = self._fit(x, labels, weight)
            length = fit(step, z, "prox.Logistic.prox(step=...)") * weight
            low, high = (jnp.where((y > 0) == up, z, z + length * y) for up in (True, False))
            return root(_balance, low, high, z, y, length).astype(x.dtype)

        return lambda x: leafwise(leaf, x, self.labels, self.weight)


@data
class CrossEntropy(Function):
    """The cross entropy between logits and a distribution of labels, for each vector along an axis.

    Formula: ``g(x) = sum(w * (log(sum(exp(x), axis)) - sum(y * x, axis)))``; prox(x, s) is the
    root u of u + s w (softmax(u) - y) = x.

    Args:
        labels: y >= 0, distributions along the axis (one-hot, or any other): broadcasts to the
            shape of x.
        weight: w > 0: one number, or one for each vector in x.
        axis: the axis of x that numbers the classes. Static.

    Cost:
        O(n) per step of Newton's method for one number per vector; some ten steps, more for extreme steps. Its
        derivative is that of the root, and costs O(n).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.CrossEntropy(jnp.array([1.0, 0.0])).prox(jnp.array([-0.5, 0.5]), 1.0).round(4).tolist()
        [0.0, 0.0]
    """

    labels: Any
    weight: Any = 1.0
    axis: int = static(-1)

    is_smooth = True

    def __post_init__(self) -> None:
        meaning = "Without a weight there is no loss: prox.Zero has that prox."
        require("positive", self.weight, "prox.CrossEntropy", "weight", meaning)
        require("nonnegative", self.labels, "prox.CrossEntropy", "labels", "Labels are a distribution over classes.")

    @property
    def lipschitz(self) -> jax.Array:
        """Half the largest weight."""
        return extreme(jnp.max, self.weight) / 2

    def _fit(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x and the labels with the classes last, and a weight for each vector."""
        x = wide(real(x, "prox.CrossEntropy"))
        labels = jnp.broadcast_to(fit(self.labels, x, "prox.CrossEntropy(labels=...)"), x.shape)
        x, labels = (jnp.moveaxis(z, self.axis, -1) for z in (x, labels))
        return x, labels, fit(self.weight, x[..., 0], "prox.CrossEntropy(weight=...)")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        z, labels, weight = self._fit(x)
        top = lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
        z = z - top
        losses = jnp.log(jnp.sum(jnp.exp(z), axis=-1)) - jnp.sum(labels * z, axis=-1)
        losses += top[..., 0] * (1 - jnp.sum(labels, axis=-1))
        return jnp.sum(weight * losses).astype(real(x, "prox.CrossEntropy").dtype)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            z, labels, weight = self._fit(x)
            length = fit(step, weight, "prox.CrossEntropy.prox(step=...)") * weight
            length = jnp.broadcast_to(length, z.shape[:-1])[..., None]
            # r = s w softmax(u) has r + log(r) = z + s w y, up to a number for each vector, and adds up to s w.
            target = z + length * labels
            u = target - shares(target, length)
            return jnp.moveaxis(u, -1, self.axis).astype(real(x, "prox.CrossEntropy").dtype)

        return prox
