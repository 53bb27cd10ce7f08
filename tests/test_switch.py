"""The switch itself: what its rule does at a kink, beside it, and where something is nan or infinite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.primitives.switch import bind


@pytest.mark.parametrize("s", [0.0, 0.25, 0.5, 1.0])
def test_the_relu_family(s):
    # One function written in five ways; only s = 1/2 gives each the derivative of the function.
    relu = functools.partial(nsi.relu, selection=s)

    def relu2(t):
        return relu(-t) + t

    def relu3(t):
        return (relu(t) + relu2(t)) / 2

    def zero(t):
        return relu2(t) - relu(t)

    def identity(t):
        return t - zero(t)

    family = (relu, relu2, relu3, zero, identity, lambda t: 7 * zero(t))
    points = jnp.array([-1.5, 0.0, 2.0])
    values, slopes = jax.jit(lambda t: [[jax.vmap(g(f))(t) for f in family] for g in (lambda f: f, jax.grad)])(points)
    np.testing.assert_array_equal(values, [[0, 0, 2]] * 3 + [[0, 0, 0], [-1.5, 0, 2], [0, 0, 0]])
    at_kink = [s, 1 - s, 0.5, 1 - 2 * s, 2 * s, 7 * (1 - 2 * s)]
    off_kink = [[0, 1]] * 3 + [[0, 0], [1, 1], [0, 0]]
    np.testing.assert_array_equal(slopes, [[a, k, b] for k, (a, b) in zip(at_kink, off_kink, strict=True)])


@pytest.mark.parametrize("branch", [jnp.sin, [1.0, 2.0], (1.0,)])
def test_functions_and_lists_are_no_branches(branch):
    for arguments in ((1.0, branch, 0.0), (1.0, 0.0, branch)):
        with pytest.raises(nsi.InputError, match=r"switch\(u, above, below\).*\n.*did you mean jax\.lax\.switch\?"):
            nsi.switch(*arguments)


def test_complex_numbers_pick_no_branch():
    with pytest.raises(nsi.InputError, match="u has dtype complex128.*\n.*sign of u"):
        nsi.switch(1j, 1.0, 0.0)


def test_a_nan_is_neither_kink_nor_branch():
    u = jnp.array([np.nan, 0.0, 1.0, -1.0])

    @jax.jit
    def everything(u):
        def fun(u):
            return nsi.switch(u, 2 * u, 3 * u, selection=0.5)

        return fun(u), jax.grad(lambda u: fun(u).sum())(u), jax.jvp(fun, (u,), (jnp.ones(4),))[1]

    value, gradient, tangent = everything(u)
    np.testing.assert_array_equal(value, [np.nan, 0, 2, -3])
    np.testing.assert_array_equal(gradient, [np.nan, 2.5, 2, 3])
    np.testing.assert_array_equal(tangent, [np.nan, 2.5, 2, 3])
    assert jnp.isnan(nsi.switch(jnp.nan, 1.0, 1.0))


def test_a_branch_without_weight_may_have_an_infinite_slope():
    def root_or_line(x, selection):
        return nsi.switch(x, jnp.sqrt(jnp.abs(x)), 2 * x, selection=selection)

    for selection in ("below", jnp.array([0.0])):
        gradient = jax.jit(jax.grad(lambda x, s=selection: root_or_line(x, s).sum()))(jnp.zeros(1))
        tangent = jax.jvp(lambda x, s=selection: root_or_line(x, s), (jnp.zeros(1),), (jnp.ones(1),))[1]
        assert tangent == 2
        # In reverse mode jnp.sqrt itself multiplies its zero cotangent by an infinite slope.
        assert gradient == 2 or np.isnan(gradient)


def test_the_other_branch_may_have_the_infinite_slope_too():
    for selection in ("above", jnp.array([1.0])):
        tangent = jax.jvp(
            lambda x, s=selection: nsi.switch(x, 2 * x, jnp.sqrt(jnp.abs(x)), selection=s),
            (jnp.zeros(1),),
            (jnp.ones(1),),
        )[1]
        assert tangent == 2


def test_infinite_cotangents_stay_on_their_branch():
    _, pullback = jax.vjp(nsi.maximum, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    x, y = pullback(jnp.array([np.inf, -np.inf]))
    np.testing.assert_array_equal(x, [np.inf, 0])
    np.testing.assert_array_equal(y, [0, -np.inf])


def test_the_value_is_taken_as_given_and_not_differentiated():
    value, slope = jax.value_and_grad(lambda x: nsi.switch(x, 2 * x, x, value=100 * x))(3.0)
    assert value == 300 and slope == 2
    equations = jax.make_jaxpr(lambda x: nsi.switch(x, 2 * x, x, value=100 * x))(3.0).eqns
    stopped = [e.outvars[0] for e in equations if e.primitive.name == "stop_gradient"]
    assert equations[-1].primitive.name == "switch" and equations[-1].invars[-1] in stopped


def test_integer_branches_are_a_plain_where():
    result = nsi.switch(jnp.array([-1.0, 0.0, 2.0]), jnp.array([1, 2, 3]), 9)
    np.testing.assert_array_equal(result, [9, 9, 3])
    assert jnp.issubdtype(result.dtype, jnp.integer)
    assert not [e for e in jax.make_jaxpr(lambda u: nsi.switch(u, 1, 0))(1.0).eqns if e.primitive.name == "switch"]


def test_complex_branches_and_integer_u():
    u = jnp.array([-1, 0, 1])
    fun = functools.partial(nsi.switch, u, selection=0.25)
    z = jnp.array([1 + 1j, 2j, 3.0])
    tangent = jax.jit(lambda z: jax.jvp(fun, (z, 1j * z), (z, 2j * z))[1])(z)
    np.testing.assert_allclose(tangent, [2j * z[0], (0.25 + 1.5j) * z[1], z[2]], rtol=1e-15)


def test_branches_and_weights_broadcast():
    u, above, below = jnp.zeros((2, 1)), jnp.ones(3), 2.0
    gradient = jax.grad(lambda a: nsi.switch(u, a, below, selection=np.array([0.0, 0.5, 1.0])).sum())(above)
    np.testing.assert_array_equal(gradient, [0, 1, 2])
    with pytest.raises(nsi.InputError, match=r"selection has shape \(2,\), the result has shape \(3,\)"):
        nsi.relu(above, selection=np.array([0.0, 0.5]))
    with pytest.raises(nsi.InputError, match=r"selection has shape \(3,\), the result has shape \(\)"):
        nsi.relu(1.0, selection=np.array([0.0, 0.5, 1.0]))


def test_traced_weights_are_clipped_and_not_differentiated():
    slope = jax.jit(jax.grad(lambda x, s: nsi.relu(x, selection=s), (0, 1)))
    for s, expected in ((0.25, 0.25), (-1.0, 0), (3.0, 1)):
        assert slope(0.0, s) == (expected, 0)
        assert slope(2.0, s) == (1, 0)
    with pytest.raises(nsi.InputError, match=r"selection=.*weight in \[0, 1\]"):
        jax.jit(lambda s: nsi.relu(0.0, selection=s))(1)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_weights_may_be_mapped(shape):
    weights = jnp.array([0.0, 0.25, 1.0])
    slope = jax.grad(lambda x, s: nsi.relu(x, selection=s).sum())
    x = jnp.zeros((3, *shape))
    expected = np.broadcast_to(np.reshape(weights, (3, *([1] * len(shape)))), x.shape)

    @jax.jit
    def mapped(x, weights):
        both = jax.vmap(slope)(x, weights), jax.vmap(slope, (-1, 0))(jnp.moveaxis(x, 0, -1), weights)
        return *both, jax.vmap(slope, (None, 0))(x[0], weights), jax.vmap(slope, (0, None))(x, weights[1])

    def loss(x, weights):
        return jax.vmap(lambda x, s: nsi.relu(x, selection=s))(x, weights).sum()

    *each, shared = mapped(x, weights)
    each.append(jax.jit(jax.grad(loss))(x, weights))
    for result in each:
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(shared, np.full(x.shape, 0.25))
    np.testing.assert_array_equal(jax.vmap(slope, (0, None))(jnp.zeros((2, 3)), weights), [weights, weights])


def test_a_weight_is_a_choice_and_not_a_variable():
    # Through the primitive: the function clips a traced weight, which stops its derivative too.
    def slope(weight):
        return jax.jvp(lambda x: bind(x, 0, x, 0, weight, x, name="switch", explicit=True), (0.0,), (1.0,))[1]

    assert slope(0.25) == 0.25
    assert jax.grad(slope)(0.25) == 0


def test_higher_derivatives_mix_the_branches_too():
    def fun(x):
        return nsi.switch(x, x**3 + x**2, x - 2 * x**3, selection=0.25)

    derivatives = [fun]
    for _ in range(3):
        derivatives.append(jax.grad(derivatives[-1]))
    at = jax.jit(lambda x: [d(x) for d in derivatives])
    assert np.array(at(0.0)).tolist() == [0, 0.75, 0.5, 0.25 * 6 - 0.75 * 12]
    assert np.array(at(1.0)).tolist() == [2, 5, 8, 6]


def test_only_branches_that_depend_on_the_input_carry_a_derivative():
    assert jax.grad(lambda u: nsi.switch(u, 5.0, 5.0))(0.0) == 0
    assert jax.grad(lambda u: nsi.switch(u, 5.0, u + 5, selection=0.25))(0.0) == 0.75
