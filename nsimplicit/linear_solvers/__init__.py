"""Solvers for the tangent system M x = b, where M is known by its products."""

from nsimplicit.linear_solvers.auto import Auto as Auto
from nsimplicit.linear_solvers.custom import Custom as Custom
from nsimplicit.linear_solvers.dense import Dense as Dense
from nsimplicit.linear_solvers.fallback import Fallback as Fallback
from nsimplicit.linear_solvers.fixed_point_adjoint import FixedPointAdjoint as FixedPointAdjoint
from nsimplicit.linear_solvers.krylov import CG as CG
from nsimplicit.linear_solvers.krylov import GMRES as GMRES
from nsimplicit.linear_solvers.operator import LinearSolution as LinearSolution
from nsimplicit.linear_solvers.operator import LinearSolver as LinearSolver
from nsimplicit.linear_solvers.operator import Operator as Operator
from nsimplicit.linear_solvers.prox_cg import ProxCG as ProxCG
from nsimplicit.linear_solvers.restricted_cholesky import RestrictedCholesky as RestrictedCholesky
from nsimplicit.linear_solvers.short_recurrences import BiCGStab as BiCGStab
from nsimplicit.linear_solvers.short_recurrences import NormalCG as NormalCG

__all__ = [
    "Auto",
    "BiCGStab",
    "CG",
    "Custom",
    "Dense",
    "Fallback",
    "FixedPointAdjoint",
    "GMRES",
    "LinearSolution",
    "LinearSolver",
    "NormalCG",
    "Operator",
    "ProxCG",
    "RestrictedCholesky",
]
