"""The length of a gradient step: given, 1/L, or found by trying."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space, subtract
from nsimplicit.prox.base import Function


def step_for(f: Function, step: Any, z: Any) -> Any:
    """``step`` where it is given; else 1/L where f knows its L, else backtracking from 1 at z.

    A step that is found is a constant for derivatives, which do not depend on it.

    Args:
        f: the smooth function.
        step: the step a user gave, or None.
        z: where to try steps.
    """
    if step is not None:
        return step
    f, z = lax.stop_gradient((f, z))
    if f.lipschitz is not None:
        bound = jnp.asarray(f.lipschitz)
        return lax.stop_gradient(jnp.where(bound > 0, 1 / jnp.where(bound > 0, bound, 1), 1.0))
    return lax.stop_gradient(_backtrack(f, z))


def _backtrack(f: Function, z: Any) -> jax.Array:
    """The first step 1, 1/2, 1/4, ... with a local Lipschitz bound along the gradient at z."""
    space = Space()
    slope = f.gradient(z)

    def too_long(step: jax.Array) -> jax.Array:
        move = jax.tree.map(lambda d: step.astype(d.dtype) * d, slope)
        change = subtract(f.gradient(subtract(z, move)), slope)
        return (space.norm(change) * 2 * step > space.norm(move)) & (step > 1e-12)

    one = jnp.ones_like(space.norm(slope))
    return lax.while_loop(too_long, lambda step: step / 2, one)
