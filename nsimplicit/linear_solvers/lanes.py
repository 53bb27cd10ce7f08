"""One decision for all lanes of a ``vmap``.

Under ``vmap`` a branch on a number that differs between lanes becomes a select: every branch runs,
for every lane. Where the branches compute the same thing at different cost, the lanes can agree on
the dearest branch that one of them needs, and the branch stays a branch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


@custom_vmap
def largest(x: jax.Array) -> jax.Array:
    """``x``; under ``vmap`` the largest over the lanes, the same for all of them."""
    return x


@largest.def_vmap
def _largest(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    return largest(jnp.max(x, 0) if in_batched[0] else x), False
