"""Picard iteration, relaxed."""

from __future__ import annotations

import dataclasses

from nsimplicit._records import config
from nsimplicit._tree import Space
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.operator import Vector
from nsimplicit.solvers.base import MapSolver, State, evaluate, start


@config
class Picard(MapSolver):
    """z <- (1 - r) z + r T(z).

    Args:
        relaxation: r in (0, 1] for a map that is barely stable; above 1 overshoots.
    """

    relaxation: float = 1.0

    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """Nothing to remember."""
        del problem
        state = start(z, space)
        return dataclasses.replace(state, last=None) if self.relaxation == 1.0 else state

    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One application of T."""
        image, move, residual = evaluate(problem, state.z, space)
        if self.relaxation == 1.0:
            return State(image, None, residual)
        return State(space.axpy(self.relaxation, move, state.z), image, residual)
