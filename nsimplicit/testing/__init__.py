"""The laws of proxes, projections, solvers and splittings, as functions to call on one's own."""

from nsimplicit.testing.prox import check_projection, check_prox
from nsimplicit.testing.solver import check_solver
from nsimplicit.testing.splitting import check_splitting

__all__ = ["check_projection", "check_prox", "check_solver", "check_splitting"]
