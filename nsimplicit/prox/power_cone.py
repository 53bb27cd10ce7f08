"""The power cone and its dual: weighted geometric means.

With b = alpha, a = 1 - alpha and z >= 0, a point (x, y, z) that lies in neither the cone nor its polar
is s p(rho) + (z - s) d(rho), a positive multiple of each of two rays that are orthogonal (Moreau):

    p(rho) = (exp(a rho), exp(-b rho), 1) in K,    d(rho) = (-b exp(-a rho), -a exp(b rho), 1) in the polar.

Each of the first two entries gives s as a function of rho; in the range 0 < s < z one falls and the
other rises, and rho is where they meet. With s known, the entries themselves are roots of quadratics.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, concrete, fit, modulus, real
from nsimplicit.prox.boundary import inside, snap
from nsimplicit.prox.cones import entries, in_range, pieced, still
from nsimplicit.prox.positive_root import roots
from nsimplicit.prox.scalar_newton import root


@data
class PowerCone(Set):
    """Vectors (x, y, z) with ``x**alpha * y**(1 - alpha) >= abs(z)`` and x, y >= 0.

    Formula: ``project(v) = argmin_u norm(u - v)`` over the cone.

    Args:
        alpha: between 0 and 1, one number, or one for each point.
        selection: what a point exactly at a kink does: the weight in [0, 1] on the branch inside (on
            the cone the point itself, on the polar the branch that is not 0), ``"inside"`` (1) or
            ``"outside"`` (0). Static.

    The last axis of v holds (x, y, z); other axes are points side by side.

    Kinks:
        The boundary of the cone and that of its polar, up to rounding; default 0, outside. Where z = 0
        the projection is (max(x, 0), max(y, 0), 0), with kinks at x = 0 and y = 0. At the apex the
        Clarke Jacobian is no segment: the element taken is the weight times the identity.

    Cost:
        O(1) for each point: one scalar root by Newton's method in a bracket.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PowerCone(0.5).project(jnp.array([0.0, 0.0, 2.0])).round(4).tolist()
        [0.6667, 0.6667, 0.6667]

    References:
        Hien, Differential properties of Euclidean projection onto power cone (2015).
    """

    alpha: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        _require_exponent(self.alpha, "PowerCone")

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        return still(self.project, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        where = "PowerCone"
        v = entries(x, 3, where, "(x, y, z)")
        weight = inside(self.selection, f"prox.{where}")
        return _projected(v, _exponent(self.alpha, v, where), weight)[0].astype(real(x, f"prox.{where}").dtype)


@data
class DualPowerCone(Set):
    """The dual of :class:`PowerCone`: ``(u / alpha)**alpha * (v / (1 - alpha))**(1 - alpha) >= abs(w)``, u, v >= 0.

    Formula: ``project(x) = x + PowerCone(alpha).project(-x)``.

    Args:
        alpha: between 0 and 1, one number, or one for each point.
        selection: what a point exactly at a kink does: the weight in [0, 1] on the branch inside,
            ``"inside"`` (1) or ``"outside"`` (0). Static.

    The last axis of x holds (u, v, w); other axes are points side by side.

    Kinks:
        Those of :class:`PowerCone` at -x; default 1, inside.

    Cost:
        That of :class:`PowerCone`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.DualPowerCone(0.5).project(jnp.array([0.0, 0.0, 2.0])).round(4).tolist()
        [0.6667, 0.6667, 1.3333]

    References:
        Chares, Cones and interior-point algorithms for structured convex optimization involving
        powers and exponentials (2009), section 4.3.
    """

    alpha: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        _require_exponent(self.alpha, "DualPowerCone")

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        return still(self.project, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        where = "DualPowerCone"
        v = [-u for u in entries(x, 3, where, "(u, v, w)")]
        weight = inside(self.selection, f"prox.{where}")
        # What is inside for the dual is outside for the cone.
        polar = _projected(v, _exponent(self.alpha, v, where), None if weight is None else 1 - weight)[1]
        return -polar.astype(real(x, f"prox.{where}").dtype)


def _require_exponent(alpha: Any, cone: str) -> None:
    numbers = concrete(alpha)
    if numbers is not None and not ((numbers > 0) & (numbers < 1)).all():
        found = f"alpha is {numbers.tolist()}."
        meaning = "The exponents alpha and 1 - alpha of a power cone are both positive."
        raise InputError(message(f"prox.{cone}(alpha=...)", found, meaning, "a number between 0 and 1"))


def _exponent(alpha: Any, v: list[jax.Array], cone: str) -> jax.Array:
    return jnp.broadcast_to(fit(alpha, v[0], f"prox.{cone}(alpha=...)"), v[0].shape)


def _sides(x: jax.Array, y: jax.Array, z: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where z >= 0 is zero for all that follows; how far inside v is, and how far outside the polar."""
    a = 1 - b
    size_x, size_y = (modulus(lax.stop_gradient(u)) for u in (x, y))
    flat = z <= jnp.finfo(x.dtype).eps ** 2 * jnp.where(size_x > size_y, size_x, size_y)

    def compare(x: jax.Array, y: jax.Array) -> jax.Array:
        possible = (x > 0) & (y > 0) & ~flat
        logs = [jnp.log(jnp.where(possible, u, 1)) for u in (x, y, z)]
        size = 2 + 2 * sum(modulus(lax.stop_gradient(u)) for u in logs)
        return jnp.where(possible, snap(b * logs[0] + a * logs[1] - logs[2], size), -1)

    return flat, compare(x, y), -compare(-x / b, -y / a)


