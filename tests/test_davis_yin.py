"""Davis-Yin: its contraction factor, the splittings it contains, the steps it finds, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.axes import QUICK, spectrum

S, P = nsi.splittings, nsi.prox
ROUNDING = 1e-10


def problem(seed, L):
    """Least squares with spectrum [1, L], its step in the middle of those allowed, and pairs of points."""
    rng = np.random.default_rng(seed)
    f = P.LeastSquares(jnp.asarray(spectrum(9, 5, L, seed)), jnp.asarray(rng.normal(size=9)))
    return f, 1 / (1 + L), jnp.asarray(rng.normal(size=(20, 2, 5)) * 3)


@jax.jit
def observe(T, pairs):
    """The images of pairs of points, and the Jacobians at the first of each."""
    return jax.vmap(jax.vmap(T))(pairs), jax.vmap(jax.jacfwd(T))(pairs[:, 0])


SMOOTH = {
    "none": lambda: P.Zero(),
    "quadratic": lambda: P.LeastSquares(jnp.asarray(spectrum(8, 5, 5.0, 9)), jnp.ones(8)),
    "Huber": lambda: P.Huber(0.7),
    "Huber, strongly convex": lambda: P.Regularize(P.Huber(0.7), 0.5),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_no_problem_contracts_worse_than_the_factor(name):
    """Pairs of points, and Jacobians: random ones at random points, which are products of elements."""
    shares = []
    for seed, (L, relaxation) in enumerate([(2.0, 0.5), (10.0, 1.0), (50.0, 1.4), (4.0, 1.5)]):
        f, step, pairs = problem(seed, L)
        for h in (P.L1(0.3), P.Box(-1.0, 1.0)):
            T = S.DavisYin(f, SMOOTH[name](), h, step, relaxation)
            factor = T.contraction(pairs[0, 0])
            assert factor is not None and factor < 1
            moved, jacobians = observe(T, pairs)
            before, after = (np.linalg.norm(z[:, 0] - z[:, 1], axis=1) for z in (pairs, moved))
            norms = np.linalg.norm(jacobians, 2, axis=(1, 2))
            assert max((after / before).max(), norms.max()) <= factor + ROUNDING, (seed, h)
            shares.append(norms.max() / factor)
    assert max(shares) > 0.8  # the bound is not an idle one


def test_the_factor_is_that_of_gradient_descent_without_g():
    """With the best step 2/(mu + L) it is the best factor of all, and attained without h."""
    L = 10.0
    f, _, _ = problem(3, L)
    T = S.DavisYin(f, P.Zero(), P.Zero(), 2 / (1 + L))
    np.testing.assert_allclose(T.contraction(jnp.zeros(5)), (L - 1) / (L + 1), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(jax.jacobian(T)(jnp.ones(5)), 2), (L - 1) / (L + 1), rtol=1e-12)


def test_where_no_theorem_tells_there_is_no_factor():
    f, step, pairs = problem(0, 4.0)
    z, g, h = pairs[0, 0], P.Huber(0.7), P.L1(0.3)
    assert S.DavisYin(f, h, g, step).contraction(z) is None  # g is not smooth
    assert S.DavisYin(P.smooth(lambda x: jnp.sum(x**4)), g, h, step).contraction(z) is None
    assert S.DavisYin(f, g, h, step, 1.6).contraction(z) is None  # longer than 2 - step·(mu + L)/2
    assert S.DavisYin(f, g, P.L0(0.3), step).contraction(z) is None
    assert nsi.certify(S.DavisYin(f, g, h, step))(z).method.startswith("contraction: factor")


def test_the_splittings_it_contains():
    f, step, pairs = problem(1, 4.0)
    z, g = pairs[0, 0], P.L1(0.3)
    douglas_rachford = S.DouglasRachford(f, g, step, 1.3)
    np.testing.assert_allclose(S.DavisYin(P.Zero(), g, f, step, 1.3)(z), douglas_rachford(z), rtol=1e-12)
    forward_backward = S.ForwardBackward(f, g, step)
    np.testing.assert_allclose(S.DavisYin(f, P.Zero(), g, step)(z), forward_backward(z), rtol=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_steps_are_found_and_the_answer_does_not_depend_on_them(known):
    f, step, _ = problem(1, 4.0)
    found = f if known else P.smooth(lambda x, b: 0.5 * jnp.sum((f.A @ x - b) ** 2), f.b)
    answers = [
        nsi.fixed_point(S.DavisYin(h, P.L1(0.5), P.Box(-0.15, 0.15), s), jnp.zeros(5), tol=1e-14).value
        for h, s in ((f, step), (found, None))
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-11)
    assert jnp.any(answers[0] == 0) and jnp.any(jnp.abs(answers[0]) > 0.15 - 1e-12)


def test_a_tree_has_the_derivative_of_its_entries_in_one_vector():
    target = jnp.array([3.0, -1.0, 0.2, 2.0])

    def split(x):
        return {"a": x[:1], "b": (x[1:],)}

    def solve(w, b, shape):
        f = P.Translate(P.SquaredL2(1.0), shape(b))
        T = S.DavisYin(f, P.L1(w), P.Box(-1.5, 1.5), 0.8)
        x = nsi.fixed_point(T, shape(jnp.zeros(4)), tol=1e-14).value
        return jnp.concatenate(jax.tree.leaves(x))

    value = solve(0.4, target, split)
    np.testing.assert_allclose(value, jnp.clip(nsi.soft_threshold(target, 0.4), -1.5, 1.5), atol=1e-12)
    both = jax.jit(
        lambda w, b: [mode(solve, (0, 1))(w, b, split) for mode in (jax.jacfwd, jax.jacrev)], compiler_options=QUICK
    )
    for by_weight, by_target in both(0.4, target):
        np.testing.assert_allclose(by_weight, [0, 1, 0, 0], atol=1e-12)
        np.testing.assert_allclose(by_target, np.diag([0, 1, 0, 0]), atol=1e-12)


def test_problems_it_cannot_take():
    f, g = P.LeastSquares(jnp.eye(2), jnp.ones(2)), P.L1(1.0)
    with pytest.raises(nsi.InputError, match=r"DavisYin\(f=...\)[\s\S]*L1, which has no gradient[\s\S]*first"):
        nsi.fixed_point(S.DavisYin(g, f, g), jnp.zeros(2))
    for options, name in (({"step": 0.0}, "step"), ({"step": -1.0}, "step"), ({"relaxation": 0.0}, "relaxation")):
        with pytest.raises(nsi.InputError, match=rf"DavisYin\({name}=...\)[\s\S]*must be positive"):
            S.DavisYin(f, g, g, **options)
