"""Trees of arrays as jaxopt's functions take them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space


def floats(tree: Any) -> Any:
    """Every leaf as an array of floats."""

    def leaf(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)

    return jax.tree.map(leaf, tree)


def move(x: Any, step: Any, y: Any) -> Any:
    """x + step·y, in the dtypes of x."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(step, x.dtype) * y, x, y)


def size(tree: Any) -> jax.Array:
    """The norm of a tree, as a constant: its derivative at zero would be nan."""
    return lax.stop_gradient(Space().norm(tree))
