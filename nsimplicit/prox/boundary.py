"""Kinks at the boundary of a set: found through rounding, and with names for their two sides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import selections
from nsimplicit._tree import blank


@jax.custom_jvp
def change(x: Any) -> jax.Array:
    """Zero in value, with the derivatives of x: the result is known already, and this is what is added to it.

    Not ``x - stop_gradient(x)``: a forward pass would compute x to subtract it from itself.
    """
    return blank(jnp.asarray(x))


@change.defjvp
def _change_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return change(*primals), tangents[0]


def magnitude(x: jax.Array) -> jax.Array:
    """The absolute value of a constant."""
    return jnp.where(x < 0, -x, x)


def snap(gap: jax.Array, size: Any) -> jax.Array:
    """A distance to a kink, exactly zero where it is zero up to rounding in numbers of that size.

    A kink one rounding error away would take its derivative from the error, not from the selection.
    Its own derivative stays: which branch a direction enters is read off it.
    """
    fixed, size = lax.stop_gradient((gap, size))
    noise = 4 * jnp.finfo(gap.dtype).eps * size
    return jnp.where((-noise <= fixed) & (fixed <= noise), 0, fixed) + jnp.where(jnp.isfinite(fixed), change(gap), 0)


def inside(selection: Any, where: str) -> Any:
    """The weight on the branch inside the set; None stays None, a default that a surrounding program may replace."""
    return None if selection is None else selections.weight(selection, 0.0, where, selections.BOUNDS[0])
