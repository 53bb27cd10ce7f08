"""The attractor of derivatives carried along: closed forms in one dimension, long products in more."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.calculus.jacobian_set import conservative, implicit
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.calculus.piggyback import attractor
from tests.by_hand import normal_form, random_program


def two_slopes(ops, x, theta):
    """θ - x/2 for x > 0, θ - x/4 for x < 0."""
    return theta - x / 4 - ops.relu(x) / 4


def equation(program, num_state):
    def residual(ops, *inputs):
        out = program(ops, *inputs)
        return [t - z for t, z in zip(out if isinstance(out, list) else [out], inputs[:num_state], strict=True)]

    return residual


def contraction(seed, size=0.25, stretch=1.0):
    """A random map of two states, the second scaled, and a parameter; of its two kinks one acts on the other."""
    raw = random_program(seed, 3, 2, (1, 1))

    def T(ops, x, y, theta):
        out = raw(ops, x, y / stretch, theta)
        return [size * out[0], size * stretch * out[1]]

    return T


def test_strictly_larger_than_the_implicit_set():
    found = attractor(normal_form(two_slopes, 2), 1)
    assert found.interval() == pytest.approx((4 / 7, 6 / 7), abs=2e-9)
    inner = implicit(normal_form(equation(two_slopes, 1), 2), 1).vertices()
    assert (inner.min(), inner.max()) == pytest.approx((2 / 3, 4 / 5), abs=1e-12)
    assert found.rate == pytest.approx(0.5)


def test_unrolling_ends_at_the_end_points():
    # From x = 1 with θ = 0, the iterates change sign, and the derivative alternates between both slopes for ever.
    x, d, seen = 1.0, 0.0, []
    for _ in range(41):
        x, d = (-x / 2, 1 - d / 2) if x > 0 else (-x / 4, 1 - d / 4)
        seen.append(d)
    assert sorted(seen[-2:]) == pytest.approx(attractor(normal_form(two_slopes, 2), 1).interval(), abs=1e-8)


@pytest.mark.parametrize(
    "slopes", [(0.2, 0.7), (-0.9, 0.3), (-0.8, -0.1), (0.0, 0.5), (-0.97, 0.97), (0.5, 0.5)], ids=str
)
@pytest.mark.parametrize("b", [1.0, -2.0])
def test_interval_of_a_scalar_map(slopes, b):
    low, high = slopes
    program = normal_form(lambda ops, x, theta: b * theta + low * x + (high - low) * ops.relu(x), 2)
    # M = max(a m, a M) + b and m = min(...) + b over both slopes a, solved by iterating.
    m = M = 0.0
    for _ in range(2000):
        m, M = min(a * t for a in slopes for t in (m, M)) + b, max(a * t for a in slopes for t in (m, M)) + b
    found = attractor(program, 1).interval()
    assert found == pytest.approx((m, M), abs=1e-7)
    assert found[0] <= m + 1e-12 and found[1] >= M - 1e-12  # outwards
    if low >= 0:  # then it is the implicit set
        assert found == pytest.approx(sorted((b / (1 - low), b / (1 - high))), abs=1e-7)


@pytest.mark.parametrize("stretch", [1.0, 8.0], ids="stretched by {:g}".format)
@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_those_of_long_products(seed, stretch, key):
    form = normal_form(contraction(seed, stretch=stretch), 3)
    found = attractor(form, 2)
    assert 6 % found.steps == 0
    A, B = conservative(form).vertices()[..., :2], conservative(form).vertices()[..., 2:]
    points = np.zeros((1, 2, 1))
    for _ in range(6):  # all products of six vertices
        points = (np.einsum("vij,wjk->vwik", A, points) + B[:, None]).reshape(-1, 2, 1)
    left = found.rate ** (6 / found.steps) * 2 * np.linalg.norm(points, axis=(1, 2)).max() / (1 - found.rate)
    samples = found.sample(key, 200)
    for direction in np.asarray(jax.random.normal(key, (4, 2, 1))):
        low, high = found.bounds(direction)
        reached = np.tensordot(points, direction, 2)
        slack = left * np.linalg.norm(direction)
        assert low - slack <= reached.min() <= low + slack
        assert high - slack <= reached.max() <= high + slack
        seen = np.tensordot(samples, direction, 2)
        assert low <= seen.min() and seen.max() <= high
        assert seen.max() - seen.min() > 0.1 * (high - low)


@pytest.mark.parametrize("seed", [10, 11])
def test_the_search_starts_from_a_ball_around_the_set(seed, key):
    # These maps expand the distance to the centre before two steps of them contract it.
    found = attractor(normal_form(contraction(seed, stretch=0.1), 3), 2)
    centre, radius = found._ball
    assert np.linalg.norm(found.sample(key, 500) - centre, axis=(1, 2)).max() <= radius
    assert found.steps == 2


@pytest.mark.parametrize("seed", range(3))
def test_contains_the_implicit_set(seed, key):
    found = attractor(normal_form(contraction(seed), 3), 2)
    inner = implicit(normal_form(equation(contraction(seed), 2), 3), 2).sample(key, 100)
    for direction in np.asarray(jax.random.normal(key, (4, 2, 1))):
        low, high = found.bounds(direction)
        values = np.tensordot(inner, direction, 2)
        assert low <= values.min() and values.max() <= high


def test_is_mapped_into_itself(key):
    form = normal_form(contraction(0), 3)
    found, direction = attractor(form, 2), np.array([[0.6], [-0.8]])
    J = conservative(form).sample(key, 200)
    moved = J[..., :2] @ found.sample(key, 200) + J[..., 2:]
    low, high = found.bounds(direction)
    values = np.tensordot(moved, direction, 2)
    assert low <= values.min() and values.max() <= high


def test_contraction_of_products_only():
    # Both Jacobians have norm 2 in this basis; of every two steps one is small.
    form = normal_form(lambda ops, x, y, t: [2 * y + t, 0.1 * x + 0.1 * ops.relu(x) + t], 3)
    found = attractor(form, 2)
    assert (found.steps, found.rate) == (2, pytest.approx(0.4))
    low, high = found.bounds([[1.0], [0.0]])
    # x = 2 y + 1 and y = a x + 1 with a in [.1, .2]: x = 3 + 2 a x along two steps.
    assert (low, high) == pytest.approx((3 / 0.8, 3 / 0.6), abs=1e-8)


def test_heavy_ball_is_refused():
    # f = x²/2 for x > 0, x²/8 for x < 0, step 1, momentum 3/4: spectral radii √.75, but 1.125 for a product of four.
    def step(ops, x, y, theta):
        gradient = x / 4 + 0.75 * ops.relu(x)
        return [x - gradient + 0.75 * (x - y) + theta, x]

    form = normal_form(step, 3)
    A = conservative(form).vertices()[..., :2]
    assert np.abs(np.linalg.eigvals(A)).max() == pytest.approx(0.75**0.5)
    assert max(np.abs(np.linalg.eigvals(A[0] @ A[0] @ A[1] @ A[1]))) == pytest.approx(1.125)
    with pytest.raises(nsi.InputError, match="products of up to 12 Jacobians have norms up to 1.1 per step"):
        attractor(form, 2)
    with pytest.raises(nsi.InputError, match="products of up to 12 Jacobians have norms up to 1 per step"):
        attractor(normal_form(lambda ops, x, theta: ops.abs(x) + theta, 2), 1)


def test_gradient_descent_is_not():
    form = normal_form(lambda ops, x, theta: x - (x / 4 + 0.75 * ops.relu(x)) + theta, 2)
    assert attractor(form, 1).interval() == pytest.approx((1, 4), abs=1e-7)  # factors 0 and 3/4


def test_no_kinks():
    found = attractor(normal_form(lambda ops, x, theta: x / 2 + theta, 2), 1)
    assert found.interval() == pytest.approx((2, 2), abs=1e-8)
    np.testing.assert_allclose(found.sample(jax.random.key(0), 3), np.full((3, 1, 1), 2.0), atol=1e-3)


def test_a_support_that_cannot_be_told():
    # Rotations by unrelated angles, hardly shrinking: thousands of products stay in the race.
    turns = [0.97 * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in (1.0, 2.3, 3.9)]
    flat, rank = np.array(turns), 2
    gain = np.hstack([flat[1] - flat[0], flat[2] - flat[0]])
    into = np.vstack([np.eye(rank, 3)] * 2)
    base = np.hstack([flat[0], np.eye(2)[:, :1]])
    form = NormalForm(*map(jnp.asarray, [base, 0.2 * gain, *(into, np.zeros((4, 4))) * 2]), names=())
    found = attractor(form, 2)
    with pytest.raises(nsi.DerivativeError, match=r"tolerance=1e-09\)`: \d+ products of Jacobians still compete"):
        found.bounds([[1.0], [0.0]])


WRONG = {
    "not a map of the state": (lambda form: attractor(form, 2), "the Jacobian is 1 × 2"),
    "shape of the direction": (lambda form: attractor(form, 1).bounds([1.0]), "direction has shape \\(1,\\)"),
}


@pytest.mark.parametrize("name", WRONG, ids=str)
def test_wrong_arguments(name):
    call, match = WRONG[name]
    with pytest.raises(nsi.InputError, match=match):
        call(normal_form(two_slopes, 2))


def test_prints_on_one_line():
    found = attractor(normal_form(two_slopes, 2), 1)
    assert repr(found) == "Attractor of 1 × 1 matrices: 2 vertices, a Jacobian has norm <= 0.5"


def test_single_precision():
    found = attractor(normal_form(two_slopes, 2, jnp.float32), 1)
    assert found.interval() == pytest.approx((4 / 7, 6 / 7), abs=1e-6)
    assert list(itertools.islice(found.sample(jax.random.key(0), 2).shape, 3)) == [2, 1, 1]
