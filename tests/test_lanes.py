"""Lanes are independent: each stops by its own test, is frozen then, and is what it would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

SOLVERS = {
    "Picard": nsi.solvers.Picard(),
    "relaxed": nsi.solvers.Picard(0.7),
    "Anderson": nsi.solvers.Anderson(),
    "Broyden": nsi.solvers.Broyden(),
    "Nesterov": nsi.solvers.Nesterov(),
    "SemismoothNewton": nsi.solvers.SemismoothNewton(),
}
# Contraction factors 0.2, 0.9 and 0.5: the lanes need very different numbers of steps.
RATES = jnp.array([0.2, 0.9, 0.5])
THETA = jnp.linspace(0.5, 1.5, 12).reshape(3, 4)
TURN = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0])


def cell(z, rate, theta):
    """One lane: a contraction of factor ``rate``."""
    return rate * jnp.tanh(TURN @ z) + theta


def batch(axis):
    """All lanes at once, with the lanes on ``axis``."""
    return lambda z, theta: jax.vmap(cell, (axis, 0, axis), axis)(z, RATES, theta)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_each_lane_is_what_it_is_alone(name, axis):
    solver = SOLVERS[name]

    def alone(rate, theta):
        return nsi.fixed_point(cell, jnp.zeros(4), rate, theta, solver=solver)

    expected = [jax.jit(alone)(r, t) for r, t in zip(RATES, THETA, strict=True)]
    if axis is None:
        got = jax.jit(jax.vmap(alone))(RATES, THETA)
        values = got.value
    else:
        theta = jnp.moveaxis(THETA, 0, axis)
        got = nsi.fixed_point(batch(axis), jnp.zeros_like(theta), theta, solver=solver, batch_axis=axis)
        values = jnp.moveaxis(got.value, axis, 0)
    assert got.num_steps.tolist() == [int(e.num_steps) for e in expected]
    assert len(set(got.num_steps.tolist())) > 1 or name == "SemismoothNewton"
    assert got.converged.all() and got.residual.shape == (3,)
    for value, lane in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, lane.value, rtol=1e-12)  # the same steps, summed in another order


@pytest.mark.parametrize("name", SOLVERS)
def test_a_nan_lane_stays_alone(name):
    theta = THETA.at[1].set(jnp.nan)
    options = {"solver": SOLVERS[name], "batch_axis": 0}
    good = nsi.fixed_point(batch(0), jnp.zeros((3, 4)), THETA, **options)
    got = nsi.fixed_point(batch(0), jnp.zeros((3, 4)), theta, **options)
    assert got.converged.tolist() == [True, False, True]
    assert jnp.isnan(got.value[1]).all() and got.num_steps[1] <= 2
    for lane in (0, 2):
        np.testing.assert_array_equal(got.value[lane], good.value[lane])
        assert got.num_steps[lane] == good.num_steps[lane]


@pytest.mark.parametrize(
    "derivative",
    [
        nsi.derivatives.Implicit(),
        nsi.derivatives.Implicit(nsi.linear_solvers.GMRES()),
        nsi.derivatives.Unrolled(300),
        nsi.derivatives.Neumann(300),
        nsi.derivatives.Truncated(300),
    ],
    ids=["dense", "gmres", "unrolled", "neumann", "truncated"],
)
def test_the_derivative_of_a_batch_is_that_of_its_lanes(derivative):
    weights = jnp.cos(jnp.arange(12.0)).reshape(3, 4)

    def together(theta):
        z0 = jnp.zeros((3, 4))
        return jnp.vdot(weights, nsi.fixed_point(batch(0), z0, theta, derivative=derivative, batch_axis=0).value)

    def exact(rate, theta, w):  # (I - T')⁻ᵀ w, by hand
        z = nsi.fixed_point(cell, jnp.zeros(4), rate, theta, tol=1e-14).value
        jacobian = rate * (1 - jnp.tanh(TURN @ z) ** 2)[:, None] * TURN
        return jnp.linalg.solve((jnp.eye(4) - jacobian).T, w)

    expected = jax.vmap(exact)(RATES, THETA, weights)
    np.testing.assert_allclose(jax.grad(together)(THETA), expected, atol=1e-9)  # of the forward tolerance 4e-11


def test_lanes_report_one_by_one():
    def loss(theta, tap):
        return nsi.fixed_point(batch(0), jnp.zeros((3, 4)), theta, batch_axis=0, tap=tap).value[:2].sum()

    report = jax.grad(loss, argnums=1)(THETA, nsi.tap(lanes=3))
    assert report.num_solves.tolist() == [1, 1, 0]  # the third lane is masked out of the loss
    assert report.num_failures.tolist() == [0, 0, 0]


def test_a_state_without_the_lanes_is_refused():
    with pytest.raises(nsi.InputError, match=r"fixed_point\(batch_axis=0\)[\s\S]*Try"):
        nsi.fixed_point(lambda z: z, (jnp.zeros((3, 2)), jnp.zeros(4)), batch_axis=0)
