"""The default linear solver: chooses by what is known of the matrix, its size and its place.

The rule is read off a table, ``python -m benchmarks.run --only auto``.
"""

from __future__ import annotations

from nsimplicit._records import config
from nsimplicit.linear_solvers.dense import PLAIN_SIZE, Dense
from nsimplicit.linear_solvers.fallback import Fallback
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
from nsimplicit.linear_solvers.short_recurrences import BiCGStab, NormalCG

DENSE_SIZE = 512
"""Largest matrix that is built and factored unasked: 2 MB and a few milliseconds in float64."""
LAST_RESORT_SIZE = 2048
"""Largest matrix that is built where a Krylov method failed: 32 MB in float64."""


@config
class Auto(LinearSolver):
    """Chooses by structure, size and place; the choice is static.

    =============================================  ===================================================
    forward-backward, columns of f at hand         RestrictedCholesky
    forward-backward, more than 64 unknowns        ProxCG
    up to 512 unknowns, or lanes of up to 64       Dense
    up to 2048                                     BiCGStab, at most n/10 products; then Dense
    more, lanes, or a state split over a mesh      BiCGStab; then NormalCG: a dozen vectors of memory
    =============================================  ===================================================

    Douglas-Rachford splitting and ADMM with a smooth f count as forward-backward. Lanes are those of a
    ``batch_axis``; more than 64 unknowns are not factored for each lane, which takes n² memory a lane.
    """

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        return choose(operator, b).solve(operator, b, guess)


def choose(operator: Operator, b: Vector) -> LinearSolver:
    """The solver :class:`Auto` hands this system to."""
    space, size = operator.space, unknowns(b, operator.space)
    small = size <= PLAIN_SIZE and not space.axis_name
    alone = space.batch_axis is None and not space.axis_name
    if reaches(operator):
        return RestrictedCholesky()
    if isinstance(operator.structure, ProxGradient) and not small:
        return ProxCG()
    if small or (alone and size <= DENSE_SIZE):
        return Dense()
    if alone and size <= LAST_RESORT_SIZE:
        return Fallback(BiCGStab(max_steps=size // 10), Dense())
    return Fallback(BiCGStab(), NormalCG())
