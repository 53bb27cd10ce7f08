"""Contraction factors on random problems, steps that are found, and problems a splitting cannot take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.axes import spectrum

ROUNDING = 1e-10


@pytest.fixture(scope="module")
def problems():
    """Least squares with spectrum [1, L], an l1 weight, and two points, for ten seeds."""
    rng = np.random.default_rng(0)
    return [
        (
            jnp.asarray(spectrum(9, 5, L, seed)),
            jnp.asarray(rng.normal(size=9)),
            jnp.asarray(rng.normal(size=(2, 5)) * 3),
            L,
        )
        for seed, L in enumerate([2.0, 4.0, 10.0, 50.0, 3.0, 7.0, 20.0, 100.0, 1.5, 30.0])
    ]


def bound_fb(step, L):
    return max(abs(1 - step), abs(1 - step * L))


def bound_dr(step, L):
    return (1 + max((1 - step) / (1 + step), (step * L - 1) / (step * L + 1))) / 2


def forward_backward(A, b, step):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, b), nsi.prox.L1(0.3), step)


def douglas_rachford(A, b, step):
    return nsi.splittings.DouglasRachford(nsi.prox.LeastSquares(A, b), nsi.prox.L1(0.3), step)


def admm(A, b, step):
    # the penalty is the inverse of Douglas-Rachford's step on the dual, whose spectrum is inverted too
    return nsi.splittings.ADMM(nsi.prox.LeastSquares(A, b), nsi.prox.L1(0.3), step=1 / step)


FACTORS = {
    "forward-backward": (forward_backward, bound_fb, lambda L: 2 / (1 + L)),
    "Douglas-Rachford": (douglas_rachford, bound_dr, lambda L: 1 / L**0.5),
    "ADMM": (admm, bound_dr, lambda L: 1 / L**0.5),
}


@pytest.mark.parametrize("name", FACTORS)
def test_no_problem_contracts_worse_than_the_bound(name, problems):
    make, bound, best = FACTORS[name]
    observe = jax.jit(lambda A, b, step, x, y: jnp.linalg.norm(make(A, b, step)(x) - make(A, b, step)(y)))
    ratios = []
    for A, b, (x, y), L in problems:
        for step in (0.3 * best(L), best(L), 1.5 * best(L) if name != "forward-backward" else best(L)):
            ratio = float(observe(A, b, step, x, y) / jnp.linalg.norm(x - y))
            assert ratio <= bound(step, L) + ROUNDING, (L, step)
            ratios.append(ratio / bound(step, L))
    assert max(ratios) > 0.7  # the bound is not an idle one


def test_the_best_factor_is_attained():
    """Without a g (a zero weight) forward-backward is linear and its worst direction attains the bound."""
    L = 10.0
    A = jnp.asarray(spectrum(9, 5, L, 3))
    T = nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, jnp.zeros(9)), nsi.prox.L1(0.0), 2 / (1 + L))
    norm = np.linalg.norm(jax.jacobian(T)(jnp.ones(5)), 2)
    np.testing.assert_allclose(norm, (L - 1) / (L + 1), rtol=1e-12)


def test_a_strongly_convex_g_divides_the_factor(problems):
    for A, b, (x, y), L in problems[:4]:
        step, mu = 2 / (1 + L), 0.7
        T = nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, b), nsi.prox.ElasticNet(0.3, mu), step)
        ratio = jnp.linalg.norm(T(x) - T(y)) / jnp.linalg.norm(x - y)
        assert ratio <= bound_fb(step, L) / (1 + step * mu) + ROUNDING


def test_steps_are_found_and_the_answer_does_not_depend_on_them(problems):
    A, b, _, _ = problems[1]

    def solve(f, step):
        T = nsi.splittings.ForwardBackward(f, nsi.prox.L1(0.3), step)
        return nsi.fixed_point(T, jnp.zeros(5), tol=1e-13, max_steps=5000).value

    exact = solve(nsi.prox.LeastSquares(A, b), 0.1)
    smooth = nsi.prox.smooth(lambda x, b: 0.5 * jnp.sum((A @ x - b) ** 2), b)
    np.testing.assert_allclose(solve(nsi.prox.LeastSquares(A, b), None), exact, atol=1e-11)  # 1/L
    np.testing.assert_allclose(solve(smooth, None), exact, atol=1e-11)  # backtracking


@pytest.mark.parametrize("relaxation", [0.7, 1.5, 2.0])
def test_relaxed_douglas_rachford_has_the_same_solution(relaxation, problems):
    A, b, _, L = problems[1]
    f, g = nsi.prox.LeastSquares(A, b), nsi.prox.L1(0.3)
    P, T = (nsi.splittings.DouglasRachford(f, g, L**-0.5, r) for r in (1.0, relaxation))
    z = jnp.ones(5)
    np.testing.assert_allclose(T(z) - z, relaxation * (P(z) - z), rtol=1e-12)
    plain, relaxed = (nsi.fixed_point(splitting, jnp.zeros(5), tol=1e-13) for splitting in (P, T))
    assert relaxed.converged
    np.testing.assert_allclose(relaxed.value, plain.value, atol=1e-11)
    np.testing.assert_array_equal(relaxed.value == 0, plain.value == 0)  # the zeros are exact
    assert jnp.any(plain.value == 0)


def test_admm_variables_satisfy_the_optimality_conditions(problems):
    A, b, _, _ = problems[1]
    matrix = jnp.asarray(np.random.default_rng(5).normal(size=(3, 5)))
    T = nsi.splittings.ADMM(nsi.prox.LeastSquares(A, b), nsi.prox.L1(0.3), A=matrix, step=2.0)
    t = nsi.fixed_point(T, jnp.zeros(3), tol=1e-14, max_steps=5000).z
    u, v, nu = T.variables(t)
    np.testing.assert_allclose(matrix @ u, v, atol=1e-11)
    np.testing.assert_allclose(A.T @ (A @ u - b) + matrix.T @ nu, 0, atol=1e-10)
    assert jnp.all(jnp.abs(nu) <= 0.3 + 1e-11)  # nu is a subgradient of 0.3·|v|
    np.testing.assert_allclose((nu - 0.3 * jnp.sign(v))[v != 0], 0, atol=1e-11)


def test_a_smooth_term_without_curvature_gets_a_step():
    T = nsi.splittings.ForwardBackward(nsi.prox.Linear(jnp.array([1.0, -1.0])), nsi.prox.SquaredL2(2.0))
    np.testing.assert_allclose(nsi.fixed_point(T, jnp.zeros(2)).value, [-0.5, 0.5], atol=1e-9)


def test_problems_a_splitting_cannot_take():
    f, g = nsi.prox.LeastSquares(jnp.eye(2), jnp.ones(2)), nsi.prox.L1(1.0)
    with pytest.raises(nsi.InputError, match=r"ForwardBackward\(f=...\)[\s\S]*exchange"):
        nsi.fixed_point(nsi.splittings.ForwardBackward(g, f), jnp.zeros(2))
    with pytest.raises(nsi.InputError, match=r"ADMM\(A=...\)[\s\S]*not quadratic"):
        nsi.fixed_point(nsi.splittings.ADMM(g, g, A=jnp.eye(2)), jnp.zeros(2))
    with pytest.raises(nsi.NsimplicitError, match="prox"):
        smooth = nsi.prox.smooth(lambda x: jnp.sum(x**2))
        nsi.fixed_point(nsi.splittings.DouglasRachford(smooth, g, 1.0), jnp.zeros(2))


def test_a_smooth_function_is_convex_only_where_the_user_says_so():
    """f = -x²/2, g = x²/2 + |x|: T' = 1 off the kink, whatever factor its constants would give to a convex f."""
    g = nsi.prox.ElasticNet(0.0, 1.0)
    concave = nsi.prox.smooth(lambda x: -jnp.sum(x**2) / 2, lipschitz=1.0)
    T = nsi.splittings.ForwardBackward(concave, g, 0.5)
    np.testing.assert_allclose(jax.jacobian(T)(jnp.ones(2)), np.eye(2), atol=1e-12)
    assert T.contraction(jnp.ones(2)) is None and nsi.certify(T)(jnp.zeros(2)).verdict != "regular"
    said = nsi.prox.smooth(lambda x: jnp.sum(x**2) / 2, lipschitz=1.0, is_convex=True)
    np.testing.assert_allclose(nsi.splittings.ForwardBackward(said, g, 0.5).contraction(jnp.ones(2)), 1 / 1.5)
