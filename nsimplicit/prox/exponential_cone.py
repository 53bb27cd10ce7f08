"""The exponential cone and its dual: the epigraph of exp, made a cone.

A point v that lies in neither the cone K nor its polar is a p(rho) + c d(rho), a positive multiple of
each of two rays that are orthogonal (Moreau):

    p(rho) = (rho, 1, exp(rho)) in K,    d(rho) = (1, 1 - rho, -exp(-rho)) in the polar.

The first two entries of v give a and c as functions of rho. The third is an equation for rho, with one
root where both are positive. The projections on K, on its polar and on its dual are functions of v and
the root, and have the root's derivatives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, modulus, real
from nsimplicit.prox.boundary import inside, snap
from nsimplicit.prox.cones import entries, in_range, pieced, still
from nsimplicit.prox.scalar_newton import root


@data
class ExponentialCone(Set):
    """The closure of the vectors (r, s, t) with ``s * exp(r / s) <= t`` and s > 0.

    Formula: ``project(x) = argmin_u norm(u - x)`` over the cone.

    Args:
        selection: what a point exactly at a kink does: the weight in [0, 1] on the branch inside (on
            the cone the point itself, on the polar the branch that is not 0), ``"inside"`` (1) or
            ``"outside"`` (0). Static.

    The last axis of x holds (r, s, t); other axes are points side by side.

    Kinks:
        The boundary of the cone and that of its polar, up to rounding; default 0, outside. Where
        r <= 0 and s <= 0 the projection is (r, 0, max(t, 0)), with kinks at r = 0, s = 0 and t = 0.
        At the apex the Clarke Jacobian is no segment: the element taken is the weight times the
        identity.

    Cost:
        O(1) for each point: one scalar root by Newton's method in a bracket.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.ExponentialCone().project(jnp.array([-1.0, -2.0, 3.0])).tolist()
        [-1.0, 0.0, 3.0]

    References:
        Friberg, Projection onto the exponential cone: a univariate root-finding problem (2021).
    """

    selection: Any = static(None)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        return still(self.project, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        where = "ExponentialCone"
        v = _entries(x, where)
        return _projected(v, inside(self.selection, f"prox.{where}"))[0].astype(real(x, f"prox.{where}").dtype)


@data
class DualExponentialCone(Set):
    """The dual of :class:`ExponentialCone`: (u, v, w) with ``-u * exp(v / u - 1) <= w`` and u < 0, closed.

    Formula: ``project(x) = x + ExponentialCone().project(-x)``.

    Args:
        selection: what a point exactly at a kink does: the weight in [0, 1] on the branch inside,
            ``"inside"`` (1) or ``"outside"`` (0). Static.

    The last axis of x holds (u, v, w); other axes are points side by side.

    Kinks:
        Those of :class:`ExponentialCone` at -x; default 1, inside.

    Cost:
        That of :class:`ExponentialCone`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.DualExponentialCone().project(jnp.array([1.0, 2.0, -3.0])).tolist()
        [0.0, 2.0, 0.0]

    References:
        Chares, Cones and interior-point algorithms for structured convex optimization involving
        powers and exponentials (2009), section 4.3.
    """

    selection: Any = static(None)

    def __call__(self, x: Any) -> jax.Array:
        """0 in the cone, up to rounding; inf elsewhere."""
        return still(self.project, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the cone."""
        where = "DualExponentialCone"
        v = [-u for u in _entries(x, where)]
        weight = inside(self.selection, f"prox.{where}")
        # What is inside for the dual is outside for the cone.
        polar = _projected(v, None if weight is None else 1 - weight)[1]
        return -polar.astype(real(x, f"prox.{where}").dtype)


def _entries(x: Any, cone: str) -> list[jax.Array]:
    return entries(x, 3, cone, "(r, s, t)" if cone == "ExponentialCone" else "(u, v, w)")


