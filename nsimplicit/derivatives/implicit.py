"""Implicit differentiation: every mode, every order, memory flat in the number of steps."""

from __future__ import annotations

import dataclasses

from nsimplicit._records import config
from nsimplicit.derivatives.base import Derivative
from nsimplicit.implicit.guards import Guard, Solved
from nsimplicit.implicit.process import Outcome, Process
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.operator import LinearSolver


@config
class Implicit(Derivative):
    """The implicit function theorem at the solution: (dE/dz) dz = -(dE/dtheta) dtheta.

    Args:
        linear_solver: solves the tangent system; the default chooses by structure and size.
        guard: checks each solve and says what a failed one gives.
    """

    linear_solver: LinearSolver = Auto()
    guard: Guard = Solved()

    def solve(self, process: Process) -> Outcome:
        """Run without derivative, attach the equation's."""
        outcome = process.solve()
        z = process.attach(outcome.z, linear_solver=self.linear_solver, guard=self.guard)
        return dataclasses.replace(outcome, z=z)
