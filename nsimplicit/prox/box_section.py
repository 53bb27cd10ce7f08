"""Boxes cut by a hyperplane, as in the dual of a support vector machine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._lanes import largest
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import Set, concrete, fit, indicator, real
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
        O(n) in each step, a few sums. About 7 steps, and as many as there are digits at worst.

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
        rows = [along_last(p, self.axis, x.ndim) for p in (x, *params)]
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
        return indicator(on, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the set."""
        x, lo, hi, a, b = self._rows(x)
        out = section(x, lo, hi, a, b, inside(self.selection, "prox.BoxSection"))
        return jnp.moveaxis(out, -1, self.axis)


def along_last(param: jax.Array, axis: int, ndim: int) -> jax.Array:
    """An array, or one that broadcasts to it, with the axis moved to the end; one number stays one number."""
    return jnp.moveaxis(jnp.expand_dims(param, range(ndim - param.ndim)), axis, -1)


def section(x: jax.Array, lo: jax.Array, hi: jax.Array, a: jax.Array, b: jax.Array, selection: Any) -> jax.Array:
    """The nearest vector to x with lo <= p <= hi and sum(a * p) = b, along the last axis; b has a last axis of 1.

    lo, hi and a broadcast to x: a number that is the same for all entries is read once.

    As in :mod:`nsimplicit.prox.threshold`, nu is found for constants and has the derivatives of its
    equation, with the weights q the entries have in the result. For constant q that is affine in nu:
    one step of Newton's is the solution, with derivatives of every order.
    """
    # With a >= 0 all entries fall as nu rises.
    sign = jnp.where(lax.stop_gradient(a) < 0, -jnp.ones_like(a), 1)
    x, a, lo, hi = sign * x, sign * a, jnp.where(sign < 0, -hi, lo), jnp.where(sign < 0, -lo, hi)
    # A 16-bit number could not count the entries of a piece.
    constants = (c.astype(jnp.result_type(c, jnp.float32)) for c in lax.stop_gradient((x, lo, hi, a, b)))
    nu = _multiplier(*constants).astype(x.dtype)
    lo, hi, a = jnp.broadcast_arrays(lo, hi, a, x)[:3]
    moved = x - nu * a
    size = magnitude(lax.stop_gradient(x)) + magnitude(lax.stop_gradient(nu * a))
    excess, room = snap(moved - lo, size), snap(hi - moved, size)
    lo, hi = (jnp.where(jnp.isfinite(c), c, 0) for c in (lo, hi))

    below, above, *values = lax.stop_gradient((excess, room, lo, hi, moved))

    def restrict(moves: jax.Array, lo: Any, hi: Any, value: Any, margins: Any = (excess, room)) -> jax.Array:
        """``moves`` between the bounds, ``lo`` below them, ``hi`` above them."""
        low = coupled_switch(margins[0], moves, lo, selection=selection, value=value)
        return coupled_switch(margins[1], low, hi, selection=selection, value=value)

    zero = jnp.zeros_like(x)
    # The weights are constants, not kinks of their own.
    _, q = jax.jvp(lambda moves: restrict(moves, zero, zero, zero, (below, above)), (zero,), (jnp.ones_like(x),))
    value = jnp.where(below < 0, values[0], jnp.where(above < 0, values[1], values[2]))
    weights = jnp.sum(q * a * a, axis=-1, keepdims=True)
    need = change(jnp.sum(a * restrict(moved, lo, hi, value), axis=-1, keepdims=True) - b)
    out = restrict(moved - need / jnp.where(weights > 0, weights, 1) * a, lo, hi, value)
    free = lax.stop_gradient(a)
    still = lax.stop_gradient(weights) == 0
    taker = lax.cond(
        largest(jnp.any(still)), lambda: still & _next(below, above, free), lambda: jnp.zeros_like(x, bool)
    )
    return sign * (out - change(jnp.where(taker, need / jnp.where(free > 0, free, 1), 0)))


def _next(excess: jax.Array, room: jax.Array, a: jax.Array) -> jax.Array:
    """Which entry takes what the sum gains where none moves: the next above its lower bound, or else one at its upper.

    The first of the best: two reductions take a third of the time of an argmax.
    """
    free = a > 0
    room_left = jnp.max(jnp.where(free, room, -jnp.inf), axis=-1, keepdims=True)
    score = jnp.where(room_left <= 0, room, jnp.where(room > 0, excess, -jnp.inf)) / jnp.where(free, a, 1)
    score = jnp.where(free, score, -jnp.inf)
    place = jnp.arange(score.shape[-1])
    best = jnp.where(score == jnp.max(score, axis=-1, keepdims=True), place, score.shape[-1])
    return place == jnp.min(best, axis=-1, keepdims=True)


