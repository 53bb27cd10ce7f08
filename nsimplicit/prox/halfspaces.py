"""Sets bounded by one hyperplane, or by two that are parallel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, concrete, fit, indicator, modulus, real
from nsimplicit.prox.boundary import change, snap


def _require_normal(a: Any, name: str) -> None:
    numbers = concrete(a)
    if numbers is not None and not np.any(numbers):
        raise InputError(
            message(
                f"prox.{name}(a, ...)",
                "all entries of a are zero.",
                "a is the normal vector of a plane, and the zero vector is normal to none.",
                "leave the constraint out: it says nothing about x",
            )
        )


def _along(x: Any, a: Any, where: str) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """x, the vector v with <a, v> = 1 along a, <a, x>, and the size of the numbers that are added up in it."""
    x = real(x, where)
    a = jnp.broadcast_to(fit(a, x, f"{where}(a=...)"), x.shape)
    terms = a * x
    return x, a / jnp.sum(a * a), jnp.sum(terms), jnp.sum(modulus(lax.stop_gradient(terms)))


def _bound(b: Any, x: jax.Array, where: str, name: str) -> jax.Array:
    return fit(b, jnp.zeros((), x.dtype), f"{where}({name}=...)")


def _in_slab(t: jax.Array, lo: jax.Array, hi: jax.Array, size: jax.Array, n: int) -> jax.Array:
    slack = 2 * n * jnp.finfo(t.dtype).eps
    low, high = (jnp.where(jnp.isfinite(b), slack * (size + modulus(b)), 0) for b in (lo, hi))
    return indicator((lo - low <= t) & (t <= hi + high), t)


def _shift(t: jax.Array, lo: jax.Array, hi: jax.Array, size: jax.Array, selection: Any) -> jax.Array:
    """``clip(t, lo, hi) - t``, where t within rounding of a bound is at it; no kink where the bounds are equal."""
    near = lax.stop_gradient(t)
    for bound in map(lax.stop_gradient, (lo, hi)):
        near = jnp.where(snap(near - bound, size) == 0, bound, near)
    near = near + change(t)
    fixed = lo == hi
    middle = jnp.where(fixed, lo, 0) / 2 + jnp.where(fixed, hi, 0) / 2
    return jnp.where(fixed, middle - t, primitives.clip(near, lo, hi, selection=selection) - near)


@data
class Hyperplane(Set):
    """Vectors on a plane.

    Formula: ``sum(a * x) = b``; ``project(x) = x + (b - sum(a * x)) / sum(a**2) * a``.

    Args:
        a: the normal vector, not zero: an array that broadcasts to the shape of x, or one number.
        b: one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Hyperplane(jnp.array([1.0, 1.0]), 1.0).project(jnp.array([2.0, 1.0])).tolist()
        [1.0, 0.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.2.2.
    """

    a: Any
    b: Any = 0.0

    def __post_init__(self) -> None:
        _require_normal(self.a, "Hyperplane")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the plane, up to rounding; inf elsewhere."""
        x, _, t, size = _along(x, self.a, "prox.Hyperplane")
        b = _bound(self.b, x, "prox.Hyperplane", "b")
        return _in_slab(t, b, b, size, x.size)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the plane."""
        x, v, t, _ = _along(x, self.a, "prox.Hyperplane")
        return x + (_bound(self.b, x, "prox.Hyperplane", "b") - t) * v


@data
class Halfspace(Set):
    """Vectors on one side of a plane.

    Formula: ``sum(a * x) <= b``; ``project(x) = x + min(b - sum(a * x), 0) / sum(a**2) * a``.

    Args:
        a: the normal vector, not zero: an array that broadcasts to the shape of x, or one number.
        b: one number.
        selection: what x exactly on the plane does: the weight in [0, 1] on x, ``"inside"`` (1) or
            ``"outside"`` (0). Static.

    Kinks:
        sum(a * x) = b, where the Jacobian is between the identity and the projection on the plane;
        default 1/2, as for :class:`Box`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Halfspace(jnp.array([1.0, 1.0]), 1.0).project(jnp.array([2.0, 1.0])).tolist()
        [1.0, 0.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.2.3.
    """

    a: Any
    b: Any = 0.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        _require_normal(self.a, "Halfspace")

    def __call__(self, x: Any) -> jax.Array:
        """0 in the half-space, up to rounding; inf elsewhere."""
        x, _, t, size = _along(x, self.a, "prox.Halfspace")
        b = _bound(self.b, x, "prox.Halfspace", "b")
        return _in_slab(t, jnp.full_like(b, -jnp.inf), b, size, x.size)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the half-space."""
        x, v, t, size = _along(x, self.a, "prox.Halfspace")
        b = _bound(self.b, x, "prox.Halfspace", "b")
        return x + _shift(t, jnp.full_like(b, -jnp.inf), b, size, self.selection) * v


@data
class Hyperslab(Set):
    """Vectors between two parallel planes.

    Formula: ``lo <= sum(a * x) <= hi``;
    ``project(x) = x + (clip(sum(a * x), lo, hi) - sum(a * x)) / sum(a**2) * a``.

    Args:
        a: the normal vector, not zero: an array that broadcasts to the shape of x, or one number.
        lo: one number, ``-inf`` for none.
        hi: one number >= lo, ``inf`` for none.
        selection: what x exactly on a plane does: the weight in [0, 1] on x, ``"inside"`` (1),
            ``"outside"`` (0), or a pair, one for each plane. Static.

    Kinks:
        sum(a * x) = lo and = hi, where the Jacobian is between the identity and the projection on
        the plane; default 1/2, as for :class:`Box`. Where lo = hi it is a :class:`Hyperplane`:
        no kink, and derivative 1/2 in each bound.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Hyperslab(jnp.array([1.0, 1.0]), -1.0, 1.0).project(jnp.array([2.0, 1.0])).tolist()
        [1.0, 0.0]

    References:
        Bauschke, Combettes, Convex Analysis and Monotone Operator Theory in Hilbert Spaces (2017), example 29.21.
    """

    a: Any
    lo: Any
    hi: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        _require_normal(self.a, "Hyperslab")
        lo, hi = concrete(self.lo), concrete(self.hi)
        if lo is not None and hi is not None and np.any(lo > hi):
            found = f"lo exceeds hi by {np.max(lo - hi):g}."
            meaning = "Nothing is between the planes, and there is nothing to project on."
            raise InputError(message("prox.Hyperslab(a, lo, hi)", found, meaning, "prox.Hyperslab(a, hi, lo)"))

    def _bounds(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _bound(self.lo, x, "prox.Hyperslab", "lo"), _bound(self.hi, x, "prox.Hyperslab", "hi")

    def __call__(self, x: Any) -> jax.Array:
        """0 in the slab, up to rounding; inf elsewhere."""
        x, _, t, size = _along(x, self.a, "prox.Hyperslab")
        return _in_slab(t, *self._bounds(x), size, x.size)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the slab."""
        x, v, t, size = _along(x, self.a, "prox.Hyperslab")
        return x + _shift(t, *self._bounds(x), size, self.selection) * v
