"""Every splitting x solver x derivative that makes sense, run well past convergence, against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.axes import DERIVATIVES, FORWARD_ONLY, PROBLEMS, QUICK, SOLVERS

D, S = nsi.derivatives, nsi.solvers

EXACT = ("Implicit", "Unrolled", "Piggyback", "Truncated", "Neumann")
MAIN = ("FB lasso", "DR lasso, relaxation 1.5", "ADMM trend filtering")
CELLS = [
    (problem, solver, mode)
    for problem, solver, mode in itertools.product(MAIN, SOLVERS, EXACT)
    if (solver, mode) != ("SemismoothNewton", "Neumann") and solver != "Picard, relaxed"
]
CELLS += [(problem, "Picard", mode) for problem in PROBLEMS if problem not in MAIN for mode in EXACT[:2]]
CELLS += [
    ("FB lasso", "Picard, relaxed", "Unrolled"),
    ("PR lasso", "Picard, relaxed", "Piggyback"),
    ("ADMM lasso", "Nesterov", "Truncated"),
    ("DR lasso", "Anderson", "Unrolled, checkpoint"),
    ("ADMM lasso", "SemismoothNewton", "OneStep"),
    ("DR inverse covariance", "Anderson", "Neumann"),
    ("ADMM inverse covariance", "Nesterov", "Unrolled"),
]
CELLS += [
    (problem, solver, mode)
    for problem in ("DY capped lasso", "CP trend filtering")
    for solver, mode in (
        ("Picard", "Piggyback"),
        ("Picard", "Truncated"),
        ("Picard", "Neumann"),
        ("Anderson", "Implicit"),
        ("Nesterov", "Unrolled, checkpoint"),
        ("SemismoothNewton", "OneStep"),
    )
]
THIN = {
    ("FB lasso", "Picard", "Implicit"),
    ("DR lasso, relaxation 1.5", "Nesterov", "Unrolled"),
    ("ADMM trend filtering", "Anderson", "Piggyback"),
    ("ADMM trend filtering", "Broyden", "Unrolled"),
    ("FB lasso", "SemismoothNewton", "Truncated"),
    ("DR lasso, relaxation 1.5", "Anderson", "Neumann"),
    ("DR inverse covariance", "Picard", "Implicit"),
    ("DY capped lasso, exchanged and relaxed", "Picard", "Implicit"),
    ("DY capped lasso", "Picard", "Piggyback"),
    ("CP lasso", "Picard", "Unrolled"),
    ("CP trend filtering by a function", "Picard", "Implicit"),
    ("CP trend filtering", "Picard", "Neumann"),
}


def cell_id(cell):
    return " | ".join(cell)


def symmetric(x):
    return x + x.T if x.ndim == 2 else x


@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=() if c in THIN else pytest.mark.slow) for c in CELLS], ids=cell_id
)
def test_the_derivative_is_that_of_the_closed_form(cell, key):
    name, solver_name, mode = cell
    problem, solver = PROBLEMS[name](), SOLVERS[solver_name]
    derivative = DERIVATIVES[mode](solver_name)
    rng = np.random.default_rng(int(jax.random.bits(key)))
    d_weight, d_data = rng.normal(), symmetric(rng.normal(size=problem.theta[1].shape))
    cotangent = symmetric(rng.normal(size=problem.solution.shape))

    def solve(weight, data):
        out = nsi.fixed_point(
            problem.make(weight, data), problem.z0, solver=solver, derivative=derivative, tol=1e-13, max_steps=500
        )
        return out.value, out.converged

    def both(theta, direction, cotangent):
        value, linear, converged = jax.linearize(solve, *theta, has_aux=True)
        reverse = None if mode in FORWARD_ONLY else jax.linear_transpose(linear, *theta)(cotangent)
        return value, linear(*direction), reverse, converged

    direction = (jnp.asarray(d_weight), jnp.asarray(d_data))
    value, forward, reverse, converged = jax.jit(both, compiler_options=QUICK)(
        problem.theta, direction, jnp.asarray(cotangent)
    )
    # Error of an iterate at tolerance 1e-13, over 1 - rate >= 1/10, on answers of size 2.
    atol = 2e-12
    assert converged
    np.testing.assert_allclose(value, problem.solution, atol=atol)
    np.testing.assert_allclose(forward, problem.tangent(d_weight, d_data), atol=atol)
    if reverse is not None:
        np.testing.assert_allclose(reverse[0], np.sum(cotangent * problem.tangent(1.0, 0 * d_data)), atol=atol)
        np.testing.assert_allclose(
            np.sum(reverse[1] * d_data), np.sum(cotangent * problem.tangent(0.0, d_data)), atol=atol
        )
