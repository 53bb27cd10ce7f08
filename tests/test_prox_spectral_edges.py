"""Spectral proxes where eigenvalues repeat or vanish, at the tips of cones, and the sets that are not convex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import prox
from tests.cases.prox_spectral import TURN, WIDE, Y


def differences(fun, x, h=1e-5):
    """The Jacobian of a NumPy function of a matrix, as a matrix."""
    basis = h * np.eye(x.size).reshape(-1, *x.shape)
    return np.stack([(fun(x + e) - fun(x - e)).ravel() / (2 * h) for e in basis], axis=1)


def jacobian(fun, x):
    return jax.jit(jax.jacrev(fun))(x).reshape(-1, np.size(x))


def best_of_rank(x, r):
    """The projection on the leading eigenvectors of the Gram matrix."""
    V = np.linalg.eigh(x.T @ x)[1][:, -r:]
    return x @ V @ V.T


def polar(x):
    """Newton's iteration X <- (X + X^-T)/2; a rectangular X is first replaced by the R of its QR decomposition."""
    Q, R = np.linalg.qr(x)
    for _ in range(30):
        R = (R + np.linalg.inv(R).T) / 2
    return Q @ R


NONCONVEX = {
    "RankBall 1": (prox.RankBall(1), lambda x: best_of_rank(x, 1), WIDE),
    "RankBall 2": (prox.RankBall(2), lambda x: best_of_rank(x, 2), np.concatenate([WIDE, [[0.3, 0.1, 1.4]]])),
    "RankBall 2, equal ones kept": (prox.RankBall(2), lambda x: best_of_rank(x, 2), TURN * np.array([2.0, 2.0, 0.5])),
    "Stiefel square": (prox.Stiefel(), polar, Y),
    "Stiefel tall": (prox.Stiefel(), polar, WIDE.T),
    "Stiefel, equal ones": (prox.Stiefel(), polar, 3.0 * TURN),
}


@pytest.mark.parametrize("name", NONCONVEX)
def test_nonconvex_sets_have_a_projection_and_its_derivatives(name, key):
    g, oracle, x = NONCONVEX[name]
    assert not g.is_convex
    p = jax.jit(g.project)(x)
    np.testing.assert_allclose(p, oracle(x), rtol=0, atol=1e-13)
    assert g(p) == 0 and g(x) == np.inf
    np.testing.assert_allclose(g.project(p), p, rtol=0, atol=1e-14)
    for noise in np.asarray(jax.random.normal(key, (20, *x.shape))):  # nothing in the set is nearer
        other = oracle(x + noise)
        assert np.linalg.norm(x - p) <= np.linalg.norm(x - other) + 1e-13
    J = jacobian(g.project, x)
    np.testing.assert_allclose(J, differences(oracle, x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(J, J.T, rtol=0, atol=1e-13)

    def scalar(x):
        return jnp.sum(jnp.sin(g.project(x)))

    H = jax.jit(jax.hessian(scalar))(x).reshape(x.size, x.size)
    want = differences(lambda x: np.asarray(gradient(x)), x) if (gradient := jax.jit(jax.grad(scalar))) else None
    np.testing.assert_allclose(H, want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("fun, x", [(prox.RankBall(1), 2.0 * TURN), (prox.Stiefel(), np.diag([1.0, 0.0]))])
def test_a_projection_that_is_not_unique_is_reported_as_a_jump(fun, x):
    report = nsi.kinks(fun.project)(x)
    assert report.num_jumps == 1
    assert fun(fun.project(x)) == 0
    assert np.isfinite(jacobian(fun.project, x)).all()
    assert nsi.kinks(fun.project)(x + np.diag(np.arange(1.0, len(x) + 1))).num_jumps == 0


def test_a_matrix_of_lower_rank_is_kept():
    x = np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 0.5])
    g = prox.RankBall(2)
    np.testing.assert_allclose(g.project(x), x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(jacobian(g.project, x), np.eye(9), rtol=0, atol=1e-13)
    assert nsi.kinks(g.project)(x).num_jumps == 0
