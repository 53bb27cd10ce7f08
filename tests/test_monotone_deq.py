"""Monotone equilibrium layers: the solution, its derivatives and the certificate, for every kind; both splittings."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.layers.monotone_deq import MonotoneDEQ
from nsimplicit.layers.monotone_operator import MonotoneConv, MonotoneDense
from nsimplicit.layers.monotone_solve import best_step, inverses, squared_norm
from tests.cases.monotone_deq import ROWS, SAMPLES, N, dense, make, matrix

TIGHT = 1e-14
linear_solvers = nsi.linear_solvers


def value(layer, x):
    return layer(x, tol=TIGHT, max_steps=20000).value


@jax.jit
def full(args, dots, bar):
    """The solution, its derivative along ``dots``, and the cotangents for ``bar``: one program for each row."""

    def solved(args):
        solution = args[0](args[1], tol=TIGHT)
        return solution.value, solution

    _, push, solution = jax.linearize(solved, args, has_aux=True)
    return solution, push(dots), jax.linear_transpose(push, args)(bar)[0]


def everything(args):
    """What ``full`` gives, and the directions it took."""
    dots = some(args, 1)
    bar = some(jax.eval_shape(lambda args: value(*args), args), 2)
    return (*full(args, dots, bar), dots, bar)


def some(tree, seed):
    """Numbers like those of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def step(a, t, b):
    return jax.tree.map(lambda x, y: x + t * y, a, b)


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_z_is_the_equilibrium_of_the_definition(name):
    (layer, x), (_, image, sigma) = make(name), ROWS[name]
    W, U, b = dense(layer, image)
    assert np.linalg.eigvalsh((W + W.T) / 2).max() <= 1 - layer.W.m + 1e-12
    answer = everything((layer, x))[0]
    assert answer.converged.all() and answer.num_steps.shape == (SAMPLES,)
    for z, u, sample in zip(answer.value, answer.z, x, strict=True):
        expected = W @ z.ravel() + U @ sample.ravel() + b
        np.testing.assert_allclose(u.ravel(), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(z.ravel(), sigma(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_both_modes_are_the_difference_of_solutions_in_every_argument(name):
    args, h = make(name), 1e-5
    _, tangent, back, dots, bar = everything(args)
    ahead, behind = (full(step(args, t, dots), dots, bar)[0].value for t in (h, -h))
    np.testing.assert_allclose(tangent, (ahead - behind) / (2 * h), rtol=0, atol=1e-8 * np.abs(tangent).max())
    np.testing.assert_allclose(dot(bar, tangent), dot(back, dots), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tanh", {"alpha": 0.4}),
        ("trained threshold", {"alpha": 0.4}),
        ("trained threshold", {"splitting": "forward-backward", "alpha": 0.05}),
        pytest.param("tanh", {"splitting": "forward-backward", "alpha": 0.05}, marks=pytest.mark.slow),
    ],
    ids=["tanh", "threshold", "threshold, explicit", "tanh, explicit"],
)
def test_the_answer_does_not_depend_on_the_splitting_or_its_step(name, options):
    args = make(name)
    one, other = everything(args)[0], args[0](args[1], tol=TIGHT, max_steps=20000, **options)
    assert other.converged.all() and (other.num_steps > one.num_steps).all()
    np.testing.assert_allclose(other.value, one.value, rtol=0, atol=1e-11)
    np.testing.assert_allclose(other.z, one.z, rtol=0, atol=1e-11)


def test_a_kernel_wider_than_the_image_wraps_around():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2, 2)))
    z = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 2)))
    W = jax.jit(lambda z: MonotoneConv(kernel, 2 * kernel, m=0.3)(z))
    A = matrix(kernel, (2, 3))
    expected = (0.7 * np.eye(12) - A.T @ A + 2 * A - 2 * A.T) @ z.ravel()
    np.testing.assert_allclose(W(z).ravel(), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_second_derivatives():
    args, h = make("tanh"), 1e-5
    dots = some(args, 5)
    slope = jax.grad(lambda args: jnp.sum(jnp.sin(value(*args))))
    turned = jax.jit(lambda args: jax.jvp(slope, (args,), (dots,)))
    ahead, behind = (turned(step(args, t, dots))[0] for t in (h, -h))
    difference = jax.tree.map(lambda a, b: (a - b) / (2 * h), ahead, behind)
    for got, want in zip(*map(jax.tree.leaves, (turned(args)[1], difference)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * float(1 + jnp.max(jnp.abs(want))))


DERIVATIVES = {
    "implicit": nsi.derivatives.Implicit(),
    "many steps back": nsi.derivatives.Truncated(150),
}


@pytest.mark.parametrize("name", ["implicit", pytest.param("many steps back", marks=pytest.mark.slow)])
def test_other_derivatives_agree(name):
    args = make("relu")
    *_, expected, _, bar = everything(args)

    def loss(args):
        return jnp.sum(args[0](args[1], tol=TIGHT, derivative=DERIVATIVES[name]).value * bar)

    for got, want in zip(*map(jax.tree.leaves, (jax.jit(jax.grad(loss))(args), expected)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


def kinked(selection, activation="relu", t=0.0):
    """A layer whose numbers are exact, and an input with u = (t, t + 1); where t is the threshold u[0] is on a kink."""
    W = MonotoneDense(jnp.zeros((2, 2)), jnp.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
    sigma = nsi.prox.activation(activation, selection=selection)
    return MonotoneDEQ(W, jnp.eye(2), jnp.zeros(2), sigma), jnp.array([t - 2, t + 1.0]), jnp.array([0.0, 1.0])


@pytest.mark.parametrize("options", [{}, {"splitting": "forward-backward", "alpha": 0.25}], ids=["default", "explicit"])
def test_the_selection_at_a_kink_is_that_of_sigma_whatever_the_step(options):
    layer, x, z0 = kinked(0.25, "soft_threshold", 1.0)
    J, W = np.diag([0.25, 1.0]), np.array([[0.0, 2.0], [-2.0, 0.0]])
    slope = jax.jacobian(lambda x: layer(x, z0=z0, **options).value)(x)
    np.testing.assert_allclose(slope, np.linalg.inv(np.eye(2) - J @ W) @ J, atol=1e-11)


def test_surrounding_selections_reach_inside():
    layer, x, z0 = kinked(None)
    chosen = nsi.with_selection(lambda x: layer(x, z0=z0).value[0], {"relu": 0.5})
    np.testing.assert_allclose(jax.grad(chosen)(x), [0.5 / 3, 1 / 3], atol=1e-11)


def test_the_certificate_holds_by_construction():
    layer, x, z0 = kinked(None)
    found = nsi.certify(layer)(x, z0=z0)
    assert found.verdict == "regular" and found.num_kinks == 1 and "by construction" in found.method
    assert float(found.sigma_min) == pytest.approx(1 / np.sqrt(8), rel=1e-12)  # m = 1, and 2I - W has norm sqrt(8)


@pytest.mark.slow
def test_enumerating_the_selections_agrees_and_a_guard_sees_them():
    layer, x, z0 = kinked(None)
    looked = nsi.certify(lambda z: layer.cell(z, x) - z)(z0)
    assert looked.verdict == "regular" and "construction" not in looked.method
    assert looked.sigma_min >= 1 / np.sqrt(8)

    def total(x, tap):
        guarded = nsi.derivatives.Implicit(linear_solvers.Dense(), nsi.guards.AllSelections())
        return layer(x, z0=z0, derivative=guarded, tap=tap).value.sum()

    report = jax.grad(total, 1)(x, nsi.tap())
    assert (report.num_kinks, report.num_failures) == (1, 0)


@pytest.mark.parametrize("name", ["relu", "convolution"])
def test_the_certified_bound_holds_for_every_jacobian_of_sigma(name):
    layer, x = jax.tree.map(lambda leaf: 2 * leaf, make(name))
    W, _, _ = dense(layer, ROWS[name][1])
    least, _ = layer.guarantee(np.zeros((*x.shape[1:-1], layer.W.features)))
    assert least == pytest.approx(layer.W.m / np.linalg.norm(2 * np.eye(len(W)) - W, 2), rel=1e-9)
    rng = np.random.default_rng(0)
    for diagonal in [*rng.uniform(size=(20, len(W))), *rng.integers(0, 2, size=(20, len(W)))]:
        assert np.linalg.norm(np.eye(len(W)) - diagonal[:, None] * W, -2) >= least


def test_a_function_that_is_not_convex_has_no_guarantee():
    layer, _ = make("relu")
    assert dataclasses.replace(layer, activation=nsi.prox.L0(0.1)).guarantee(jnp.zeros(N)) is None


@pytest.fixture(scope="module")
def twenty():
    """m = 0.5, ‖W‖ = 3.7: the map sigma(W z + r) does not contract."""
    rng = np.random.default_rng(0)
    A, B = (jnp.asarray(rng.normal(size=(20, 20)) / np.sqrt(20)) for _ in "AB")
    layer = MonotoneDEQ(MonotoneDense(A, 1.2 * B, m=0.5), jnp.eye(20), jnp.zeros(20))
    return layer, jnp.asarray(np.random.default_rng(9).normal(size=20))


def test_tens_of_peaceman_rachford_steps_against_a_thousand(twenty):
    layer, x = twenty
    W, _, _ = dense(layer, None)
    F = np.eye(20) - W
    assert np.linalg.norm(W, 2) > 3.6
    implicit, best = (layer(x, tol=1e-13, alpha=alpha) for alpha in (1.0, layer.best_alpha(x)))
    explicit, free, tuned = (
        layer(x, tol=1e-13, splitting="forward-backward", alpha=alpha, max_steps=20000)
        for alpha in (0.5 / np.linalg.norm(F, 2) ** 2, None, layer.best_alpha(x, splitting="forward-backward"))
    )
    assert 20 < best.num_steps < implicit.num_steps < 100 < 1000 < explicit.num_steps <= free.num_steps
    assert tuned.num_steps < explicit.num_steps
    for other in (best, explicit, tuned):
        np.testing.assert_allclose(other.value, implicit.value, atol=1e-11)


@pytest.mark.parametrize("splitting", ["peaceman-rachford", "forward-backward"])
def test_the_best_step_has_the_smallest_factor(splitting):
    rng = np.random.default_rng(1)
    G, K = rng.normal(size=(2, 3, 4, 4))
    F = 0.3 * np.eye(4) + G @ G.swapaxes(1, 2) + K - K.swapaxes(1, 2)

    def factor(alpha):
        inner = np.eye(4) - np.multiply.outer(alpha, F)
        matrix = inner if splitting == "forward-backward" else inner @ np.linalg.inv(2 * np.eye(4) - inner)
        return np.linalg.norm(matrix, 2, (-2, -1)).max(-1)

    least = factor(np.geomspace(1e-4, 10, 2000)).min()
    assert least <= factor(best_step(F, 0.3, splitting)) * (1 + 1e-6) < 1.001 * least


@pytest.mark.parametrize("shape", [(70, 70), (2, 3, 3)])
def test_inverses_and_the_bound_on_the_norm(shape):
    rng = np.random.default_rng(2)
    matrices, moved = rng.normal(size=(2, *shape)) + (1j * rng.normal(size=(2, *shape)) if len(shape) == 3 else 0)
    both = jax.jit(lambda m, d: (*jax.jvp(inverses, (m,), (d,)), squared_norm(m)))
    found, tangent, bound = both(matrices, moved)
    inverse = np.linalg.inv(matrices)
    np.testing.assert_allclose(found, inverse, rtol=0, atol=1e-11 * np.abs(inverse).max())
    expected = -inverse @ moved @ inverse
    np.testing.assert_allclose(tangent, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    norm = np.linalg.norm(matrices, 2, (-2, -1)).max()
    assert norm**2 * (1 - 1e-12) <= bound <= shape[-1] ** (1 / 32) * norm**2


def test_a_batch_is_a_vmap_of_samples():
    layer, x = make("relu")
    *_, (together, moved), _, bar = everything((layer, x))

    def alone(args, bar):
        solution = args[0](args[1], tol=TIGHT)
        return jnp.vdot(solution.value, bar), solution.num_steps

    one = jax.jit(jax.vmap(lambda x, bar: jax.grad(alone, has_aux=True)((layer, x), bar)))
    (parts, inputs), steps = one(x, bar)
    assert steps.tolist() == everything((layer, x))[0].num_steps.tolist()
    np.testing.assert_allclose(inputs, moved, rtol=0, atol=1e-11)
    for got, want in zip(*map(jax.tree.leaves, (parts, together)), strict=True):
        np.testing.assert_allclose(got.sum(0), want, rtol=0, atol=1e-11)


def test_a_start_saves_steps_and_an_empty_batch_is_empty():
    layer, x = make("relu")
    cold = everything((layer, x))[0]
    assert layer(x, z0=cold.value).num_steps.max() < cold.num_steps.min() / 2
    assert layer(x[:0]).value.shape == (0, N)


def weighted(layer, x, weights, tap, derivative):
    solution = layer(x, derivative=derivative, tap=tap)
    return jnp.sum(weights[:, None] * solution.value.astype(weights.dtype)), solution


def slopes(policy) -> tuple[Any, Any]:
    guard = nsi.guards.Solved(on_failure=policy)
    derivative = nsi.derivatives.Implicit(linear_solvers.FixedPointAdjoint(nsi.solvers.Picard()), guard)
    both = jax.jit(jax.grad(functools.partial(weighted, derivative=derivative), (0, 3), has_aux=True))
    return lambda layer, x, weights: both(layer, x, weights, nsi.tap(lanes=SAMPLES)), both


SLOPES = {policy: slopes(policy) for policy in ("nan", "drop")}
ONES, MASK = jnp.ones(SAMPLES), jnp.array([0.0, 1.0])


def test_the_backward_pass_takes_about_as_many_steps():
    (_, report), solution = SLOPES["nan"][0](*make("relu"), ONES)
    assert report.num_solves.tolist() == [1, 1] and not report.failed.any()
    assert np.all((solution.num_steps / 2 < report.num_steps) & (report.num_steps < 2 * solution.num_steps))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-4), pytest.param(jnp.bfloat16, 0.1, marks=pytest.mark.slow)]
)
def test_low_precision(dtype, tolerance):
    slope, _ = SLOPES["nan"]
    ((low, report), solution), ((high, _), _) = slope(*make("relu", dtype), ONES), slope(*make("relu"), ONES)
    assert solution.value.dtype == dtype and solution.converged.all() and not report.failed.any()
    for got, want in zip(*map(jax.tree.leaves, (low, high)), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(float), want, rtol=0, atol=tolerance * float(1 + jnp.max(jnp.abs(want))))


@pytest.mark.parametrize("name", ["relu", pytest.param("convolution", marks=pytest.mark.slow)])
def test_gradients_lower_everywhere(name):
    gradient = jax.jit(jax.grad(lambda args: jnp.sum(args[0](args[1]).value)))
    layer, x = make(name, jnp.float32)
    slope, args = (
        (SLOPES["nan"][1], (layer, x, ONES, nsi.tap(lanes=SAMPLES))) if name == "relu" else (gradient, ((layer, x),))
    )
    exported = jax.export.export(slope, platforms=("cpu", "cuda", "tpu"))(*args)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    for here, want in zip(*map(jax.tree.leaves, (exported.call(*args), slope(*args))), strict=True):
        np.testing.assert_allclose(here, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("policy", "expected"), [("nan", np.nan), ("drop", 0.0)])
def test_a_sample_that_is_not_finite_is_lost_alone(policy, expected):
    (layer, x), (slope, _) = make("relu"), SLOPES[policy]
    (alone, _), _ = slope(layer, x, MASK)
    for bad in (np.nan, np.inf):
        spoilt = x.at[0, 1].set(bad)
        (both, report), solution = slope(layer, spoilt, ONES)
        assert solution.converged.tolist() == [False, True] and report.failed.tolist() == [True, False]
        assert np.isnan(solution.value[0]).all() and np.isnan(solution.residual[0])
        (masked, _), _ = slope(layer, spoilt, MASK)
        for a, b, c in zip(*map(jax.tree.leaves, (both, masked, alone)), strict=True):
            np.testing.assert_allclose(b, c, rtol=0, atol=1e-9)
            np.testing.assert_allclose(a, c + expected, rtol=0, atol=1e-9)


def test_memory_does_not_hold_the_steps():
    layer, x = make("relu")
    slope = jax.grad(lambda layer: layer(x, max_steps=100_000).value.sum())
    found = jax.jit(slope).lower(layer).compile().memory_analysis()
    assert found is not None, "XLA keeps no account on this platform"
    assert found.temp_size_in_bytes < 1000 * x.nbytes  # a state a step would be 100 times that


KEY = jax.random.key(0)
init: Any = MonotoneDEQ.init
layer_of: Any = MonotoneDEQ
WRONG = {
    "m is zero": (lambda: init(KEY, 3, 4, m=0.0), "m is 0.0"),
    "m is negative": (lambda: MonotoneDense(jnp.eye(2), jnp.eye(2), m=-1.0), "m is -1.0"),
    "m is nan": (lambda: MonotoneConv(jnp.ones((1, 1, 2, 2)), jnp.ones((1, 1, 2, 2)), m=np.nan), "m is nan"),
    "no features": (lambda: init(KEY, 3, 0), "features 0"),
    "no inputs": (lambda: init(KEY, 0, 3), "inputs is 0"),
    "kernel": (lambda: init(KEY, 3, 3, kernel_size=(3,)), "kernel_size"),
    "A is not square": (lambda: MonotoneDense(jnp.ones((2, 3)), jnp.ones((2, 3))), r"\(n, n\)"),
    "A and B differ": (lambda: MonotoneDense(jnp.ones((2, 2)), jnp.ones((3, 3))), "B \\(3, 3\\)"),
    "A is empty": (lambda: MonotoneConv(jnp.ones((0, 3, 2, 2)), jnp.ones((3, 3, 2, 2))), "at least one entry"),
    "W is a matrix": (lambda: layer_of(jnp.eye(3), jnp.eye(3), jnp.zeros(3)), "W is a"),
    "U does not fit": (lambda: layer_of(make("relu")[0].W, jnp.eye(3), jnp.zeros(N)), "U has shape"),
    "b does not fit": (lambda: layer_of(make("relu")[0].W, jnp.ones((N, 3)), jnp.zeros(3)), "b \\(3,\\)"),
    "activation is a function": (lambda: init(KEY, 3, 3, activation=jnp.tanh), "activation is a"),
    "x is too short": (lambda: make("relu")[0](jnp.ones(2)), "x has shape \\(2,\\)"),
    "x is a scalar": (lambda: make("relu")[0](1.0), "x has shape \\(\\)"),
    "x has two batches": (lambda: make("relu")[0](jnp.ones((2, 2, 3))), "jax.vmap"),
    "x is an image without pixels": (lambda: make("convolution")[0](jnp.ones((0, 4, 2))), "height"),
    "x is complex": (lambda: make("relu")[0](1j * jnp.ones(3)), "an argument is complex"),
    "z0": (lambda: make("relu")[0](jnp.ones(3), z0=jnp.ones(3)), "z0 has shape"),
    "splitting": (lambda: make("relu")[0](jnp.ones(3), splitting="admm"), "'admm' is not one of"),
    "alpha": (lambda: make("relu")[0](jnp.ones(3), alpha=0.0), "alpha is 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, match = WRONG[name]
    with pytest.raises(nsi.InputError, match=match):
        call()


def test_unrolling_says_what_to_do_instead():
    layer, x = make("relu")
    with pytest.raises(nsi.DerivativeError, match="Implicit"):
        layer(x, derivative=nsi.derivatives.Unrolled(10))
