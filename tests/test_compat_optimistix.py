"""The adjoint for optimistix: its derivatives where they are right, every mode, guards lane by lane."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import nsimplicit as nsi
from nsimplicit.compat.optimistix import ImplicitAdjoint

A = 0.2 * jnp.array(np.random.default_rng(0).normal(size=(4, 4)))
B = jnp.arange(4.0) / 4


def contraction(y, theta):
    return {"y": jnp.tanh(theta[0] @ y["y"] + theta[1])}


def fixed_point(theta, adjoint):
    solver = optx.FixedPointIteration(1e-12, 1e-12)
    return optx.fixed_point(contraction, solver, {"y": jnp.zeros(4)}, theta, adjoint=adjoint).value["y"]


def root_find(theta, adjoint):
    def residual(y, theta):
        return y - contraction({"y": y}, theta)["y"]

    return optx.root_find(residual, optx.Newton(1e-12, 1e-12), jnp.zeros(4), theta, adjoint=adjoint).value


def minimise(theta, adjoint):
    def energy(y, theta):
        return jnp.sum(y**4) / 4 + y @ y / 2 - y @ theta[0] @ theta[1]

    return optx.minimise(energy, optx.BFGS(1e-10, 1e-10), jnp.zeros(4), theta, adjoint=adjoint).value


def least_squares(theta, adjoint):
    def residual(y, theta):
        return jnp.concatenate([y - theta[1], jnp.sin(theta[0] @ y)])

    solver = optx.LevenbergMarquardt(1e-12, 1e-12)
    return optx.least_squares(residual, solver, jnp.zeros(4), theta, adjoint=adjoint).value


PROBLEMS = {f.__name__: f for f in (fixed_point, root_find, minimise, least_squares)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivatives_agree_with_optimistix(name):
    solve = PROBLEMS[name]
    mine = jax.jacrev(lambda theta: solve(theta, ImplicitAdjoint()))((A, B))
    theirs = jax.jacrev(lambda theta: solve(theta, optx.ImplicitAdjoint()))((A, B))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def cube_root(t):
    solver = optx.Newton(1e-10, 1e-10)
    return optx.root_find(lambda y, t: y**3 - t, solver, jnp.array(1.0), t, adjoint=ImplicitAdjoint()).value


def test_every_mode():
    np.testing.assert_allclose(jax.hessian(cube_root)(8.0), -2 / 9 / 32, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(cube_root))(8.0), 1 / 12, rtol=1e-6)


def test_closures_and_auxiliary_output():
    def solve(t):
        solver = optx.Newton(1e-10, 1e-10)
        found = optx.root_find(lambda y, _: (y**3 - t, y + t), solver, 1.0, has_aux=True, adjoint=ImplicitAdjoint())
        return found.value, found.aux

    value, aux = solve(8.0)
    np.testing.assert_allclose([value, aux], [2.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda t: solve(t)[0])(8.0), 1 / 12, rtol=1e-6)


def on_lanes(guard, adjoint=None):
    """dy/dt of y = y + t (1 - y): 0 where t is not 0, and no number where it is."""
    adjoint = ImplicitAdjoint(guard=guard) if adjoint is None else adjoint

    def solve(t):
        solver = optx.FixedPointIteration(1e-10, 1e-10)
        T = lambda y, t: y + t * (1 - y)  # noqa: E731
        return optx.fixed_point(T, solver, jnp.array(2.0), t, adjoint=adjoint, max_steps=1000, throw=False).value

    return np.asarray(jax.vmap(jax.grad(solve))(jnp.array([0.0, 0.5])))


@pytest.mark.parametrize("on_failure, first", [("nan", np.nan), ("drop", 0.0), ("least_squares", 0.0)])
def test_a_singular_lane_leaves_the_others_alone(on_failure, first):
    np.testing.assert_allclose(on_lanes(nsi.guards.Solved(on_failure=on_failure)), [first, 0.0], atol=1e-8)


def test_the_linear_solver_is_used():
    seen = []

    def solve(matvec, b):
        seen.append(1)
        return jax.scipy.sparse.linalg.gmres(matvec, b, tol=1e-13)[0]

    adjoint = ImplicitAdjoint(nsi.linear_solvers.Custom(solve))
    got = jax.grad(lambda b: fixed_point((A, b), adjoint).sum())(B)
    np.testing.assert_allclose(got, jax.grad(lambda b: fixed_point((A, b), ImplicitAdjoint()).sum())(B), rtol=1e-8)
    assert seen


def python(code):
    env = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_optimistix_is_imported_only_when_asked():
    done = python("import sys, nsimplicit, nsimplicit.compat; assert 'optimistix' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_without_optimistix_the_extra_is_named():
    done = python("import sys; sys.modules['optimistix'] = None; import nsimplicit.compat.optimistix")
    assert "pip install 'nsimplicit[optimistix]'" in done.stderr
