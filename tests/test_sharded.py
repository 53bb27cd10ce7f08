"""One state over several devices: with axis_name nothing hangs and nothing differs."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi

N = 16
MATRIX = np.random.default_rng(0).normal(size=(N, N))
MATRIX = jnp.asarray(0.8 * MATRIX / np.linalg.norm(MATRIX, 2))
# The first devices hold entries that are solved at once, the last ones entries that need many steps.
THETA = jnp.concatenate([jnp.zeros(8), jnp.linspace(1.0, 3.0, 8)])
SOLVERS = [nsi.solvers.Picard(), nsi.solvers.Anderson(), nsi.solvers.Nesterov(), nsi.solvers.Picard(0.8)]


@pytest.fixture(autouse=True)
def time_out():
    """A hang ends as a failure."""

    def stop(*_):
        raise TimeoutError("the solve hangs")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def sharded(fun, n_out=1):
    mesh = Mesh(np.array(jax.devices()[:8]), ("feature",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("feature"), P(None, "feature")), "out_specs": (P("feature"), P())}
    return jax.jit(jax.shard_map(fun, mesh=mesh, check_vma=True, **specs))


def rows(z_part):
    """This device's rows of MATRIX times the whole z, from its part: columns here, a reduce-scatter across."""
    index = jax.lax.axis_index("feature")
    columns = jax.lax.dynamic_slice_in_dim(MATRIX, index * 2, 2, axis=1)
    return jax.lax.psum_scatter(columns @ z_part, "feature", tiled=True)


def T(z, theta):
    return jnp.tanh(rows(z)) + theta


def whole(z, theta):
    return jnp.tanh(MATRIX @ z) + theta


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}{getattr(s, 'relaxation', '')}")
def test_value_steps_and_gradient_are_those_of_one_device(solver):
    def part(theta, _):
        def loss(theta):
            solution = nsi.fixed_point(T, jnp.zeros_like(theta), theta, solver=solver, axis_name="feature")
            return jax.lax.psum(jnp.sum(solution.value**2), "feature"), solution.num_steps

        gradient, steps = jax.grad(loss, has_aux=True)(theta)
        return gradient, steps

    def loss(theta):
        # GMRES on both sides: one device alone would take the dense solver
        derivative = nsi.derivatives.Implicit(nsi.linear_solvers.GMRES())
        solution = nsi.fixed_point(whole, jnp.zeros(N), theta, solver=solver, derivative=derivative)
        return jnp.sum(solution.value**2), solution.num_steps

    got, steps = sharded(part)(THETA, jnp.zeros((1, 8)))
    expected, expected_steps = jax.jit(jax.grad(loss, has_aux=True))(THETA)
    assert int(steps) == int(expected_steps) > 5
    np.testing.assert_allclose(got, expected, rtol=1e-9)  # two Krylov solves to 2e-12, sums in another order


def test_a_collective_without_axis_name_is_refused_when_traced():
    def part(theta, _):
        return nsi.fixed_point(T, jnp.zeros_like(theta), theta).value, jnp.zeros(())

    with pytest.raises(nsi.InputError, match=r"mesh axis feature[\s\S]*axis_name=\('feature',\)"):
        sharded(part)(THETA, jnp.zeros((1, 8)))


def test_a_dense_solver_of_a_split_state_is_refused_when_traced():
    derivative = nsi.derivatives.Implicit(nsi.linear_solvers.Dense())

    def part(theta, _):
        options = {"derivative": derivative, "axis_name": "feature"}
        return jax.grad(lambda t: nsi.fixed_point(T, 0 * t, t, **options).value.sum())(theta), jnp.zeros(())

    with pytest.raises(nsi.InputError, match=r"linear_solver=Dense[\s\S]*GMRES"):
        sharded(part)(THETA, jnp.zeros((1, 8)))
