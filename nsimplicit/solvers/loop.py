"""The one loop: iterate until every lane has met its own stopping test.

A lane stops when its residual is at most ``tol``, when it is nan, or after ``max_steps``; stopped
lanes are frozen, so each lane's answer and step count are what they would be alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space
from nsimplicit.implicit.process import Bound, Outcome
from nsimplicit.linear_solvers.operator import Vector
from nsimplicit.solvers.base import Solver, State, freeze


def iterate(solver: Solver, problem: Bound, z: Vector, space: Space, *, tol: Any, max_steps: Any) -> Outcome:
    """Step until ``residual <= tol`` in every lane.

    Args:
        solver: the iteration.
        problem: the equation, without derivative.
        z: where to start.
        space: lanes and mesh axes of z.
        tol: relative: ‖T(z) - z‖ <= tol·(1 + ‖z‖), or ‖F(z)‖ <= tol·(1 + ‖z‖). May be traced.
        max_steps: largest number of evaluated steps. May be traced.

    Returns:
        The outcome, with one residual, count and verdict per lane.
    """
    state = solver.init(problem, z, space)
    steps = (jnp.isnan(state.residual) * 0).astype(jnp.int32)

    def active(c: tuple[State, jax.Array]) -> jax.Array:
        state, steps = c
        return (state.residual > tol) & (steps < max_steps)

    def body(c: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, steps = c
        on = active(c)
        return freeze(space, on, solver.step(problem, state, space), state), steps + on.astype(steps.dtype)

    state, steps = lax.while_loop(lambda c: jnp.any(active(c)), body, (state, steps))
    return Outcome(state.image, state.residual, steps, state.residual <= tol)


def unroll(
    solver: Solver, problem: Bound, z: Vector, space: Space, *, steps: int, tol: Any, checkpoint: bool
) -> Outcome:
    """Exactly ``steps`` steps, as a scan that can be differentiated in every mode.

    With ``checkpoint`` the scan is cut into about √steps stretches that are recomputed in the
    backward pass: memory grows like √steps, at twice the forward work.
    """
    state = solver.init(problem, z, space)

    def one(state: State, _: None) -> tuple[State, None]:
        return solver.step(problem, state, space), None

    def stretch(state: State, length: int) -> State:
        return lax.scan(one, state, None, length=length)[0]

    if checkpoint:
        length = max(1, round(steps**0.5))
        again = jax.checkpoint(lambda s, _: (stretch(s, length), None))
        state = lax.scan(again, state, None, length=steps // length)[0]
        state = stretch(state, steps % length)
    else:
        state = stretch(state, steps)
    count = (jnp.isnan(lax.stop_gradient(state.residual)) * 0).astype(jnp.int32) + steps
    residual = lax.stop_gradient(state.residual)
    return Outcome(state.image, residual, count, residual <= tol)
