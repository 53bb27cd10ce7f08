"""A basis of the span of some columns, to which columns are added and from which they are taken: products alone.

Beside the orthonormal directions the basis keeps what they are made of, ``q = columns @ made``: with one product
each, ``made @ q.T`` is the pseudo-inverse of the columns in it, and ``made @ made.T`` the inverse of their Gram matrix.
The Gram matrix itself, whose condition number is a square, is never there; nor is a factorisation of LAPACK's, which
does not belong into a batched loop (:mod:`nsimplicit.prox.hermitian`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsimplicit.prox.base import matmul
from nsimplicit.prox.boundary import magnitude


class Basis(NamedTuple):
    """Orthonormal directions in the columns of ``q``, zero in free slots, with ``q = columns @ made``."""

    q: jax.Array
    made: jax.Array


def empty(size: int, columns: int, dtype: Any) -> Basis:
    """A basis of nothing yet, with a slot for each direction there can be."""
    slots = min(size, columns)
    return Basis(jnp.zeros((size, slots), dtype), jnp.zeros((columns, slots), dtype))


def apart(basis: Basis, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The part of v off the span, its length, and the coordinates of the rest. Twice is enough (Kahan)."""
    along = matmul(v, basis.q)
    rest = v - matmul(basis.q, along)
    again = matmul(rest, basis.q)
    rest = rest - matmul(basis.q, again)
    return rest, jnp.sqrt(jnp.sum(rest * rest)), along + again


def add(basis: Basis, column: jax.Array, rest: jax.Array, size: jax.Array, along: jax.Array) -> Basis:
    """With a column, of which ``apart`` was found, in the first free slot."""
    free = jnp.all(basis.q == 0, axis=0)
    slot = (jnp.arange(free.shape[0]) == jnp.argmax(free)) & free
    entry = (jnp.arange(basis.made.shape[0]) == column).astype(rest.dtype)
    made = (entry - matmul(basis.made, along)) / size
    return Basis(basis.q + jnp.where(slot, (rest / size)[:, None], 0), basis.made + jnp.where(slot, made[:, None], 0))


def drop(basis: Basis, column: jax.Array) -> Basis:
    """Without a column: a reflection turns what it alone spans into one slot, which is freed."""
    own = basis.made[column]
    at = jnp.argmax(magnitude(own))
    slot = jnp.arange(own.shape[0]) == at
    size = jnp.sqrt(jnp.sum(own * own))
    v = own + jnp.where(slot, jnp.where(own[at] < 0, -size, size), 0)
    square = jnp.sum(v * v)
    scale = 2 / jnp.where(square > 0, square, 1)

    def turn(m: jax.Array) -> jax.Array:
        return jnp.where(slot, 0, m - scale * matmul(m, v)[:, None] * v)

    made = turn(basis.made)
    return Basis(turn(basis.q), jnp.where((jnp.arange(made.shape[0]) == column)[:, None], 0, made))
