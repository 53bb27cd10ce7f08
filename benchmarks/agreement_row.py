"""What the table of agreement is made of: an operator, its definition, and the same operator elsewhere."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 0.7
SLACK = 1e-9  # a point of a set up to rounding errors


class Lazy:
    """A module imported when it is used, so that a row can say that it is missing."""

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.name), attribute)


jaxopt, scico, pyproximal = Lazy("jaxopt"), Lazy("scico.functional"), Lazy("pyproximal")
pylops, sklearn_isotonic, cp = Lazy("pylops"), Lazy("sklearn.isotonic"), Lazy("cvxpy")


def jaxopt_isotonic(x: Any) -> Any:
    """jaxopt's, which beside Numba must be handed an array it may write to: JAX's are read-only."""
    module: Any = importlib.import_module("jaxopt._src.isotonic")
    if hasattr(module._isotonic_l2_pav_numba, "py_func"):
        compiled = module._isotonic_l2_pav_numba
        module._isotonic_l2_pav_numba = lambda y: compiled(np.array(y))
    return module.isotonic_l2_pav(x)


@dataclasses.dataclass(frozen=True)
class Operator:
    """One prox or projection; every function takes the point and one parameter t.

    Args:
        name: what the row says.
        ours: ``(x, t) -> prox`` by nsimplicit.
        value: ``(u, t) -> g(u)`` in NumPy, as the peers define it; inf outside a set.
        peers: name -> ``(x, t) -> prox``; those of jaxopt and scico are differentiated too.
        convex: ``(u, t) -> (g, constraints)`` for a CVXPY variable u, or None.
        shape: of x.
        t: the parameter.
        scale: of the random x.
        notes: name of a peer -> what is to be known about its row.
    """

    name: str
    ours: Callable[[Any, Any], Any]
    value: Callable[[np.ndarray, float], float]
    peers: dict[str, Callable[[Any, Any], Any]]
    convex: Callable[[Any, float], tuple[Any, list[Any]]] | None = None
    shape: tuple[int, ...] = (7,)
    t: float = 0.8
    scale: float = 1.5
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def objective(self, u: np.ndarray, x: np.ndarray) -> float:
        """What the prox minimises."""
        return float(STEP * self.value(u, self.t) + np.sum((u - x) ** 2) / 2)


def zero_where(holds: Any) -> float:
    """The indicator of a set."""
    return 0.0 if np.all(holds) else np.inf


def by_cvxpy(operator: Operator, x: np.ndarray) -> np.ndarray:
    """The minimiser by an interior-point method, as accurate as it gets."""
    assert operator.convex is not None
    u = cp.Variable(operator.shape)
    term, constraints = operator.convex(u, operator.t)
    problem = cp.Problem(cp.Minimize(STEP * term + cp.sum_squares(u - x) / 2), constraints)
    for tolerance in (1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8):
        tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        try:
            problem.solve(solver="CLARABEL", **tight)
        except cp.error.SolverError:
            continue
        if problem.status == "optimal":
            return np.asarray(u.value)
    raise ArithmeticError(f"Clarabel: {problem.status} at every tolerance")
