"""The implicit rule inside ``shard_map`` with replica checks, on eight devices: lanes are split, parameters are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi
from nsimplicit import InputError, derivatives, guards, linear_solvers
from tests.cases.implicit import ROWS, T

ROW = ROWS["nonlinear"]
A, B, _ = ROW.theta
POINTS = T + 0.1 * np.arange(16.0)[:, None]  # two lanes a device
LANES, SAME = P("i"), P()


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def total(solve, A, B, points, *taps):
    def one(t, *tap):
        fit = solve.reporting(*tap) if tap else solve
        return jnp.sum(jnp.cos(fit(A, B, t)))

    return jax.vmap(one)(points, *taps).sum()


def split(mesh, fun, in_specs):
    """``fun`` of one device's share, summed over devices."""

    def local(*args):
        return jax.lax.psum(fun(*args), "i")

    return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=SAME)


@pytest.fixture(scope="module")
def reference():
    solve = ROW.solver()
    return jax.jit(jax.grad(lambda *args: total(solve, *args), (0, 1, 2)))(A, B, POINTS)


@pytest.mark.parametrize("linear_solver", [linear_solvers.Dense(), linear_solvers.GMRES()], ids=str)
def test_gradients_of_replicated_and_split_parameters(mesh, reference, linear_solver):
    solve = ROW.solver(derivative=derivatives.Implicit(linear_solver))
    loss = split(mesh, lambda *args: total(solve, *args), (SAME, SAME, LANES))
    for got, want in zip(jax.jit(jax.grad(loss, (0, 1, 2)))(A, B, POINTS), reference, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_gradient_taken_inside(mesh, reference):
    solve = ROW.solver()

    def local(A, B, points):
        return jax.grad(lambda *args: jax.lax.psum(total(solve, *args), "i"), (0, 1, 2))(A, B, points)

    grad = jax.shard_map(local, mesh=mesh, in_specs=(SAME, SAME, LANES), out_specs=(SAME, SAME, LANES))
    for got, want in zip(jax.jit(grad)(A, B, POINTS), reference, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_jvp_and_second_order(mesh):
    solve = ROW.solver()
    loss = split(mesh, lambda *args: total(solve, *args), (SAME, SAME, LANES))

    def second(f):
        return jax.jit(lambda p: jax.jvp(jax.grad(lambda p: f(A, B, p)), (p,), (jnp.cos(p),))[1])(POINTS)

    np.testing.assert_allclose(second(loss), second(lambda *args: total(solve, *args)), rtol=1e-12)


@pytest.mark.parametrize("per_lane", [True, False])
def test_tap(mesh, per_lane):
    """One tap a lane reports lane by lane; a tap shared by all devices holds the sum over all of them."""
    solve = ROW.solver()
    if per_lane:
        tap = jax.vmap(lambda _: nsi.tap())(jnp.arange(16))
        loss = split(mesh, lambda p, tap: total(solve, A, B, p, tap), (LANES, LANES))
    else:
        tap = nsi.tap()
        loss = split(mesh, lambda p, tap: total(solve.reporting(tap), A, B, p), (LANES, SAME))
    report = jax.jit(jax.grad(loss, 1))(POINTS, tap)
    np.testing.assert_array_equal(report.num_solves, np.ones(16) if per_lane else 16)
    np.testing.assert_array_equal(report.num_failures, np.zeros(16) if per_lane else 0)


def test_least_squares_and_drop(mesh):
    """The policies' own loops and selects vary over the mesh as the lanes do."""
    M = np.stack([np.diag([1.0, i % 4]) for i in range(16)])  # lanes 0, 4, 8, 12 are singular

    def loss(on_failure):
        derivative = derivatives.Implicit(guard=guards.Solved(on_failure=on_failure))
        solve = nsi.custom_root(lambda x, M, b: M @ x - b, init_argnum=None, derivative=derivative)(
            lambda M, b: b + 0 * M[0]
        )
        return lambda b, M: jax.vmap(lambda M: solve(M, b).sum())(M).sum()

    for on_failure, want in (("drop", [12.0, 4 * (1 + 1 / 2 + 1 / 3)]), ("least_squares", [16.0, 4 * (11 / 6)])):
        got = jax.jit(jax.grad(split(mesh, loss(on_failure), (SAME, LANES))))(jnp.ones(2), M)
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_leaves_that_vary_differently(mesh):
    """A solution with a leaf the devices share and a leaf they do not is one vector all the same."""

    def local(a, b):
        solve = nsi.custom_root(lambda z, a, b: (z[0] - a, z[1] - z[0] * b), init_argnum=None)(lambda a, b: (a, a * b))
        return jax.lax.psum(jnp.sum(solve(a, b)[1] ** 2), "i")

    loss = jax.shard_map(local, mesh=mesh, in_specs=(SAME, LANES), out_specs=SAME)
    b = np.arange(8.0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0, b), 4.0 * (b**2).sum())


def raises(mesh, match, equation, solver, z_spec=LANES):
    solve = nsi.custom_root(equation, init_argnum=None)(solver)
    call = jax.shard_map(solve, mesh=mesh, in_specs=(LANES,), out_specs=z_spec)
    with pytest.raises(InputError, match=match) as caught:
        jax.eval_shape(call, np.ones(8))
    assert len(str(caught.value).splitlines()) == 3


def test_a_collective_without_axis_name(mesh):
    raises(mesh, r"communicates over the mesh axis i.*\n.*\n.*axis_name=\('i',\)",
           lambda x, a: x - jax.lax.pmean(x, "i") / 2 - a, lambda a: a)  # fmt: skip


def test_one_solution_for_different_equations(mesh):
    raises(mesh, "differs between the devices of mesh axis i", lambda x, a: x - a, lambda a: jnp.zeros(1), SAME)


def test_axis_name(mesh):
    """A solution split over devices, coupled by its mean: x - mean(x)/2 = a has mean(x) = 2 mean(a)."""

    def local(a):
        solve = nsi.custom_root(lambda x, a: x - jax.lax.pmean(x.mean(), "i") / 2 - a, init_argnum=None, axis_name="i")(
            lambda a: a + jax.lax.pmean(a.mean(), "i")
        )
        return solve(a)

    call = jax.shard_map(local, mesh=mesh, in_specs=(LANES,), out_specs=LANES)
    want = np.eye(8) + 1 / 8
    np.testing.assert_allclose(jax.jit(jax.jacrev(call))(np.ones(8)), want, atol=1e-10)  # GMRES: 2e-12