def _sides(r: jax.Array, s: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the cone is flat (r, s <= 0); how far inside v is, and how far outside the polar.

    The distances compare logarithms, which neither overflow nor lose the sign.
    """
    least = jnp.finfo(r.dtype).eps ** 2
    size_r, size_s = (modulus(lax.stop_gradient(u)) for u in (r, s))
    flat = (r <= least * size_s) & (s <= least * size_r)

    def compare(possible: jax.Array, above: jax.Array, scale: jax.Array, ratio: jax.Array, otherwise: float) -> Any:
        log = jnp.log(jnp.where(possible, above, 1)) - jnp.log(jnp.where(possible, scale, 1))
        ratio = jnp.where(possible, ratio / jnp.where(possible, scale, 1), 0)
        size = 4 + 4 * sum(modulus(lax.stop_gradient(u)) for u in (log, ratio))
        return jnp.where(possible, snap(log - ratio, size), otherwise)

    inner = compare((s > least * size_r) & (t > 0), t, s, r, -1.0)
    outer = -compare((r > least * size_s) & (t < 0), -t, r, s - r, -1.0)
    return flat, inner, outer


def _multiples(rho: jax.Array, r: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a and c with r = a rho + c and s = a + c (1 - rho)."""
    divisor = rho * rho - rho + 1
    return ((rho - 1) * r + s) / divisor, (r - rho * s) / divisor


def _excess(rho: jax.Array, r: jax.Array, s: jax.Array, t: jax.Array) -> jax.Array:
    """a exp(rho) - c exp(-rho) - t, times a positive number that keeps it in range."""
    a, c = _multiples(rho, r, s)
    largest = lax.stop_gradient(modulus(rho))
    up, down, level = a * jnp.exp(rho - largest), c * jnp.exp(-rho - largest), t * jnp.exp(-largest)
    size = lax.stop_gradient(modulus(up) + modulus(down) + modulus(level))
    return (up - down - level) / jnp.where(size > 0, size, 1)


def _bracket(r: jax.Array, s: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bounds on rho: a > 0, c > 0, and where the exponential has outgrown t.

    For the last: exp(x/2) >= (x^2 + x + 1)/3 for all x >= 0, so a factor exp(x)/(x^2 + x + 1) with
    x >= 2 log(1 + |t|/s) is enough.
    """

    def reach(scale: jax.Array, against: jax.Array) -> jax.Array:
        return (
            modulus(jnp.where(against < 0, against, 0)) / scale + 4 + 2 * (jnp.log(modulus(t) + scale) - jnp.log(scale))
        )

    some_r, some_s = (jnp.where(u > 0, u, 1) for u in (r, s))
    low = jnp.where(s > 0, -reach(some_s, r), -jnp.inf)
    high = jnp.where(r > 0, 1 + reach(some_r, s), jnp.inf)
    a_is_zero, c_is_zero = 1 - s / some_r, r / some_s
    low = jnp.where((r > 0) & (a_is_zero > low), a_is_zero, low)
    high = jnp.where((s > 0) & (c_is_zero < high), c_is_zero, high)
    return low, high


@in_range
def _projected(v: list[jax.Array], selection: Any) -> tuple[jax.Array, jax.Array]:
    """The projections on the cone and on its polar; they add up to v."""
    r, s, t = v
    flat, inner, outer = _sides(r, s, t)
    used = ~flat & (inner <= 0) & (outer >= 0)
    # Elsewhere a point that has a root: nothing infinite may reach a derivative.
    r, s, t = (jnp.where(used, u, safe) for u, safe in zip(v, (0.0, 1.0, 0.0), strict=True))
    rho = root(_excess, *_bracket(*lax.stop_gradient((r, s, t))), r, s, t)
    a, c = _multiples(rho, r, s)
    # At the root each entry has two forms: the one in which nothing large cancels, in derivatives too.
    rising, small = rho > 0, jnp.exp(-jnp.where(rho > 0, rho, -rho))
    primal = [jnp.where(rising, a * rho, r - c), a, jnp.where(rising, t + c * small, a * small)]
    polar = [c, jnp.where(rising, s - a, c * (1 - rho)), jnp.where(rising, -c * small, t - a * small)]
    primal, polar = (jnp.stack(parts, axis=-1) for parts in (primal, polar))
    r, s, t = v
    bounded = [-primitives.relu(-r, selection=selection), *(primitives.relu(u, selection=selection) for u in (s, t))]
    on_flat, v_all = jnp.stack(bounded, axis=-1), jnp.stack(v, axis=-1)
    flat, inner, outer, zero = flat[..., None], inner[..., None], outer[..., None], jnp.zeros_like(v_all)
    return (
        jnp.where(flat, on_flat, pieced(inner, outer, v_all, primal, zero, selection)),
        jnp.where(flat, v_all - on_flat, pieced(inner, outer, zero, polar, v_all, selection)),
    )
