"""ProxCG against a dense solve: every kind of prox Jacobian, condition numbers up to 1e6, both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsimplicit.linear_solvers import ProxCG
from nsimplicit.linear_solvers.operator import Operator, ProxGradient

N = 60


def mask(rng):
    return np.diag((rng.random(N) < 0.5).astype(float))


def group(rng):
    """Groups of five of a group Lasso: zero, or the shrunk complement of a direction and the direction itself."""
    D = np.zeros((N, N))
    for g in range(0, N, 5):
        if rng.random() < 0.6:
            u = rng.normal(size=5)
            P = np.outer(u, u) / (u @ u)
            D[g : g + 5, g : g + 5] = (1 - 1 / rng.uniform(1.2, 5)) * (np.eye(5) - P) + P
    return D


def simplex(rng):
    q = (rng.random(N) < 0.5).astype(float)
    return np.diag(q) - np.outer(q, q) / q.sum()


def dense(rng):
    V = np.linalg.qr(rng.normal(size=(N, N)))[0]
    return (V * np.r_[np.zeros(20), rng.uniform(0, 1, N - 20)]) @ V.T


def none(rng):
    return np.zeros((N, N))


def system(kind, kappa, seed=0):
    """D, and a Hessian of norm 1 and condition number kappa, already times the step."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.normal(size=(N, N)))[0]
    return kind(rng), (U * np.geomspace(1 / kappa, 1, N)) @ U.T


@jax.jit
def solve(D, H, b, rtol):
    """Both systems, by default and to the last digit."""
    outs = []
    for transposed in (False, True):
        structure = ProxGradient(lambda v: D @ v, lambda v: v - H @ v, transposed)

        def matvec(v, structure=structure):
            first, second = (structure.prox, structure.forward)[:: 1 if transposed else -1]  # noqa: B023
            return v - second(first(v))

        for solver in (ProxCG(), ProxCG(rtol=0.0)):
            found = solver.solve(Operator(matvec, structure), b)
            outs.append((found.value, found.num_steps))
    return outs


@pytest.mark.parametrize("dtype, kappa", [(np.float64, 1e2), (np.float64, 1e6), (np.float32, 1e4)])
@pytest.mark.parametrize("kind", [mask, group, simplex, dense, none])
def test_equals_a_dense_solve(kind, dtype, kappa):
    D, H = (x.astype(dtype) for x in system(kind, kappa))
    b = np.random.default_rng(1).normal(size=N).astype(dtype)
    S = np.eye(N) - H.astype(float)
    outs = solve(D, H, b, 0.0)
    for (x, steps), M in zip(outs, [np.eye(N) - D @ S] * 2 + [np.eye(N) - S @ D] * 2, strict=True):
        expected = np.linalg.solve(M, b.astype(float))
        error = np.linalg.norm(x - expected) / np.linalg.norm(expected)
        # the promise; in exact arithmetic the steps are the rank of D
        assert error <= (1e-9 if dtype == np.float64 else 2e-5)
        assert x.dtype == dtype
        assert steps < 2000 and (steps > 0) == (kind is not none)


@pytest.mark.slow
def test_two_thousand_steps_at_condition_1e6_do_not_go_astray():
    """A residual that cannot be reached: every step of the budget is taken, and the answer stays."""
    rng = np.random.default_rng(0)
    n = 300
    U = np.linalg.qr(rng.normal(size=(n, n)))[0]
    H = (U * np.geomspace(1e-6, 1, n)) @ U.T
    d, b = (rng.random(n) < 0.5).astype(float), rng.normal(size=n)
    structure = ProxGradient(lambda v: d * v, lambda v: v - H @ v)
    M = np.eye(n) - d[:, None] * (np.eye(n) - H)
    found = jax.jit(lambda b: ProxCG(rtol=1e-17).solve(Operator(lambda v: M @ v, structure), b).value)(b)
    expected = np.linalg.solve(M, b)
    assert np.linalg.norm(found - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "D, H",
    [
        (np.eye(2), np.diag([0.5, -2.0])),  # f not convex
        (np.diag([1.0, 3.0]), np.diag([0.5, 0.5])),  # D above I: no prox has it
    ],
    ids=["nonconvex f", "D above I"],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_breakdown_leaves_a_residual_to_see(D, H, transposed):
    S = np.eye(2) - H
    M = np.eye(2) - (S @ D if transposed else D @ S)
    structure = ProxGradient(lambda v: D @ v, lambda v: S @ v, transposed)
    x = ProxCG().solve(Operator(lambda v: M @ v, structure), jnp.ones(2)).value
    assert np.all(np.isfinite(x))
    assert np.linalg.norm(M @ x - 1) > 1e-2  # a guard fails it
    assert abs(np.linalg.det(M)) > 0.1  # though the system has a solution: it is the method that ends
