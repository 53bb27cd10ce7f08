"""Spheres: vectors of a given norm. They are not convex."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.balls import from_center
from nsimplicit.prox.base import Set, as_float, fit, indicator, modulus, require
from nsimplicit.prox.threshold import direction, positive_part

POINT = "A sphere of radius 0 is one point."


def _on_sphere(length: jax.Array, radius: jax.Array, rounding: Any) -> jax.Array:
    gap = length - radius
    slack = jnp.finfo(length.dtype).eps * rounding
    return indicator((-slack <= gap) & (gap <= slack), length)


@data
class L1Sphere(Set):
    """Vectors with ``sum(abs(x)) = radius``. Not convex.

    Where entries are zero and sum(abs(x)) < radius the projection is not unique: it gives these
    entries the sign +, and jumps there (``nsi.kinks`` counts the jump).

    Formula: ``project(x) = sign(x) * max(abs(x) - tau, 0)``, tau the root of
    ``sum(max(abs(x) - tau, 0)) = radius``; inside the ball tau is negative.

    Args:
        radius: > 0, one number. Entries of x may be complex.
        selection: whether an entry exactly at tau counts as support: its weight in [0, 1], or
            ``"above"`` (it does), ``"below"`` (it does not). Static.

    Kinks:
        abs(x) = tau, as in :class:`Simplex`; default 0.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L1Sphere(2.0).project(jnp.array([1.0, -0.5])).tolist()
        [1.25, -0.75]
    """

    radius: Any = 1.0
    selection: Any = static(None)

    is_convex = False

    def __post_init__(self) -> None:
        require("positive", self.radius, "prox.L1Sphere", "radius", POINT)

    def __call__(self, x: Any) -> jax.Array:
        """0 on the sphere, up to rounding; inf elsewhere."""
        length = jnp.sum(modulus(as_float(x)))
        radius = fit(self.radius, length, "prox.L1Sphere(radius=...)")
        return _on_sphere(length, radius, 2 * jnp.size(x) * radius)

    def project(self, x: Any) -> jax.Array:
        """A nearest point of the sphere."""
        shape, x = jnp.shape(x), as_float(x).reshape(-1)
        y = modulus(x)
        size = positive_part(y, fit(self.radius, y[0], "prox.L1Sphere(radius=...)")[None], self.selection)
        if jnp.iscomplexobj(x):
            return (jnp.where(x == 0, 1, direction(x)) * size).reshape(shape)
        # Two branches that do not meet: whoever reads the switch sees a jump. Its derivative is that of the sign +.
        value = jnp.where(lax.stop_gradient(x) < 0, -size, size)
        return primitives.switch(x, size, -size, selection=1.0, value=value).reshape(shape)


@data
class L2Sphere(Set):
    """Vectors with ``norm(x - center) = radius``. Not convex.

    All of the sphere is nearest to the center: there the projection moves the first entry, with
    derivative 0, and jumps (``nsi.kinks`` counts the jump).

    Formula: ``project(x) = center + radius / norm(x - center) * (x - center)``.

    Args:
        radius: > 0, one number.
        center: one number, or an array that broadcasts to the shape of x; may be complex if x is.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L2Sphere(2.0).project(jnp.array([0.3, 0.4])).round(4).tolist()
        [1.2, 1.6]
    """

    radius: Any = 1.0
    center: Any = 0.0

    is_convex = False

    def __post_init__(self) -> None:
        require("positive", self.radius, "prox.L2Sphere", "radius", POINT)

    def __call__(self, x: Any) -> jax.Array:
        """0 on the sphere, up to rounding; inf elsewhere."""
        x, center, length, radius = from_center(x, self.center, self.radius, "prox.L2Sphere")
        return _on_sphere(length, radius, 2 * x.size * radius + primitives.norm(center.reshape(-1)))

    def project(self, x: Any) -> jax.Array:
        """A nearest point of the sphere."""
        x, center, length, radius = from_center(x, self.center, self.radius, "prox.L2Sphere")
        first = jnp.where(jnp.arange(x.size).reshape(x.shape) == 0, radius, 0).astype(x.dtype)
        away = radius / jnp.where(length > 0, length, 1) * (x - center)
        return center + primitives.switch(length, away, first)
