"""``Unrolled(checkpoint=True)`` is ``Unrolled``, to rounding, in every mode and order; it differs in memory alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi
from tests.cases.axes import QUICK

D, S = nsi.derivatives, nsi.solvers
MIX = jnp.array([[0.3, -0.4, 0.1], [0.2, 0.1, 0.3], [0.0, 0.2, -0.2]])
THETA = (MIX, jnp.array([0.4, -0.7, 0.2]))
SLOPE = jax.tree.map(lambda x: jnp.cos(7 * x), THETA)
ORDER = jnp.array([2, 0, 1])


def cell(z, theta, order):
    """A map of a state of two leaves; an integer array is among what it depends on."""
    weight, bias = theta
    a, b = z["a"], z["b"]
    return {"a": jnp.tanh(weight @ a[order] + 0.2 * b + bias), "b": 0.3 * jnp.sin(a.sum() + b * bias[0])}


def loss(theta, checkpoint, steps=4, solver=S.Picard()):
    derivative = D.Unrolled(steps, checkpoint=checkpoint)
    z0 = {"a": jnp.ones(3), "b": jnp.zeros(())}
    z = nsi.fixed_point(cell, z0, theta, ORDER, solver=solver, derivative=derivative).value
    return jnp.sum(jnp.sin(z["a"]) * jnp.arange(1.0, 4.0)) + z["b"] ** 2


def along(f, theta):
    return jax.jvp(f, (theta,), (SLOPE,))[1]


MODES = {
    "value": lambda f: f,
    "jvp": lambda f: functools.partial(along, f),
    "vjp": jax.grad,
    "jvp of vjp": jax.hessian,
    "vjp of vjp": lambda f: jax.grad(lambda t: sum(map(jnp.vdot, jax.grad(f)(t), SLOPE))),
    "vjp of jvp": lambda f: jax.grad(functools.partial(along, f)),
    "jvp of jvp": lambda f: functools.partial(along, functools.partial(along, f)),
    "third order": lambda f: jax.grad(lambda t: along(functools.partial(along, f), t)),
    "vjp of vmap, one weight": lambda f: jax.grad(lambda t: jax.vmap(lambda b: f((t[0], b)))(t[0] + t[1]).sum()),
}


def agree(mode, **options):
    def both(theta):
        return [mode(functools.partial(loss, checkpoint=checkpoint, **options))(theta) for checkpoint in (True, False)]

    got, expected = jax.jit(both, compiler_options=QUICK)(THETA)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, expected)  # rounding


@pytest.mark.parametrize("mode", [pytest.param(m, marks=[pytest.mark.slow] * (m == "third order")) for m in MODES])
def test_every_mode_and_order(mode):
    agree(MODES[mode])


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_every_number_of_steps(steps):
    agree(jax.grad, steps=steps)


@pytest.mark.parametrize("solver", [S.Picard(0.7), S.Anderson(), S.Nesterov(), S.SemismoothNewton()], ids=repr)
def test_every_solver(solver):
    agree(jax.grad, solver=solver)


SHARDED = {
    "lanes of each device, one weight": lambda z, w, x: jnp.tanh(z @ w + x),
    "one state over the devices": lambda z, w, x: jnp.tanh(0.05 * jax.lax.psum(z.sum(0), "m") @ w + x),
}


@pytest.mark.parametrize("program", SHARDED)
def test_over_devices(program):
    mesh = jax.make_mesh((4,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    T = SHARDED[program]
    over = "m" if "psum" in T.__code__.co_names else ()

    def run(w, x, checkpoint):
        derivative = D.Unrolled(5, checkpoint=checkpoint)
        return nsi.fixed_point(T, jnp.zeros_like(x), w, x, derivative=derivative, axis_name=over).value

    def both(w, x):
        def gradient(checkpoint):
            local = functools.partial(run, checkpoint=checkpoint)
            whole = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("m")), out_specs=P("m"))
            return jax.grad(lambda w, x: jnp.sum(jnp.sin(whole(w, x))), (0, 1))(w, x)

        return gradient(True), gradient(False)

    x = jnp.cos(jnp.arange(24.0)).reshape(8, 3)
    got, expected = jax.jit(both, compiler_options=QUICK)(MIX, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, expected)  # rounding


def test_sixteen_bits_and_complex_numbers_and_keys():
    def both(w, half):
        def of(checkpoint):
            mode = D.Unrolled(6, checkpoint=checkpoint)

            def wave(w):
                z0 = {"z": jnp.ones(2, complex), "count": jnp.arange(3)}
                shift = jax.random.key(1)

                def T(z, w, key):
                    return {"z": 0.2 * jnp.exp(1j * z["z"].real) * w + jax.random.normal(key), "count": z["count"]}

                return jnp.sum(nsi.fixed_point(T, z0, w, shift, derivative=mode).value["z"].imag)

            def low(w):
                z0 = jnp.zeros(3, jnp.bfloat16)
                return nsi.fixed_point(lambda z, w: jnp.tanh(w @ z + 1), z0, w, derivative=mode).value.sum()

            return jax.grad(wave)(w), jax.grad(low)(half)

        return of(True), of(False)

    got, expected = jax.jit(both, compiler_options=QUICK)(jnp.array([0.3 + 0.1j, 0.2]), MIX.astype(jnp.bfloat16))
    assert got[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(got[0], expected[0], atol=1e-12)  # rounding
    np.testing.assert_allclose(got[1].astype(float), expected[1].astype(float), rtol=2**-6)  # rounding, two units


def relaxed(z, t):
    return 0.3 * nsi.relu(z) + t


def test_selections_reach_the_kinks_inside():
    def f(t):
        return nsi.fixed_point(relaxed, 0.0, t, derivative=D.Unrolled(5, checkpoint=True)).value

    for selection, slope in (("above", sum(0.3**k for k in range(5))), ("below", 1.0)):
        np.testing.assert_allclose(jax.grad(nsi.with_selection(f, selection))(0.0), slope, rtol=1e-12)  # rounding
    assert nsi.kinks(f)(0.0).num_active == 5


def test_counts_and_residuals_have_no_derivative():
    def f(t):
        found = nsi.fixed_point(relaxed, 1.0, t, derivative=D.Unrolled(5, checkpoint=True))
        return found.residual, found.num_steps

    (residual, count), (moved, _) = jax.jvp(f, (0.5,), (1.0,))
    assert residual > 0 and count == 5 and moved == 0


# ---- memory: by XLA's own account, nothing is run -----------------------------------------------


def test_lanes_of_a_vmap_share_the_gradient_of_a_weight():
    # 64 lanes of 1000 numbers: one gradient of a weight for each lane would be 256 MB.
    def total(weight, start):
        def lane(z):
            return nsi.fixed_point(lambda z, w: jnp.tanh(z @ w), z, weight, derivative=D.Unrolled(50, True)).value

        return jnp.sum(jax.vmap(lane)(start) ** 2)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1000, 1000), (64, 1000))]
    found = jax.jit(jax.grad(total)).lower(*shapes).compile().memory_analysis()
    assert found is not None and found.temp_size_in_bytes <= 10e6
