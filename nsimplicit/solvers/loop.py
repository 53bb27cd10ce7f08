"""A fixed number of steps, as a scan that can be differentiated; :meth:`Solver.iterate` is the other loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space
from nsimplicit.implicit.process import Bound, Outcome
from nsimplicit.linear_solvers.operator import Vector
from nsimplicit.solvers.base import Solver, State


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
