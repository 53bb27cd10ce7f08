"""Directional derivatives at a kink, against one-sided differences of programs run on numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.calculus.clarke import clarke, implicit_clarke
from nsimplicit.calculus.directional import direction, implicit_direction
from tests.by_hand import Numbers, clarke_inverse, clarke_map, normal_form, random_program
from tests.test_jacobian_set import PROGRAMS, lasso_at_knot, picard

WIDTHS = {"one layer": (4,), "two layers": (3, 2), "three layers": (2, 2, 1)}


@pytest.mark.parametrize("name", WIDTHS, ids=str)
def test_of_a_program(name, key):
    # The programs are positively homogeneous: their directional derivative at 0 is their value.
    program = random_program(1, 3, 2, WIDTHS[name])
    form = normal_form(program, 3)
    for d in np.asarray(jax.random.normal(key, (50, 3))):
        np.testing.assert_allclose(direction(form, d), program(Numbers, *d), atol=1e-12)
        np.testing.assert_allclose(direction(form, 3 * d), 3 * direction(form, d), atol=1e-12)
    assert direction(form, np.zeros(3)).tolist() == [0, 0]


@pytest.mark.parametrize("name", WIDTHS, ids=str)
def test_is_a_clarke_element_applied(name, key):
    form = normal_form(random_program(2, 3, 2, WIDTHS[name]), 3)
    vertices = clarke(form, True).vertices()
    for d in np.asarray(jax.random.normal(key, (20, 3))):
        assert np.min(np.max(np.abs(vertices @ d - direction(form, d)), axis=1)) < 1e-12


@pytest.mark.parametrize("name", PROGRAMS, ids=str)
def test_does_not_depend_on_the_coding(name):
    program, _, _ = PROGRAMS[name]
    form = normal_form(program, 1)
    for d in (1.0, -1.0):
        assert direction(form, [d]) == pytest.approx(program(Numbers, d), abs=1e-12)


def test_argument_at_zero_along_the_direction():
    form = normal_form(lambda ops, x, y: ops.abs(x - y) + ops.relu(ops.abs(x - y)) + x, 2)
    assert direction(form, [1.0, 1.0]).tolist() == [1]
    assert direction(form, [1.0, 0.0]).tolist() == [3]


def test_clarkes_inverse(key):
    form = normal_form(clarke_map, 4)
    for theta in np.asarray(jax.random.normal(key, (100, 2))):
        found = implicit_direction(form, 2, theta)
        np.testing.assert_allclose(found.value, clarke_inverse(*theta), atol=1e-13)
        np.testing.assert_array_equal(found.pattern, clarke_inverse(*theta) > 0)
        assert found.unique
    # On the border of two cones both pieces give the same: one solution.
    border = implicit_direction(form, 2, [1.0, 2.0])
    assert border.value == pytest.approx([1, 0]) and border.unique and len(border.solutions) == 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", WIDTHS, ids=str)
def test_of_a_solution(name, seed, key):
    m, p = 3, 2
    raw = random_program(seed, m + p, m, WIDTHS[name], size=0.5)

    def T(ops, *inputs):
        return [0.15 * t for t in raw(ops, *inputs)]

    form = normal_form(lambda ops, *inputs: [t - z for t, z in zip(T(ops, *inputs), inputs[:m], strict=True)], m + p)
    vertices = implicit_clarke(form, m, True).vertices()
    for theta in np.asarray(jax.random.normal(key, (8, p))):
        found = implicit_direction(form, m, theta)
        np.testing.assert_allclose(found.value, picard(T, m)(*theta), atol=1e-10)
        assert found.unique
        move = np.concatenate([found.value, theta])
        np.testing.assert_allclose(form.jacobian(found.pattern) @ move, np.zeros(m), atol=1e-12)
        np.testing.assert_allclose(direction(form, move), np.zeros(m), atol=1e-12)
        assert np.min(np.max(np.abs(vertices @ theta - found.value), axis=1)) < 1e-10


def test_lasso_where_a_coefficient_enters():
    form, _, slopes, *_ = lasso_at_knot()
    np.testing.assert_allclose(implicit_direction(form, 4, [1.0]).value, slopes[:, 0], atol=1e-9)
    np.testing.assert_allclose(implicit_direction(form, 4, [-1.0]).value, -slopes[:, 1], atol=1e-9)


def test_two_solutions_and_none():
    form = normal_form(lambda ops, z, x: ops.abs(z) - x, 2)
    found = implicit_direction(form, 1, [1.0])
    assert found.unique is False
    assert sorted(found.solutions.ravel()) == [-1, 1] and found.solutions[0] == found.value
    with pytest.raises(nsi.DerivativeError, match="no pattern of the 1 kinks is consistent"):
        implicit_direction(form, 1, [-1.0])
    assert implicit_direction(form, 1, [0.0]).value == pytest.approx([0])


def test_a_ray_of_solutions_is_not_called_unique():
    form = normal_form(lambda ops, z, x: ops.relu(z) - x, 2)  # at x = 0 every z <= 0
    assert implicit_direction(form, 1, [0.0]).unique is None
    assert implicit_direction(form, 1, [1.0]).value == pytest.approx([1])
    with pytest.raises(nsi.DerivativeError, match="1 have a singular equation"):
        implicit_direction(form, 1, [-1.0])


def test_when_newton_cycles():
    # z = relu(z - M z - q x): from s = 0 the signs go round through four patterns; z = (2, 0, 0) has another.
    M, q = np.array([[1, 0, 2], [2, 1, -1], [1, 2, 1]]), np.array([-2, -3, -1])
    s, seen = np.zeros(3), []
    while s.tolist() not in seen:
        seen.append(s.tolist())
        z = np.linalg.solve(np.eye(3) - s[:, None] * (np.eye(3) - M), -s * q)
        s = (z - M @ z - q > 0).astype(float)
    assert seen.index(s.tolist()) < len(seen) - 1 and [1, 0, 0] not in seen

    def residual(ops, *inputs):
        z, x = inputs[:3], inputs[3]
        step = [z[i] - sum(m * t for m, t in zip(M[i], z, strict=True)) - q[i] * x for i in range(3)]
        return [z[i] - ops.relu(step[i]) for i in range(3)]

    found = implicit_direction(normal_form(residual, 4), 3, [1.0])
    assert found.value == pytest.approx([2, 0, 0]) and found.pattern.tolist() == [1, 0, 0]


def test_more_kinks_than_can_be_enumerated():
    # z_i = x_i - relu(z_i)/2 + z_{i-1}/4
    def residual(ops, *inputs):
        z, x = inputs[:20], inputs[20]
        shift = [0 * x, *z[:-1]]
        return [z[i] + ops.relu(z[i]) / 2 - shift[i] / 4 - (-1) ** i * x for i in range(20)]

    found = implicit_direction(normal_form(residual, 21), 20, [1.0])
    np.testing.assert_allclose(residual(Numbers, *found.value, 1.0), np.zeros(20), atol=1e-12)
    assert found.unique is None
    none = normal_form(lambda ops, *t: [ops.abs(z) - t[-1] for z in t[:-1]], 21)
    with pytest.raises(nsi.DerivativeError, match="20 kinks is consistent with its own signs .Newton"):
        implicit_direction(none, 20, [-1.0])


def test_no_kinks():
    form = normal_form(lambda ops, z, x: [2 * z - x], 2)
    assert implicit_direction(form, 1, [1.0]).value == pytest.approx([0.5])
    assert direction(form, [1.0, 0.0]).tolist() == [2]


def test_single_precision():
    form = normal_form(clarke_map, 4, jnp.float32)
    for theta in ([1.0, 2.0], [0.3, -0.7], [-1.0, 0.1]):
        found = implicit_direction(form, 2, theta)
        np.testing.assert_allclose(found.value, clarke_inverse(*theta), atol=1e-6)
        assert found.unique


WRONG = {
    "direction of a program": (lambda form: direction(form, [1.0]), "There are 4 inputs"),
    "direction of parameters": (lambda form: implicit_direction(form, 2, [1.0]), "There are 2 inputs"),
    "no square equation": (lambda form: implicit_direction(form, 3, [1.0]), "num_solution = 3, and F has 2 entries"),
}


@pytest.mark.parametrize("name", WRONG, ids=str)
def test_wrong_arguments(name):
    call, match = WRONG[name]
    with pytest.raises(nsi.InputError, match=match):
        call(normal_form(clarke_map, 4))
