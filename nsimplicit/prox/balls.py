"""Balls: vectors whose norm is at most a radius."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, add_up, as_float, fit, indicator, leafwise, modulus, require
from nsimplicit.prox.boundary import inside, snap
from nsimplicit.prox.threshold import direction, positive_part

POINT = "A ball of radius 0 is one point, and has no boundary to be differentiated at."


def _in_ball(length: jax.Array, radius: jax.Array, n: int) -> jax.Array:
    """0 where no length exceeds the radius by more than the rounding errors of n terms, else inf."""
    slack = 2 * n * jnp.finfo(length.dtype).eps
    return indicator(length <= radius * (1 + slack), length)


def from_center(x: Any, center: Any, radius: Any, where: str) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """x, the center, the distance of the two, and the radius."""
    x = as_float(x)
    fit(jnp.real(center), x, f"{where}(center=...)")
    center = jnp.asarray(center, x.dtype)
    length = primitives.norm((x - center).reshape(-1))
    return x, center, length, fit(radius, length, f"{where}(radius=...)")


@data
class L1Ball(Set):
    """Vectors with ``sum(abs(x)) <= radius``.

    Formula: ``project(x) = x`` inside; else ``sign(x) * max(abs(x) - tau, 0)``, tau the root of
    ``sum(max(abs(x) - tau, 0)) = radius``.

    Args:
        radius: > 0, one number. Entries of x may be complex.
        selection: what x on the sphere, and an entry exactly at tau, does: the weight in [0, 1] on
            the branch that keeps it, ``"inside"`` (1) or ``"outside"`` (0). Static.

    Kinks:
        sum(abs(x)) = radius, where the Jacobian is between the identity and that of the sphere;
        outside, abs(x) = tau, where the entry counts as support or not, as in :class:`Simplex`;
        default 0, the second of each.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L1Ball(1.0).project(jnp.array([1.0, -0.5, 0.2])).tolist()
        [0.75, -0.25, 0.0]

    References:
        Duchi, Shalev-Shwartz, Singer, Chandra, Efficient projections onto the l1-ball (2008).
    """

    radius: Any = 1.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.radius, "prox.L1Ball", "radius", POINT)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the ball, up to rounding; inf elsewhere."""
        length = jnp.sum(modulus(as_float(x)))
        return _in_ball(length, fit(self.radius, length, "prox.L1Ball(radius=...)"), jnp.size(x))

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the ball."""
        shape, x = jnp.shape(x), as_float(x).reshape(-1)
        y = modulus(x)
        radius = fit(self.radius, y[0], "prox.L1Ball(radius=...)")
        margin = lax.stop_gradient(radius - jnp.sum(y))
        selection = inside(self.selection, "prox.L1Ball")
        # On the sphere tau = 0, and an entry that is zero is not support: it has no sign.
        nearest = direction(x) * positive_part(jnp.where(y > 0, y, -1), radius[None], selection)
        value = jnp.where(margin < 0, nearest, x)
        out = primitives.switch(snap(margin, radius), x, nearest, selection=selection, value=value)
        return out.reshape(shape)


@data
class L2Ball(Set):
    """Vectors with ``norm(x - center) <= radius``.

    Formula: ``project(x) = center + min(1, radius / norm(x - center)) * (x - center)``.

    Args:
        radius: > 0, one number.
        center: one number, or an array that broadcasts to the shape of x; may be complex if x is.
        selection: what x on the sphere does: the weight in [0, 1] on x, ``"inside"`` (1) or
            ``"outside"`` (0). Static.

    Kinks:
        norm(x - center) = radius, where the Jacobian is between the identity and the projection
        across the direction of x - center; default 0, the second. At the center it is the identity.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L2Ball(1.0).project(jnp.array([3.0, 4.0])).round(4).tolist()
        [0.6, 0.8]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.5.1.
    """

    radius: Any = 1.0
    center: Any = 0.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.radius, "prox.L2Ball", "radius", POINT)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the ball, up to rounding; inf elsewhere."""
        x, center, length, radius = from_center(x, self.center, self.radius, "prox.L2Ball")
        rounding = primitives.norm(center.reshape(-1))  # of x - center
        return _in_ball(length, radius + jnp.finfo(length.dtype).eps * rounding, x.size)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the ball."""
        x, center, length, radius = from_center(x, self.center, self.radius, "prox.L2Ball")
        margin = lax.stop_gradient(radius - length)
        scale = radius / jnp.where(length > radius / 2, length, radius)  # finite where it is not taken
        nearest = center + scale * (x - center)
        value = jnp.where(margin < 0, nearest, x)
        selection = inside(self.selection, "prox.L2Ball")
        return primitives.switch(snap(margin, radius), x, nearest, selection=selection, value=value)


@data
class LInfBall(Set):
    """Vectors with ``max(abs(x)) <= radius``: for real x, ``Box(-radius, radius)``.

    Formula: ``project(x) = min(1, radius / abs(x)) * x``, entry by entry.

    Args:
        radius: > 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x. Entries of x may be complex.
        selection: what an entry exactly on the boundary does: the weight in [0, 1] on x,
            ``"inside"`` (1) or ``"outside"`` (0). Static.

    Kinks:
        abs(x) = radius, where the derivative is in [0, 1]; default 1/2, as for :class:`Box`
        (complex x: between the projection across the direction of x, the default, and the identity).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.LInfBall(1.0).project(jnp.array([3.0, -4.0, 0.5])).tolist()
        [1.0, -1.0, 0.5]
    """

    radius: Any = 1.0
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        require("positive", self.radius, "prox.LInfBall", "radius", POINT)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the ball, up to rounding; inf elsewhere."""

        def leaf(x: jax.Array, radius: Any) -> jax.Array:
            return _in_ball(modulus(x), fit(radius, x, "prox.LInfBall(radius=...)"), 1)

        return add_up(leafwise(leaf, x, self.radius))

    def project(self, x: Any) -> Any:
        """``x`` with each entry outside moved to the boundary."""

        def leaf(x: jax.Array, radius: Any) -> jax.Array:
            radius = fit(radius, x, "prox.LInfBall(radius=...)")
            if not jnp.iscomplexobj(x):
                return primitives.clip(x, -radius, radius, selection=self.selection)
            margin = lax.stop_gradient(radius - modulus(x))
            value = jnp.where(margin < 0, direction(x) * radius, x)
            selection = inside(self.selection, "prox.LInfBall")
            return primitives.switch(snap(margin, radius), x, direction(x) * radius, selection=selection, value=value)

        return leafwise(leaf, x, self.radius)
