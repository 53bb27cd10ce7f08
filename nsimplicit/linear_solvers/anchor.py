"""``lax.custom_linear_solve`` made safe for systems of several leaves (jax-ml/jax#10929).

It transposes only if every leaf of its right-hand side, and of its product, depends on the linear
input. Leaves that happen not to are *anchored*: they get a zero selected from the input. A select
costs nothing after XLA, and unlike a product with zero cannot turn an infinity into a nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.calculus.replay import varying
from nsimplicit.linear_solvers.operator import LinearSolver, Operator, Product, Vector


def anchor(tree: Any, sources: Sequence[jax.Array]) -> Any:
    """The tree, each leaf of it depending linearly on every source, by a selected zero.

    A source that varies over more mesh axes than a leaf is summed over them: the leaf stays as
    replicated as it was.
    """

    def zero(source: jax.Array, leaf: jax.Array) -> jax.Array:
        entry = source[(0,) * source.ndim].real
        entry = lax.select(False, entry, jnp.zeros_like(entry)).astype(leaf.dtype)
        extra = varying(entry) - varying(leaf)
        return lax.psum(entry, tuple(extra)) if extra else entry

    return jax.tree.map(lambda x: sum((zero(s, x) for s in sources if s.size), x), tree)


def linear_solve(operator: Operator, b: Vector, solver: LinearSolver) -> Vector:
    """x with M x = b, differentiable in b and in what M's product closes over, in every mode."""
    leaves = jax.tree.leaves(b)

    def product(v: Vector) -> Vector:
        return anchor(operator.matvec(v), jax.tree.leaves(v))

    def solve(_: Product, b: Vector) -> Vector:
        return solver.solve(operator, b).value

    def transpose_solve(rmatvec: Product, b: Vector) -> Vector:
        return solver.solve(operator.transpose(rmatvec), b).value

    return lax.custom_linear_solve(product, anchor(b, leaves), solve, transpose_solve)
