"""Which equation each splitting is differentiated by, and that it is the same derivative as the plain map's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.implicit.equation import FixedPoint, ProxStep, StepAfterProx
from nsimplicit.linear_solvers import Auto, Dense, ProxCG, RestrictedCholesky

RNG = np.random.default_rng(0)
A, B, D = RNG.normal(size=(9, 12)), RNG.normal(size=9), np.diff(np.eye(12), axis=0)
TALL = RNG.normal(size=(20, 12))
sp, px = nsi.splittings, nsi.prox


def quartic(x, b):
    return jnp.sum((x - b[0]) ** 4) / 4 + jnp.sum((x - b[1]) ** 2)


# name: splitting of (weight, b); where its state starts; type of the equation; whether the columns of H are at hand
ROWS = {
    "FB": (lambda w, b: sp.ForwardBackward(px.LeastSquares(A, b), px.L1(w), 0.02), 12, ProxStep, True),
    "FB shifted": (
        lambda w, b: sp.ForwardBackward(
            px.PostScale(px.Translate(px.LeastSquares(A, b), 0.1), 2.0), px.ElasticNet(w, 0.1), 0.01
        ),
        12,
        ProxStep,
        True,
    ),
    "FB Quadratic": (
        lambda w, b: sp.ForwardBackward(px.Quadratic(A.T @ A, -A.T @ b), px.Box(-w, w), 0.02),
        12,
        ProxStep,
        True,
    ),
    "FB simplex": (lambda w, b: sp.ForwardBackward(px.LeastSquares(A, w * b), px.Simplex(), 0.02), 12, ProxStep, False),
    "FB smooth": (lambda w, b: sp.ForwardBackward(px.smooth(quartic, b), px.L1(w), 0.05), 12, ProxStep, False),
    "DR": (lambda w, b: sp.DouglasRachford(px.LeastSquares(A, b), px.L1(w), 0.1), 12, StepAfterProx, True),
    "DR relaxed": (
        lambda w, b: sp.DouglasRachford(px.LeastSquares(A, b), px.L1(w), 0.1, 1.6),
        12,
        StepAfterProx,
        True,
    ),
    "DR nonsmooth f": (
        lambda w, b: sp.DouglasRachford(px.Box(-w, w), px.Quadratic(A.T @ A + 0.1 * np.eye(12), -A.T @ b), 0.5),
        12,
        FixedPoint,
        False,
    ),
    "ADMM": (lambda w, b: sp.ADMM(px.LeastSquares(A, b), px.L1(w), step=5.0), 12, StepAfterProx, True),
    "ADMM c": (
        lambda w, b: sp.ADMM(px.LeastSquares(A, b), px.L1(w), c=0.3 * jnp.ones(12), step=5.0),
        12,
        StepAfterProx,
        True,
    ),
    "ADMM A, convex f": (
        lambda w, b: sp.ADMM(px.LeastSquares(TALL, TALL[:, 0] * b[0]), px.L1(w), D),
        11,
        FixedPoint,
        False,
    ),
    "ADMM A, strongly convex f": (
        lambda w, b: sp.ADMM(px.LeastSquares(TALL, TALL[:, 0] * b[0]), px.L1(w), D, strongly_convex=True),
        11,
        StepAfterProx,
        False,
    ),
    "ADMM A, f diagonal": (
        lambda w, b: sp.ADMM(px.Quadratic(2.0, b[0] * jnp.arange(12.0)), px.L1(w), D),
        11,
        StepAfterProx,
        False,
    ),
    "ADMM B": (
        lambda w, b: sp.ADMM(px.SquaredL2(w), px.Quadratic(1.0, b[:3]), B=jnp.asarray(A[:3].T), step=2.0),
        12,
        FixedPoint,
        False,
    ),
    "DY": (
        lambda w, b: sp.DavisYin(px.LeastSquares(A, b), px.L1(w), px.Box(-0.2, 0.2), 0.02),
        12,
        FixedPoint,
        False,
    ),
    "CP": (
        lambda w, b: sp.ChambollePock(px.Quadratic(2.0, b[0] * jnp.arange(12.0)), px.L1(w), jnp.diff),
        (12, 11),
        FixedPoint,
        False,
    ),
}


def start(n):
    """A vector of n numbers; of a tuple, one for each."""
    return tuple(map(start, n)) if isinstance(n, tuple) else 0.1 * jnp.cos(jnp.arange(float(n)))


@pytest.mark.parametrize("name", ROWS)
def test_equation(name):
    make, n, kind, columns = ROWS[name]
    rule = make(0.3, jnp.asarray(B)).prepare(start(n)).rule
    assert type(rule) is kind and (rule.hessian is not None) == columns


@pytest.mark.parametrize("name", ROWS)
def test_derivative_is_that_of_the_plain_map(name):
    """The reference takes T as a function it knows nothing of, and builds I - T'."""
    make, n, kind, columns = ROWS[name]
    b, weight = jnp.asarray(B), jnp.cos(jnp.arange(12.0))
    z = nsi.fixed_point(make(0.3, b), start(n), tol=1e-15, max_steps=20000).z

    def value(w, b, solver, plain):
        options = {"derivative": nsi.derivatives.Implicit(linear_solver=solver), "max_steps": 0}
        if not plain:
            return jnp.vdot(weight, nsi.fixed_point(make(w, b), z, **options).value)
        return jnp.vdot(weight, make(w, b).solution(nsi.fixed_point(lambda z, *c: make(*c)(z), z, w, b, **options).z))

    structured = [] if kind is FixedPoint else [ProxCG()] + [RestrictedCholesky()] * columns
    cases = [(Dense(), True), (Auto(), False), *((solver, False) for solver in structured)]
    gradient = jax.grad(value, (0, 1))
    expected, *found = jax.jit(lambda w, b: [gradient(w, b, *case) for case in cases])(0.3, b)
    assert max(np.abs(x).max() for x in expected) > 1e-2
    for got in found:
        for x, y in zip(got, expected, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-8 * (1 + np.abs(y).max()))


