"""Semismooth Newton, for F(z) = 0 or T(z) = z, with a safeguard.

The step solves M d = -residual with M the selected element of the Jacobian. It is taken at the
first length 1, 1/2, 1/4, ... that lowers the residual; if none does, a fixed-point equation takes
the plain step T(z) instead. (Newton on a piecewise-linear equation can cycle between two active
sets for ever; the plain step of a contraction breaks the cycle.)

For derivatives M is a constant: along the iterates dz⁺ = dz - M⁻¹(M dz + B dtheta) = -M⁻¹ B dtheta,
so one step at the solution already has the implicit derivative.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.anchor import linear_solve
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.operator import LinearSolver, Vector
from nsimplicit.solvers.base import Solver, State, relative, start

HALVINGS = 12


@dataclasses.dataclass(frozen=True)
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
        z = state.z
        size = relative(space, problem.residual(z), z)
        frozen = Bound(problem.traced, lax.stop_gradient(problem.consts))
        direction = self._direction(problem, z)
        length = self._length(frozen, lax.stop_gradient(z), lax.stop_gradient(direction), size, space)
        newton = space.axpy(length, direction, z)
        image = problem.traced.equation.image(z, problem.map(z))
        z = space.where(length > 0, newton, image)
        return State(z, image, size)

    def tail(self, problem: Bound, z: Vector, damping: float) -> Vector:
        """The full Newton step, damped."""
        return jax.tree.map(lambda x, d: x + damping * d, z, self._direction(problem, z))

    def _direction(self, problem: Bound, z: Vector) -> Vector:
        frozen = Bound(problem.traced, lax.stop_gradient(problem.consts))
        _, operator = frozen.linearise(lax.stop_gradient(z))
        return linear_solve(operator, problem.traced.equation.right_hand_side(problem.residual(z)), self.linear_solver)

    def _length(self, frozen: Bound, z: Vector, direction: Vector, size, space: Space):
        def good(length):
            trial = space.axpy(length, direction, z)
            return relative(space, frozen.residual(trial), trial) <= (1 - 1e-4 * length) * size

        def search(c):
            length, done, tries = c
            done = done | good(length)
            return jnp.where(done, length, length / 2), done, tries + 1

        one = jnp.ones_like(size) + 0 * size
        length, done, _ = lax.while_loop(
            lambda c: jnp.any(~c[1]) & (c[2] < HALVINGS), search, (one, jnp.isnan(size), 0)
        )
        return jnp.where(done, length, 0)
