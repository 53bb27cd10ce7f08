"""Spectral proxes where eigenvalues repeat or vanish, at the tips of cones, and the sets that are not convex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import prox
from tests.cases.prox_spectral import TURN, WIDE, turned


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


SELECTIONS = (0.0, 0.25, 1.0)


@pytest.mark.parametrize(
    "cone, size",
    [
        (prox.SecondOrderCone, 4),
        (prox.RotatedSecondOrderCone, 4),
        (prox.ExponentialCone, 3),
        (prox.DualExponentialCone, 3),
        (lambda **options: prox.PowerCone(0.3, **options), 3),
        (lambda **options: prox.DualPowerCone(0.7, **options), 3),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_at_the_apex_of_a_cone_the_weight_times_the_identity_is_taken(cone, size):
    apex = jnp.zeros(size)
    both = jax.jit(lambda s: (cone(selection=s).project(apex), jax.jacrev(cone(selection=s).project)(apex)))
    for s in SELECTIONS:
        p, J = both(s)
        np.testing.assert_array_equal(p, 0)
        np.testing.assert_allclose(J, s * np.eye(size), rtol=0, atol=1e-15)


def symmetric_part(n):
    return jacobian(lambda x: (x + x.T) / 2, np.zeros((n, n)))


def test_a_block_of_zero_eigenvalues_takes_the_weight_times_the_identity():
    """On the zero block; a zero and a positive eigenvalue share the derivative of the positive one."""
    x = turned(0.0, 0.0, 2.0)
    derivative = jax.jit(lambda s: jax.jacrev(prox.PSDCone(selection=s).project)(x).reshape(9, 9))
    V = np.linalg.eigh(x)[1][:, :2]
    block = np.kron(V @ V.T, V @ V.T)
    for s in SELECTIONS:
        want = (np.eye(9) - (1 - s) * block) @ symmetric_part(3)
        np.testing.assert_allclose(derivative(s), want, rtol=0, atol=1e-14)
    # At the zero matrix all of it.
    zero = jacobian(prox.PSDCone(selection=0.25).project, np.zeros((3, 3)))
    np.testing.assert_allclose(zero, 0.25 * symmetric_part(3), rtol=0, atol=1e-15)


def test_a_simple_zero_eigenvalue_is_one_switch_that_other_tools_see():
    x = turned(1.0, 0.0, -2.0)
    project = prox.PSDCone().project
    assert nsi.kinks(project)(x).num_active == 1
    inside = nsi.with_selection(project, {"switch": 1.0})
    want = jacobian(prox.PSDCone(selection="inside").project, x)
    np.testing.assert_allclose(jacobian(inside, x), want, rtol=0, atol=1e-14)
    assert np.abs(want - jacobian(project, x)).max() > 0.1


def test_derivatives_of_every_order_where_eigenvalues_repeat(key):
    """The third derivative, against differences of the second, and both orders of reversing."""
    x = turned(2.0, 2.0, -1.0)
    first, second, third = np.asarray(jax.random.normal(key, (3, 3, 3)))

    def along(x, *directions):
        fun = prox.PSDCone().project
        for d in directions:
            fun = lambda x, fun=fun, d=d: jax.jvp(fun, (x,), (d,))[1]  # noqa: E731
        return fun(x)

    twice = jax.jit(lambda x: along(x, first, second))
    h = 1e-5
    want = (twice(x + h * third) - twice(x - h * third)) / (2 * h)
    np.testing.assert_allclose(jax.jit(lambda x: along(x, first, second, third))(x), want, rtol=0, atol=1e-7)
    scalar = lambda x: jnp.sum(jnp.sin(prox.PSDCone().project(x)))  # noqa: E731
    forward, reverse = jax.jit(lambda x: (jax.jacfwd(jax.grad(scalar))(x), jax.jacrev(jax.grad(scalar))(x)))(x)
    np.testing.assert_allclose(forward, reverse, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "lam, atol",
    # Two small ones of different sign are known to 1e-16/1e-9 only, and so is the weight of their pair.
    [((1.0, 1e-9, -1.0), 1e-14), ((1.0, 1e-9, -1e-9), 1e-6), ((3.0, 3.0, 3.0), 1e-14)],
    ids=str,
)
def test_small_and_equal_eigenvalues_keep_the_derivative_exact(lam, atol):
    """Divided differences from the known eigenvectors: no digit is lost to the size of the others."""
    lam, V = np.array(lam), TURN
    high, size = np.maximum(lam, 0), abs(lam)
    table = (high[:, None] + high) / (size[:, None] + size)
    E = np.array([[1.0, 0.5, -1.0], [0.5, -2.0, 0.3], [-1.0, 0.3, 0.7]])
    got = jax.jit(lambda x: jax.jvp(prox.PSDCone().project, (x,), (jnp.asarray(E),))[1])((V * lam) @ V.T)
    np.testing.assert_allclose(got, V @ (table * (V.T @ E @ V)) @ V.T, rtol=0, atol=atol)
    assert np.isfinite(got).all()


def test_weight_zero_is_the_identity_for_the_nuclear_norm():
    fun = lambda x, s: prox.NuclearNorm(0.0, selection=s).prox(x, 0.5)  # noqa: E731
    both = jax.jit(lambda x, s: (fun(x, s), jax.jacrev(fun)(x, s)))
    for x in (jnp.zeros((2, 3)), jnp.ones((2, 3)), jnp.asarray(WIDE)):
        for s in (0.0, 1.0):
            p, J = both(x, s)
            np.testing.assert_array_equal(p, x)
            np.testing.assert_allclose(J.reshape(6, 6), np.eye(6), rtol=0, atol=1e-14)
    slope = jax.jit(jax.jacfwd(lambda w: prox.NuclearNorm(w).prox(WIDE, 0.5)))(0.0)
    U, _, Vh = np.linalg.svd(WIDE, full_matrices=False)
    np.testing.assert_allclose(slope, -0.5 * U @ Vh, rtol=0, atol=1e-14)


def test_the_nuclear_norm_of_a_transpose_has_the_transposed_derivatives(key):
    """Tall and wide matrices, of which one has a zero singular value: two orders, in the matrix and the weight."""
    x = np.array(jax.random.normal(key, (2, 3, 2)))
    x[1, :, 1] = x[1, :, 0]
    prox_of = jax.jit(jax.vmap(lambda x, w: prox.NuclearNorm(w).prox(x, 1.0), (0, None)))
    slope = jax.grad(lambda x, w: jnp.sum(prox_of(x, w) ** 3), (0, 1))
    move = np.array(jax.random.normal(jax.random.fold_in(key, 1), x.shape))
    second = jax.jit(lambda x, w, dx: jax.jvp(slope, (x, w), (dx, 1.0)))
    tall, wide = second(x, 0.3, move), second(x.swapaxes(1, 2), 0.3, move.swapaxes(1, 2))
    for (in_x, in_w), (in_xt, in_wt) in zip(tall, wide, strict=True):
        np.testing.assert_allclose(in_x, in_xt.swapaxes(1, 2), rtol=0, atol=1e-13)
        np.testing.assert_allclose(in_w, in_wt, rtol=1e-13)
    h = 1e-5
    higher, lower = (second(x + t * move, 0.3 + t, move)[0] for t in (h, -h))
    for new, old, expected in zip(higher, lower, tall[1], strict=True):
        np.testing.assert_allclose((new - old) / (2 * h), expected, rtol=0, atol=1e-7)


def test_the_derivative_of_the_nuclear_norm_multiplies_matrices_of_the_size_of_x():
    """Three pairs of products of n x n matrices, and no product of dilations, also for a batch."""
    n, fun = 30, prox.NuclearNorm(1.0).prepare(1.0)
    x = jnp.zeros((2, n, n))
    pullback = jax.jit(lambda x, g: jax.vjp(fun, x)[1](g)[0])
    flops = (pullback.lower(x, x).compile().cost_analysis() or {})["flops"]
    assert flops < 2 * (8 * 2 * n**3), flops


def test_gradients_of_values_at_ties_are_subgradients():
    x = turned(2.0, 2.0, -1.0)
    P = TURN[:, :2] @ TURN[:, :2].T
    for k, want in ((1, P / 2), (2, P), (3, np.eye(3))):
        np.testing.assert_allclose(jax.jit(jax.grad(prox.SumEigenvalues(k)))(x), want, rtol=0, atol=1e-14)
    np.testing.assert_allclose(jax.jit(prox.SumEigenvalues(3).prox)(x, 0.5), x - 0.5 * np.eye(3), rtol=0, atol=1e-15)
    low, gradient = np.outer([1.0, 2.0], [2.0, 0.0, 1.0]), jax.jit(jax.grad(prox.NuclearNorm(2.0)))
    np.testing.assert_allclose(gradient(low), 2 * low / 5, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient(np.zeros((2, 3))), 0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("g", [prox.PSDCone(), prox.SpectralNormBall(3.0)], ids=lambda g: type(g).__name__)
def test_projections_of_larger_matrices_are_members(g, dtype, key):
    x = np.asarray(jax.random.normal(key, (80, 80)), dtype)
    p = jax.jit(g.project)(x)
    assert p.dtype == dtype and g(p) == 0 and g(x) == np.inf
    assert g(p - 1e-2 * np.eye(80, dtype=dtype) if isinstance(g, prox.PSDCone) else 1.01 * p) == np.inf


EXTREME = np.array([[1e-8, 1.0, -1.0], [-1e8, 1.0, -1.0], [1.0, -1e8, 2.0], [3e7, 1.0, 1e-9], [0.0, 0.0, -1.0]])


@pytest.mark.parametrize("pair", ["exponential", "power"])
def test_moreau_decomposition_far_out(pair):
    """v = P_K(v) - P_K*(-v), the two at a right angle, with a finite symmetric derivative; points side by side."""
    cone, dual = {
        "exponential": (prox.ExponentialCone(), prox.DualExponentialCone()),
        "power": (prox.PowerCone(0.2), prox.DualPowerCone(0.2)),
    }[pair]
    all_of = jax.jit(lambda v: (cone.project(v), dual.project(-v), jax.vmap(jax.jacrev(cone.project))(v)))
    for scale in (1e-155, 1.0, 1e140):
        v = scale * EXTREME
        p, d, J = all_of(v)
        size = scale * np.linalg.norm(EXTREME, axis=-1)
        np.testing.assert_allclose((p - d - v) / size[:, None], 0, rtol=0, atol=1e-15)
        np.testing.assert_allclose(np.sum(p / size[:, None] * (d / size[:, None]), axis=-1), 0, rtol=0, atol=1e-15)
        np.testing.assert_allclose(J, np.swapaxes(J, 1, 2), rtol=0, atol=1e-12)
        spectrum = np.linalg.eigvalsh(J)  # a root near 1e8 is known to 1e-8
        assert spectrum.min() > -1e-7 and spectrum.max() < 1 + 1e-7


def test_power_cone_at_an_edge():
    """z = 0 and x < 0: the derivative in z is the limit from z > 0, 1/(1 + 2 |x|/y) for a circular cone."""
    alphas, slopes = np.array([0.3, 0.5, 0.7]), (1.0, 1 / 3, 0.0)
    points = np.array([[-1.0, 1.0, 0.0], [-1.0, 1.0, 1e-15]])
    derivative = jax.jit(jax.vmap(lambda alpha, v: jax.jacrev(prox.PowerCone(alpha).project)(v), (0, None)))
    at, near = (derivative(alphas, v) for v in points)
    for J, slope in zip(at, slopes, strict=True):
        np.testing.assert_allclose(J, np.diag([0.0, 1.0, slope]), rtol=0, atol=1e-15)
    np.testing.assert_allclose(near, at, rtol=0, atol=1e-3)


NONCONVEX = {
    "RankBall 1": (prox.RankBall(1), lambda x: best_of_rank(x, 1), WIDE),
    "RankBall 2, equal ones kept": (prox.RankBall(2), lambda x: best_of_rank(x, 2), TURN * np.array([2.0, 2.0, 0.5])),
    "Stiefel tall, two equal": (prox.Stiefel(), polar, np.linalg.qr(np.vander(np.arange(4.0), 3))[0] * [3.0, 3.0, 1.0]),
}


@pytest.mark.parametrize("name", NONCONVEX)
def test_nonconvex_sets_have_a_projection_and_its_derivatives(name, key):
    g, oracle, x = NONCONVEX[name]
    assert isinstance(g, prox.Set) and not g.is_convex
    project = jax.jit(g.project)
    p = project(x)
    np.testing.assert_allclose(p, oracle(x), rtol=0, atol=1e-13)
    assert g(p) == 0 and g(x) == np.inf
    np.testing.assert_allclose(project(p), p, rtol=0, atol=1e-14)
    for noise in np.asarray(jax.random.normal(key, (20, *x.shape))):  # nothing in the set is nearer
        other = oracle(x + noise)
        assert np.linalg.norm(x - p) <= np.linalg.norm(x - other) + 1e-13
    J = jacobian(g.project, x)
    np.testing.assert_allclose(J, differences(oracle, x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(J, J.T, rtol=0, atol=1e-13)

    def scalar(x):
        return jnp.sum(jnp.sin(g.project(x)))

    H = jax.jit(jax.hessian(scalar))(x).reshape(x.size, x.size)
    gradient = jax.jit(jax.grad(scalar))
    np.testing.assert_allclose(H, differences(lambda x: np.asarray(gradient(x)), x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("fun, x", [(prox.RankBall(1), 2.0 * TURN), (prox.Stiefel(), np.diag([1.0, 0.0]))])
def test_a_projection_that_is_not_unique_is_reported_as_a_jump(fun, x):
    report = nsi.kinks(fun.project)(x)
    assert report.num_jumps == 1
    assert fun(jax.jit(fun.project)(x)) == 0
    assert np.isfinite(jacobian(fun.project, x)).all()
    assert nsi.kinks(fun.project)(x + np.diag(np.arange(1.0, len(x) + 1))).num_jumps == 0


def test_a_matrix_of_lower_rank_is_kept():
    x = np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 0.5])
    g = prox.RankBall(2)
    np.testing.assert_allclose(jax.jit(g.project)(x), x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(jacobian(g.project, x), np.eye(9), rtol=0, atol=1e-13)
    assert nsi.kinks(g.project)(x).num_jumps == 0
