"""``lax.custom_linear_solve`` made safe for systems of several leaves (jax-ml/jax#10929).

Its transpose asks that every leaf of its right-hand side depend on the linear input. A leaf that
happens not to depends on nothing JAX can see, and an assertion fails: at first order a residual
without parameters, at second order an output nobody reads, or a product whose coefficients are
constants. Such leaves are *anchored*: they get a zero selected from what they should depend on.
A select costs nothing after XLA, and unlike a product with zero cannot turn an infinity into a nan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.calculus.program import varying
from nsimplicit.linear_solvers.operator import LinearSolver, Operator, Product, Vector

Solve = Callable[[Product, Any], Any]


def anchor(tree: Any, sources: Sequence[jax.Array]) -> Any:
    """The tree, each leaf of it depending linearly on every source, by a selected zero.

    A source that varies over more mesh axes than a leaf is summed over them: the leaf stays as
    replicated as it was.
    """

    def zero(source: jax.Array, leaf: jax.Array) -> jax.Array:
        # A select of the leaf's own shape leaves nothing behind; the transpose of an entry is an array of zeros,
        # which XLA takes out of a solver's loop, and so keeps, before it sees that it is zero.
        entry = lax.select(False, source, jnp.zeros_like(source)) if source.shape == leaf.shape else _first(source)
        entry = entry.astype(leaf.dtype)
        extra = varying(entry) - varying(leaf)
        return lax.psum(entry, tuple(extra)) if extra else entry

    return jax.tree.map(lambda x: sum((zero(s, x) for s in sources if s.size), x), tree)


def anchored_solve(
    product: Product,
    b: Any,
    solve: Solve,
    transpose_solve: Solve,
    *,
    sources: Sequence[jax.Array],
    coefficient: jax.Array | None = None,
) -> Any:
    """``lax.custom_linear_solve(product, b, solve, transpose_solve)``, anchored.

    Args:
        product: v -> M v on trees like ``b``.
        b: the right-hand side.
        solve: as in ``lax.custom_linear_solve``.
        transpose_solve: as in ``lax.custom_linear_solve``.
        sources: what ``b`` depends on linearly.
        coefficient: a value that has a derivative whenever M has one.
    """

    def anchored(v: Any) -> Any:
        out = anchor(product(v), jax.tree.leaves(v))
        if coefficient is None:
            return out
        # As a factor, so that it is there in the transpose too; XLA sees a product with 1, and leaves nothing of it.
        one = 1 + _first(coefficient)
        return jax.tree.map(lambda y: one.astype(y.dtype) * y, out)

    out = lax.custom_linear_solve(anchored, anchor(b, sources), solve, transpose_solve)
    return anchor(out, jax.tree.leaves(out))


def _first(source: jax.Array) -> jax.Array:
    """Zero, selected from the first entry."""
    entry = source[(0,) * source.ndim].real
    return lax.select(False, entry, jnp.zeros_like(entry))


def linear_solve(operator: Operator, b: Vector, solver: LinearSolver) -> Vector:
    """x with M x = b, differentiable in b and, to first order, in what M's product closes over."""

    def solve(_: Product, b: Vector) -> Vector:
        return solver.solve(operator, b).value

    def transpose_solve(rmatvec: Product, b: Vector) -> Vector:
        return solver.solve(operator.transpose(rmatvec), b).value

    return anchored_solve(operator.matvec, b, solve, transpose_solve, sources=jax.tree.leaves(b))
