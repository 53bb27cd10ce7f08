"""The prox of a function of the differences along a chain: averages over blocks of neighbours.

With the problem and the intervals [lower_i, upper_i] of :mod:`nsimplicit.prox.taut_string`, and the multipliers u_i of
the pairs, 0 at both ends, the solution is

    m_i (p_i - x_i) = u_i - u_{i-1},    lower_i <= u_i <= upper_i,
    p_{i+1} > p_i  =>  u_i = upper_i,   p_{i+1} < p_i  =>  u_i = lower_i.

A pair that is pooled, p_i = p_{i+1}, has its multiplier inside the interval. Given which pairs part, and at which end
their multipliers are, p is the average over each block of y / m with y_i = m_i x_i + u_i - u_{i-1}: a formula that is
differentiated as it stands.

A pair is at a kink where p_i = p_{i+1} and u_i is at an end: nearby it parts, or is pooled. Ties of the input alone are
no kink. The average over a block is the sum of that over the blocks its kinks would part it into, weighted, and of one
contrast for each of these pairs: the difference d of the average of the next part and that of all parts before,
times the vector that is M_next / M of -1 before, M_before / M of 1 in the next part. With d multiplied by a weight s,
the Jacobian is between those of the two partitions; each d is a ``switch``.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives, selections
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.boundary import change, magnitude, snap
from nsimplicit.prox.taut_string import at_end, is_point, solve

NAMES = {"split": 1.0, "pooled": 0.0}


def weight(selection: Any, where: str) -> Any:
    """The weight on parting; None stays None, a default that a surrounding program may replace."""
    return None if selection is None else selections.weight(selection, 0.0, where, NAMES)


def pool(x: jax.Array, mass: jax.Array, limits: jax.Array, selection: Any, alike: jax.Array | None = None) -> jax.Array:
    """p along the last axis.

    Args:
        x: array (..., n), of at least float32.
        mass: array of the shape of x, positive.
        limits: array (..., n - 1, 1) or (..., n - 1, 2): upper, and -lower; -lower is inf if it is left out.
        selection: the weight on parting at a kink, as :func:`weight` has it.
        alike: boolean array (..., n - 1): two equal entries that come in any order, so that a block of such
            pairs alone is not pooled where its multipliers are zero.

    Returns:
        Array of the shape of x.
    """
    if x.shape[-1] < 2:
        return x
    arrays = (x, mass, limits) if alike is None else (x, mass, limits, alike)
    rows = [a.reshape(-1, *a.shape[x.ndim - 1 :]) for a in arrays]
    one = functools.partial(_pool, selection)
    out = one(*(row[0] for row in rows)) if len(rows[0]) == 1 else jax.vmap(one)(*rows)
    return out.reshape(x.shape)


def _pool(
    selection: Any, x: jax.Array, mass: jax.Array, limits: jax.Array, alike: jax.Array | None = None
) -> jax.Array:
    p, margin, side = _pairs(*lax.stop_gradient((x, mass, limits)), alike)
    # A pair near its kink, and alone with that in its block, is opened from its side: analyses look at such kinks.
    near = magnitude(margin) <= 2 * float(jnp.finfo(x.dtype).eps) ** 0.5 * jnp.max(magnitude(margin))
    groups = _blocks((margin > 0) & ~near)[:-1]
    sole = near & (jax.ops.segment_sum(near.astype(jnp.int32), groups, x.size)[groups] == 1)
    flux = jnp.where((margin < 0) & ~sole, 0, at_end(limits, side))
    y = mass * x + _divergence(flux)
    coarse, fine = _blocks((margin > 0) & ~sole), _blocks((margin >= 0) | sole)
    inner = (fine[1:] != fine[:-1]) & (coarse[1:] == coarse[:-1])
    # The part that begins after each pair, and all of the block that is before it.
    (parts, begins, _), (block, first, last) = _totals(fine, mass, y), _totals(coarse, mass, y)
    next_mass, next_y = parts[1:].T
    ahead = jnp.append(jnp.zeros((1, 2), x.dtype), jnp.cumsum(jnp.stack([mass, y], axis=-1), axis=0), axis=0)
    before_mass, before_y = (ahead[1:-1] - ahead[first[:-1]]).T
    before_mass, next_mass = (jnp.where(inner, a, 1) for a in (before_mass, next_mass))
    both = before_mass + next_mass
    average = (before_y + next_y) / both
    part = jnp.where(inner, next_y / next_mass, average)
    d = both / before_mass * _opened(margin, side, part, average, sole, near, selection)
    up = jnp.append(0, before_mass / both * d)[begins]
    down = jnp.cumsum(jnp.append(next_mass / both * d, 0)[::-1])[::-1]  # of the pairs to come, other blocks as well
    # The value is known.
    return p + change(block[:, 1] / block[:, 0] + up - (down - down[last]))


def _opened(
    margin: jax.Array, side: jax.Array, part: Any, average: Any, sole: Any, near: Any, selection: Any
) -> jax.Array:
    """How far the next part is from the average where pairs part: a switch for each, coupled where there are more."""
    away, crowd = jnp.max(magnitude(margin)), near & ~sole
    away = jnp.where(away > 0, away, 1)
    u = jnp.where(crowd, away, margin) + jnp.where(sole, change(side * (part - average)), 0)
    above, value = jnp.where(sole, part, average), jnp.where(sole & (margin > 0), part, average)
    alone = primitives.switch(u, above, average, selection=selection, value=value)
    u, above = jnp.where(crowd, margin, away), jnp.where(sole, average, part)
    together = coupled_switch(u, above, average, selection=selection, value=average)
    return (alone - average) + (together - average)


def _pairs(x: jax.Array, mass: jax.Array, limits: jax.Array, alike: jax.Array | None) -> tuple[jax.Array, ...]:
    """p; how far each pair is from its kink, > 0 parted and < 0 pooled; the end its multiplier is at or near."""
    chain, fixed = solve(x, mass, limits), is_point(limits)
    p, u, cut = chain.p, chain.multiplier, (chain.side != 0) | fixed
    gap = snap(chain.side * (p[1:] - p[:-1]), chain.noise[1:] + chain.noise[:-1])
    slacks = limits - jnp.stack([u, -u][: limits.shape[-1]], axis=-1)
    slack = snap(jnp.min(slacks, axis=-1), chain.size[:-1])
    side = jnp.where(cut, chain.side, jnp.where(slacks[:, 0] <= slacks[:, -1], 1, -1))
    # Rounding may have parted a pair that is in the wrong order, or pooled one beyond its interval.
    margin = jnp.where(cut, jnp.where(gap > 0, gap, 0), -jnp.where(slack > 0, slack, 0))
    margin = jnp.where(fixed, 1, margin)
    if alike is None:
        return p, margin, side
    together = _blocks(margin > 0)[:-1]
    bound = jax.ops.segment_sum((~alike & (margin <= 0)).astype(jnp.int32), together, x.size)[together]
    return p, jnp.where(alike & (margin == 0) & (bound == 0), 1, margin), side


def _divergence(flux: jax.Array, sign: int = -1) -> jax.Array:
    return jnp.append(flux, 0) + sign * jnp.append(0, flux)


def _blocks(cut: jax.Array) -> jax.Array:
    """The number of the block of each entry."""
    return jnp.append(0, jnp.cumsum(cut))


def _totals(block: jax.Array, *columns: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """For each entry the sums over its block, one column each, and the first and last entry of the block."""
    table = jnp.stack([*columns, jnp.ones_like(columns[0])], axis=-1)
    sums = jax.ops.segment_sum(table, block, block.size, indices_are_sorted=True)
    count = lax.stop_gradient(sums[:, -1]).astype(jnp.int32)
    stop = jnp.cumsum(count)
    return sums[block, :-1], (stop - count)[block], stop[block] - 1
