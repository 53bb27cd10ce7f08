"""Which branches of a piecewise linear system to exchange next, of those its solution contradicts.

All of them: that is Newton's method and ends in a few rounds, or cycles (three branches are enough). So where their
number has not come down for some rounds only the last of them, which ends wherever every principal minor is positive.

References: J. Júdice, F. Pires, A block principal pivoting algorithm for large-scale strictly monotone linear
complementarity problems (1994); K. Murty, Note on a Bard-type scheme for solving the complementarity problem (1974).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

PATIENCE = 3
Progress = tuple[jax.Array, jax.Array]
"""The smallest number of wrong branches so far, and the rounds that may pass before it comes down."""


def begin(num_branches: int) -> Progress:
    """Before the first round."""
    return jnp.full((), num_branches + 1, int), jnp.full((), PATIENCE, int)


def choose(wrong: Sequence[jax.Array], progress: Progress) -> tuple[list[jax.Array], jax.Array, Progress]:
    """The branches to exchange.

    Args:
        wrong: arrays that are true where a branch is contradicted.
        progress: of the rounds before.

    Returns:
        Arrays that are true where a branch is to be exchanged, how many are wrong, and the progress.
    """
    least, patience = progress
    number = sum((jnp.sum(flags) for flags in wrong), jnp.zeros_like(least))
    patience = jnp.where(number < least, PATIENCE, patience - 1)
    chosen = [jnp.where(patience >= 0, *pair) for pair in zip(wrong, _last(wrong), strict=True)]
    return chosen, number, (jnp.minimum(number, least), patience)


def _last(wrong: Sequence[jax.Array]) -> list[jax.Array]:
    found, out = jnp.zeros((), bool), []
    for flags in reversed(wrong):
        behind = jnp.cumsum(flags.ravel()[::-1])[::-1].reshape(flags.shape)
        out.append(flags & (behind == 1) & ~found)
        found = found | jnp.any(flags)
    return out[::-1]
