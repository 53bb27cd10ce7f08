"""Whether the kinks of a computed solution are those of the exact one: what the guard ``Identified`` asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit.implicit.kink_system import lay_out
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.operator import LinearSolver, Vector


def num_unresolved(traced: Traced, consts: Any, z: Vector, step: Vector, tolerance: float) -> jax.Array:
    """How many kinks a step from z to the equation's own solution may cross: their branch is not known.

    A kink that stays at zero along the step is known: an exact zero of a sparse solution.

    Args:
        traced: the equation.
        consts: what its programs close over.
        z: the computed solution.
        step: the Newton step there.
        tolerance: keys of an ordering closer than this, relative, count as tied.
    """
    consts, z = jax.lax.stop_gradient((consts, z))
    kinked = lay_out(traced, consts, z, tolerance)
    if not kinked.num_kinks:
        return jnp.zeros((), jnp.int32)
    leaves, moves = jax.tree.leaves(z), jax.tree.leaves(step)
    captured = kinked.program.consts
    distance, slope = jax.jvp(lambda *leaves: kinked.survey(captured, leaves).distance, leaves, moves)
    return jnp.sum((distance > 0) & (distance <= 10 * jnp.abs(slope))).astype(jnp.int32)


def newton_step(
    traced: Traced, consts: Any, z: Vector, solver: LinearSolver, again: Callable[[Any], Any] | None = None
) -> Vector:
    """The Newton step at z, without derivative; ``again`` solves with M by factors at hand."""
    consts, z = jax.lax.stop_gradient((consts, z))
    residual, operator = traced.linearise(consts, z)
    b = traced.equation.right_hand_side(residual)
    return solver.solve(operator, b).value if again is None else again(b)
