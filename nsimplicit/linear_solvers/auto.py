"""The default linear solver: chooses by what is known of the matrix, its size and its place."""

from __future__ import annotations

from nsimplicit._records import config
from nsimplicit.linear_solvers.dense import Dense
from nsimplicit.linear_solvers.krylov import GMRES
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    ProxGradient,
    Vector,
    unknowns,
)
from nsimplicit.linear_solvers.prox_cg import ProxCG
from nsimplicit.linear_solvers.restricted_cholesky import RestrictedCholesky, reaches

DENSE_SIZE = 512
"""Largest matrix that is built and factored unasked: 2 MB and a few milliseconds in float64."""


@config
class Auto(LinearSolver):
    """Dense up to 512 unknowns a lane; beyond, ProxCG for a proximal gradient step, else GMRES.

    A state split over mesh axes always gets a Krylov method. The choice is static.
    """

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        return choose(operator, b).solve(operator, b, guess)


def choose(operator: Operator, b: Vector) -> LinearSolver:
    """The solver :class:`Auto` hands this system to."""
    space = operator.space
    if reaches(operator):
        return RestrictedCholesky()
    if unknowns(b, space) <= DENSE_SIZE and not space.axis_name:
        return Dense()
    return ProxCG() if isinstance(operator.structure, ProxGradient) else GMRES()
