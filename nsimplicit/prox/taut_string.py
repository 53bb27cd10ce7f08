"""The prox of a function of the differences along a chain, for constants: exact, in O(n).

The problem is min_p sum(m / 2 * (p - x)^2) + sum_i h_i(p[i+1] - p[i]) along a chain, where h_i is the support
function of an interval: h_i(t) = upper_i * t for t > 0, lower_i * t for t < 0. Isotonic regression has the interval
(-inf, 0], total variation [-weight, weight].

The derivative, as a function of p = p[i], of all that is left of the pair (i, i+1) and of the node i is increasing and
piecewise linear: the *message*. The next node sees it clipped to the interval. It is kept as its first and last lines
and the knots between them; only knots outside the interval are looked at, and they are looked at once. Where the
message leaves the interval, at ``low`` and ``high``, the pair parts: p[i] = clip(p[i+1], low_i, high_i).

On a CPU a loop of XLA's over scalars is one compiled function, and a step of it takes a few nanoseconds: scalars are
what the loops carry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._lanes import one_by_one
from nsimplicit.prox.boundary import magnitude


class Chain(NamedTuple):
    """The solution p (n,), and what is known of its pairs (n - 1,) and of its rounding errors (n,).

    ``side`` is 1 where p[i+1] > p[i], -1 where p[i+1] < p[i], 0 where they are pooled; ``multiplier`` is at the
    end of its interval where a pair has parted, and may leave it by rounding elsewhere; ``size`` adds up the terms in
    the sum over the block of an entry, and ``noise`` is that for the average.
    """

    p: jax.Array
    side: jax.Array
    multiplier: jax.Array
    size: jax.Array
    noise: jax.Array


@one_by_one
def solve(x: jax.Array, mass: jax.Array, limits: jax.Array) -> Chain:
    """p and its pairs; not to be differentiated.

    Args:
        x: array (n,).
        mass: array (n,), positive.
        limits: array (n - 1, 1) or (n - 1, 2), finite: upper, and -lower; -lower is inf if it is left out.

    References:
        Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation (2013).
    """
    one_sided = limits.shape[-1] == 1
    place, sides, part, value = (_blocks if one_sided else _messages)(x, mass, limits)
    fixed = is_point(limits)

    def back(carry: Any, row: Any) -> Any:
        """From the last entry to the first: which pairs part, and the sums over the block that begins after one."""
        place, weight, total, size = carry
        seen, limit, fixed, m, x = row
        place, side = part(place, seen)
        side = side.astype(x.dtype)
        cut = (side != 0) | fixed
        flux = jnp.where(cut, at_end(limit, side), 0)
        after = weight, total - flux, size + magnitude(flux)
        weight, total, size = (jnp.where(cut, 0, a) for a in (weight, total, size))
        carry = place, weight + m, total + flux + m * x, size + magnitude(flux) + magnitude(m * x)
        return carry, (value(place), side, cut, flux, *after)

    last = place, mass[-1], mass[-1] * x[-1], magnitude(mass[-1] * x[-1])
    rows = sides, limits, fixed, mass[:-1], x[:-1]
    (_, *first), (p, side, cut, flux, *after) = lax.scan(back, last, rows, reverse=True)
    p = jnp.append(p, value(place))

    def forth(carry: Any, row: Any) -> Any:
        """From the first entry to the last: the averages, and the multipliers between the entries of a block."""
        before, size, noise, u = carry
        p, begins, side, weight, total, terms, m, x, cut, flux = row
        if not one_sided:
            # Rounding may have parted a pair that is in the wrong order.
            average = total / weight
            average = jnp.where(side * (average - before) < 0, before, average)
            p = jnp.where(begins, average, before)
        size, noise = jnp.where(begins, terms, size), jnp.where(begins, terms / weight, noise)
        u = jnp.where(cut, flux, u + m * (p - x))
        return (p, size, noise, u), (p, size, noise, u)

    true, zero = jnp.ones_like(fixed, shape=1), jnp.zeros_like(x, shape=1)
    before = [jnp.append(one[None], rest) for one, rest in zip(first, after, strict=True)]
    order = jnp.where(fixed, 0, side)
    starts, stops = jnp.append(true, cut), (jnp.append(cut, true), jnp.append(flux, zero))
    rows = p, starts, jnp.append(zero, order), *before, mass, x, *stops
    _, (averages, size, noise, u) = lax.scan(forth, (zero[0],) * 4, rows)
    return Chain(p if one_sided else averages, side, u[:-1], size, noise)


def is_point(limits: jax.Array) -> jax.Array:
    """Where the interval of a pair is one point, and the pair always parts."""
    return limits[..., 0] == -limits[..., -1] if limits.shape[-1] == 2 else jnp.zeros_like(limits[..., 0], bool)


def at_end(limits: jax.Array, side: jax.Array) -> jax.Array:
    """The multiplier of a pair that has parted; where the sides have no order, of both, which are equal then."""
    upper, lower = limits[..., 0], -limits[..., -1]
    return jnp.where(side > 0, upper, jnp.where(side < 0, lower, (upper + lower) / 2))


def _blocks(x: jax.Array, mass: jax.Array, limits: jax.Array) -> tuple[Any, ...]:
    """For intervals without a lower end: blocks in the wrong order are pooled, the last two at a time.

    Returns:
        The place of the last entry, a row for each pair, the step back over it to the place before and
        the side, and p at a place. A place is the depth of a block.
    """
    (n,), one = x.shape, jnp.ones_like(x[0])
    # With all multipliers at their upper end, and what is left of them negative, order is all that is asked for.
    mean = jnp.sum(mass * x) / jnp.sum(mass)
    y = mass * (x - mean) + jnp.append(limits, 0) - jnp.append(0, limits)
    # What comes after the last entry is never pooled.
    table = jnp.append(jnp.stack([mass, y], axis=-1), jnp.stack([one, jnp.inf * one])[None], axis=0)

    def unfinished(state: Any) -> Any:
        i, _, (*_, p), (*_, p_below), *_ = state
        return (i < n) | (p_below > p)

    def step(state: Any) -> Any:
        """Pool the last block with the one below it, or with the next entry, or let that be the last block."""
        i, depth, (m, y, p), (m_below, y_below, p_below), stack, depths = state
        m_next, y_next = lax.dynamic_index_in_dim(table, i, keepdims=False)
        wrong = p_below > p
        taken = ~wrong & (y_next < p * m_next)
        # Written before it is known whether it counts, and read before it is needed: nothing waits for memory.
        stack = lax.dynamic_update_index_in_dim(stack, jnp.stack([m_below, y_below]), depth, 0)
        # An entry that is taken begins no block.
        depths = lax.dynamic_update_index_in_dim(depths, jnp.where(taken, 0, depth + 1), i, 0)
        m_under, y_under = lax.dynamic_index_in_dim(stack, depth - 1, keepdims=False)
        more, added = _pick(wrong, (m_below, y_below), (m_next, y_next))
        pushed = ~(wrong | taken)
        m_last, y_last = _pick(pushed, (m_next, y_next), (m + more, y + added))
        under = m_under, y_under, y_under / m_under
        below = _pick(pushed, (m, y, p), _pick(wrong, under, (m_below, y_below, p_below)))
        state = (m_last, y_last, y_last / m_last), below, stack, depths
        return jnp.where(wrong, i, i + 1), depth + pushed - wrong, *state

    number = jnp.ones((), jnp.int32)
    last, ground = (mass[0], y[0], y[0] / mass[0]), (one, -jnp.inf * one, -jnp.inf * one)
    stack, depths = jnp.ones_like(x, shape=(n + 2, 2)), jnp.zeros_like(x, shape=(n + 1,), dtype=jnp.int32)
    state = number, number, last, ground, stack, depths
    _, depth, (*last, _), (*below, _), stack, depths = lax.while_loop(unfinished, step, state)
    stack = lax.dynamic_update_slice_in_dim(stack, jnp.array([below, last]), depth, 0)

    def part(depth: jax.Array, begun: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The last entry that was put at this depth began the block that is still there."""
        begins = begun == depth
        return jnp.where(begins, depth - 1, depth), begins

    def average(depth: jax.Array) -> jax.Array:
        m, y = lax.dynamic_index_in_dim(stack, depth + 1, keepdims=False)
        return mean + y / m

    return depth, depths[1:-1], part, average


