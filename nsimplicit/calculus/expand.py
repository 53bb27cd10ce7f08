"""An ordering as switches: what a tie in a sort, a maximum or a median can do.

The entries are put in order by their keys. Where neighbours tie, they may be exchanged: a block of m
equal keys is sorted by m layers of exchanges of neighbours (odd-even transposition), m (m - 1) / 2
switches, whose selections reach every permutation of the block and stay among the averages of
permutations. The extreme of a block needs a chain of m - 1 switches only, which reaches exactly the
convex hull of the tied entries. Blocks of more than ``BLOCK`` entries are not expanded; they are
told from the distance across ``BLOCK`` neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.calculus.kink import Ordering
from nsimplicit.primitives.ordering import EXTREMES, sort_with_positions

BLOCK = 6
Exchange = Callable[..., jax.Array]


def expand(kink: Ordering, near: Callable[[Any, Any], Any], exchange: Exchange) -> tuple[jax.Array, jax.Array]:
    """The ordering, computed by exchanges.

    Args:
        kink: the ordering.
        near: whether two keys tie.
        exchange: ``(layer, left, right, above, below, applies) -> array``: a switch between two
            branches, only where ``applies``; elsewhere it is ``below``.

    Returns:
        The output, and the distance between keys whose tie would make a block too large: inf if there is none.
    """
    permutation = sort_with_positions(lax.stop_gradient(kink.key), kink.axis)[1]
    if kink.descending:
        permutation = lax.rev(permutation, (kink.axis,))
    key, payload = (_sorted(x, permutation, kink.axis) for x in (kink.key, kink.payload))
    payload = key if kink.payload is kink.key else payload
    upward = 1 - 2 * kink.descending
    crowd = jnp.full(key.shape[:-1], jnp.inf, key.dtype)
    if key.shape[-1] > BLOCK:
        spread = jnp.abs(key[..., BLOCK:] - key[..., :-BLOCK])
        crowd = spread[..., 0] if kink.name in EXTREMES else spread.min(-1)
    if kink.name in EXTREMES:
        best = payload[..., 0]
        for i in range(1, min(key.shape[-1], BLOCK)):
            applies = jnp.ones(best.shape, bool)
            best = exchange(i - 1, upward * key[..., 0], upward * key[..., i], payload[..., i], best, applies)
        return jnp.moveaxis(best[..., None], -1, kink.axis), crowd
    count = key.shape[-1]
    same = near(key[..., :-1], key[..., 1:])
    fresh = jnp.pad(~same, [(0, 0)] * (key.ndim - 1) + [(1, 0)], constant_values=True)[..., :count]
    position = jnp.broadcast_to(jnp.arange(count), key.shape)
    inside = position - lax.cummax(jnp.where(fresh, position, 0), axis=key.ndim - 1)
    for layer in range(min(count, BLOCK) if count > 1 else 0):
        applies = (inside[..., :-1] % 2 == layer % 2) & same
        applies &= (layer < 2) | _long(same, layer)
        key, payload = _exchange(layer, key, payload, applies, upward, exchange)
    out = payload[..., kink.start : kink.stop]
    return jnp.moveaxis(out, -1, kink.axis), crowd


def _exchange(layer: int, key: Any, payload: Any, applies: Any, upward: int, exchange: Exchange) -> tuple[Any, Any]:
    first, second = payload[..., :-1], payload[..., 1:]
    low = exchange(layer, upward * key[..., :-1], upward * key[..., 1:], second, first, applies)
    high = first + second - low
    pad = [(0, 0)] * (key.ndim - 1)
    leads, follows = jnp.pad(applies, [*pad, (0, 1)]), jnp.pad(applies, [*pad, (1, 0)])
    moved = jnp.where(leads, jnp.pad(low, [*pad, (0, 1)]), jnp.where(follows, jnp.pad(high, [*pad, (1, 0)]), payload))
    return (moved if payload is key else key), moved


def _long(same: Any, layer: int) -> Any:
    """Where a pair lies in a block of more than ``layer`` entries."""
    start = same
    for shift in range(1, layer):  # start[i]: entries i to i + layer tie
        start = start & jnp.roll(same, -shift, -1).at[..., -shift:].set(False)
    inside = start
    for shift in range(1, layer):
        inside = inside | jnp.roll(start, shift, -1).at[..., :shift].set(False)
    return inside


def _sorted(x: Any, permutation: Any, axis: int) -> Any:
    return jnp.moveaxis(jnp.take_along_axis(x, permutation, axis), axis, -1)
