"""Hinge losses: what a classification costs that is on the wrong side of its margin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, extreme, fit, leafwise, real, require

CONCAVE = "A negative weight makes the loss concave, and then it has no prox."


def _fit(x: jax.Array, labels: Any, weight: Any, name: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x as a real array, labels and weights in its dtype."""
    x = real(x, f"prox.{name}")
    return x, fit(labels, x, f"prox.{name}(labels=...)"), fit(weight, x, f"prox.{name}(weight=...)")


def _advance(x: jax.Array, y: jax.Array, length: Any, smoothing: Any, selection: Any) -> jax.Array:
    """x + length·y·clip((1 - y x) / (smoothing + length·y²), 0, 1): up to the margin, but by no more than the length.

    Where the divisor is zero the loss is the hinge with no weight, and the fraction is 1 or 0.
    """
    reach = smoothing + length * y * y
    moves = lax.stop_gradient(reach) > 0
    # 2 and -1 are away from both kinks.
    beyond = jnp.where(lax.stop_gradient(y * x) < 1, 2, -1).astype(x.dtype)
    fraction = jnp.where(moves, (1 - y * x) / jnp.where(moves, reach, 1), beyond)
    return x + length * y * primitives.clip(fraction, 0, 1, selection=selection)


@data
class Hinge(Function):
    """The hinge loss of linear support vector machines.

    Formula: ``g(x) = sum(w * max(1 - y * x, 0))``;
    ``prox(x, s) = x + s * w * y * clip((1 - y * x) / (s * w * y**2), 0, 1)``.

    Args:
        labels: y, real, usually -1 or 1: one number, an array that broadcasts to the shape of x, or
            a pytree of those with the structure of x.
        weight: w >= 0, likewise.
        selection: what an entry exactly at a kink does: the weight in [0, 1] on the branch that
            puts it on the margin y x = 1, or a name or a pair as for :func:`nsimplicit.clip`. Static.

    Kinks:
        y x = 1 and y x = 1 - s w y^2, where the derivative is in [0, 1]: between them the prox is
        on the margin, with derivative 0. Default 1/2. None where w = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Hinge(jnp.array([1.0, -1.0, 1.0])).prox(jnp.array([2.0, -0.75, -3.0]), 0.5).tolist()
        [2.0, -1.0, -2.5]

    References:
        Boyd, Parikh, Chu, Peleato, Eckstein, Distributed optimization and statistical learning via
        the alternating direction method of multipliers (2011), section 8.2.3.
    """

    labels: Any = 1.0
    weight: Any = 1.0
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.Hinge", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "Hinge")
            return weight * primitives.relu(1 - y * x)

        return add_up(leafwise(leaf, x, self.labels, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "Hinge")
            return _advance(x, y, fit(step, x, "prox.Hinge.prox(step=...)") * weight, 0, self.selection)

        return lambda x: leafwise(leaf, x, self.labels, self.weight)


@data
class SquaredHinge(Function):
    """Half the square of the hinge: smooth.

    Formula: ``g(x) = sum(w / 2 * max(1 - y * x, 0)**2)``;
    ``prox(x, s) = x + s * w * y * max(1 - y * x, 0) / (1 + s * w * y**2)``.

    Args:
        labels: y, real, usually -1 or 1, as in :class:`Hinge`.
        weight: w >= 0, likewise.
        selection: what an entry exactly on the margin does: the weight in [0, 1] on the branch that
            is not at rest, or a name. Static.

    Kinks:
        y x = 1, where the derivative is in [1 / (1 + s w y^2), 1]; default 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SquaredHinge(1.0).prox(jnp.array([2.0, -1.0]), 1.0).tolist()
        [2.0, 0.0]
    """

    labels: Any = 1.0
    weight: Any = 1.0
    selection: Any = static(None)

    is_smooth = is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.SquaredHinge", "weight", CONCAVE)

    @property
    def lipschitz(self) -> jax.Array:
        """The largest w y^2."""
        return _largest(self.labels, self.weight)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "SquaredHinge")
            return weight / 2 * primitives.relu(1 - y * x, selection=self.selection) ** 2

        return add_up(leafwise(leaf, x, self.labels, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, labels: Any, weight: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "SquaredHinge")
            t = fit(step, x, "prox.SquaredHinge.prox(step=...)") * weight
            return x + t * y * primitives.relu(1 - y * x, selection=self.selection) / (1 + t * y * y)

        return lambda x: leafwise(leaf, x, self.labels, self.weight)


@data
class SmoothedHinge(Function):
    """The hinge, rounded off by a parabola of a given width: smooth.

    Formula: ``g(x) = sum(w * (max(1 - y * x, 0)**2 - max(1 - d - y * x, 0)**2) / (2 * d))``;
    ``prox(x, s) = x + s * w * y * clip((1 - y * x) / (d + s * w * y**2), 0, 1)``.

    Args:
        labels: y, real, usually -1 or 1, as in :class:`Hinge`.
        smoothing: d > 0, the width of the parabola: one number, or an array that broadcasts.
        weight: w >= 0, likewise.
        selection: what an entry exactly at a kink does: the weight in [0, 1] on the parabola, or a
            name or a pair as for :func:`nsimplicit.clip`. Static.

    Kinks:
        y x = 1 and y x = 1 - d - s w y^2, where the derivative is in [d / (d + s w y^2), 1];
        default half way.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SmoothedHinge(1.0, 0.5).prox(jnp.array([2.0, 0.5, -3.0]), 0.5).tolist()
        [2.0, 0.75, -2.5]

    References:
        Rennie, Srebro, Loss functions for preference levels (2005), section 3.1.
    """

    labels: Any = 1.0
    smoothing: Any = 1.0
    weight: Any = 1.0
    selection: Any = static(None)

    is_smooth = is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.SmoothedHinge", "weight", CONCAVE)
        require("positive", self.smoothing, "prox.SmoothedHinge", "smoothing", "Without a width this is prox.Hinge.")

    @property
    def lipschitz(self) -> jax.Array:
        """The largest w y^2, divided by the smallest width."""
        return _largest(self.labels, self.weight) / extreme(jnp.min, self.smoothing)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, labels: Any, weight: Any, smoothing: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "SmoothedHinge")
            d = fit(smoothing, x, "prox.SmoothedHinge(smoothing=...)")
            short = 1 - y * x
            inside = primitives.clip(short, 0, d, selection=self.selection)
            return weight * inside * (short - inside / 2) / d

        return add_up(leafwise(leaf, x, self.labels, self.weight, self.smoothing))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, labels: Any, weight: Any, smoothing: Any) -> jax.Array:
            x, y, weight = _fit(x, labels, weight, "SmoothedHinge")
            length = fit(step, x, "prox.SmoothedHinge.prox(step=...)") * weight
            return _advance(x, y, length, fit(smoothing, x, "prox.SmoothedHinge(smoothing=...)"), self.selection)

        return lambda x: leafwise(leaf, x, self.labels, self.weight, self.smoothing)


def _largest(labels: Any, weight: Any) -> jax.Array:
    """A bound on w y^2 over all entries: a constant."""
    return extreme(jnp.max, jax.tree.map(jnp.square, labels)) * extreme(jnp.max, weight)
