"""The laws of proxes, projections, solvers and splittings, as functions to call on one's own."""

from nsimplicit.testing.prox import check_projection, check_prox

__all__ = ["check_projection", "check_prox"]
