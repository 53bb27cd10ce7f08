"""Solutions that are fine, and solutions whose derivative must not be trusted, each for its own reason."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi

COVERED = frozenset({"diagnose", "Diagnosis"})

_A = np.random.default_rng(0).normal(size=(12, 4))
_B = _A @ np.array([1.0, -2.0, 0.0, 0.5])
_TWIN = np.column_stack([_A, _A[:, 0]])
_SINGULAR = jnp.array([[1.0, 1.0], [1.0, 1.0]])


def _lasso(A, weight=0.1, step=None):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, _B), nsi.prox.L1(weight), step)


def _solved(splitting, n):
    return nsi.fixed_point(splitting, jnp.zeros(n), tol=1e-13, max_steps=100_000).z


@nsi.custom_root(lambda x, a: x**2 - a, init_argnum=None)
def _square_root(a):
    return np.sqrt(a)


@nsi.custom_root(lambda x, a: x**2 - 2 * a, init_argnum=None)
def _of_another_problem(a):
    return np.sqrt(a)


@dataclass(frozen=True)
class Row:
    problem: Any
    args: tuple
    verdict: str
    condition: float | None = None  # by NumPy, where the matrix is at hand
    tolerance: float = 1e-6  # of the condition number, relative: SVD of a matrix built from products
    kinks: tuple[int, int] | None = None  # active, unresolved


_DIAGONAL = jnp.array([1.0, 1e-3, 20.0])

ROWS = {
    "decorated solver": Row(_square_root, (np.array([4.0, 9.0]),), "fine", 1.5),
    "optimality function": Row(lambda x, d: d * x - 1, (1 / _DIAGONAL, _DIAGONAL), "fine", 2e4),
    "splitting": Row(_lasso(_A), (_solved(_lasso(_A), 4),), "fine", kinks=(0, 0)),
    "forward solve stopped early": Row(_lasso(_A), (jnp.zeros(4),), "unconverged"),
    "solved loosely where the equation curves": Row(
        lambda x, a: jnp.exp(50 * x) - a, (jnp.log(2.0) / 50 + 2e-9, jnp.array(2.0)), "loose", 1.0
    ),
    "equation of another problem": Row(_of_another_problem, (np.array([4.0, 9.0]),), "unconverged"),
    "duplicated column": Row(_lasso(_TWIN), (_solved(_lasso(_TWIN), 5),), "singular"),
    "I - T' exactly singular": Row(nsi.equation_of(lambda z: z + 0 * _B[:2]), (jnp.ones(2),), "singular"),
    "singular but consistent": Row(lambda x, b: _SINGULAR @ x - b, (jnp.ones(2), 2 * jnp.ones(2)), "singular"),
    "nearly singular": Row(
        lambda x, d: d * x - 1, (jnp.array([1.0, 1e10]), jnp.array([1.0, 1e-10])), "ill conditioned", 1e10
    ),
    # clip at a tie: JAX's half gives a determinant of 1/4, the branch that keeps z gives none
    "another selection is singular": Row(
        lambda z: z - jnp.clip(z, 0.0, jnp.array([3.0, 5.0])), (jnp.array([3.0, 5.0]),), "irregular", kinks=(2, 0)
    ),
    "every selection is regular": Row(lambda z: z + nsi.relu(z), (jnp.zeros(2),), "fine", 1.0, kinks=(2, 0)),
    # The solution is 1 exactly, on the kink; this one is 1e-12 above it, on a slope of 2.
    "closer to a kink than to the solution": Row(
        lambda z: z - 1 + nsi.relu(z - 1), (jnp.array([1 + 1e-12]),), "unidentified", 1.0, kinks=(0, 1)
    ),
    "nan in the solution": Row(lambda x, a: x - a, (jnp.array([jnp.nan]), jnp.array([1.0])), "unsolved"),
    "beyond the dense size": Row(lambda x, a: 2 * x + jnp.sin(x) - a, (jnp.zeros(600), jnp.zeros(600)), "fine"),
}
