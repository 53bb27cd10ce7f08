"""What the lanes of a ``vmap`` do together.

Under ``vmap`` a branch on a number that differs between lanes becomes a select: every branch runs, for every lane.
Where the branches compute the same thing at different cost, the lanes can agree on the dearest branch that one of them
needs (:func:`largest`), and the branch stays a branch. A loop runs until the last lane is done; on a CPU lanes are
better taken one after another (:func:`one_by_one`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


@custom_vmap
def largest(x: jax.Array) -> jax.Array:
    """``x``; under ``vmap`` the largest over the lanes, the same for all of them."""
    return x


@largest.def_vmap
def _largest(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    return largest(jnp.max(x, 0) if in_batched[0] else x), False


def one_by_one(fun: Callable[..., Any], *, columns: bool = False) -> Callable[..., Any]:
    """``fun``, a function of arrays; under ``vmap`` a loop over the lanes on CPUs, a batch elsewhere.

    The precision of its products is that of the call: lanes are traced later, when what surrounded it has ended.
    With ``columns`` it is a function of a matrix and of the columns of its second argument: lanes of
    the second alone are more columns.
    """

    @functools.cache
    def with_precision(precision: Any) -> Callable[..., Any]:
        @custom_vmap
        def one(*args: jax.Array) -> Any:
            with jax.default_matmul_precision(precision):
                return fun(*args)

        @one.def_vmap
        def lanes(axis_size: int, in_batched: list[bool], *args: jax.Array) -> tuple[Any, Any]:
            if columns and in_batched == [False, True]:
                matrix, b = args
                wide = one(matrix, jnp.moveaxis(b, 0, 1).reshape(b.shape[1], -1))
                return jnp.moveaxis(wide.reshape(b.shape[1], axis_size, -1), 1, 0), True
            full = [
                x if b else jnp.broadcast_to(x, (axis_size, *x.shape)) for x, b in zip(args, in_batched, strict=True)
            ]
            in_turn, at_once = (lambda *rows: lax.map(lambda row: one(*row), rows)), jax.vmap(one.fun)
            out = lax.platform_dependent(*full, cpu=in_turn, default=at_once)
            return out, jax.tree.map(lambda _: True, out)

        return one

    def call(*args: jax.Array) -> Any:
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        return with_precision(precision)(*args)

    return functools.wraps(fun)(call)
