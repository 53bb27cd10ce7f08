"""Whether the kinks of a computed solution are those of the exact one: what the guard ``Identified`` asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit.implicit.kink_system import lay_out, unresolved
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.operator import LinearSolver


def num_unresolved(
    traced: Traced, consts: Any, z: Any, solver: LinearSolver, again: Callable[[Any], Any] | None = None
) -> jax.Array:
    """How many kinks lie between z and the equation's own solution, as a Newton step tells.

    Args:
        traced: the equation.
        consts: what its programs close over.
        z: the computed solution.
        solver: for the Newton step.
        again: solves with M by factors at hand.
    """
    consts, z = jax.lax.stop_gradient((consts, z))
    kinked = lay_out(traced, consts, z, 0.0)
    if not kinked.num_kinks:
        return jnp.zeros((), jnp.int32)
    residual, operator = traced.linearise(consts, z)
    b = traced.equation.right_hand_side(residual)
    step = solver.solve(operator, b).value if again is None else again(b)
    return unresolved(kinked, kinked.program.consts, z, step)
