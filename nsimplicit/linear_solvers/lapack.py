"""Factorisations and triangular solves by LAPACK, for one matrix or, with leading axes, for several.

A LAPACK call on a batch can stop for ever on a CPU (64 matrices of 512: in four processes of five).
Matrices one after another never did, so that is how lanes are solved there; elsewhere they are a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


def lu(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both factors in one matrix, and the permutation of its rows."""
    return jnp.vectorize(_lu, signature="(n,n)->(n,n),(n)")(matrix)


def cholesky(matrix: jax.Array) -> jax.Array:
    """The lower factor of a symmetric matrix, read from its lower triangle; nan where it is not definite."""
    return jnp.vectorize(_cholesky, signature="(n,n)->(n,n)")(matrix)


def triangular(matrix: jax.Array, b: jax.Array, *, lower: bool, unit: bool = False, transpose: bool = False):
    """The solution of a triangular system for columns ``(..., n, k)``, or for that of the transpose."""
    return jnp.vectorize(_triangular(lower, unit, transpose), signature="(n,n),(n,k)->(n,k)")(matrix, b)


def one_by_one(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun``, a function of arrays; under ``vmap`` a loop over the lanes on CPUs, a batch elsewhere.

    Lanes of the second argument alone, the columns of a system with one matrix, are more columns.
    """

    @custom_vmap
    def one(*args: jax.Array) -> Any:
        return fun(*args)

    @one.def_vmap
    def lanes(axis_size: int, in_batched: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        if in_batched == [False, True]:
            matrix, b = args
            wide = one(matrix, jnp.moveaxis(b, 0, 1).reshape(b.shape[1], -1))
            return jnp.moveaxis(wide.reshape(b.shape[1], axis_size, -1), 1, 0), True
        full = [x if b else jnp.broadcast_to(x, (axis_size, *x.shape)) for x, b in zip(args, in_batched, strict=True)]
        out = lax.platform_dependent(*full, cpu=lambda *a: lax.map(lambda a: one(*a), a), default=jax.vmap(fun))
        return out, jax.tree.map(lambda _: True, out)

    return one


@one_by_one
def _lu(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    factors, pivots, _ = lax.linalg.lu(matrix)
    rows = jnp.arange(pivots.size, dtype=pivots.dtype)

    def swap(i: jax.Array, order: jax.Array) -> jax.Array:
        # one kernel, where LAX's own permutation takes seven to compile
        p = pivots[i]
        return jnp.where(rows == i, order[p], jnp.where(rows == p, order[i], order))

    return factors, lax.fori_loop(0, pivots.size, swap, rows)


@one_by_one
def _cholesky(matrix: jax.Array) -> jax.Array:
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@functools.cache
def _triangular(lower: bool, unit: bool, transpose: bool) -> Callable[..., jax.Array]:
    options = {"left_side": True, "lower": lower, "unit_diagonal": unit, "transpose_a": transpose}
    return one_by_one(lambda matrix, b: lax.linalg.triangular_solve(matrix, b, **options))
