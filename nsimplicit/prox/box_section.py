"""Boxes cut by a hyperplane, as in the dual of a support vector machine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import Set, concrete, fit, real
from nsimplicit.prox.boundary import change, inside, magnitude, snap


@data
class BoxSection(Set):
    """Vectors between two bounds and on a hyperplane: the feasible set of a support vector machine's dual.

    Formula: ``lo <= x <= hi`` and ``sum(a * x) = b``; ``project(x) = clip(x - nu * a, lo, hi)``, nu a
    root of ``sum(a * clip(x - nu * a, lo, hi)) = b``.

    Args:
        lo: lower bounds: one number, or an array that broadcasts to the shape of x; ``-inf`` for none.
        hi: upper bounds >= lo, likewise; ``inf`` for none.
        a: the normal vector, not zero: an array that broadcasts to the shape of x, or one number.
        b: one number, or one for each vector in x.
        axis: the axis of x along which the sum is taken. Static.
        selection: what an entry exactly at a bound does: the weight in [0, 1] on the branch where it
            moves with nu, ``"inside"`` (1) or ``"outside"`` (0). Static.

    Kinks:
        x - nu * a at a bound; default 0. With the weights q of the entries the Jacobian is
        ``diag(q) - outer(q * a, q * a) / sum(q * a**2)``, as for :class:`CappedSimplex`, and where no
        entry with a != 0 moves it is diag(q). There b has two derivatives: this is the one for a
        larger b.

    Cost:
        O(n log n): one sort, and log2(2 n) sums.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> labels = jnp.array([1.0, 1.0, -1.0])
        >>> prox.BoxSection(0.0, 1.0, labels).project(jnp.array([0.75, 2.0, 1.25])).tolist()
        [0.0, 1.0, 1.0]

    References:
        Dai, Fletcher, New algorithms for singly linearly constrained quadratic programs subject to
        lower and upper bounds (2006).
    """

    lo: Any
    hi: Any
    a: Any
    b: Any = 0.0
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        lo, hi, a = map(concrete, (self.lo, self.hi, self.a))
        if a is not None and not np.all(np.any(a != 0, axis=self.axis if a.ndim else None)):
            meaning = "A hyperplane is given by a normal vector, which is not zero."
            raise InputError(
                message("prox.BoxSection(a=...)", "all entries of a are zero.", meaning, "prox.Box(lo, hi)")
            )
        if lo is not None and hi is not None and np.any(lo > hi):
            found = f"lo exceeds hi by up to {np.max(lo - hi):g}."
            raise InputError(message("prox.BoxSection(lo, hi)", found, "The box is empty.", "prox.BoxSection(hi, lo)"))

    def _rows(self, x: Any) -> tuple[jax.Array, ...]:
        """x, the bounds and the normal vectors along the last axis, and the offset of each plane."""
        x = real(x, "prox.BoxSection")
        params = [fit(getattr(self, name), x, f"prox.BoxSection({name}=...)") for name in ("lo", "hi", "a")]
        rows = [jnp.moveaxis(jnp.broadcast_to(p, x.shape), self.axis, -1) for p in (x, *params)]
        self._check(x.shape)
        b = fit(self.b, rows[0][..., 0], "prox.BoxSection(b=...)")
        return *rows, jnp.broadcast_to(b, rows[0].shape[:-1])[..., None]

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raise where the plane is known to miss the box."""
        numbers = [concrete(p) for p in (self.lo, self.hi, self.a, self.b)]
        if any(p is None for p in numbers):
            return
        lo, hi, a = (np.broadcast_to(np.asarray(p, float), shape) for p in numbers[:3])
        with np.errstate(invalid="ignore"):
            ends = [np.where(a == 0, 0, a * p) for p in (lo, hi)]
        low, high = (np.sum(pick(*ends), axis=self.axis) for pick in (np.minimum, np.maximum))
        b = np.asarray(numbers[3], float)
        slack = 1e-6 * (np.abs(b) + np.where(np.isfinite(high - low), high - low, 0))
        if np.any((b < low - slack) | (b > high + slack)):
            found = (
                f"b is {np.ravel(b)[0]:g}, and sum(a * x) is between {np.min(low):g} and {np.max(high):g} in the box."
            )
            meaning = "The plane misses the box, and there is nothing to project on."
            raise InputError(
                message("prox.BoxSection(lo, hi, a, b)", found, meaning, "a b between those", "a larger box")
            )

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding in the sum; inf elsewhere."""
        x, lo, hi, a, b = self._rows(x)
        gap = jnp.sum(a * x, axis=-1, keepdims=True) - b
        size = jnp.sum(magnitude(a * x), axis=-1, keepdims=True) + magnitude(b)
        slack = 2 * x.shape[-1] * jnp.finfo(x.dtype).eps * size
        on = jnp.all((lo <= x) & (x <= hi)) & jnp.all(magnitude(gap) <= slack)
        return jnp.where(on, 0, jnp.asarray(jnp.inf, x.dtype))

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the set."""
        x, lo, hi, a, b = self._rows(x)
        out = section(x, lo, hi, a, b, inside(self.selection, "prox.BoxSection"))
        return jnp.moveaxis(out, -1, self.axis)


