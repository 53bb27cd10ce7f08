"""How wrong a float32 derivative is and whether the guard says so, and what a warm start saves.

Random systems of condition numbers 1e1 to 1e7. The reference is the float32 matrix solved in float64, so an error is
that of the solve alone. Errors are measured in every lane, also where the guard failed: there it reports, and hands on
what it was given.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nsimplicit as nsi
from nsimplicit import guards, linear_solvers
from nsimplicit.derivatives import Implicit

SIZE, SEEDS = 50, 20
CONDITIONS = 10.0 ** np.arange(1, 8)
EPS = float(np.finfo(np.float32).eps)


def geometric(condition):
    return np.geomspace(1, 1 / condition, SIZE)


def one_small(condition):
    return np.append(np.ones(SIZE - 1), 1 / condition)


def half_small(condition):
    return np.repeat([1, 1 / condition], SIZE // 2)


SPECTRA = {f.__name__: f for f in (geometric, one_small, half_small)}


def orthogonal(rng):
    return np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]


def systems(spectrum):
    """Matrices and cotangents in float32, a lane for each condition number and seed."""
    rng = np.random.default_rng(0)
    values = [spectrum(c) for c in CONDITIONS for _ in range(SEEDS)]
    matrices = [(orthogonal(rng) * v) @ orthogonal(rng) for v in values]
    return np.array(matrices, np.float32), rng.normal(size=(len(values), SIZE)).astype(np.float32)


@functools.cache
def gradients(guard):
    """The gradient of <cotangent, z> in theta where A z = theta, and its report: one compiled program for all lanes."""

    def one(A, cotangent):
        fit = nsi.custom_root(lambda z, theta: A @ z - theta, init_argnum=None, derivative=Implicit(guard=guard))
        z = jnp.ones(SIZE, jnp.float32)  # a linear equation: its derivative is the same everywhere

        def loss(theta, tap):
            return cotangent @ fit(lambda theta: z).reporting(tap)(theta)

        return jax.grad(loss, (0, 1))(A @ z, nsi.tap())

    return jax.jit(jax.vmap(one))


@functools.cache
def sweep(name):
    """Error, whether flagged, and condition x eps: arrays (condition, seed)."""
    A, cotangent = systems(SPECTRA[name])
    gradient, report = gradients(guards.Solved(on_failure="ignore"))(A, cotangent)
    assert gradient.dtype == jnp.float32
    exact = np.linalg.solve(A.astype(float).swapaxes(1, 2), cotangent.astype(float)[..., None])[..., 0]
    error = np.linalg.norm(gradient - exact, axis=1) / np.linalg.norm(exact, axis=1)
    numbers = (error, np.asarray(report.failed), np.asarray(report.condition, float) * EPS)
    return [x.reshape(len(CONDITIONS), SEEDS) for x in numbers]


def test_errors_up_to_1e5():
    error, failed, _ = sweep("geometric")
    assert not failed[:5].any()
    assert error[:5].max() <= 1e-3
    assert error[:3].max() <= 3e-5  # 1e-5: jaxopt's default is off by 2e-2 here


@pytest.mark.parametrize("name", SPECTRA)
def test_a_large_error_is_flagged(name):
    error, failed, _ = sweep(name)
    passed = np.where(failed, 0, error)
    assert passed.max() <= 1e-2
    assert passed[:5].max() <= 1e-3  # up to a condition number of 1e5


@pytest.mark.parametrize("name", SPECTRA)
def test_the_reported_bound_is_one(name):
    error, _, bound = sweep(name)
    assert np.all(error <= 10 * bound)
    assert np.all(bound <= 20 * SIZE * EPS * CONDITIONS[:, None])  # and no more than the 1-norm costs


def test_false_alarms():
    error, failed, _ = sweep("geometric")
    assert np.mean(failed[error < 1e-3]) <= 0.05


def test_a_flagged_gradient_is_nan_and_no_other():
    A, cotangent = systems(geometric)
    gradient, report = gradients(guards.Solved())(A, cotangent)
    np.testing.assert_array_equal(np.isnan(gradient).all(1), report.failed)
    np.testing.assert_array_equal(np.isnan(gradient).any(1), report.failed)
    assert 0 < report.failed.sum() < len(A)


# Warm starts: the last adjoint, handed from step to step of an optimiser.

STEPS = 8
RIDGE = np.linspace(1, 10, 30)[:, None] * np.eye(30) + 0.3 * np.random.default_rng(1).normal(size=(30, 30))


def descent(how):
    """A function of whether to start warm: gradients and products of a few steps of SGD on 30 log weights."""
    optimizer = optax.sgd(1e-3)
    fit = nsi.custom_root(
        lambda x, t: RIDGE @ x + jnp.exp(t) * x - 1, init_argnum=None, derivative=Implicit(linear_solvers.GMRES())
    )(lambda t: jnp.linalg.solve(RIDGE + jnp.diag(jnp.exp(t)), jnp.ones(30)))

    def loss(t, tap):
        return jnp.sum((fit.reporting(tap)(t) - 0.1) ** 2)

    loss = jax.checkpoint(loss) if "checkpoint" in how else loss

    def one(carry, _):
        warm, t, state, tap = carry
        gradient, report = jax.grad(loss, (0, 1))(t, tap)
        updates, state = optimizer.update(gradient, state)
        tap = jax.tree.map(lambda new, old: jnp.where(warm, new, old), report, tap)
        return (warm, optax.apply_updates(t, updates), state, tap), (gradient, report.num_steps)

    def scan(carry):
        return jax.lax.scan(one, carry, None, STEPS)[1]

    def loop(carry):
        found = []
        for _ in range(STEPS):
            carry, numbers = step(carry, None)
            found.append(numbers)
        return jax.tree.map(lambda *x: jnp.stack(x), *found)

    t, step = jnp.zeros(30), jax.jit(one)
    run = jax.jit(scan) if "scan" in how else loop
    return lambda warm: run((jnp.asarray(warm), t, optimizer.init(t), nsi.tap(like=t)))


@pytest.mark.parametrize("how", ["jit", "scan", "scan of checkpoint"])
def test_the_last_adjoint_saves_products(how):
    run = descent(how)
    (gradient, cold), (other, warm) = run(False), run(True)
    np.testing.assert_allclose(other, gradient, atol=1e-10 * np.abs(gradient).max())
    assert warm[0] == cold[0]
    assert np.all(warm[1:] < cold[1:])
    assert warm[1:].sum() <= 0.8 * cold[1:].sum()