def test_lanes_and_second_order_on_the_support():
    """vmap over the weight, and the second derivative in it: the direct solver on the support against the dense one."""
    make, n, _, _ = ROWS["FB"]
    weights = jnp.array([0.2, 0.5, 1.0])
    states = jax.jit(jax.vmap(lambda w: nsi.fixed_point(make(w, B + w**2), start(n), tol=1e-14, max_steps=9999).z))(
        weights
    )

    def value(w, z, solver):
        derivative = nsi.derivatives.Implicit(linear_solver=solver)
        T = make(w, jnp.asarray(B) + w**2)
        return jnp.sum(jnp.sin(nsi.fixed_point(T, z, max_steps=0, derivative=derivative).value))

    second = [jax.vmap(jax.jacfwd(jax.grad(lambda w, z, s=s: value(w, z, s)))) for s in (RestrictedCholesky(), Dense())]
    got, expected = jax.jit(lambda w, z: [f(w, z) for f in second])(weights, states)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("make", [sp.DouglasRachford, lambda f, g: sp.ADMM(f, g)], ids=["DR", "ADMM"])
def test_functions_of_symmetric_matrices_keep_the_iterate_symmetric(make):
    """Else many iterates stand for one solution: the tangent system is singular, and its derivative nan."""
    C = jnp.array([[1.0, 0.5, 0.1], [0.5, 1.5, 0.0], [0.1, 0.0, 0.8]])
    for f, g in ((px.LogDet(C), px.L1(0.2)), (px.LeastSquares(jnp.eye(3), C - 1), px.PSDCone())):
        T = make(f, g)
        skew = jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        np.testing.assert_allclose(T(C + skew), T(C), atol=1e-14)

        def value(shift, T=T, f=f, g=g):
            moved = make(px.Tilt(f, shift * jnp.eye(3)), g)
            return nsi.fixed_point(moved, C, tol=1e-13, max_steps=5000).value

        slope = jax.jit(jax.jacfwd(value))(0.1)
        difference = (value(0.1 + 1e-5) - value(0.1 - 1e-5)) / 2e-5
        np.testing.assert_allclose(slope, difference, atol=1e-6)
        assert np.abs(slope).max() > 1e-2