def section(x: jax.Array, lo: jax.Array, hi: jax.Array, a: jax.Array, b: jax.Array, selection: Any) -> jax.Array:
    """The nearest vector to x with lo <= p <= hi and sum(a * p) = b, along the last axis; b has a last axis of 1.

    As in :mod:`nsimplicit.prox.threshold`, nu is found for constants and has the derivatives of its
    equation, with the weights q the entries have in the result. For constant q that is affine in nu:
    one step of Newton's is the solution, with derivatives of every order.
    """
    # With a >= 0 all entries fall as nu rises.
    sign = jnp.where(lax.stop_gradient(a) < 0, -jnp.ones_like(a), 1)
    x, a, lo, hi = sign * x, sign * a, jnp.where(sign < 0, -hi, lo), jnp.where(sign < 0, -lo, hi)
    nu = _multiplier(*lax.stop_gradient((x, lo, hi, a, b)))
    moved = x - nu * a
    size = magnitude(lax.stop_gradient(x)) + magnitude(lax.stop_gradient(nu * a))
    excess, room = snap(moved - lo, size), snap(hi - moved, size)
    lo, hi = (jnp.where(jnp.isfinite(c), c, 0) for c in (lo, hi))

    def restrict(moves: jax.Array, lo: Any, hi: Any, value: Any) -> jax.Array:
        """``moves`` between the bounds, ``lo`` below them, ``hi`` above them."""
        low = coupled_switch(excess, moves, lo, selection=selection, value=value)
        return coupled_switch(room, low, hi, selection=selection, value=value)

    zero = jnp.zeros_like(x)
    _, q = jax.jvp(lambda moves: restrict(moves, zero, zero, zero), (zero,), (jnp.ones_like(x),))
    value = lax.stop_gradient(jnp.where(excess < 0, lo, jnp.where(room < 0, hi, moved)))
    weights = jnp.sum(q * a * a, axis=-1, keepdims=True)
    need = change(jnp.sum(a * restrict(moved, lo, hi, value), axis=-1, keepdims=True) - b)
    out = restrict(moved - need / jnp.where(weights > 0, weights, 1) * a, lo, hi, value)
    # Where no entry moves, one takes what the sum gains: the next one above its lower bound, or else one at its upper.
    free = lax.stop_gradient(a) > 0
    distance = lax.stop_gradient(jnp.where(free, excess / jnp.where(free, a, 1), -jnp.inf))
    score = jnp.where(room > 0, distance, -jnp.inf)
    score = jnp.where(jnp.all((room <= 0) | ~free, axis=-1, keepdims=True), distance, score)
    first = jnp.arange(x.shape[-1]) == jnp.argmax(score, axis=-1, keepdims=True)
    return sign * (out - jnp.where((weights == 0) & first, need / jnp.where(free, a, 1), 0))


def _multiplier(x: jax.Array, lo: jax.Array, hi: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """nu for constants with a >= 0: the middle of the roots.

    The sum is affine between neighbours among the ends, where entries meet their bounds. The last end
    where it exceeds b and the first where it is below b are found by bisection, and on the piece beside
    each of them nu is solved for.
    """
    free = a > 0
    slope = jnp.where(free, a, 1)
    leave, arrive = (jnp.where(free, (x - c) / slope, s * jnp.inf) for c, s in ((hi, -1), (lo, 1)))
    ends = jnp.sort(jnp.concatenate([leave, arrive], axis=-1), axis=-1)
    count = jnp.sum(ends == -jnp.inf, axis=-1, keepdims=True)  # of those that are at no finite nu
    last = jnp.sum(ends < jnp.inf, axis=-1, keepdims=True) - 1

    def excess(nu: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = x - nu * a
        p = jnp.where(p < lo, lo, jnp.where(p > hi, hi, p))
        size = jnp.sum(a * (magnitude(x) + magnitude(nu * a)), axis=-1, keepdims=True) + magnitude(b)
        return jnp.sum(a * p, axis=-1, keepdims=True) - b, 4 * jnp.finfo(x.dtype).eps * size

    def bisect(above: Any) -> jax.Array:
        """How many finite ends, from the first, have ``above`` of the excess and its noise."""
        low, high = count, last + 1
        for _ in range(int(ends.shape[-1]).bit_length()):
            middle = (low + high) // 2
            yes = above(*excess(jnp.take_along_axis(ends, jnp.where(middle < ends.shape[-1], middle, -1), axis=-1)))
            low, high = jnp.where(yes & (low < high), middle + 1, low), jnp.where(yes | (low >= high), high, middle)
        return low

    def solve(start: Any, stop: Any, otherwise: Any) -> jax.Array:
        """The root on the piece between two neighbouring ends."""
        inner = free & (leave <= start) & (arrive >= stop)
        bound = jnp.where(free & (arrive <= start), lo, jnp.where(free & (leave >= stop), hi, 0))
        total = jnp.sum(a * jnp.where(inner, x, bound), axis=-1, keepdims=True) - b
        weights = jnp.sum(jnp.where(inner, a * a, 0), axis=-1, keepdims=True)
        return jnp.where(weights > 0, total / jnp.where(weights > 0, weights, 1), otherwise)

    def end(at: jax.Array) -> jax.Array:
        found = jnp.take_along_axis(ends, jnp.where(at < 0, 0, jnp.where(at < ends.shape[-1], at, -1)), axis=-1)
        return jnp.where(at < count, -jnp.inf, jnp.where(at > last, jnp.inf, found))

    over = bisect(lambda gap, noise: gap > noise)
    first = solve(end(over - 1), end(over), jnp.where(over <= last, end(over), 0))
    under = bisect(lambda gap, noise: gap >= -noise)
    second = solve(end(under - 1), end(under), jnp.where(under > count, end(under - 1), first))
    return (first + second) / 2
