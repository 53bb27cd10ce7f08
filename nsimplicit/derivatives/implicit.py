"""Implicit differentiation: every mode, every order, memory flat in the number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit.derivatives.base import Derivative
from nsimplicit.implicit.guards import Guard, Solved
from nsimplicit.implicit.process import Outcome, Process
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.custom import Custom
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


def with_solve(derivative: Derivative, solve: Callable[..., Any] | None, where: str) -> Derivative:
    """The derivative with a user's ``solve(matvec, b)`` as its linear solver."""
    if solve is None:
        return derivative
    if isinstance(derivative, Implicit):
        return dataclasses.replace(derivative, linear_solver=Custom(solve))
    raise InputError(
        message(
            f"{where}(solve=..., derivative={derivative})",
            "this derivative solves no linear system.",
            "solve(matvec, b) is shorthand for the linear solver of derivatives.Implicit.",
            "leave solve out",
            "leave derivative out",
        )
    )
