"""jaxopt's interface: change the import, keep the program. jaxopt itself is not needed.

    from nsimplicit.compat import jaxopt
    from nsimplicit.compat.jaxopt import implicit_diff, linear_solve, objective, projection, prox

What is the same and what differs, case by case: ``docs/migrating_from_jaxopt.md``.
"""

from typing import Any, NoReturn

from nsimplicit.compat.jaxopt import base, implicit_diff, linear_solve, objective, projection, prox
from nsimplicit.compat.jaxopt._block_cd import BlockCoordinateDescent
from nsimplicit.compat.jaxopt._fixed_point import AndersonAcceleration, FixedPointIteration
from nsimplicit.compat.jaxopt._proximal_gradient import ProjectedGradient, ProximalGradient
from nsimplicit.compat.jaxopt.base import OptStep

__all__ = [
    "AndersonAcceleration",
    "BlockCoordinateDescent",
    "FixedPointIteration",
    "OptStep",
    "ProjectedGradient",
    "ProximalGradient",
    "base",
    "implicit_diff",
    "linear_solve",
    "objective",
    "projection",
    "prox",
]

_ELSEWHERE = {
    **dict.fromkeys(("LBFGS", "BFGS", "NonlinearCG", "GradientDescent", "LBFGSB"), "optax.lbfgs, optimistix.minimise"),
    **dict.fromkeys(("ArmijoSGD", "PolyakSGD", "OptaxSolver"), "optax"),
    **dict.fromkeys(("GaussNewton", "LevenbergMarquardt"), "optimistix.least_squares"),
    **dict.fromkeys(("Bisection", "Broyden", "ScipyRootFinding"), "nsimplicit.root, or custom_root around a solver"),
    **dict.fromkeys(("OSQP", "BoxOSQP", "CvxpyQP", "EqualityConstrainedQP", "BoxCDQP"), "nsimplicit.layers.qp"),
    **dict.fromkeys(("tree_util", "loop"), "jax.tree, optax.tree_utils, jax.lax"),
}


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        _refuse(name)
    raise AttributeError(name)


def _refuse(name: str) -> NoReturn:
    instead = _ELSEWHERE.get(name, "jaxopt's own, with custom_root from here around it")
    raise AttributeError(
        f"`nsimplicit.compat.jaxopt.{name}`: there is no such name here. This module has what an implicit derivative "
        f"needs, not all of jaxopt. Try: (a) {instead}; (b) docs/migrating_from_jaxopt.md."
    )
