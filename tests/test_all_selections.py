"""The guard ``AllSelections``: the certificate inside a derivative, under every transformation, lane by lane.

The lanes are equations z = relu(Q z + t) at z = t = 0: all kinks are active, the system of a selection s is
I - diag(s) Q, and a derivative with selection 1/4 at each kink looks sound.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi
from nsimplicit import guards
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.certificates.verdict import judge
from nsimplicit.derivatives import Implicit

EPS = np.finfo(np.float64).eps
GOOD, BAD = np.array([[0.0, 3.0], [-3.0, 0.5]]), np.array([[0.0, 2.0], [2.0, 0.0]])
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def equation(z, Q, t):
    return z - nsi.relu(Q @ z + t, selection=0.25)


def solver(guard, F=equation):
    return nsi.custom_root(F, init_argnum=None, derivative=Implicit(guard=guard))(lambda Q, t: 0 * t)


def slope(guard, Q, t):
    """The gradient of the sum of the solution in t."""
    return jax.grad(lambda t: jnp.sum(solver(guard)(Q, t)))(t)


def expected(Q):
    k = len(Q)
    return np.linalg.inv(np.eye(k) - 0.25 * Q).sum(0) * 0.25


@functools.cache
def codes_of(**options):
    """Compiled over lanes: 1 regular, 0 undecided, -1 singular, by what passes with each ``on_undecided``."""

    def lane(Q):
        t = jnp.zeros(Q.shape[-1], Q.dtype)
        passed, strict = (
            jnp.all(jnp.isfinite(slope(guards.AllSelections(on_undecided=word, **options), Q, t)))
            for word in ("pass", "fail")
        )
        return jnp.where(strict, 1, jnp.where(passed, 0, -1))

    return jax.jit(jax.vmap(lane), compiler_options=QUICK)


def form_of(Q):
    k = len(Q)
    return NormalForm(np.eye(k), -np.eye(k), Q, np.zeros((k, k)), Q, np.zeros((k, k)))


def test_jit_and_eager_and_forward():
    for Q, fine in ((GOOD, True), (BAD, False)):
        for run in (slope, jax.jit(slope, static_argnums=0)):
            np.testing.assert_allclose(run(guards.AllSelections(), Q, jnp.zeros(2)), expected(Q) if fine else np.nan)
        solve = solver(guards.AllSelections())
        tangent = jax.jit(lambda Q, t, solve=solve: jax.jvp(lambda t: solve(Q, t), (t,), (jnp.ones(2),))[1])
        np.testing.assert_array_equal(np.isfinite(tangent(Q, jnp.zeros(2))), fine)
        assert np.all(np.isfinite(slope(guards.Solved(), Q, jnp.zeros(2))))  # it looks sound


@pytest.mark.parametrize("k", [1, 2, 3])
def test_lanes_agree_with_the_certificate(k):
    rng = np.random.default_rng(k)
    Q = rng.normal(size=(400, k, k)) * rng.choice([0.5, 1.0, 4.0], (400, 1, 1))
    Q[:40] = rng.integers(-2, 3, (40, k, k))
    found = np.asarray(codes_of()(jnp.asarray(Q)))
    host = np.array([int(judge(form_of(q), eps=EPS).code) for q in Q])
    np.testing.assert_array_equal(found[host == 1], 1)
    assert not np.any(found[host == -1] == 1)
    np.testing.assert_array_equal(found[40:], host[40:])
    assert np.mean(found[:40][host[:40] == -1] == -1) > 0.9  # integers: a zero minor may be computed as a rounding
    assert np.mean(host == 0) < 0.01 and np.sum(host == 1) > 50 and np.sum(host == -1) > 50
    alone = [int(codes_of()(jnp.asarray(Q[i : i + 1]))[0]) for i in range(3)]
    assert alone == found[:3].tolist()
    for i in range(2):
        assert int(nsi.certify(equation)(jnp.zeros(k), Q[40 + i], jnp.zeros(k)).code) == found[40 + i]


def test_a_hundred_thousand_singular_lanes_are_never_regular():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(100_000, 2, 2)) * 10.0 ** rng.uniform(-2, 2, (100_000, 1, 1))
    kind = np.arange(100_000) % 4
    Q[kind == 0, 0, 0] = 1.0  # exactly
    Q[kind == 1] = np.round(Q[kind == 1])
    Q[kind == 1, 1, 1] = 1.0
    # to rounding: one minor of I - Q is zero
    with np.errstate(divide="ignore", invalid="ignore"):
        Q[:, 1, 1] = np.where(kind >= 2, 1 - Q[:, 0, 1] * Q[:, 1, 0] / (1 - Q[:, 0, 0]), Q[:, 1, 1])
    Q[kind == 3, 0, 0] = 1.0 + EPS * rng.integers(0, 3, np.sum(kind == 3))
    found = np.asarray(codes_of()(jnp.asarray(Q)))
    assert not np.any(found == 1)
    assert np.mean(found[kind < 2] == -1) > 0.99


def test_nan_lanes_and_neighbours():
    solve = solver(guards.AllSelections(on_undecided="fail"))
    Q = jnp.stack([jnp.asarray(GOOD), jnp.full((2, 2), jnp.nan), jnp.asarray(BAD), jnp.asarray(GOOD)])
    run = jax.vmap(jax.grad(lambda tap, Q: jnp.sum(solve.reporting(tap)(Q, jnp.zeros(2)))))
    assert jax.jit(run)(taps_of(4), Q).num_failures.tolist() == [0, 1, 1, 0]


# Lanes of a shared parameter: what fails is dropped and counted.

LANES = np.stack([GOOD, BAD, GOOD / 2, BAD, 0 * GOOD, GOOD, BAD, -GOOD])


def mean_of_lanes(shift, taps, Q):
    solve = solver(guards.AllSelections(on_failure="drop"))
    return jnp.mean(jax.vmap(lambda Q, tap: jnp.sum(solve.reporting(tap)(Q, shift)))(Q, taps))


def taps_of(count):
    return jax.tree.map(lambda x: jnp.zeros(count, x.dtype), nsi.tap())


def test_drop_in_a_mean_over_lanes_and_the_report():
    grad, report = jax.jit(jax.grad(mean_of_lanes, (0, 1)))(jnp.zeros(2), taps_of(8), LANES)
    fine = np.array([int(judge(form_of(q), eps=EPS).code) == 1 for q in LANES])
    assert 2 < fine.sum() < 8
    np.testing.assert_allclose(grad, sum(expected(q) for q in LANES[fine]) / 8, rtol=1e-12)
    np.testing.assert_array_equal(report.num_failures, ~fine)
    np.testing.assert_array_equal(report.num_kinks, 2)
    np.testing.assert_array_equal(report.num_solves, 1)


def test_scan_over_lanes():
    def total(t):
        solve = solver(guards.AllSelections(on_failure="drop"))
        return jax.lax.scan(lambda c, Q: (c + jnp.sum(solve(Q, t)), None), 0.0, LANES)[0]

    grad = jax.jit(jax.grad(mean_of_lanes))(jnp.zeros(2), taps_of(8), LANES)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.zeros(2)) / 8, grad, rtol=1e-12)


def test_lanes_over_devices():
    mesh = jax.make_mesh((8,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))

    def share(shift, taps, Q):
        grad, report = jax.grad(mean_of_lanes, (0, 1))(jax.lax.pcast(shift, "m", to="varying"), taps, Q)
        return jax.lax.pmean(grad, "m"), report.num_failures

    over = jax.shard_map(share, mesh=mesh, in_specs=(P(), P("m"), P("m")), out_specs=(P(), P("m")))
    got, failures = jax.jit(over)(jnp.zeros(2), taps_of(8), LANES)
    grad, report = jax.jit(jax.grad(mean_of_lanes, (0, 1)))(jnp.zeros(2), taps_of(8), LANES)
    np.testing.assert_allclose(got, grad, rtol=1e-12)
    np.testing.assert_array_equal(failures, report.num_failures)


# What is active, how many, how large.


def test_more_kinks_than_are_looked_at():
    Q = jnp.asarray(0.1 * np.random.default_rng(0).normal(size=(1, 3, 3)))
    assert codes_of(max_kinks=2)(Q).tolist() == [0] and codes_of(max_kinks=3)(Q).tolist() == [1]


def test_tolerance():
    def run(tolerance, z0):
        derivative = Implicit(guard=guards.AllSelections(tolerance=tolerance))
        F = lambda z, t: 2 * z - 3 * jnp.abs(z - z0) + 3 * z0 - t  # noqa: E731
        return jax.grad(nsi.custom_root(F, init_argnum=None, derivative=derivative)(lambda t: 0 * t))(0.0)

    assert np.isfinite(run(None, 1e-3)) and np.isnan(run(None, 0.0)) and np.isnan(run(2.0, 1e-3))


def test_lasso_lanes_are_decided():
    """Three coefficients about to enter: regular, since four rows make three columns independent."""
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(300, 4, 6)), rng.normal(size=(300, 4))
    aims = np.where(np.arange(6) < 3, rng.choice([-1.0, 1.0], (300, 6)), 0.5)
    A += b[:, :, None] * ((aims - np.einsum("lr,lrc->lc", b, A)) / np.sum(b**2, 1)[:, None])[:, None]

    def F(x, data, weight):
        A, b = data
        return x - nsi.soft_threshold(x - 0.3 * A.T @ (A @ x - b), 0.3 * weight[0])

    def lane(word, data, tap):
        guard = guards.AllSelections(on_undecided=word)
        solve = nsi.custom_root(F, init_argnum=None, derivative=Implicit(guard=guard))(lambda data, w: jnp.zeros(6))
        return jnp.sum(solve.reporting(tap)(data, jnp.ones(1)) * jnp.arange(1.0, 7))

    run = jax.jit(jax.vmap(jax.grad(lane, 2), (None, 0, 0)), static_argnums=0)
    strict, lenient = (run(word, (A, b), taps_of(300)) for word in ("fail", "pass"))
    np.testing.assert_array_equal(strict.num_kinks, 3)
    assert lenient.num_failures.sum() == 0 and strict.num_failures.mean() <= 0.01


@pytest.mark.parametrize(("at_kinks", "fine"), [(0.5, True), (4.0, False)])
def test_beyond_the_dense_size(at_kinks, fine):
    n, kinks = 600, [5, 100, 599]
    t = np.full(n, -1.0)
    t[kinks] = 0.0

    def F(z, slope, t):
        return 2 * z - jnp.roll(z, 1) / 2 - slope * jax.nn.relu(z + t)

    report = jax.jit(jax.grad(lambda tap, t: jnp.sum(solver(guards.AllSelections(), F).reporting(tap)(at_kinks, t))))(
        nsi.tap(), jnp.asarray(t)
    )
    assert report.num_kinks == 3
    assert bool(report.num_failures) is not fine


def test_kinks_of_the_report_are_those_that_are_active():
    t = jnp.array([0.0, 1.0])
    tap = jax.grad(lambda tap: jnp.sum(solver(guards.AllSelections()).reporting(tap)(0.1 * GOOD, t)))(nsi.tap())
    assert tap.num_kinks == 1 and tap.num_failures == 0


# What is refused.


def test_lanes_that_are_not_apart_are_refused():
    derivative = Implicit(guard=guards.AllSelections())

    def run(t):
        return nsi.fixed_point(lambda z, t: nsi.relu(z) / 2 + t, 0 * t, t, derivative=derivative, batch_axis=0).value

    with pytest.raises(nsi.InputError, match=r"AllSelections\(\)(.|\n)*batch_axis=0(.|\n)*jax.vmap over the lanes"):
        jax.grad(lambda t: jnp.sum(run(t)))(jnp.ones((2, 3)))


def test_a_split_state_is_refused():
    mesh = jax.make_mesh((8,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    derivative = Implicit(guard=guards.AllSelections())

    def run(t):
        T = lambda z, t: nsi.relu(z) / 2 + t + 0.1 * jax.lax.psum(jnp.sum(z), "m") / 16  # noqa: E731
        return nsi.fixed_point(T, 0 * t, t, derivative=derivative, axis_name="m").value

    over = jax.shard_map(run, mesh=mesh, in_specs=P("m"), out_specs=P("m"))
    with pytest.raises(nsi.InputError, match=r"AllSelections\(\)(.|\n)*axis_name=\('m',\)(.|\n)*guards.Solved"):
        jax.grad(lambda t: jnp.sum(over(t)))(jnp.ones(16))


@pytest.mark.parametrize("options", [{"on_undecided": "drop"}, {"on_failure": "pass"}], ids=str)
def test_words_that_fit_nowhere_are_refused(options):
    with pytest.raises(nsi.InputError, match=r"AllSelections\(on_(.|\n)*is not one of"):
        guards.AllSelections(**options)
