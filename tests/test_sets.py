"""Set-valued derivatives by their public names: each function's sets at a kink, each solution's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.calculus import FUNCTIONS, SOLUTIONS

calculus = nsi.calculus


def ends(found):
    corners = found.vertices().ravel()
    return corners.min(), corners.max()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sets_of_a_function(name):
    row = FUNCTIONS[name]
    form = calculus.normal_form(row.fun)(0.0)
    assert isinstance(form, calculus.NormalForm)
    program = calculus.conservative_jacobian(row.fun)(0.0)
    clarke = calculus.clarke_jacobian(row.fun, piecewise_linear=name != "smooth")(0.0)
    assert isinstance(program, calculus.JacobianSet) and isinstance(clarke, calculus.JacobianSet)
    np.testing.assert_allclose(ends(program), row.program, atol=1e-15)
    np.testing.assert_allclose(ends(clarke), row.clarke, atol=1e-15)
    assert calculus.excess(clarke, program) <= 1e-15
    assert calculus.excess(program, clarke) == pytest.approx(max(np.abs(np.subtract(row.program, row.clarke))))
    assert program.contains(jax.jacobian(row.fun)(0.0).reshape(1, 1))
    slope = calculus.directional_derivative(row.fun)
    assert (slope(0.0, 1.0), slope(0.0, -1.0)) == (row.right, row.left)
    step = 1e-7
    assert (row.fun(step) - row.fun(0.0)) / step == pytest.approx(row.right, abs=1e-6)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_sets_of_a_solution(name):
    row = SOLUTIONS[name]
    found = calculus.implicit_jacobian(row.fun)(0.0, 0.0)
    np.testing.assert_allclose(ends(found), row.slopes, rtol=1e-6, atol=1e-12)
    along = calculus.implicit_directional_derivative(row.fun)
    for direction, slope in ((1.0, row.right), (-1.0, row.left)):
        move = along(0.0, 0.0, direction)
        assert isinstance(move, calculus.ImplicitDirection) and move.unique
        np.testing.assert_allclose(move.value, [slope], rtol=1e-6, atol=1e-12)


def test_where_carried_derivatives_end():
    def T(x, t):
        return t - x / 4 - nsi.relu(x) / 4

    found = calculus.piggyback_jacobian(T)(0.0, 0.0)
    assert isinstance(found, calculus.Attractor)
    np.testing.assert_allclose(found.interval(), (4 / 7, 6 / 7), atol=1e-8)
    implicit = calculus.implicit_jacobian(lambda x, t: T(x, t) - x)(0.0, 0.0)
    np.testing.assert_allclose(ends(implicit), (2 / 3, 4 / 5), rtol=1e-12)
    assert calculus.excess(implicit, np.reshape(found.interval(), (2, 1, 1))) <= 1e-8
    # Unrolled from a point that never meets the kink, the derivative swings between the ends, outside the implicit set.
    slopes = [jax.grad(lambda t, k=k: jax.lax.fori_loop(0, k, lambda _, x: T(x, t), 1.0))(0.0) for k in (40, 41)]
    np.testing.assert_allclose(sorted(slopes), (4 / 7, 6 / 7), rtol=1e-9)


def test_trees_keep_their_structure():
    def fun(x):
        return {"a": jnp.abs(x["u"]), "b": x["u"].sum() - x["v"]}

    point = {"u": jnp.zeros(2), "v": 1.0}
    slope = calculus.directional_derivative(fun)(point, {"u": jnp.array([1.0, -2.0]), "v": 0.5})
    assert slope["a"].tolist() == [1.0, 2.0] and slope["b"] == -1.5
    assert calculus.conservative_jacobian(fun)(point).vertices().shape == (4, 3, 3)
