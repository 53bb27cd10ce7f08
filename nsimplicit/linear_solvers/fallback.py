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

    A residual that ``first`` has followed is believed, with the rounding it may have gathered. The second solver
    runs only if a lane needs it, also under ``vmap``; it starts where the first stopped.

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
        most = accepted_error(coarsest_eps(b))
        if one.followed is None:
            failed = ~(backward_error(operator, b, one) <= most)
        else:
            failed = ~(one.followed <= most * space.norm(b))

        def again() -> tuple[Any, ...]:
            finite = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), one.value)
            two = self.second.solve(operator, b, finite)
            return two.value, (one.num_steps + two.num_steps.astype(one.num_steps.dtype), two.norm, two.condition)

        def done() -> tuple[Any, ...]:
            return one.value, numbers

        numbers = (one.num_steps, one.norm, one.condition)
        value, new = lax.cond(largest(jnp.any(failed)), again, done)
        steps, norm, condition = (jnp.where(failed, x, y) for x, y in zip(new, numbers, strict=True))
        return LinearSolution(space.where(failed, value, one.value), steps, norm, condition)
