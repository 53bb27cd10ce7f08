"""A linear map that is given as a matrix or as a function: its adjoint and its norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, cast_like
from nsimplicit.prox.base import as_float, matmul

Linear = Callable[[Any], Any]

POWER_STEPS = 50
"""Products with AᵀA for a norm that is not known: it comes out within a few percent, from below."""


def as_pytree(A: Any) -> Any:
    """A matrix as it is; a function as a pytree whose function is static and whose arguments are leaves."""
    return jax.tree_util.Partial(A) if callable(A) and not isinstance(A, jax.tree_util.Partial) else A


def forward_and_adjoint(A: Any, x: Any, y: Any, where: str) -> tuple[Linear, Linear]:
    """The map and its adjoint, checked: linear, from things like x to things like y.

    Args:
        A: a matrix, or a linear function of x.
        x: what it acts on.
        y: what comes out.
        where: the call, for error messages.
    """
    forward: Linear = A if callable(A) else lambda x: matmul(A, x)
    if not callable(A) and (jnp.ndim(A) != 2 or jnp.shape(x)[:1] != jnp.shape(A)[1:]):
        _misfit(where, f"A has shape {jnp.shape(A)}, x has {_shapes(x)}.", "a matrix of shape (m, n) with n = len(x)")
    out = jax.eval_shape(forward, x)
    if jax.tree.structure(out) != jax.tree.structure(y) or _shapes(out) != _shapes(y):
        _misfit(where, f"A x has {_shapes(out)}, y has {_shapes(y)}.", "z0 = splitting.start(x0)")

    def adjoint(y: Any) -> Any:
        (x_like,) = jax.linear_transpose(forward, x)(jax.tree.map(jnp.conj, cast_like(y, out)))
        return jax.tree.map(jnp.conj, x_like)

    try:
        jax.eval_shape(adjoint, y)
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            message(
                where,
                "A is a function that JAX cannot transpose, so it is not linear in x.",
                "The problem is min f(x) + g(A x) with a linear map A.",
                "a matrix",
                "lambda x: jnp.diff(x, axis=0), or any function made of linear operations",
            )
        ) from error
    return lambda x: cast_like(forward(x), y), lambda y: cast_like(adjoint(y), x)


def norm(A: Any, forward: Linear, adjoint: Linear, x: Any) -> jax.Array:
    """‖A‖, a constant: exact for a matrix, an estimate from below for a function."""
    if not callable(A):
        A = lax.stop_gradient(as_float(A))
        A = A if A.shape[0] < A.shape[1] else A.conj().T
        return jnp.sqrt(jnp.linalg.eigvalsh(matmul(A, A.conj().T))[-1])
    space, (leaves, tree) = Space(), jax.tree.flatten(x)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draws = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]

    def multiply(_: Any, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        v, length = carry
        v = adjoint(forward(space.scale(1 / jnp.where(length > 0, length, 1), v)))
        return v, space.norm(v)

    start = tree.unflatten(draws)
    _, square = lax.fori_loop(0, POWER_STEPS, multiply, (start, space.norm(start)))
    return lax.stop_gradient(jnp.sqrt(square))


def _shapes(tree: Any) -> Any:
    shapes = jax.tree.map(jnp.shape, tree)
    return f"shape {shapes}" if jax.tree_util.treedef_is_leaf(jax.tree.structure(tree)) else f"shapes {shapes}"


def _misfit(where: str, found: str, *tries: str) -> None:
    raise InputError(message(where, found, "The state is a pair (x, y) with y like A x.", *tries))
