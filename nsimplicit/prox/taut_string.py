"""The pairs of neighbours that part in the prox of a function of their differences: exact, in O(n).

The problem is min_p sum(m / 2 * (p - x)^2) + sum_i h_i(p[i+1] - p[i]) along a chain, where h_i is the support
function of an interval: h_i(t) = upper_i * t for t > 0, lower_i * t for t < 0. Isotonic regression has the interval
(-inf, 0], total variation [-weight, weight].

The derivative, as a function of p = p[i], of all that is left of the pair (i, i+1) and of the node i is increasing and
piecewise linear: the *message*. The next node sees it clipped to the interval. It is kept as its first and last lines
and the knots between them; only knots outside the interval are looked at, and they are looked at once. Where the
message leaves the interval, at ``low`` and ``high``, the pair parts: p[i] = clip(p[i+1], low_i, high_i).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_batching.custom_vmap
def parted(x: jax.Array, mass: jax.Array, limits: jax.Array) -> jax.Array:
    """1 where p[i+1] > p[i], -1 where p[i+1] < p[i], 0 where they are pooled; not to be differentiated.

    Args:
        x: array (n,).
        mass: array (n,), positive.
        limits: array (n - 1, 1) or (n - 1, 2), finite: upper, and -lower; -lower is inf if it is left out.

    Returns:
        Array (n - 1,) of the dtype of x.

    References:
        Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation (2013).
    """
    (n,), sides = x.shape, limits.shape[-1]
    turns = sides * n
    x = x - jnp.sum(mass * x) / jnp.sum(mass)  # the sums lose fewer digits
    # A turn is one end of the message of one node: the right end, then the left end, in mirrored numbers. Its row says
    # where the message is clipped, and what is added to its lines before the next turn. After the last node the
    # derivative is zero: the root of the last message is an interval of one point.
    table = jnp.zeros_like(x, shape=(turns + 1, 3))
    table = table.at[: turns - sides, 0].set(limits.reshape(-1))
    table = table.at[sides - 1 : turns - sides : sides, 1:].set(jnp.stack([mass[1:], mass[1:] * x[1:]], axis=-1))
    # A row of knots: its place, and the changes of slope and offset there.
    knots = jnp.zeros_like(x, shape=(2 * n + 2, 3))
    lines = jnp.stack([mass[0], -mass[0] * x[0], mass[0], mass[0] * x[0]]).reshape(2, 2)
    rows = jnp.asarray([n - 1, n], jnp.int32)
    state = jnp.zeros((), jnp.int32), lines, rows, knots[0], knots, jnp.zeros_like(x, shape=(turns + 1,))

    def step(_: Any, state: Any) -> Any:
        """Take a knot beyond the limit off, or end the message there in a flat line, which ends the turn."""
        turn, lines, rows, knot, knots, ends = state
        way = 1 - 2 * (turn & (sides - 1))
        sign = way.astype(x.dtype)
        limit, more, pull = table[turn]
        slope, offset = lines[0]
        # A left end stops before the knot of the right end of its node, where an interval of one point would have both.
        beyond = (way * (rows[0] - rows[1]) >= (1 - way) // 2) & (slope * sign * knot[0] + offset >= limit)
        end = (limit - offset) / slope
        # Written at every step; the last one counts. Steps that are left over write to the last row.
        ends = ends.at[turn].set(sign * end)
        knots = knots.at[rows[0] + way].set(jnp.stack([sign * end, -sign * slope, limit - offset]))
        less = lines.at[0].add(jnp.stack([-sign * knot[1], -knot[2]]))
        after = jnp.stack([0 * limit, limit, *lines[1]]).reshape(2, 2)
        rows_after = jnp.stack([rows[0] + way, rows[1]])
        if sides == 2:
            after, rows_after = after[::-1], rows_after[::-1]
        after = after + jnp.stack([more, -pull, more, pull]).reshape(2, 2)
        lines = jnp.where(beyond, less, after)
        rows = jnp.where(beyond, jnp.stack([rows[0] - way, rows[1]]), rows_after)
        # Read after everything is written, or each step would copy all knots.
        return jnp.where(beyond, turn, turn + 1), lines, rows, knots[rows[0]], knots, ends

    *_, ends = lax.fori_loop(0, 2 * turns, step, state)
    ends = ends[:-1].reshape(n, sides)

    def back(p: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        above = p > end[0]
        below = p < end[-1] if sides == 2 else jnp.zeros_like(above)
        return jnp.where(above, end[0], jnp.where(below, end[-1], p)), above.astype(x.dtype) - below

    return lax.scan(back, ends[-1, 0], ends[:-1], reverse=True)[1]


@parted.def_vmap
def _parted_vmap(size: int, batched: list[bool], *args: jax.Array) -> tuple[jax.Array, bool]:
    """One row after the other where a loop is a loop; all rows at once where each step of it starts kernels."""
    rows = [
        x if is_batched else jnp.broadcast_to(x, (size, *x.shape)) for x, is_batched in zip(args, batched, strict=True)
    ]

    def in_turn(*rows: jax.Array) -> jax.Array:
        return lax.map(lambda row: parted(*row), rows)

    return lax.platform_dependent(*rows, cpu=in_turn, default=jax.vmap(parted.fun)), True