def _pick(condition: jax.Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _messages(x: jax.Array, mass: jax.Array, limits: jax.Array) -> tuple[Any, ...]:
    """For intervals with two ends: where each message leaves the interval.

    Returns:
        As :func:`_blocks`. A place is p, which has lost digits to the sums along the chain.
    """
    (n,), turns = x.shape, 2 * x.size
    x = x - jnp.sum(mass * x) / jnp.sum(mass)  # the sums lose fewer digits
    # A turn is one end of the message of one node: the right end, then the left end, in mirrored numbers. Its row says
    # where the message is clipped, and what is added to its lines before the next turn. After the last node the
    # derivative is zero: the root of the last message is an interval of one point.
    table = jnp.zeros_like(x, shape=(turns + 1, 3))
    table = table.at[: turns - 2, 0].set(limits.reshape(-1))
    table = table.at[1 : turns - 2 : 2, 1:].set(jnp.stack([mass[1:], mass[1:] * x[1:]], axis=-1))
    # A row of knots: its place, and the changes of slope and offset there.
    knots, ends = jnp.zeros_like(x, shape=(2 * n + 2, 3)), jnp.zeros_like(x, shape=(turns + 1,))
    line, other = (mass[0], -mass[0] * x[0]), (mass[0], mass[0] * x[0])
    row, other_row = jnp.asarray(n - 1, jnp.int32), jnp.asarray(n, jnp.int32)

    def step(_: Any, state: Any) -> Any:
        """Take a knot beyond the limit off, or end the message there in a flat line, which ends the turn."""
        turn, (slope, offset), other, row, other_row, (place, steeper, lifted), knots, ends = state
        way = 1 - 2 * (turn & 1)
        sign = way.astype(x.dtype)
        limit, more, pull = lax.dynamic_index_in_dim(table, turn, keepdims=False)
        # A left end stops before the knot of the right end of its node, where an interval of one point would have both.
        beyond = (way * (row - other_row) >= (1 - way) // 2) & (slope * sign * place + offset >= limit)
        end = (limit - offset) / slope
        # Written at every step; the last one counts. Steps that are left over write to the last row.
        ends = lax.dynamic_update_index_in_dim(ends, sign * end, turn, 0)
        added = jnp.stack([sign * end, -sign * slope, limit - offset])
        knots = lax.dynamic_update_index_in_dim(knots, added, row + way, 0)
        less = slope - sign * steeper, offset - lifted
        line = _pick(beyond, less, (other[0] + more, other[1] - pull))
        other = _pick(beyond, other, (more, limit + pull))
        row, other_row = _pick(beyond, (row - way, other_row), (other_row, row + way))
        # Read after everything is written, or each step would copy all knots.
        knot = lax.dynamic_index_in_dim(knots, row, keepdims=False)
        return jnp.where(beyond, turn, turn + 1), line, other, row, other_row, knot, knots, ends

    state = jnp.zeros((), jnp.int32), line, other, row, other_row, knots[0], knots, ends
    *_, ends = lax.fori_loop(0, 2 * turns, step, state)
    ends = ends[:-1].reshape(n, 2)

    def part(p: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        """p[i] is p[i+1], clipped."""
        above, below = p > end[0], p < end[1]
        return _pick(above, end[0], jnp.where(below, end[1], p)), above.astype(x.dtype) - below

    return ends[-1, 0], ends[:-1], part, lambda p: p
