"""Entropic optimal transport: the plan is optimal, its derivatives are those of the plan, in every row of the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.layers import entropic
from tests.cases.sinkhorn import CASES, COST, WRONG, M, N, objective, plan_by_newton, plan_of_two_by_two

D = nsi.derivatives
TIGHT = 1e-13
ROW = CASES["balanced"]


def solve(a, b, cost, epsilon, rho_a, rho_b, **options):
    options = {"tol": TIGHT, "max_steps": 20000, **options}
    return nsi.layers.sinkhorn(a, b, cost, epsilon, rho_a=rho_a, rho_b=rho_b, **options)


def seen(*args, **options):
    """What has a derivative without a gauge."""
    answer = solve(*args, **options)
    f, g = answer.potentials
    return answer.plan, answer.value, f[:, None] + g


def arrays(values):
    return tuple(jnp.asarray(x, float) for x in values)


@jax.jit
def compiled(args, options):
    return solve(*args, **options)


def traced(*args, tol=TIGHT, max_steps=20000, init=np.zeros(N)):
    """One program for all calls."""
    return compiled(args, {"tol": tol, "max_steps": max_steps, "init": jnp.asarray(init)})


pushed = jax.jit(lambda args, dots: jax.jvp(seen, args, dots))
pulled = jax.jit(lambda args, bars: jax.vjp(seen, *args)[1](bars))


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_optimal(name):
    row = CASES[name]
    answer = traced(*arrays(row.args))
    plan, value = answer.plan, answer.value
    assert answer.converged and answer.residual <= TIGHT and answer.marginal_error < 1e-12
    np.testing.assert_allclose(plan, plan_by_newton(*row.args), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(value, objective(np.asarray(plan), *row.args), rtol=1e-12)
    assert np.all(np.asarray(plan)[row.a == 0] == 0) and np.all(np.asarray(plan)[:, row.b == 0] == 0)
    f, g = answer.potentials
    np.testing.assert_allclose(
        plan, row.a[:, None] * row.b * np.exp((f[:, None] + g - row.cost) / row.epsilon), rtol=1e-11, atol=1e-300
    )
    if row.balanced:
        np.testing.assert_allclose(row.a @ f, row.b @ g, rtol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_both_modes_are_the_derivative_of_the_plan_and_of_the_value(name):
    row, h = CASES[name], 1e-5
    args, dots = arrays(row.args), arrays(row.direction(1))
    (plan_dot, value_dot, sum_dot), bars = pushed(args, dots)[1], row.direction(2)[2]
    ahead, behind = ([x + s * h * np.asarray(d) for x, d in zip(row.args, dots, strict=True)] for s in (1, -1))
    difference = (plan_by_newton(*ahead) - plan_by_newton(*behind)) / (2 * h)
    np.testing.assert_allclose(plan_dot, difference, rtol=2e-6, atol=2e-8 / row.epsilon**2)  # h² and 1e-15/h
    values = [objective(plan_by_newton(*x), *x) for x in (ahead, behind)]
    np.testing.assert_allclose(value_dot, (values[0] - values[1]) / (2 * h), rtol=2e-6, atol=1e-8)
    bars = (jnp.asarray(bars), jnp.asarray(0.7), jnp.asarray(np.where(np.isfinite(row.cost), bars**2, 0)))
    back = pulled(args, bars)
    forward = sum(jnp.vdot(x, y) for x, y in zip(bars, (plan_dot, value_dot, sum_dot), strict=True))
    np.testing.assert_allclose(forward, sum(jnp.vdot(x, y) for x, y in zip(back, dots, strict=True)), rtol=1e-9)


unrolled = jax.jit(
    lambda args, bars: jax.vjp(functools.partial(seen, max_steps=0, derivative=D.Unrolled(1500)), *args)[1](bars)
)


@pytest.mark.parametrize("name", CASES)
def test_the_derivative_is_that_of_the_unrolled_iteration(name):
    args = arrays(CASES[name].args)
    bars = (jnp.asarray(CASES["balanced"].direction(4)[2]), jnp.asarray(1.0), jnp.zeros((N, M)))
    for implicit, through in zip(pulled(args, bars), unrolled(args, bars), strict=True):
        np.testing.assert_allclose(implicit, through, rtol=1e-8, atol=1e-10)


def test_two_points_in_closed_form():
    a, b = np.array([0.3, 0.7, 0, 0]), np.array([0.6, 0.4, 0])  # the others weigh nothing
    answer = traced(*arrays((a, b, COST, 0.3, np.inf, np.inf)))
    expected = plan_of_two_by_two(a[:2], b[:2], COST[:2, :2], 0.3)
    np.testing.assert_allclose(answer.plan[:2, :2], expected, rtol=1e-12)
    assert answer.plan.sum() == pytest.approx(1, rel=1e-14)


def test_the_gradient_of_the_value_takes_no_solve_and_its_derivative_is_right():
    args = arrays(ROW.args[:4])

    def value(args, tap):
        a, b, cost, epsilon = args
        return solve(a, b, cost, epsilon, np.inf, np.inf, tap=tap).value

    slopes, dots, h = jax.grad(value, argnums=(0, 1)), arrays(ROW.direction(5)[:4]), 1e-5
    turned = jax.jit(lambda args: jax.jvp(lambda args: slopes(args, nsi.tap()), (args,), (dots,)))
    ((da, db, dcost, depsilon), report), (exact, _) = turned(args)
    answer = traced(*arrays(ROW.args))
    assert report.num_solves == 0
    np.testing.assert_allclose(dcost, answer.plan, rtol=1e-12)
    np.testing.assert_allclose(da, answer.potentials[0], rtol=1e-12)
    np.testing.assert_allclose(db, answer.potentials[1], rtol=1e-12)
    np.testing.assert_allclose(depsilon, (answer.value - (answer.plan * ROW.cost).sum()) / ROW.epsilon, rtol=1e-9)
    ahead, behind = (turned(tuple(x + s * h * d for x, d in zip(args, dots, strict=True)))[0][0] for s in (1, -1))
    for second, up, down in zip(exact, ahead, behind, strict=True):
        np.testing.assert_allclose(second, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


@jax.jit
def followed(a, b, cost, direction, epsilon):
    """P_k, dP_k for the steps k, of the map that is iterated."""

    def plans(cost):
        ot = entropic.scaled(a, b, cost, epsilon, np.inf, np.inf)

        def step(phi, _):
            gamma = entropic.log_gamma(phi, ot)
            return entropic.log_phi(gamma, ot), a[:, None] * b * jnp.exp(phi[:, None] + gamma - ot.cost)

        return jax.lax.scan(step, jnp.zeros(8), None, length=80)[1]

    return jax.jvp(plans, (cost,), (direction,))


@pytest.mark.parametrize(("epsilon", "few", "more"), [(0.5, 6, 9), (0.1, 30, 42)])
def test_the_plan_and_its_derivative_converge_at_the_second_eigenvalue(epsilon, few, more):
    rng = np.random.default_rng(8)
    a, b = (rng.dirichlet(np.full(8, 5.0)) for _ in "ab")
    cost, direction = rng.uniform(size=(8, 8)), rng.normal(size=(8, 8))
    plans = followed(a, b, cost, direction, epsilon)
    plan = np.asarray(plans[0][-1])
    eigenvalues = np.sort(np.linalg.eigvals(np.diag(1 / a) @ plan @ np.diag(1 / b) @ plan.T).real)
    np.testing.assert_allclose(eigenvalues[-1], 1, rtol=1e-12)  # the shift of the potentials
    errors = [[np.linalg.norm(x[k] - x[-1]) for x in plans] for k in (few, more)]
    rates = (np.array(errors[1]) / np.array(errors[0])) ** (1 / (more - few))
    np.testing.assert_allclose(rates[0], eigenvalues[-2], rtol=0.05)
    np.testing.assert_allclose(rates[1], eigenvalues[-2], rtol=0.2)  # of order k·rate^k
    implicit = jax.jvp(
        lambda cost: nsi.layers.sinkhorn(a, b, cost, epsilon, tol=TIGHT).plan, (jnp.asarray(cost),), (direction,)
    )
    np.testing.assert_allclose(implicit[0], plan, atol=1e-13)
    np.testing.assert_allclose(implicit[1], plans[1][-1], atol=1e-9)


def test_without_the_shift_the_tangent_system_is_regular():
    """A factorisation, which would meet the kernel, finds the condition number that the second eigenvalue tells."""
    args, bar = arrays(ROW.args), jnp.asarray(ROW.direction(2)[2])

    def far(epsilon, tap):
        a, b, cost, _, *rho = args
        derivative = D.Implicit(nsi.linear_solvers.Dense())
        return (solve(a, b, cost, epsilon, *rho, tap=tap, derivative=derivative).plan * bar).sum()

    slope, report = jax.jit(jax.grad(far, argnums=(0, 1)))(args[3], nsi.tap())
    plan = np.asarray(traced(*args).plan)
    second = np.linalg.svd(plan / np.sqrt(ROW.a[:, None] * ROW.b))[1][1]
    assert report.num_failures == 0 and 1 < report.condition < 2 * np.sqrt(N) / (1 - second**2)
    np.testing.assert_allclose(slope, pulled(args, (bar, jnp.zeros(()), jnp.zeros((N, M))))[3], rtol=1e-10)


def loss(a, cost, epsilon, **options):
    return (
        nsi.layers.sinkhorn(a, ROW.b, cost, epsilon, **options).plan * jnp.cos(jnp.arange(N * M).reshape(N, M))
    ).sum()


def test_derivatives_at_a_zero_weight_are_those_from_above():
    a = jnp.asarray(CASES["zero weights"].a)
    of = jax.value_and_grad(functools.partial(loss, cost=COST, epsilon=0.2, tol=TIGHT))
    second = jax.jit(lambda a, dot: jax.jvp(of, (a,), (dot,)))
    up, along, h = jnp.array([-1.0, 1.0, 0.0, 0.0]), jnp.array([0.3, 0.2, -0.9, 0.4]), 1e-3
    ((_, slope), (_, turn)), *ahead = (second(a + k * h * up, up) for k in range(4))
    values = [second(a, up)[0][0], *(value for (value, _), _ in ahead)]
    first = (-11 * values[0] + 18 * values[1] - 9 * values[2] + 2 * values[3]) / (6 * h)
    np.testing.assert_allclose(slope @ up, first, rtol=1e-6)
    slopes = [slope, *(slope for (_, slope), _ in ahead)]
    np.testing.assert_allclose(
        turn, (-11 * slope + 18 * slopes[1] - 9 * slopes[2] + 2 * slopes[3]) / (6 * h), rtol=1e-5
    )
    np.testing.assert_allclose(along @ turn, up @ second(a, along)[1][1], rtol=1e-10)


def guarded(on_failure):
    return D.Implicit(guard=nsi.guards.Solved(on_failure=on_failure))


@pytest.mark.parametrize(("on_failure", "expected"), [("nan", np.nan), ("drop", 0.0)])
def test_a_lane_that_did_not_converge_is_told_and_guarded(on_failure, expected):
    epsilons = jnp.array([0.2, 0.003, 0.3])

    def total(epsilons, weights):
        def lane(e):
            answer = nsi.layers.sinkhorn(ROW.a, ROW.b, COST, e, max_steps=30, derivative=guarded(on_failure))
            return answer.plan[0, 0], answer.value, answer.converged

        plan, value, converged = jax.vmap(lane)(epsilons)
        return weights[0] @ plan + weights[1] @ value, converged

    slope = jax.jit(jax.grad(total, has_aux=True))
    weights = jnp.ones((2, 3))
    for masked in (weights.at[1].set(0), weights.at[0].set(0)):
        found, converged = slope(epsilons, masked)
        assert converged.tolist() == [True, False, True]
        np.testing.assert_array_equal(found[1], expected)
        assert np.all(np.isfinite(found[::2])) and np.all(found[::2] != 0)
    np.testing.assert_array_equal(slope(epsilons, weights.at[:, 1].set(0))[0][1], 0)


def test_different_masses_and_signs_that_are_traced_do_not_converge():
    a, b, cost, *numbers = arrays(ROW.args)
    answer = traced(a, 1.5 * b, cost, *numbers)
    assert not answer.converged and answer.marginal_error > 0.4
    assert not traced(a, b, cost, -0.2, *numbers[1:]).converged
    assert not traced(-a, b, cost, *numbers).converged


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused(name):
    args, options, pattern = WRONG[name]
    with pytest.raises(nsi.InputError, match=rf"sinkhorn\([\s\S]*{pattern}"):
        nsi.layers.sinkhorn(*args, **options)


def points(n, dtype):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 0.5
    cost = ((x[:, None] - y) ** 2).sum(-1)
    return jnp.full(n, 1 / n, dtype), jnp.asarray(cost / cost.mean(), dtype)


def test_single_precision_where_exponents_leave_its_range():
    a, cost = points(16, jnp.float32)

    mixing, epsilon = nsi.solvers.Anderson(), 0.005
    answer = nsi.layers.sinkhorn(a, a, cost, epsilon, solver=mixing, tol=2e-5, max_steps=5000)
    assert answer.converged
    assert {x.dtype for x in jax.tree.leaves((answer.plan, answer.value, answer.potentials))} == {
        jnp.dtype(jnp.float32)
    }
    f, g, plan, cost = (np.asarray(x, np.float64) for x in (*answer.potentials, answer.plan, cost))
    # cost/epsilon reaches 1000 (exp(-88) is the smallest float32), and is rounded to 6e-5
    np.testing.assert_allclose(plan, np.exp((f[:, None] + g - cost) / epsilon) / 256, rtol=1e-3, atol=1e-30)
    np.testing.assert_allclose(plan.sum(0), 1 / 16, rtol=1e-4)
    np.testing.assert_allclose(plan.sum(1), 1 / 16, rtol=1e-4)


def test_a_start_and_another_solver_take_fewer_steps():
    args = arrays(CASES["small epsilon"].args)
    plain, mixed = traced(*args), solve(*args, solver=nsi.solvers.Anderson())
    again = traced(*args, init=plain.potentials[0])
    assert again.num_steps <= 4 and 1.5 * mixed.num_steps < plain.num_steps
    np.testing.assert_allclose(plain.plan, mixed.plan, atol=1e-13)
    stopped = traced(*args, max_steps=5)
    assert not stopped.converged and stopped.num_steps == 5


def test_the_gradient_lowers_everywhere_in_memory_of_a_few_matrices():
    a, cost = points(48, jnp.float32)

    def far(cost, epsilon, tap):
        return nsi.layers.sinkhorn(a, a, cost, epsilon, tap=tap).plan[0, 0]

    slope = jax.jit(jax.grad(far, argnums=(0, 1, 2)))
    args = (cost, jnp.float32(0.3), nsi.tap())
    exported = jax.export.export(slope, platforms=("cuda", "tpu"))(*args)
    assert set(exported.platforms) == {"cuda", "tpu"}
    program = slope.lower(*args).compile()
    *slopes, report = program(*args)
    assert report.num_solves == 1 and report.num_failures == 0 and 0 < report.num_steps < 48
    assert all(np.all(np.isfinite(x)) for x in slopes)
    memory = program.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 8 * cost.nbytes


def test_a_derivative_that_is_carried_along():
    args, dots = arrays(ROW.args), arrays(ROW.direction(1))
    carried = jax.jit(lambda args: jax.jvp(functools.partial(seen, derivative=D.Piggyback()), (*args,), dots))(args)
    for found, exact in zip(carried[1], pushed(args, dots)[1], strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
