"""Second-order cones: one entry is at least the length of the others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, indicator, matmul, real
from nsimplicit.prox.boundary import inside, snap
from nsimplicit.prox.cones import cone_entries, pieced


@data
class SecondOrderCone(Set):
    """Vectors (t, z) with norm(z) <= t: the second-order, Lorentz or ice-cream cone. It is its own dual.

    Formula: ``project(t, z)`` is (t, z) where ``norm(z) <= t``, 0 where ``norm(z) <= -t``, and
    ``(1 + t / norm(z)) / 2 * (norm(z), z)`` elsewhere.

    Args:
        selection: what a point exactly on the cone, or on its negative, does: the weight in [0, 1]
            on the branch inside (the point itself; on the negative cone, the branch that is not
            constant), ``"inside"`` (1) or ``"outside"`` (0). Static.

    The last axis of x holds (t, z), at least two entries; other axes are points side by side.

    Kinks:
        t = norm(z) and t = -norm(z), up to rounding, where the Jacobian is between that of the two
        branches; default 0, outside. At the apex the Clarke Jacobian is no segment: the element taken is
        s times the identity, s the weight. No kink where z = 0 and t is not.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SecondOrderCone().project(jnp.array([0.0, 3.0, 4.0])).tolist()
        [2.5, 1.5, 2.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.3.2.
        Malick, Sendov, Clarke generalized Jacobian of the projection onto the cone of positive
        semidefinite matrices (2006), the same for symmetric cones.
    """

    selection: Any = static(None)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        t, _, length = _parts(x, "SecondOrderCone")
        return indicator(snap(t - length, length) >= 0, t)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        return _project(x, inside(self.selection, "prox.SecondOrderCone"), "SecondOrderCone")


@data
class RotatedSecondOrderCone(Set):
    """Vectors (a, b, z) with norm(z)^2 <= 2 a b and a, b >= 0: products and squares. It is its own dual.

    Formula: ``project(x) = R @ SecondOrderCone().project(R @ x)`` with the reflection ``R`` that
    takes (a, b) to ``((a + b) / sqrt(2), (a - b) / sqrt(2))``.

    Args:
        selection: as in :class:`SecondOrderCone`. Static.

    The last axis of x holds (a, b, z), at least two entries; other axes are points side by side.

    Kinks:
        Those of :class:`SecondOrderCone` at R x: norm(z)^2 = 2 a b; default 0, outside.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.RotatedSecondOrderCone().project(jnp.array([2.0, -2.0, 0.0])).round(6).tolist()
        [2.0, 0.0, 0.0]
    """

    selection: Any = static(None)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        return SecondOrderCone()(_reflect(x))

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        selection = inside(self.selection, "prox.RotatedSecondOrderCone")
        return _reflect(_project(_reflect(x), selection, "RotatedSecondOrderCone"))


def _reflect(x: Any) -> jax.Array:
    """Half a turn between the axes a + b and a - b; it is its own inverse."""
    x = real(x, "prox.RotatedSecondOrderCone")
    cone_entries(x, None, "RotatedSecondOrderCone", "(a, b, z)")
    turn = np.sqrt(0.5) * np.array([[1, 1], [1, -1]])
    return jnp.concatenate([matmul(x[..., :2], jnp.asarray(turn, x.dtype)), x[..., 2:]], axis=-1)


def _parts(x: Any, cone: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = real(x, f"prox.{cone}")
    cone_entries(x, None, cone, "(t, z)")
    return x[..., :1], x[..., 1:], primitives.norm(x[..., 1:], axis=-1, keepdims=True)


def _project(x: Any, selection: Any, cone: str) -> jax.Array:
    t, z, length = _parts(x, cone)
    x = jnp.concatenate([t, z], axis=-1)
    inner, outer = (snap(u, length) for u in (t - length, t + length))
    # Nothing is on the axis but the cone, its negative and the apex, where all but the identity is 0.
    off_axis = length > 0
    ratio = t / jnp.where(off_axis, length, 1)
    middle = jnp.where(off_axis, (1 + ratio) / 2 * jnp.concatenate([length, z], axis=-1), 0)
    return pieced(inner, outer, x, middle, jnp.zeros_like(x), selection)
