"""The Euclidean norm, with a derivative at zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.primitives.switch import bind, compiled

__all__ = ["norm"]


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, *, selection: Any = None) -> jax.Array:
    """norm."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return jnp.linalg.norm(x, ord, axis, keepdims)
    return _norm(x, selection, axis, keepdims)


@compiled("axis", "keepdims")
def _norm(x: Any, vector: Any, axis: Any, keepdims: bool) -> jax.Array:
    x = jnp.asarray(x)
    value = jnp.linalg.norm(lax.stop_gradient(x), None, axis, keepdims)
    squares = jnp.sum(jnp.real(x * jnp.conj(x)), axis, keepdims=keepdims)
    above = jnp.sqrt(jnp.where(squares == 0, 1, squares))
    below = 0 if vector is None else jnp.sum(jnp.real(jnp.conj(vector) * x), axis, keepdims=keepdims)
    return bind(squares, 0, above, below, 0.0, value, name="norm", at_nan="nan")
