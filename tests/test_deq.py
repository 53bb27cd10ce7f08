"""Deep equilibrium layers: every derivative agrees with unrolling, samples stop by themselves, estimates are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

SAMPLES, WIDTH = 3, 4
derivatives, linear_solvers = nsi.derivatives, nsi.linear_solvers

DERIVATIVES = {
    "implicit": derivatives.Implicit(),
    "implicit, adjoint by Anderson": derivatives.Implicit(linear_solvers.FixedPointAdjoint(nsi.solvers.Anderson())),
    "phantom": derivatives.Truncated(120, damping=0.8),
    "checkpointed": derivatives.Unrolled(120, checkpoint=True),
}


def affine(z, x):
    """A cell with a pytree for a state; how fast it contracts differs from sample to sample."""
    weight, rate, inputs = x
    u = jnp.tanh(rate[:, None] * z["v"] @ weight + inputs)
    return {"u": u, "v": 0.5 * z["u"] + 0.3 * nsi.relu(z["v"])}


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 2)
    weight = jax.random.normal(keys[0], (WIDTH, WIDTH))
    inputs = jax.random.normal(keys[1], (SAMPLES, WIDTH))
    return weight / jnp.linalg.norm(weight, 2), jnp.array([0.05, 0.4, 0.9]), inputs


def start(dtype=float):
    return {name: jnp.zeros((SAMPLES, WIDTH), dtype) for name in "uv"}


def gradient(problem, derivative):
    def loss(x):
        solution = nsi.layers.deq(affine, x, z0=start(), derivative=derivative, tol=1e-13, max_steps=200)
        return jnp.sum(jnp.sin(solution.value["u"])), solution

    return jax.jit(jax.grad(loss, has_aux=True))(problem)


@pytest.fixture(scope="module")
def unrolled(problem):
    return gradient(problem, derivatives.Unrolled(200))[0]


@pytest.mark.parametrize("name", DERIVATIVES)
def test_every_derivative_is_that_of_unrolling(name, problem, unrolled):
    found, solution = gradient(problem, DERIVATIVES[name])
    assert solution.residual.max() <= 1e-13 and solution.num_steps.shape == (SAMPLES,)
    for got, want in zip(found, unrolled, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


def test_one_step_is_another_derivative(problem, unrolled):
    found, _ = gradient(problem, derivatives.OneStep())
    assert max(np.abs(got - want).max() for got, want in zip(found, unrolled, strict=True)) > 0.01


def test_samples_stop_by_themselves_and_the_backward_pass_reports_each(problem):
    def loss(x, tap):
        solution = nsi.layers.deq(affine, x, z0=start(), tap=tap)
        return jnp.sum(solution.value["u"]), solution

    report, solution = jax.jit(jax.grad(loss, 1, has_aux=True))(problem, nsi.tap(lanes=SAMPLES))
    assert np.all(np.diff(solution.num_steps) > 0)
    assert report.num_solves.tolist() == [1.0] * SAMPLES and not report.failed.any()


def test_the_state_defaults_to_zeros_like_the_input():
    solution = nsi.layers.deq(lambda z, x: 0.5 * z + x, jnp.ones((2, 3)))
    np.testing.assert_allclose(solution.value, 2.0, rtol=1e-6)
    warm = nsi.layers.deq(lambda z, x: 0.5 * z + x, jnp.ones((2, 3)), z0=solution.value)
    assert warm.num_steps.max() < solution.num_steps.max()


def test_a_batch_in_bfloat16_has_gradients_solved_in_float32(problem):
    x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), problem)

    def loss(x, dtype):
        return jnp.sum(nsi.layers.deq(affine, x, z0=start(dtype), tol=1e-2, max_steps=40).value["u"])

    low, high = jax.grad(loss)(x, jnp.bfloat16), jax.grad(loss)(jax.tree.map(jnp.float32, x), jnp.float32)
    for got, want in zip(low, high, strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=0, atol=0.05 * np.abs(want).max())


def test_the_penalty_is_the_mean_square_of_the_jacobian(problem, key):
    z = nsi.layers.deq(affine, problem, z0=start()).value

    def exact(x):
        jacobian = jax.jacobian(lambda z: affine(z, x))(z)
        return sum(jnp.sum(block**2) for block in jax.tree.leaves(jacobian)) / (2 * SAMPLES * WIDTH)

    def estimate(x):
        return nsi.layers.jacobian_penalty(affine, z, x, key, num_samples=4000)

    for got, want in zip(*(jax.jit(jax.value_and_grad(f))(problem) for f in (estimate, exact)), strict=True):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0.08 * float(np.abs(b).max()))


def test_the_spectral_radius_of_each_sample(key):
    turn = 0.9 * np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    blocks = np.stack([np.diag([0.2, -0.7]), turn, np.zeros((2, 2))])

    def cell(z, x):
        return jnp.einsum("bij,bj->bi", x, z)

    def rates(x):
        return nsi.layers.spectral_radius(cell, jnp.ones((3, 2)), x, key, num_steps=200)

    found, tangent = jax.jvp(rates, (blocks,), (blocks,))
    np.testing.assert_allclose(found, [0.7, 0.9, 0.0], rtol=1e-2)
    np.testing.assert_array_equal(tangent, 0)


def test_bad_input(key):
    with pytest.raises(nsi.InputError, match="num_samples is 0"):
        nsi.layers.jacobian_penalty(affine, start(), None, key, num_samples=0)
    with pytest.raises(nsi.InputError, match="batch_axis"):
        nsi.layers.deq(lambda z, x: z, jnp.float32(1.0))
    with pytest.raises(nsi.InputError, match="batch_axis"):
        nsi.layers.spectral_radius(lambda z, x: z, jnp.float32(1.0), None, key)
