"""The tap: what the backward pass did, as the gradient of an argument, under every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import Report, guards, linear_solvers
from nsimplicit.derivatives import Implicit
from tests.cases.implicit import A as GENERAL

FIELDS = ("num_solves", "num_steps", "num_failures", "residual", "condition", "forward_residual")
POINT = np.array([1.0, -2.0, 0.5])
A = GENERAL @ GENERAL.T / 3 + np.eye(3)  # symmetric, for conjugate gradients: the cheapest iterative solver to compile


def newton(t):
    x = np.zeros(3)
    for _ in range(30):
        x = x - np.linalg.solve(A + np.diag(0.3 * x**2), A @ x + 0.1 * x**3 - t)
    return x


def make(linear_solver=linear_solvers.CG(), guard=guards.Solved()):
    return nsi.custom_root(
        lambda x, t: A @ x + 0.1 * x**3 - t, init_argnum=None, derivative=Implicit(linear_solver, guard)
    )(nsi.host(newton))


solve = make()


def loss(t, tap):
    return jnp.sum(jnp.cos(solve.reporting(tap)(t)))


GRADIENT = jax.jit(jax.grad(loss, (0, 1)))


@functools.cache
def plain_gradient():
    return np.asarray(jax.jit(jax.grad(lambda t: jnp.sum(jnp.cos(solve(t)))))(POINT))


def finite(report):
    return all(np.all(np.isfinite(x)) for x in jax.tree.leaves(report))


def test_a_tap_is_a_report_of_zeros():
    tap = nsi.tap()
    assert isinstance(tap, Report) and tap.adjoint is None
    assert all(getattr(tap, name) == 0 and getattr(tap, name).dtype == jnp.float32 for name in FIELDS)
    assert not tap.failed
    assert nsi.tap(lanes=5).residual.shape == (5,)
    like = nsi.tap(like={"x": np.ones(2, np.float32), "n": jnp.arange(2), "c": 1j * np.ones(3)}).adjoint
    assert [x.shape for x in jax.tree.leaves(like)] == [(3, 2), (2,)]  # a complex leaf is two real ones


def test_report():
    gradient, report = GRADIENT(POINT, nsi.tap())
    np.testing.assert_allclose(gradient, plain_gradient(), rtol=1e-12)
    assert (report.num_solves, report.num_failures, report.num_steps) == (1, 0, 3)  # three unknowns
    assert report.residual < 1e-12 and report.forward_residual < 1e-14
    assert 1 <= report.condition <= np.linalg.cond(A + np.diag(0.3 * newton(POINT) ** 2))
    report.raise_if_failed()


def test_warm_adjoint():
    """Passed in again at the same point, the last adjoint leaves nothing to do; nearby, fewer digits to find."""
    tap = nsi.tap(like=POINT)
    cold, first = GRADIENT(POINT, tap)
    slope = A + np.diag(0.3 * newton(POINT) ** 2)
    np.testing.assert_allclose(first.adjoint, np.linalg.solve(slope.T, -np.sin(newton(POINT))), rtol=1e-11)
    warm, second = GRADIENT(POINT, first)
    assert (first.num_steps, second.num_steps, second.num_solves) == (3, 0, 1)
    np.testing.assert_allclose(warm, cold, rtol=1e-12)
    np.testing.assert_allclose(second.adjoint, first.adjoint, rtol=1e-12)
    elsewhere, third = GRADIENT(POINT + 0.1, second)
    np.testing.assert_allclose(elsewhere, GRADIENT(POINT + 0.1, tap)[0], rtol=1e-10)
    assert third.num_steps > 0


def test_warm_adjoint_of_a_tree_in_two_precisions():
    def residual(z, a):
        return (z[0] @ A[:2, :2].astype(np.float32) - a, jnp.exp(z[1]) - a[0])

    def start(a):
        z = jnp.linalg.solve(A[:2, :2].T.astype(np.float32), a)
        return z, jnp.log(a[0].astype(float))

    fit = nsi.custom_root(residual, init_argnum=None, derivative=Implicit(linear_solvers.GMRES()))(start)
    run = jax.jit(jax.grad(lambda a, tap: sum(x.sum() for x in fit.reporting(tap)(a)), (0, 1)))
    a = np.array([2.0, 1.0], np.float32)
    cold, first = run(a, nsi.tap(like=start(a)))
    warm, second = run(a, first)
    assert [x.dtype for x in first.adjoint] == [jnp.float32, jnp.float64]
    assert first.num_steps >= 3 and second.num_steps <= 1
    np.testing.assert_allclose(warm, cold, rtol=1e-5)  # float32


def test_a_failed_adjoint_is_not_passed_on():
    """nan in, nan for ever after: what a failed solve leaves behind is a cold start."""
    fit = nsi.custom_root(lambda x, M, b: M @ x - b, init_argnum=None, derivative=Implicit(linear_solvers.GMRES()))(
        lambda M, b: b
    )
    run = jax.jit(jax.grad(lambda b, M, tap: fit.reporting(tap)(M, b).sum(), (0, 2)))
    gradient, report = run(np.ones(2), np.diag([1.0, 0.0]), nsi.tap(like=np.ones(2)))
    assert np.all(np.isnan(gradient)) and report.failed and finite(report)
    gradient, report = run(np.ones(2), np.diag([1.0, 0.5]), report)
    np.testing.assert_allclose(gradient, [1.0, 2.0])
    gradient, report = run(np.ones(2), np.diag([1.0, np.nan]), report)
    assert np.all(np.isnan(gradient)) and report.failed and finite(report)


def test_forward_mode_reports_nothing():
    out, moved = jax.jit(lambda t, tap: jax.jvp(lambda t: loss(t, tap), (t,), (t,)))(POINT, nsi.tap())
    np.testing.assert_allclose(moved, plain_gradient() @ POINT, rtol=1e-11)


def test_gradient_of_the_tap_alone():
    assert jax.jit(jax.grad(loss, 1))(POINT, nsi.tap()).num_solves == 1


def test_nothing_to_solve():
    report = jax.jit(jax.grad(lambda t, tap: 0.0 * loss(t, tap), 1))(POINT, nsi.tap())
    assert (report.num_solves, report.num_steps, report.num_failures) == (0, 0, 0)


SCALES = np.array([1.0, 0.0, 2.0])  # the second lane's loss does not look at the solution
POINTS = np.stack([POINT, POINT, POINT])


def test_vmap_one_tap_a_lane_or_one_for_all():
    def lanes(taps):
        return jax.vmap(lambda t, s, tap: s * loss(t, tap))(POINTS, SCALES, taps).sum()

    report = jax.jit(jax.grad(lanes))(jax.vmap(lambda _: nsi.tap(like=POINT))(SCALES))
    np.testing.assert_array_equal(report.num_solves, [1, 0, 1])
    np.testing.assert_array_equal(report.num_steps, [3, 0, 3])
    np.testing.assert_allclose(report.adjoint[2], 2 * report.adjoint[0], rtol=1e-12)
    one = jax.jit(jax.grad(lambda tap: jax.vmap(lambda t, s: s * loss(t, tap))(POINTS, SCALES).sum()))
    shared = one(nsi.tap())
    assert (shared.num_solves, shared.num_steps) == (2, 6)
    assert shared.forward_residual == pytest.approx(report.forward_residual.sum())


def test_scan_one_tap_a_step_or_one_for_all():
    def steps(tap, taps):
        def body(total, x):
            s, own = x
            return total + loss(s * POINT, tap) + loss(s * POINT, own), None

        return jax.lax.scan(body, 0.0, (np.array([1.0, 2.0, 3.0]), taps))[0]

    three = jax.vmap(lambda _: nsi.tap())(SCALES)
    shared, each = jax.jit(jax.grad(steps, (0, 1)))(nsi.tap(), three)
    assert (shared.num_solves, shared.num_steps) == (3, 9)
    np.testing.assert_array_equal(each.num_steps, [3, 3, 3])


def test_checkpoint():
    gradient, report = jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(POINT, nsi.tap())
    np.testing.assert_allclose(gradient, plain_gradient(), rtol=1e-12)
    assert (report.num_solves, report.num_steps) == (1, 3)


def test_batch_axis():
    """Lanes of one batched state: one tap with lanes tells them apart, a plain one adds them up."""
    rates = np.array([0.5, 1.0, 0.25])  # the second lane's map is the identity: no derivative there

    def f(a, tap):
        return nsi.fixed_point(
            lambda z, a: rates[:, None] * z + (1 - rates[:, None]) * a, jnp.zeros((3, 2)), a, batch_axis=0, tap=tap,
            derivative=Implicit(guard=guards.Solved(on_failure="drop")),
        ).value.sum()  # fmt: skip

    gradient, report = jax.jit(jax.grad(f, (0, 1)))(jnp.ones((3, 2)), nsi.tap(lanes=3))
    np.testing.assert_allclose(gradient, [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(report.num_failures, [0, 1, 0])
    np.testing.assert_array_equal(report.num_solves, [1, 1, 1])
    total = jax.jit(jax.grad(f, 1))(jnp.ones((3, 2)), nsi.tap())
    assert (total.num_failures, total.num_solves) == (1, 3)


@pytest.mark.parametrize("linear", [False, True])
def test_second_order(linear):
    """A tap that is there changes no second derivative, in any order of modes; its own record stays finite."""
    outer = (lambda t, tap: solve.reporting(tap)(t)[0]) if linear else loss
    plain = jax.grad(lambda t: outer(t, nsi.tap()))
    d = jnp.array([1.0, 0.5, -1.0])
    step = 1e-5

    @jax.jit
    def second(t, tap):
        reverse = jax.grad(lambda t, tap: jax.grad(outer)(t, tap) @ d, (0, 1))(t, tap)
        forward = jax.jvp(lambda t: jax.grad(outer, (0, 1))(t, tap), (t,), (d,))[1]
        return plain(t), reverse, forward

    differences = (second(POINT + step * d, nsi.tap())[0] - second(POINT - step * d, nsi.tap())[0]) / (2 * step)
    _, reverse, forward = second(POINT, nsi.tap())
    for hessian, record in (reverse, forward):
        np.testing.assert_allclose(hessian, differences, atol=1e-8)  # CG 2e-12, over the step
        assert finite(record)


def test_a_training_loop_learns_lane_and_pass():
    """Three steps in one compiled scan; lane 2 meets a singular matrix in the second. No callback, no nan."""
    fit = nsi.custom_root(
        lambda x, m, b: m * x - b, init_argnum=None, derivative=Implicit(guard=guards.Solved(on_failure="drop"))
    )(lambda m, b: jnp.where(m == 0, 1.0, b / jnp.where(m == 0, 1.0, m)))

    def train(shift, slopes):
        def objective(shift, taps, m):
            return jax.vmap(lambda m, tap: fit.reporting(tap)(m, 1.0 + shift) ** 2)(m, taps).mean()

        def step(shift, m):
            gradient, report = jax.grad(objective, (0, 1))(shift, jax.vmap(lambda _: nsi.tap())(m), m)
            return shift - 0.1 * gradient, report

        return jax.lax.scan(step, shift, slopes)

    slopes = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
    shift, report = jax.jit(train)(0.0, slopes)
    assert "callback" not in str(jax.make_jaxpr(train)(0.0, slopes))
    np.testing.assert_array_equal(np.argwhere(report.failed), [[1, 2]])
    want = 0.0
    for m in slopes:
        alive = m != 0
        want -= 0.1 * np.sum(2 * (1 + want) / m[alive] ** 2) / 3
    np.testing.assert_allclose(shift, want, rtol=1e-12)