def _multiplier(x: jax.Array, lo: jax.Array, hi: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """nu for constants with a >= 0: the middle of the roots.

    The sum is affine between neighbours among the ends, where entries meet their bounds. Newton's steps,
    kept in a bracket, are exact once they stay on one piece: a few sums, where a sort takes ten times as long.
    """
    free = a > 0
    slope = jnp.where(free, a, 1)
    leave, arrive = (jnp.where(free, (x - c) / slope, s * jnp.inf) for c, s in ((hi, -1), (lo, 1)))

    def beyond(nu: jax.Array, excess: jax.Array) -> jax.Array:
        """nu, but beyond all finite ends on the side of the root."""
        finite = -jnp.where(leave > -jnp.inf, leave, arrive), jnp.where(arrive < jnp.inf, arrive, leave)
        first, last = jnp.max(jnp.stack(finite), axis=-1, keepdims=True)
        first, last = (jnp.where(jnp.isfinite(end), end, 0) for end in (-first, last))
        return jnp.where(excess > 0, jnp.where(nu > last, nu, last), jnp.where(nu < first, nu, first))

    def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        nu, low, high, before, last_move, piece, _, done = state
        moved = x - nu * a
        under, capped = moved < lo, moved > hi
        p = jnp.where(under, lo, jnp.where(capped, hi, moved))
        side = jnp.where(under, jnp.ones_like(x), jnp.where(capped, -1, 0))  # its sum rises with nu: it names the piece
        total, weights, now = _sums(a * p, jnp.where(under | capped, 0, a * a), side)
        excess = total - b
        low, high = jnp.where(excess >= 0, nu, low), jnp.where(excess <= 0, nu, high)
        newton = nu + excess / jnp.where(weights > 0, weights, 1)
        bracketed = (low > -jnp.inf) & (high < jnp.inf)
        trusted = (weights > 0) & (low <= newton) & (newton <= high) & (newton != nu)
        # A step that does not halve the last but one is not yet near the root.
        trusted = trusted & (~bracketed | (2 * magnitude(newton - nu) <= before))
        lost = largest(jnp.any(~trusted & ~bracketed))
        outer = lax.cond(lost, beyond, lambda nu, _: nu, nu, excess)
        new = jnp.where(trusted, newton, jnp.where(bracketed, (low + high) / 2, outer))
        # A step that rounding swallows ends it only at a root: far away a whole piece may be less than a digit.
        over = (newton == nu) & (magnitude(excess) <= 4 * jnp.finfo(x.dtype).eps * (magnitude(total) + magnitude(b)))
        new = jnp.where(done | over, nu, jnp.where(jnp.isnan(excess), excess, new))
        done = done | ~(new != nu) | jnp.isnan(new) | (trusted & (now == piece))
        return new, low, high, last_move, magnitude(new - nu), jnp.where(trusted, now, jnp.inf), weights, done

    total, weights = _sums(a * x, a * a)
    begin = (total - b) / weights  # as if nothing were at a bound
    begin = jnp.where(jnp.isfinite(begin), begin, 0)
    infinite = jnp.full_like(begin, jnp.inf)
    state = begin, -infinite, infinite, infinite, infinite, infinite, infinite, infinite < 0
    nu, *_, weights, _ = lax.while_loop(lambda state: ~jnp.all(state[-1]), step, state)
    # Where no entry moves, up to rounding in the sums, the sum is flat as long as none leaves its bound.
    under, over = nu > arrive, nu < leave
    size = magnitude(x) + magnitude(nu * a)
    (noise,) = _sums(a * magnitude(jnp.where(under, lo, jnp.where(over, hi, size))))
    size = size + a * (noise + magnitude(b)) / jnp.where(weights > 0, weights, 1)
    below, above = snap(x - nu * a - lo, size) <= 0, snap(hi - (x - nu * a), size) <= 0
    # An entry that moves makes the stretch empty.
    start = jnp.where(above, -jnp.inf, jnp.where(below, arrive, jnp.where(free, jnp.inf, -jnp.inf)))
    stop = jnp.where(above & ~below, leave, jnp.inf)
    start, stop = jnp.max(jnp.stack([start, -stop]), axis=-1, keepdims=True)
    middle = jnp.where(start == -jnp.inf, -stop, jnp.where(stop == -jnp.inf, start, (start - stop) / 2))
    return jnp.where((start <= -stop) & jnp.isfinite(middle), middle, nu)


def _sums(*terms: jax.Array) -> list[jax.Array]:
    """The sum of each along the last axis."""
    return [jnp.sum(t, axis=-1, keepdims=True) for t in jnp.broadcast_arrays(*terms)]
