"""Ordered entries: other oracles, large problems, axes and batches, weights, degenerate sizes, what analyses see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.isotonic import isotonic_regression

import nsimplicit as nsi
from nsimplicit import prox


def differences(fun, x, h=1e-6):
    return np.stack([(fun(x + h * e) - fun(x - h * e)) / (2 * h) for e in np.eye(x.size)], axis=1)


def dual_total_variation(x, w):
    """The bounded least-squares problem in the multipliers of the pairs, dense."""
    D = np.diff(np.eye(x.size), axis=0)
    u = scipy.optimize.lsq_linear(D.T, x, (-w, w), method="bvls", tol=1e-15).x
    return x - D.T @ u


def test_weights_of_isotonic_regression(key):
    """Against scikit-learn: values, and derivatives in the point and the weights by differences."""
    both = jax.jit(
        lambda x, w: (prox.Isotonic(w).project(x), *jax.jacrev(lambda x, w: prox.Isotonic(w).project(x), (0, 1))(x, w))
    )
    for row in np.asarray(jax.random.normal(key, (5, 14))):
        x, w = row[:7], np.exp(row[7:])
        p, J, K = both(x, w)
        np.testing.assert_allclose(p, isotonic_regression(x, sample_weight=w), rtol=0, atol=1e-14)
        for got, fun, at in (
            (J, lambda x, w=w: isotonic_regression(x, sample_weight=w), x),
            (K, lambda w, x=x: isotonic_regression(x, sample_weight=w), w),
        ):
            np.testing.assert_allclose(got, differences(fun, at), rtol=0, atol=1e-8)


def test_long_vectors(key):
    """10^4 entries, a trend and noise: the optimality conditions, and agreement with other code."""
    noise = np.asarray(jax.random.normal(key, (10_000,)))
    project = jax.jit(prox.Isotonic().project)
    for x in (noise + np.linspace(0, 3, noise.size), np.sort(noise), -np.sort(noise), 1e6 + noise, np.round(noise, 1)):
        p = np.asarray(project(x))
        np.testing.assert_allclose(p, isotonic_regression(x), rtol=1e-14, atol=1e-12)
        assert np.all(np.diff(p) >= 0)
    denoise = jax.jit(lambda x, w: prox.TotalVariation1D(w).prox(x, 1.0))
    for x, w in ((np.cumsum(noise), 5.0), (noise, 0.3), (1e6 + noise, 100.0)):
        p = np.asarray(denoise(x, w))
        u = np.cumsum(p - x)[:-1]
        slack = 1e-13 * np.abs(x).sum()
        assert np.abs(u).max() <= w + slack and abs(np.sum(p - x)) <= slack
        moved = np.abs(np.diff(p)) > slack
        assert 0 < moved.sum() < x.size - 1
        np.testing.assert_allclose(u[moved], w * np.sign(np.diff(p))[moved], atol=slack)


def test_total_variation_by_its_dual(key):
    step = jax.jit(lambda x, w: prox.TotalVariation1D(w).prox(x, 1.0))
    for x in np.asarray(jax.random.normal(key, (5, 12))):
        for w in (np.full(11, 0.7), np.linspace(0.1, 1, 11), np.full(11, 50.0)):
            np.testing.assert_allclose(step(x, w), dual_total_variation(x, w), atol=1e-12)
        # Some weights are zero, which the dense solver does not take: the optimality conditions.
        w = np.maximum(x[1:], 0)
        p = np.asarray(step(x, w))
        u, steps = np.cumsum(p - x), np.diff(p)
        assert np.all(np.abs(u[:-1]) <= w + 1e-14) and abs(u[-1]) < 1e-14
        np.testing.assert_allclose(u[:-1] * steps, w * np.abs(steps), atol=1e-14)


@pytest.mark.parametrize("name", ["Isotonic", "TotalVariation1D"])
def test_axes_and_batches(name, key):
    """Rows side by side, mapped, and along another axis."""
    x = np.asarray(jax.random.normal(key, (2, 3, 4)))

    def along(axis):
        g = prox.Isotonic(axis=axis) if name == "Isotonic" else prox.TotalVariation1D(0.3, axis=axis)
        return jax.jit(jax.value_and_grad(lambda x, c: (c * jnp.sin(g.prox(x, 1.0))).sum()))

    c = np.cos(np.arange(x.size)).reshape(x.shape)
    rows = along(0)
    want = [[rows(u, v) for u, v in zip(us, vs, strict=True)] for us, vs in zip(x, c, strict=True)]
    total, slope = along(-1)(x, c)
    np.testing.assert_allclose(total, sum(v for row in want for v, _ in row), rtol=1e-13)
    np.testing.assert_allclose(slope, [[g for _, g in row] for row in want], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(along(0)))(np.swapaxes(x, 1, 2), np.swapaxes(c, 1, 2))[1],
        np.swapaxes(slope, 1, 2),
        rtol=1e-13,
        atol=1e-15,
    )


def jacobian(fun, *args, argnums=0):
    return jax.jit(jax.jacrev(fun, argnums))(*args)


@pytest.mark.parametrize("n", (1, 4))
@pytest.mark.parametrize("name", ["TotalVariation1D", "Maximum", "SumLargest", "SLOPE"])
def test_without_weight_there_is_no_kink(name, n):
    """The identity, at ties as well, whatever the selection."""
    x = jnp.array([1.0, 1.0, -2.0, 1.0])[-n:]

    def step(x, w, selection):
        args = (1, w) if name == "SumLargest" else (w * jnp.ones(n) if name == "SLOPE" else w,)
        return getattr(prox, name)(*args, selection=selection).prox(x, 0.5)

    with jax.debug_nans(True):
        slopes = jax.jit(jax.vmap(jax.jacrev(step), (None, None, 0)))(x, 0.0, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(slopes, [np.eye(n)] * 2)


def test_the_first_bit_of_weight_is_taken_from_the_largest():
    x = jnp.array([3.0, 1.0, 1.0, 0.0])
    take = jacobian(lambda w: prox.SumLargest(2, w).prox(x, 0.5), 0.0)
    np.testing.assert_allclose(take, [-0.5, -0.25, -0.25, 0.0])


def test_one_weight_is_the_l1_norm(key):
    x = np.asarray(jax.random.normal(key, (4,))).round(1)
    for g, h in (
        (prox.SLOPE(0.6, selection=0.3), prox.L1(0.6, selection=0.3)),
        (prox.Maximum(1.2), prox.SumLargest(1, 1.2)),
    ):
        slopes = [jacobian(lambda x, f=f: f.prox(x, 0.5), x) for f in (g, h)]
        np.testing.assert_allclose(*slopes, atol=1e-15)


def test_a_box_without_bounds_and_a_capped_simplex(key):
    x = np.asarray(jax.random.normal(key, (5,)))
    a = np.array([1.0, -2.0, 0.0, 0.5, 1.0])
    pairs = (
        (prox.BoxSection(-np.inf, np.inf, a, 1.5), prox.Hyperplane(a, 1.5)),
        (prox.BoxSection(0.0, 1.0, 1.0, 2.5), prox.CappedSimplex(2.5, 1.0)),
    )
    for g, h in pairs:
        slopes = [jacobian(f.project, x) for f in (g, h)]
        np.testing.assert_allclose(*slopes, atol=1e-14)
        np.testing.assert_allclose(*(jax.jit(f.project)(x) for f in (g, h)), atol=1e-14)
    # At a vertex b moves the entry that is first to leave its bound.
    with jax.debug_nans(True):
        slope = jacobian(lambda b: prox.BoxSection(0.0, 1.0, jnp.ones(2), b).project(jnp.array([0.5, -3.0])), 1.0)
    np.testing.assert_allclose(slope, [0.0, 1.0])


def test_kinks_are_seen_and_their_sets_are_right():
    """A pair alone in its block is one switch, and its set the two partitions; two in a block are coupled."""
    project = prox.Isotonic().project
    x = jnp.array([0.1, 2.0, 1.0, 1.5])
    report = nsi.kinks(project)(x)
    assert (report.num_active, report.num_jumps) == (1, 0)
    for near in (0.0, 1e-10):
        form = nsi.calculus.normal_form(project)(x + jnp.array([0.0, 0.0, 0.0, near]))
        assert form.num_kinks == 1
        for s in (0.0, 1.0):
            want = jacobian(prox.Isotonic(selection=s).project, x)
            np.testing.assert_allclose(form.jacobian([s]), want, atol=1e-9)
            np.testing.assert_allclose(form.arguments([s]), np.array([[0.0, -1.0, -1.0, 2.0]]) / 3, atol=1e-9)
    with pytest.raises(nsi.InputError, match="shares its weight"):
        nsi.calculus.normal_form(project)(jnp.ones(3))
    assert nsi.kinks(project)(jnp.array([2.0, 2.0, 1.0, 5.0])).num_active == 0  # a tie of the input is no kink
