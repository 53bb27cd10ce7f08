"""Guards: what is flagged, what is not, and what each ``on_failure`` gives, per lane and compiled.

The lanes are linear systems M x = b + shift with a NumPy solver; lane 17 of 64 is exactly singular.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

import nsimplicit as nsi
from nsimplicit import guards, linear_solvers
from nsimplicit.derivatives import Implicit
from nsimplicit.implicit.guard import check
from nsimplicit.linear_solvers.operator import LinearSolution, Operator

BAD = 17
rng = np.random.default_rng(0)
M = rng.normal(size=(64, 3, 3)) + 3 * np.eye(3)
M[BAD] = [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 0.0, 1.0]]
B = rng.normal(size=(64, 3))
X = np.stack([np.linalg.lstsq(m, b, rcond=None)[0] for m, b in zip(M, B, strict=True)])
OTHERS = np.arange(64) != BAD


def solver(derivative):
    """x of M x = b, with a NumPy solver that returns least squares where there is no solution."""

    def lstsq(M, b):
        return np.linalg.lstsq(M, b, rcond=None)[0]

    return nsi.custom_root(lambda x, M, b: M @ x - b, init_argnum=None, derivative=derivative)(
        nsi.host(lstsq, like=lambda M, b: b)
    )


@functools.cache
def step(guard, linear_solver=linear_solvers.Auto()):
    """The compiled training step: gradient in a shared shift, and one report per lane."""
    solve = solver(Implicit(linear_solver, guard))

    def loss(shift, weights, M, taps):
        def lane(M, b, weight, tap):
            x = solve.reporting(tap)(M, b + shift)
            return jnp.where(weight > 0, weight * jnp.sum(x**2), 0.0)

        return jax.vmap(lane)(M, B, weights, taps).mean()

    return jax.jit(jax.grad(loss, (0, 3)))


SHIFT, ONES = np.zeros(3), np.ones(64)
TAPS = jax.tree.map(lambda x: jnp.zeros(64, x.dtype), nsi.tap())
ADJOINTS = np.stack([np.linalg.pinv(m.T) @ (2 * x) for m, x in zip(M, X, strict=True)]) / 64
WITHOUT = ADJOINTS[OTHERS].sum(0)


def failures(report):
    return np.flatnonzero(report.failed).tolist()


@pytest.mark.parametrize(
    "guard",
    [guards.Solved(), guards.Solved(on_failure="drop"), guards.Conditioned(on_failure="drop"),
     guards.Solved(on_failure="least_squares"), guards.Solved(on_failure="ignore"), guards.Off()],
    ids=str,
)  # fmt: skip
def test_one_singular_lane_of_64(guard):
    gradient, report = step(guard)(SHIFT, ONES, M, TAPS)
    assert failures(report) == ([] if isinstance(guard, guards.Off) else [BAD])
    np.testing.assert_array_equal(report.num_solves, ONES)
    assert report.condition[BAD] >= 1e17 and max(report.condition[OTHERS]) < 1e4
    assert report.forward_residual[BAD] > 0.1 and max(report.forward_residual[OTHERS]) < 1e-14
    match guard.on_failure:
        case "nan" | "ignore":  # a zero pivot: the answer as it is, is none
            assert np.all(np.isnan(gradient))
        case "drop":
            np.testing.assert_allclose(gradient, WITHOUT, rtol=1e-12)
        case "least_squares":
            np.testing.assert_allclose(gradient, ADJOINTS.sum(0), rtol=1e-9)  # LSQR stops at 2e-12


def test_a_masked_lane_never_hurts():
    gradient, report = step(guards.Solved())(SHIFT, ONES * OTHERS, M, TAPS)
    np.testing.assert_allclose(gradient, WITHOUT, rtol=1e-12)
    assert failures(report) == [] and report.num_solves[BAD] == 0


def test_a_diverged_lane_can_be_dropped():
    """A lane whose solve returned nan: its equation is nan too, and must not reach the shared gradient."""

    def diverging(W, b):
        return np.full(3, np.nan) if b[0] > 1 else np.linalg.solve(W, b)

    solve = nsi.custom_root(
        lambda x, W, b: W @ x + 0 * x**2 - b,
        init_argnum=None,
        derivative=Implicit(guard=guards.Solved(on_failure="drop")),
    )(nsi.host(diverging, like=lambda W, b: b))

    def loss(W, taps):
        b = jnp.stack([jnp.ones(3), 2 * jnp.ones(3)])
        return jax.vmap(lambda b, tap: solve.reporting(tap)(W, b).sum())(b, taps)[0:2].sum()

    taps = jax.tree.map(lambda x: x[:2], TAPS)
    gradient, report = jax.jit(jax.grad(loss, (0, 1)))(M[0], taps)
    want = -np.outer(np.linalg.solve(M[0].T, np.ones(3)), np.linalg.solve(M[0], np.ones(3)))
    np.testing.assert_allclose(gradient, want, rtol=1e-12)
    assert failures(report) == [1] and report.forward_residual[1] == np.float32(1e30)


@pytest.mark.parametrize("forward", [True, False])
def test_raise(forward):
    solve = solver(Implicit(guard=guards.Solved(on_failure="raise")))
    move = (lambda f, b: jax.jvp(f, (b,), (b,))[1]) if forward else (lambda f, b: jax.grad(lambda b: f(b).sum())(b))
    run = jax.jit(lambda M, b: move(lambda b: solve(M, b), b))
    np.testing.assert_array_equal(np.isfinite(run(M[0], B[0])), True)
    jax.effects_barrier()
    with pytest.raises(jax.errors.JaxRuntimeError, match="DerivativeError.*on_failure='raise'.*failed its guard"):
        jax.block_until_ready(run(M[BAD], B[BAD]))
        jax.effects_barrier()


def test_warn():
    run = step(guards.Solved(on_failure="warn"))
    with pytest.warns(RuntimeWarning, match="failed its guard.*\n.*\nTry: .*nsi.diagnose"):
        gradient, _ = run(SHIFT, ONES, M, TAPS)
        jax.effects_barrier()
    assert np.all(np.isnan(gradient))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.block_until_ready(run(SHIFT, ONES * OTHERS, M, TAPS))
        jax.effects_barrier()


def test_raise_if_failed():
    """The portable form: no callback, the lanes are named where the report is read."""
    _, report = step(guards.Solved(on_failure="drop"))(SHIFT, ONES, M, TAPS)
    with pytest.raises(nsi.DerivativeError, match=r"1 of 64 .*lanes \[17\].*not finite(.*\n){2}Try: \(a\)"):
        report.raise_if_failed()
    _, report = step(guards.Solved(on_failure="drop"))(SHIFT, ONES * OTHERS, M, TAPS)
    report.raise_if_failed()
    jax.tree.map(lambda x: x[0], report).raise_if_failed()


def test_off_lets_everything_through_and_solved_does_not():
    """A linear solver that lies: its backward error gives it away, in both modes."""
    lie = linear_solvers.Custom(lambda matvec, b: b)
    for guard, passes in [(guards.Off(), True), (guards.Solved(), False), (guards.Solved(rtol=1.0), True)]:
        solve = solver(Implicit(lie, guard))
        run = jax.jit(
            lambda b, f=solve: (jax.jvp(lambda b: f(M[0], b), (b,), (b,))[1], jax.grad(lambda b: f(M[0], b).sum())(b))
        )
        moved, pulled = run(B[0])
        np.testing.assert_allclose(moved, B[0] if passes else np.full(3, np.nan))
        np.testing.assert_allclose(pulled, np.ones(3) if passes else np.full(3, np.nan))


def test_condition_numbers():
    """Conditioned has a limit of its own and fails where nothing is known; Solved looks where there are factors."""
    ill = np.diag([1.0, 1.0, 1e-6])  # condition 1e6: fine in float64, ten times too much at 1e5

    def gradient(guard, linear_solver=linear_solvers.Auto(), dtype=np.float64):
        f = solver(Implicit(linear_solver, guard))
        return jax.jit(jax.grad(lambda b: f(ill.astype(dtype), b).sum()))(np.ones(3, dtype))

    exact = linear_solvers.Custom(lambda matvec, b: b / jnp.array([1.0, 1.0, 1e-6], b.dtype))
    finite = [
        gradient(guards.Solved()),
        gradient(guards.Conditioned()),
        gradient(guards.Solved(), exact),
        gradient(guards.Solved(), exact, np.float32),
    ]
    np.testing.assert_allclose(finite, [[1, 1, 1e6]] * 4, rtol=1e-6)
    failed = [
        gradient(guards.Conditioned(maximum=1e5)),
        gradient(guards.Conditioned(), exact),
        gradient(guards.Conditioned(), dtype=np.float32),  # 0.1/eps is 8e5
        gradient(guards.Solved(), dtype=np.float32),
    ]
    assert np.all(np.isnan(failed))


@pytest.mark.parametrize("linear_solver", [linear_solvers.Dense(), linear_solvers.GMRES()], ids=str)
def test_no_false_alarms(linear_solver):
    """1000 random 5×5 systems in float32 with condition numbers up to 1000: all pass both guards."""
    draw = np.random.default_rng(1)
    left, right = (np.linalg.qr(draw.normal(size=(1000, 5, 5)))[0] for _ in range(2))
    values = np.exp(draw.uniform(0, np.log(1e3), size=(1000, 5)))
    matrices = (left * values[:, None] @ right).astype(np.float32)
    sides = (draw.normal(size=(1000, 5)) * 10.0 ** draw.integers(-3, 4, size=(1000, 1))).astype(np.float32)
    solve = nsi.custom_root(
        lambda x, M, b: M @ x - b, init_argnum=None, derivative=Implicit(linear_solver, guards.Conditioned())
    )(lambda M, b: 0 * b)
    taps = jax.tree.map(lambda x: jnp.zeros(1000, x.dtype), nsi.tap())
    pull = jax.vmap(lambda M, ct, tap: jax.vjp(lambda b, tap: solve.reporting(tap)(M, b), ct, tap)[1](ct))
    adjoints, report = jax.jit(pull)(matrices, sides, taps)
    assert failures(report) == [] and report.num_solves.sum() == 1000
    assert np.all(np.isfinite(adjoints))
    exact = np.linalg.solve(matrices.astype(float).swapaxes(1, 2), sides[..., None])[..., 0]
    error = np.linalg.norm(adjoints - exact, axis=1) / np.linalg.norm(exact, axis=1)
    # condition × backward error: eps for the factored solver, the stopping test 6.4e-6 for the other
    assert error.max() < 1e3 * (1e-6 if isinstance(linear_solver, linear_solvers.Dense) else 1.3e-5)


# Problems whose tangent system is singular, or whose solution is none: each must show.

DATA = np.random.default_rng(2).normal(size=(12, 3))
TWINS = np.column_stack([DATA, DATA[:, 0]])  # the last column again is the first
TARGET = DATA @ np.array([1.0, -0.5, 0.25])
LAM = 0.1


def lasso(lam):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(TWINS, TARGET), nsi.prox.L1(lam))


def test_duplicated_column_by_forward_backward():
    f = jax.jit(
        jax.value_and_grad(lambda lam, tap: nsi.fixed_point(lasso(lam), jnp.zeros(4), tap=tap).value[0], (0, 1))
    )
    weight, (gradient, report) = f(LAM, nsi.tap())
    assert weight != 0 and np.isnan(gradient) and report.failed
    assert report.condition > 1e15


def test_duplicated_column_by_scikit_learn():
    def fit(lam):
        model = Lasso(alpha=lam / 12, fit_intercept=False, tol=1e-14, max_iter=10**6, warm_start=True)
        model.coef_ = np.array([0.3, 0.0, 0.0, 0.3])  # a solution with both twins in the support
        return model.fit(TWINS, TARGET).coef_

    solve = nsi.custom_fixed_point(lambda w, lam: lasso(lam)(w), init_argnum=None)(nsi.host(fit, like=jnp.zeros(4)))
    weights, gradient = jax.jit(lambda lam: (solve(lam), jax.grad(lambda lam: solve(lam)[0])(lam)))(LAM)
    assert weights[0] != 0 and weights[3] != 0 and np.isnan(gradient)


def test_exactly_singular_fixed_point():
    """I - T' = 0 in one direction: T is the identity there."""
    T = np.diag([0.5, 1.0])
    f = lambda a, tap: nsi.fixed_point(lambda z, a: T @ z + a * jnp.array([1.0, 0.0]), jnp.zeros(2), a, tap=tap).value  # noqa: E731
    gradient, report = jax.jit(jax.grad(lambda a, tap: f(a, tap)[1], (0, 1)))(1.0, nsi.tap())
    assert np.isnan(gradient) and report.failed