def _share(x: jax.Array, z: jax.Array, b: jax.Array, e: jax.Array) -> jax.Array:
    """s with x = s exp(e) - (z - s) b exp(-e); the exponentials that are formed are small."""
    small = jnp.exp(-jnp.where(e < 0, -e, e))
    rising = (x * small + z * b * small * small) / (1 + b * small * small)
    falling = (x * small + z * b) / (small * small + b)
    return jnp.where(e > 0, rising, falling)


def _gap(rho: jax.Array, x: jax.Array, y: jax.Array, z: jax.Array, b: jax.Array) -> jax.Array:
    """What y says of s, less what x says, relative to z."""
    return (_share(y, z, 1 - b, -b * rho) - _share(x, z, b, (1 - b) * rho)) / lax.stop_gradient(z)


def _bracket(x: jax.Array, y: jax.Array, z: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where both shares are between 0 and z; beyond ``far`` that of x is below z/2 and that of y above it."""
    a = 1 - b

    def log(u: jax.Array) -> jax.Array:
        """The logarithm of u/z; -inf unless u > 0."""
        return jnp.where(u > 0, jnp.log(jnp.where(u > 0, u, 1)) - jnp.log(z), -jnp.inf)

    def larger(*numbers: Any) -> jax.Array:
        return jnp.max(jnp.stack(jnp.broadcast_arrays(*numbers)), axis=0)

    def ends(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        near = larger(log(x) / a, log(-y / a) / b)
        far = larger(jnp.log(4.0) + log(x), jnp.log(2.0)) / a
        return near, larger(far, larger(jnp.log(4.0) + log(-y / a), jnp.log(2 / a) / 2) / b)

    (low, high_far), (minus_high, minus_low_far) = ends(x, y, a, b), ends(y, x, b, a)
    return jnp.where(jnp.isinf(low), -minus_low_far, low), jnp.where(jnp.isinf(minus_high), high_far, -minus_high)


def _flat(x: jax.Array, y: jax.Array, z: jax.Array, b: jax.Array, selection: Any) -> jax.Array:
    """The projection where z is 0 up to rounding. The derivative in z is the limit from z > 0."""
    on_x, on_y = (primitives.relu(u, selection=selection) for u in (x, y))
    fixed_x, fixed_y = lax.stop_gradient((modulus(x), modulus(y)))

    def slope(power: jax.Array, out: jax.Array, along: jax.Array) -> jax.Array:
        """Of z at the edge of K: entry ``along`` is positive, ``out`` negative with this power."""
        between = along / jnp.where(along > 0, along + 2 * out, 1)
        return lax.stop_gradient(jnp.where(power < 0.5, 1.0, jnp.where(power > 0.5, 0.0, between)))

    corner = (x == 0) & (y == 0)
    edge_x = jnp.where(corner, 0.5, slope(b, fixed_x, fixed_y)) * z
    edge_y = jnp.where(corner, 0.5, slope(1 - b, fixed_y, fixed_x)) * z
    with_x = primitives.switch(y, z, edge_y, selection=selection)
    on_z = primitives.switch(x, with_x, primitives.switch(y, edge_x, 0 * z, selection=selection), selection=selection)
    return jnp.stack([on_x, on_y, on_z], axis=-1)


@in_range
def _projected(v: list[jax.Array], b: jax.Array, selection: Any) -> tuple[jax.Array, jax.Array]:
    """The projections on the cone and on its polar; they add up to v."""
    mirror = jnp.where(lax.stop_gradient(v[2]) < 0, -1, 1).astype(b.dtype)
    x, y, z = v[0], v[1], mirror * v[2]
    flat, inner, outer = _sides(x, y, z, b)
    used = ~flat & (inner <= 0) & (outer >= 0)
    # Elsewhere a point that has a root: nothing infinite may reach a derivative.
    x, y, z = (jnp.where(used, u, safe) for u, safe in zip((x, y, z), (0.0, 0.0, 1.0), strict=True))
    rho = root(_gap, *_bracket(*lax.stop_gradient((x, y, z, b))), x, y, z, b)
    # The larger entry knows s without cancellation.
    s = jnp.where(x > y, _share(x, z, b, (1 - b) * rho), _share(y, z, 1 - b, -b * rho))
    # Positive in value, for the roots, with its own derivatives also on the boundaries, where it is 0.
    product, least = s * (z - s), jnp.finfo(s.dtype).tiny
    product = product + lax.stop_gradient(jnp.where(product < least, least - product, 0))
    (on_x, off_x), (on_y, off_y) = roots(x, b * product), roots(y, (1 - b) * product)
    primal = jnp.stack([on_x, on_y, mirror * s], axis=-1)
    polar = jnp.stack([-off_x, -off_y, mirror * (z - s)], axis=-1)
    v_all, on_flat = jnp.stack(v, axis=-1), _flat(v[0], v[1], v[2], b, selection)
    flat, inner, outer, zero = flat[..., None], inner[..., None], outer[..., None], jnp.zeros_like(v_all)
    return (
        jnp.where(flat, on_flat, pieced(inner, outer, v_all, primal, zero, selection)),
        jnp.where(flat, v_all - on_flat, pieced(inner, outer, zero, polar, v_all, selection)),
    )
