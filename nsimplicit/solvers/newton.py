"""Semismooth Newton, for F(z) = 0 or T(z) = z, with a safeguard.

The step solves M d = -residual with M the selected element of the Jacobian. It is taken at the
first length 1, 1/2, 1/4, ... that lowers the residual by half of what it should; if none does, a
fixed-point equation takes the plain step T(z) instead. (Newton on a piecewise-linear equation can
cycle between two active sets for ever; the plain step of a contraction breaks the cycle.)

For derivatives the step is the full one and M a constant: dz⁺ = dz - M⁻¹(M dz + B dtheta) =
-M⁻¹ B dtheta, so one step at the solution already has the implicit derivative, and k steps the
derivatives up to order k. How far the value moved must not matter: at the solution the residual
is rounding noise, which no step lowers.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, add, subtract
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.anchor import linear_solve
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.operator import LinearSolver, Vector
from nsimplicit.solvers.base import Solver, State, relative, start

HALVINGS = 12
DECREASE = 0.5  # of what the linearisation promises; with 1e-4 ill-conditioned Lassos took ten times the steps


@config
class SemismoothNewton(Solver):
    """z <- z - t M⁻¹ residual(z), with the longest t = 1, 1/2, ... that lowers the residual.

    Args:
        linear_solver: solves with M; the default is chosen by size.
    """

    linear_solver: LinearSolver = Auto()
    contracts: ClassVar[bool] = False

    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """Nothing to remember."""
        del problem
        return start(z, space)

    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One linearisation, one solve, and at least two evaluations."""
        frozen = Bound(problem.traced, lax.stop_gradient(problem.consts))
        direction = self._direction(problem, state.z)
        z, d = lax.stop_gradient((state.z, direction))
        residual = frozen.residual(z)
        length = self._length(frozen, z, d, space.norm(residual), space)
        image = frozen.traced.equation.image(z, frozen.map(z))
        value = space.where(length > 0, space.axpy(length, d, z), image)

        # the derivative of the full step, as a zero; where M is singular there is no such step
        usable = jnp.isfinite(space.norm(d))
        step = space.where(usable, subtract(direction, d), jax.tree.map(jnp.zeros_like, d))
        carried = add(subtract(state.z, z), step)
        return State(add(value, carried), add(image, carried), relative(space, residual, z))

    def tail(self, problem: Bound, z: Vector, damping: float) -> Vector:
        """The full Newton step, damped."""
        return jax.tree.map(lambda x, d: x + damping * d, z, self._direction(problem, z))

    def _direction(self, problem: Bound, z: Vector) -> Vector:
        frozen = Bound(problem.traced, lax.stop_gradient(problem.consts))
        _, operator = frozen.linearise(lax.stop_gradient(z))
        return linear_solve(operator, problem.traced.equation.right_hand_side(problem.residual(z)), self.linear_solver)

    def _length(self, frozen: Bound, z: Vector, direction: Vector, size, space: Space):
        def good(length):
            # the norm itself: divided by 1 + ‖z‖, as the stopping test has it, running off looks like progress
            trial = space.axpy(length, direction, z)
            return space.norm(frozen.residual(trial)) <= (1 - DECREASE * length) * size

        def search(c):
            length, done, tries = c
            done = done | good(length)
            return jnp.where(done, length, length / 2), done, tries + 1

        one = jnp.ones_like(size) + 0 * size
        length, done, _ = lax.while_loop(
            lambda c: jnp.any(~c[1]) & (c[2] < HALVINGS), search, (one, jnp.isnan(size), 0)
        )
        return jnp.where(done, length, 0)
