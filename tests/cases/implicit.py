"""One row per kind of equation: the equation as JAX sees it, and a solver JAX cannot look into.

The solvers are NumPy, reached through a host callback, so no test can pass by differentiating through one. The
reference for every order differentiates Newton steps taken at the solution, which the package never does; the first
order is also compared with central differences of the NumPy solution.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import nsimplicit as nsi

COVERED = frozenset(
    """custom_root custom_fixed_point root_jvp root_vjp host equation_of tap Report
    NsimplicitError InputError DerivativeError
    guards.Guard guards.Off guards.Solved guards.Conditioned
    linear_solvers.Auto linear_solvers.BiCGStab linear_solvers.CG linear_solvers.Custom linear_solvers.Dense
    linear_solvers.Fallback linear_solvers.FixedPointAdjoint linear_solvers.RestrictedCholesky
    linear_solvers.GMRES linear_solvers.NormalCG
    linear_solvers.LinearSolution linear_solvers.LinearSolver linear_solvers.Operator linear_solvers.ProxCG""".split()
)


@dataclasses.dataclass(frozen=True)
class Row:
    """An equation, its solution by NumPy, and a point.

    Args:
        equation: F(z, *theta), or T(z, *theta) where ``decorate`` is ``custom_fixed_point``.
        solution: theta -> z in NumPy.
        theta: the parameters.
        smooth: whether Newton steps on the raveled residual make sense (real leaves).
    """

    equation: Callable[..., Any]
    solution: Callable[..., Any]
    theta: tuple[Any, ...]
    decorate: Callable[..., Any] = nsi.custom_root
    smooth: bool = True

    def solver(self, **options: Any) -> Callable[..., Any]:
        """The decorated host solver; it takes no starting point."""
        like = jax.tree.map(np.asarray, self.solution(*self.theta))
        return self.decorate(self.equation, init_argnum=None, **options)(nsi.host(self.solution, like=like))

    def newton(self, *theta: Any) -> Any:
        """The solution as three Newton steps at the solution: exact derivatives up to order seven."""
        z, unravel = ravel_pytree(self.solution(*self.theta))
        at_root = self.decorate is nsi.custom_root

        def residual(z):
            out = self.equation(unravel(z), *theta)
            return ravel_pytree(out)[0] if at_root else ravel_pytree(out)[0] - z

        for _ in range(3):
            z = z - jnp.linalg.solve(jax.jacfwd(residual)(z), residual(z))
        return unravel(z)


rng = np.random.default_rng(0)
A = rng.normal(size=(3, 3)) + 3 * np.eye(3)  # nonsymmetric
B = rng.normal(size=(3, 2))  # rectangular
T = rng.normal(size=2)


def nonlinear(x, A, B, t):
    return A @ x + jnp.tanh(x) * t[0] / 2 - B @ jnp.sin(t)


def solve_nonlinear(A, B, t):
    x = np.zeros(3)
    for _ in range(30):
        slope = A + np.diag(t[0] / 2 * (1 - np.tanh(x) ** 2))
        x = x - np.linalg.solve(slope, A @ x + np.tanh(x) * t[0] / 2 - B @ np.sin(t))
    return x


def leaves(z, t):
    """A dictionary of residuals for a dictionary of unknowns, in another order and of other shapes.

    One residual does not depend on theta; one is linear in z, so its product does not depend on z; one unknown
    enters no residual but its own; and an entry of the state is None.
    """
    x, (y, w), n = z["x"], z["yw"], z["none"]
    assert n is None
    return [
        y**3 + y - 2.0,
        jnp.append(2 * w - t[:2], A[0] @ x[0] + jnp.tanh(x[0, 0]) - t[0] * y),
        (A[1:] @ x[0] - t[1:]),
    ]


def solve_leaves(t):
    w, x = t[:2] / 2, np.zeros(3)
    for _ in range(30):
        slope = A.copy()
        slope[0, 0] += 1 - np.tanh(x[0]) ** 2
        x = x - np.linalg.solve(slope, A @ x - t + np.array([np.tanh(x[0]), 0, 0]))
    return {"x": x[None], "yw": (np.array(1.0), w), "none": None}


def contraction(z, W, b):
    return 0.5 * jnp.tanh(W @ z) + jnp.sin(b)


def solve_contraction(W, b):
    z = np.zeros(3)
    for _ in range(200):
        z = 0.5 * np.tanh(W @ z) + np.sin(b)
    return z


C = A + 1j * rng.normal(size=(3, 3))


def conjugate(z, c):
    """Not holomorphic: an equation over the reals."""
    return C @ z + 0.4 * jnp.conj(z) - c * jnp.abs(c[0])


def solve_conjugate(c):
    block = np.block([[C.real + 0.4 * np.eye(3), -C.imag], [C.imag, C.real - 0.4 * np.eye(3)]])
    right = c * np.abs(c[0])
    z = np.linalg.solve(block, np.concatenate([right.real, right.imag]))
    return z[:3] + 1j * z[3:]


ROWS = {
    "nonlinear": Row(nonlinear, solve_nonlinear, (A, B, T)),
    "leaves": Row(leaves, solve_leaves, (rng.normal(size=3),)),
    "fixed point": Row(contraction, solve_contraction, (A / 4, rng.normal(size=3)), decorate=nsi.custom_fixed_point),
    "complex": Row(conjugate, solve_conjugate, (rng.normal(size=3) + 1j * rng.normal(size=3),), smooth=False),
}
