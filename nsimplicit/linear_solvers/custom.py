"""A user's ``solve(matvec, b)`` as a linear solver."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from nsimplicit._records import config
from nsimplicit.linear_solvers.operator import LinearSolution, LinearSolver, Operator, Product, Vector, quotient


@config
class Custom(LinearSolver):
    """Wraps ``fun(matvec, b) -> x``; it is called with M and, in reverse mode, with Mᵀ.

    A symmetric-only method on a nonsymmetric equation therefore meets the guard, not a wrong answer.

    Args:
        fun: a function of a product and a right-hand side, both on the same pytrees.
    """

    fun: Callable[[Product, Vector], Vector]

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        del guess
        space, x = operator.space, self.fun(operator.matvec, b)
        size = space.norm(x)
        norm = quotient(space.norm(operator.matvec(x)), size)
        return LinearSolution(x, (size * 0).astype(int), norm, size * 0 + jnp.nan)