def test_unconverged_forward_solve():
    f = lambda a, tap, k: nsi.fixed_point(lambda z, a: 0.9 * jnp.tanh(z) + a, 0.0, a, tap=tap, max_steps=k)  # noqa: E731
    run = jax.jit(lambda k: (f(1.0, None, k), jax.grad(lambda tap: f(1.0, tap, k).value)(nsi.tap())))
    early, report = run(2)
    assert not early.converged and early.residual > 0.1 and report.forward_residual > 0.05
    late, report = run(1000)
    assert late.converged and report.forward_residual < 1e-10


def test_equation_of_another_problem():
    """Ridge's gradient with twice the weight the solver uses."""
    fit = lambda y, lam: np.linalg.solve(DATA.T @ DATA + 2 * lam * np.eye(3), DATA.T @ y)  # noqa: E731
    solve = nsi.custom_root(lambda w, y, lam: DATA.T @ (DATA @ w - y) + lam * w, init_argnum=None)(
        nsi.host(fit, like=jnp.zeros(3))
    )
    report = jax.jit(jax.grad(lambda tap: solve.reporting(tap)(TARGET, 5.0).sum()))(nsi.tap())
    assert report.forward_residual > 0.1 and report.num_solves == 1


@pytest.mark.parametrize("guard", [guards.Solved, guards.Conditioned])
def test_unknown_word(guard):
    with pytest.raises(nsi.InputError, match="on_failure='explode'.*not one of nan, drop(.*\n){2}Try: "):
        guard(on_failure="explode")


@pytest.mark.parametrize("guard", [guards.Solved(), guards.Conditioned()], ids=lambda g: type(g).__name__)
def test_a_guard_costs_one_product(guard):
    asked = []

    def matvec(v):
        asked.append(v)
        return 2 * v

    b = jnp.ones(3)
    solution = LinearSolution(b / 2, jnp.asarray(1), jnp.asarray(2.0), jnp.asarray(1.0))
    checked = check(guard, Operator(matvec), b, solution)
    assert len(asked) == 1 and not checked.failed


def test_a_guard_of_your_own():
    """The base class asks for one method."""

    class Strict(guards.Guard):
        on_failure = "drop"

        def failed(self, evidence):
            return jnp.ones_like(evidence.backward_error, bool)

    f = solver(Implicit(guard=Strict()))
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda b: f(M[0], b).sum()))(B[0]), np.zeros(3))
