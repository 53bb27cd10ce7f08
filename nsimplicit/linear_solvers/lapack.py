"""Factorisations and triangular solves by LAPACK, for one matrix or, with leading axes, for several.

A LAPACK call on a batch can stop for ever on a CPU (64 matrices of 512: in four processes of five).
Matrices one after another never did, so that is how lanes are solved there; elsewhere they are a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._lanes import one_by_one
from nsimplicit._tree import blank


def lu(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both factors in one matrix, and the permutation of its rows."""
    return jnp.vectorize(_lu, signature="(n,n)->(n,n),(n)")(matrix)


def cholesky(matrix: jax.Array) -> jax.Array:
    """The lower factor of a symmetric matrix, read from its lower triangle; nan where it is not definite."""
    return jnp.vectorize(_cholesky, signature="(n,n)->(n,n)")(matrix)


def triangular(matrix: jax.Array, b: jax.Array, *, lower: bool, unit: bool = False, transpose: bool = False):
    """The solution of a triangular system for columns ``(..., n, k)``, or for that of the transpose."""
    return jnp.vectorize(_triangular(lower, unit, transpose), signature="(n,n),(n,k)->(n,k)")(matrix, b)


@functools.partial(one_by_one, columns=True)
def cholesky_solve(lower: jax.Array, b: jax.Array) -> jax.Array:
    """The solution for columns ``(n, k)`` of the system whose Cholesky factor this is."""
    return _both_halves(lower, b)


@one_by_one
def solve_definite(matrix: jax.Array, b: jax.Array) -> jax.Array:
    """The solution for columns ``(n, k)`` of one definite system: under ``vmap`` the factor of a lane is not kept."""
    return _both_halves(lax.linalg.cholesky(matrix, symmetrize_input=False), b)


@one_by_one
def _lu(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    factors, pivots, _ = lax.linalg.lu(matrix)
    rows = jnp.arange(pivots.size, dtype=pivots.dtype)

    def swap(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # one kernel, where LAX's own permutation takes seven to compile
        i, order = carry
        p = lax.dynamic_index_in_dim(pivots, i, keepdims=False)
        here, there = (jnp.full_like(order, lax.dynamic_index_in_dim(order, k, keepdims=False)) for k in (i, p))
        return i + 1, lax.select(rows == i, there, lax.select(rows == p, here, order))

    start = blank(pivots[0]), rows + blank(pivots)
    return factors, lax.while_loop(lambda carry: carry[0] < pivots.size, swap, start)[1]


@one_by_one
def _cholesky(matrix: jax.Array) -> jax.Array:
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@functools.cache
def _triangular(lower: bool, unit: bool, transpose: bool) -> Callable[..., jax.Array]:
    options = {"left_side": True, "lower": lower, "unit_diagonal": unit, "transpose_a": transpose}
    return one_by_one(lambda matrix, b: lax.linalg.triangular_solve(matrix, b, **options), columns=True)


def _both_halves(lower: jax.Array, b: jax.Array) -> jax.Array:
    half = lax.linalg.triangular_solve(lower, b, left_side=True, lower=True)
    return lax.linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)
