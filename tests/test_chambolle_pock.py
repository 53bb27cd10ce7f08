"""Chambolle-Pock: its rate, linear maps as matrices and as functions, the steps it finds, what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.axes import QUICK

S, P = nsi.splittings, nsi.prox
CP = S.ChambollePock
RNG = np.random.default_rng(0)
A, B = jnp.asarray(RNG.normal(size=(4, 6))), jnp.asarray(RNG.normal(size=6))


def weighted_differences(scale, x):
    return scale * (x[1:] - x[:-1])


def gradient(x):
    return {"down": x[1:] - x[:-1], "right": x[:, 1:] - x[:, :-1]}


DIFFERENCE = jnp.diff(jnp.eye(6), axis=0)


def denoising(w, b, A, **options):
    return CP(P.Quadratic(1.0, -b), P.L1(w), A, **options)


def strong(mu, A, **options):
    """A strongly convex f that is nonsmooth, and a smooth g that is not quadratic: L_g = 1/0.7."""
    return CP(P.ElasticNet(0.3, mu), P.Huber(0.7), A, **options)


def metric(A, tau, sigma):
    m, n = A.shape
    return np.block([[np.eye(n) / tau, -A.T], [-A, np.eye(m) / sigma]])


@pytest.mark.parametrize("turn", [1.0, 1.0 + 0.5j], ids=["real", "complex"])
@pytest.mark.parametrize("wrap", [lambda A: A, lambda A: functools.partial(jnp.matmul, A)], ids=["matrix", "function"])
def test_one_step_by_hand(turn, wrap):
    rng, w, tau, sigma, theta = np.random.default_rng(2), 0.4, 0.3, 0.6, 0.8
    matrix, b, x, y = (turn * rng.normal(size=shape) for shape in ((4, 6), 6, 6, 4))
    T = CP(P.Translate(P.SquaredL2(1.0), b), P.L1(w), wrap(matrix), tau, sigma, theta)
    new = (x - tau * matrix.conj().T @ y + tau * b) / (1 + tau)
    ahead = y + sigma * matrix @ (new + theta * (new - x))
    got = T((jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(got[0], new, rtol=1e-12)
    np.testing.assert_allclose(got[1], ahead / np.maximum(1, abs(ahead) / w), rtol=1e-12)


@functools.partial(jax.jit, static_argnums=0)
def images(make, numbers, pairs):
    T = make(*numbers)
    flat = jax.vmap(jax.vmap(lambda v: jnp.concatenate(T((v[:6], v[6:])))))
    return flat(pairs)


def build(mu, tau, sigma, A):
    return strong(mu, A, tau=tau, sigma=sigma)


def test_no_problem_contracts_worse_than_the_rate():
    pairs, shares = jnp.asarray(RNG.normal(size=(30, 2, 10)) * 3), []
    L_g = float(P.Huber(0.7).lipschitz)
    for seed, (mu, s) in enumerate([(0.1, 1.0), (1.0, 1.0), (5.0, 0.3), (20.0, 3.0)]):
        matrix = np.random.default_rng(seed).normal(size=(4, 6))
        size = np.linalg.norm(matrix, 2)
        tau, sigma = 0.9 * s / size, 0.9 / s / size
        expected = 1 / (1 + min(tau * mu, sigma / L_g) / (1 + 0.9))
        rate = strong(mu, matrix, tau=tau, sigma=sigma).rate((jnp.zeros(6), jnp.zeros(4)))
        np.testing.assert_allclose(rate, expected, rtol=1e-12)
        moved, M = images(build, (mu, tau, sigma, matrix), pairs), metric(matrix, tau, sigma)
        lengths = [
            np.sqrt(np.einsum("ki,ij,kj->k", d, M, d)) for d in (np.asarray(z[:, 0] - z[:, 1]) for z in (moved, pairs))
        ]
        ratio = (lengths[0] / lengths[1]).max()
        assert ratio <= rate
        shares.append(ratio / rate)
    assert max(shares) > 0.7  # the bound is not an idle one


def test_a_weakly_coupled_problem_contracts_and_is_certified():
    matrix = 0.05 * A
    T = strong(4.0, matrix, tau=0.5, sigma=0.7)
    z = T.start(jnp.zeros(6))
    factor = T.contraction(z)
    condition = np.linalg.cond(metric(np.asarray(matrix), 0.5, 0.7))
    np.testing.assert_allclose(factor, T.rate(z) * condition**0.5, rtol=1e-12)
    pairs = jnp.asarray(RNG.normal(size=(30, 2, 10)) * 3)
    moved = images(build, (4.0, 0.5, 0.7, matrix), pairs)
    ratios = [np.linalg.norm(z[:, 0] - z[:, 1], axis=1) for z in (moved, pairs)]
    assert (ratios[0] / ratios[1]).max() <= factor < 1
    assert nsi.certify(T)(z).method.startswith("contraction: factor")


def test_where_no_theorem_tells_there_is_no_rate():
    z = (jnp.zeros(6), jnp.zeros(4))
    steps = {"tau": 0.1, "sigma": 0.1}
    assert strong(1.0, A, **steps).rate(z) is not None and strong(1.0, A, **steps).contraction(z) is None
    for T in (
        strong(0.0, A, **steps),  # f is not strongly convex
        denoising(0.3, B, A, **steps),  # g has no gradient
        strong(1.0, A, **steps, theta=0.9),
        strong(1.0, A, tau=1.0, sigma=1.0),  # tau·sigma·‖A‖² > 1
        strong(1.0, functools.partial(jnp.matmul, np.asarray(A)), **steps),  # a norm that is not known
    ):
        assert T.rate(z) is None and T.contraction(z) is None


def test_steps_are_found():
    """A norm that power iterations find is short by a few percent at most."""
    x = jnp.zeros((9, 7))
    dense = jax.jacobian(lambda x: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient(x))]))(x)
    size = np.linalg.norm(dense.reshape(-1, 63), 2)
    T = CP(P.SquaredL2(1.0), P.L1(0.1), gradient)
    tau, sigma = T._steps(*T.start(x))
    assert 0.99 <= tau * size < 1.05 and tau == sigma
    matrix, size = A[:, :5], np.linalg.norm(A[:, :5], 2)
    for options in ({}, {"tau": 0.2}, {"sigma": 0.2}):
        T = CP(P.SquaredL2(1.0), P.L1(0.1), matrix, **options)
        tau, sigma = T._steps(*T.start(jnp.zeros(5)))
        np.testing.assert_allclose(tau * sigma * size**2, 0.99**2, rtol=1e-12)
        assert 0.2 in (tau, sigma) if options else tau == sigma
    T = denoising(0.3, B, jnp.zeros((2, 6)))  # a map that is zero has no norm to divide by
    np.testing.assert_allclose(nsi.fixed_point(T, T.start(jnp.zeros(6))).value, B, atol=1e-9)


def test_the_derivative_in_the_linear_map_is_the_same_by_every_way_to_write_it():
    """By a matrix whose steps are given, by one whose steps are found, and by a function, in both modes."""
    z0, cotangent = (jnp.zeros(6), jnp.zeros(5)), jnp.cos(jnp.arange(6.0))

    def value(scale, way):
        match way:
            case "function":
                T = denoising(0.3, B, jax.tree_util.Partial(weighted_differences, scale))
            case "matrix":
                T = denoising(0.3, B, scale[:, None] * DIFFERENCE)
            case _:
                T = denoising(0.3, B, scale[:, None] * DIFFERENCE, tau=0.5, sigma=0.3)
        return jnp.vdot(cotangent, nsi.fixed_point(T, z0, tol=1e-14, max_steps=5000).value)

    scale, forward, reverse = jnp.array([1.0, 0.5, 1.5, 1.0, 0.7]), jax.jacfwd(value), jax.jacrev(value)
    cases = [(reverse, "given"), (reverse, "matrix"), (reverse, "function"), (forward, "function")]
    rows = jax.jit(lambda s: [mode(s, way) for mode, way in cases], compiler_options=QUICK)(scale)
    h = 1e-6 * jnp.eye(5)
    solve = jax.jit(jax.vmap(lambda s: value(s, "given")))
    np.testing.assert_allclose(rows[0], (solve(scale + h) - solve(scale - h)) / 2e-6, atol=1e-7)
    assert jnp.max(jnp.abs(rows[0])) > 0.1
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], atol=1e-10)


def test_an_image_and_its_gradient_as_a_tree():
    """Isotropic or not, the result is where the objective is least, and its derivative is carried along."""
    noisy = jnp.asarray(np.random.default_rng(4).normal(size=(3, 4)))

    def solve(w):
        T = CP(P.Translate(P.SquaredL2(1.0), noisy), P.L1(w), gradient, tau=0.3)
        derivative = nsi.derivatives.Piggyback()
        return nsi.fixed_point(T, T.start(noisy), tol=1e-13, max_steps=20000, derivative=derivative).value

    both = jax.jit(lambda w: jax.jvp(solve, (w,), (1.0,)))
    x, slope = both(0.2)

    def objective(x):
        return 0.5 * jnp.sum((x - noisy) ** 2) + 0.2 * sum(jnp.sum(jnp.abs(d)) for d in gradient(x).values())

    near = x + 1e-3 * jnp.asarray(RNG.normal(size=(300, 3, 4)))
    assert jnp.all(jax.vmap(objective)(near) > objective(x))
    ahead, behind = (both(0.2 + h)[0] for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, atol=1e-6)


def test_the_dual_solution_need_not_be_unique():
    """Two equal rows, both at the kink: y is any pair with one sum. The matrix is singular, dx exists."""
    rows, b = jnp.array([[1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]), jnp.array([3.0, 2.9])

    def solve(w, derivative):
        T = denoising(w, b, rows)
        return nsi.fixed_point(T, T.start(b), tol=1e-13, max_steps=5000, derivative=derivative).value

    krylov = nsi.derivatives.Implicit(nsi.linear_solvers.GMRES())
    slopes = jax.jit(lambda w: [jax.jacfwd(solve)(w, krylov), jax.jacrev(solve)(w, krylov)], compiler_options=QUICK)
    np.testing.assert_allclose(slopes(0.2), -0.5, atol=1e-9)  # both entries are (b1 + b2 - w)/2
    carried = jax.jit(lambda w: jax.jacfwd(solve)(w, nsi.derivatives.Piggyback()), compiler_options=QUICK)
    np.testing.assert_allclose(carried(0.2), -0.5, atol=1e-9)
    assert jnp.isnan(jax.jit(jax.jacfwd(solve), static_argnums=1)(0.2, nsi.derivatives.Implicit())).all()


def test_lanes():
    weights = jnp.array([0.1, 0.3, 1.0])

    def solve(w):
        T = denoising(w, B, jnp.diff, tau=0.5)
        return nsi.fixed_point(T, T.start(jnp.zeros(6)), tol=1e-13, max_steps=5000).value

    lanes = jax.jit(jax.vmap(jax.jacrev(solve)), compiler_options=QUICK)(weights)
    alone = jax.jit(jax.jacfwd(solve), compiler_options=QUICK)
    for lane, w in zip(lanes, weights, strict=True):
        np.testing.assert_allclose(lane, alone(w), atol=1e-9)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: denoising(0.3, B, A, tau=0.0), r"ChambollePock\(tau=...\)[\s\S]*must be positive"),
        (lambda: denoising(0.3, B, A, sigma=-1.0), r"ChambollePock\(sigma=...\)[\s\S]*must be positive"),
        (lambda: denoising(0.3, B, A, theta=0.0), r"ChambollePock\(theta=...\)[\s\S]*must be positive"),
        (lambda: CP(P.SquaredL2(1.0), P.L0(1.0), A), r"ChambollePock\(g=...\)[\s\S]*L0, which is not convex"),
        (lambda: denoising(0.3, B, A.T)((B, B)), r"ChambollePock\(A=...\)[\s\S]*\(6, 4\), x has shape \(6,\)"),
        (
            lambda: denoising(0.3, B, A)((B, B)),
            r"ChambollePock\(A=...\)[\s\S]*shape \(4,\), y has shape \(6,\)[\s\S]*start",
        ),
        (lambda: denoising(0.3, B, jax.nn.relu)((B, B)), r"ChambollePock\(A=...\)[\s\S]*not linear in x"),
        (lambda: denoising(0.3, B, A)(B), r"ChambollePock[\s\S]*pair \(x, y\)[\s\S]*start"),
    ],
    ids=["tau", "sigma", "theta", "nonconvex", "matrix", "y", "nonlinear", "no pair"],
)
def test_problems_it_cannot_take(make, pattern):
    with pytest.raises(nsi.InputError, match=pattern):
        make()
