"""Hermitian linear systems inside a prox: factored once, differentiated through the system."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._tree import blank
from nsimplicit.prox.base import as_float, matmul


def working(*arrays: Any) -> list[jax.Array]:
    """The arrays in one dtype, at least float32: factorisations have no 16-bit version."""
    return [jnp.asarray(x, jnp.result_type(jnp.float32, *map(as_float, arrays))) for x in arrays]


def back(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x`` in the precision of ``like``."""
    return x if jnp.iscomplexobj(x) != jnp.iscomplexobj(like) else x.astype(like.dtype)


def match(x: jax.Array, n: int, where: str, shape: tuple[int, ...]) -> None:
    """Raise unless a matrix of that shape, with n columns, can multiply x."""
    if x.ndim == 0 or x.shape[0] != n:
        raise InputError(
            message(
                where,
                f"the matrix has shape {shape}, x has shape {x.shape}.",
                f"The first axis of x must have {n} entries, one for each column of the matrix.",
                f"x of shape ({n},)",
            )
        )


def hermitian_solver(matrix: jax.Array) -> Callable[..., jax.Array]:
    """``solve(system, b, *params)`` for a Hermitian positive definite matrix, the one that ``system`` multiplies by.

    M = L L^H is factored here, once, from constants. Applying L^-H (L^-1 b) with L^-1 at hand is
    backward stable (residual 5e-16 at condition 1e10, where the product with M^-1 leaves 1e-8) and
    puts products, not LAPACK calls, into loops: in a batched loop on CPUs those were seen to hang.
    """
    lower = lax.linalg.cholesky(lax.stop_gradient(matrix))
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    inverse = lax.linalg.triangular_solve(lower, identity, left_side=True, lower=True)

    def solve(b: jax.Array, inverse: jax.Array) -> jax.Array:
        return matmul(inverse.conj().T, matmul(inverse, b))

    return lambda system, b, *params: linear_solve(system, b, *params, solve=solve, constants=(inverse,), like=b)


def linear_solve(
    system: Callable[..., jax.Array],
    b: jax.Array,
    *params: jax.Array,
    solve: Callable[..., jax.Array],
    constants: tuple[jax.Array, ...],
    like: jax.Array,
) -> jax.Array:
    """v with ``system(v, *params) = b``, as ``solve(b, *constants)``; the system is Hermitian.

    Derivatives of every order, in b and in the parameters, go through ``system``; ``solve`` is never
    differentiated. Inside ``shard_map`` all arguments are made to vary over the same mesh axes, by
    adding a zero: ``custom_linear_solve`` wants its functions typed like its right-hand side. What
    the zero is made of must not be a tangent; ``like`` is a value that varies as b does.
    """
    arrays = (*params, *constants)
    rest: Any = arrays
    # Only where it is needed: in a loop the zero would make a copy of the matrix for every step.
    if len({jax.typeof(x).manual_axis_type for x in (like, b, *arrays)}) > 1:
        zero = functools.reduce(jnp.add, [blank(lax.stop_gradient(x[(0,) * x.ndim].real)) for x in (like, *arrays)])
        b, *rest = (x + zero.astype(x.dtype) for x in (b, *arrays))
    live, frozen = rest[: len(params)], rest[len(params) :]

    def transpose_solve(_: Any, b: jax.Array) -> jax.Array:
        return solve(b.conj(), *frozen).conj()

    return lax.custom_linear_solve(lambda v: system(v, *live), b, lambda _, b: solve(b, *frozen), transpose_solve)
