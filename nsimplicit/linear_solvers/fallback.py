"""A cheap solver first, a sure one for the lanes it left unsolved."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._lanes import largest
from nsimplicit._records import config
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Vector,
    accepted_error,
    backward_error,
    coarsest_eps,
)


@config
class Fallback(LinearSolver):
    """``first``, and ``second`` where a lane's backward error is above 10·eps^(3/4), what a guard accepts.

    The second solver runs only if a lane needs it, also under ``vmap``; it starts where the first stopped.

    Args:
        first: the solver tried first.
        second: the solver for what it left.
    """

    first: LinearSolver
    second: LinearSolver

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        one = self.first.solve(operator, b, guess)
        failed = ~(backward_error(operator, b, one) <= accepted_error(coarsest_eps(b)))

        def again() -> tuple[Any, ...]:
            finite = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), one.value)
            two = self.second.solve(operator, b, finite)
            steps = one.num_steps + jnp.where(failed, two.num_steps, 0).astype(one.num_steps.dtype)
            numbers = ((one.norm, two.norm), (one.condition, two.condition))
            return space.where(failed, two.value, one.value), steps, *(jnp.where(failed, y, x) for x, y in numbers)

        def done() -> tuple[Any, ...]:
            return one.value, one.num_steps, one.norm, one.condition

        return LinearSolution(*lax.cond(largest(jnp.any(failed)), again, done))
