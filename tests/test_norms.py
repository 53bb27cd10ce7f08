"""The norm at zero: the selected gradient, finite second derivatives, rows that leave each other alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

ROWS = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, -2.0]])


def test_a_zero_row_leaves_the_others_alone():
    gradient, hessians = jax.jit(
        lambda x: (jax.grad(lambda x: nsi.norm(x, axis=1).sum())(x), jax.vmap(jax.hessian(nsi.norm))(x))
    )(ROWS)
    np.testing.assert_allclose(gradient, ROWS / jnp.array([[5.0], [1.0], [3.0]]), rtol=1e-15)
    for hessian, x, length in zip(hessians, ROWS, (5.0, 1.0, 3.0), strict=True):
        unit = x / length
        expected = (np.eye(3) - np.outer(unit, unit)) / length if np.any(x) else np.zeros((3, 3))
        np.testing.assert_allclose(hessian, expected, atol=1e-15)


def test_the_gradient_at_zero_is_the_one_selected():
    selection = np.array([[0.0, 0, 1], [0.6, 0, 0.8], [0, 0.1, 0]])
    gradient = jax.jit(jax.grad(lambda x: nsi.norm(x, axis=1, selection=selection).sum()))
    np.testing.assert_allclose(gradient(0 * ROWS), selection, rtol=1e-15)
    np.testing.assert_allclose(gradient(ROWS)[1], selection[1], rtol=1e-15)
    np.testing.assert_allclose(gradient(ROWS)[0], [0.6, 0.8, 0], rtol=1e-15)
    one_for_all = jax.grad(lambda x: nsi.norm(x, axis=1, selection=selection[1]).sum())
    np.testing.assert_allclose(one_for_all(0 * ROWS), np.stack([selection[1]] * 3), rtol=1e-15)
    whole = jax.grad(lambda x: nsi.norm(x, selection=selection / 2))(0 * ROWS)
    np.testing.assert_allclose(whole, selection / 2, rtol=1e-15)
    with pytest.raises(nsi.InputError, match=r"norm 1\.4"):
        nsi.norm(ROWS, selection=selection)


def test_a_traced_selection_is_brought_into_the_unit_ball():
    gradient = jax.jit(jax.grad(lambda x, v: nsi.norm(x, selection=v), (0, 1)))
    for v, expected in (([0.0, 0.5], [0, 0.5]), ([3.0, 4.0], [0.6, 0.8])):
        at_zero, by_selection = gradient(jnp.zeros(2), jnp.array(v))
        np.testing.assert_allclose(at_zero, expected, rtol=1e-15)
        assert not np.any(by_selection)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unit_vectors_of_lower_precision_are_unit_vectors(dtype, key):
    v = jax.random.normal(key, (50,), dtype)
    v = v / jnp.linalg.norm(v)
    gradient = jax.jit(jax.grad(lambda x: nsi.norm(x, selection=v)))(jnp.zeros(50, dtype))
    np.testing.assert_allclose(gradient.astype(float), v.astype(float), rtol=2 * float(jnp.finfo(dtype).eps))


def test_complex_vectors():
    z = jnp.array([[3j, 4.0], [0, 0]])
    np.testing.assert_array_equal(nsi.norm(z, axis=1), [5, 0])
    # JAX's convention for the gradient of a real function: the conjugate of the direction of ascent.
    np.testing.assert_allclose(jax.grad(lambda z: nsi.norm(z, axis=1).sum())(z), [[-0.6j, 0.8], [0, 0]], atol=1e-15)
    at_zero = jax.grad(lambda z: nsi.norm(z, selection=jnp.array([0.6j, 0.8])))(jnp.zeros(2, complex))
    np.testing.assert_allclose(at_zero, [-0.6j, 0.8], rtol=1e-15)


def test_underflow_counts_as_zero_and_nan_as_nan():
    assert jnp.linalg.norm(jnp.array([1e-200, 1e-180])) == 0
    assert not np.any(jax.grad(nsi.norm)(jnp.array([1e-200, 1e-180])))
    gradient = jax.jit(jax.grad(lambda x: nsi.norm(x, axis=1).sum()))(jnp.array([[np.nan, 1.0], [0, 2]]))
    np.testing.assert_array_equal(gradient, [[np.nan, np.nan], [0, 1]])


def test_sums_of_moduli_have_the_kinks_of_abs_and_max():
    x = jnp.array([[0.0, -2.0, 2.0], [0.0, 0.0, 0.0]])
    gradients = jax.jit(lambda x: [jax.grad(lambda x, p=p: nsi.norm(x, p, 1).sum())(x) for p in (1, np.inf, -np.inf)])(
        x
    )
    expected = jax.jit(
        lambda x: [jax.grad(lambda x, p=p: jnp.linalg.norm(x, p, 1).sum())(x) for p in (1, np.inf, -np.inf)]
    )(x)
    np.testing.assert_array_equal(gradients, expected)


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(nsi.norm, ord=3, axis=1),
        functools.partial(nsi.norm, ord=0, axis=1),
        functools.partial(nsi.norm, ord="nuc"),
        functools.partial(nsi.norm, ord=2),
        functools.partial(nsi.norm, ord=1, axis=1, selection="zero"),
    ],
)
def test_other_norms_say_where_to_go(call):
    with pytest.raises(
        nsi.InputError, match=r"norm\(ord=.*not a norm this function has a derivative rule for"
    ) as error:
        call(ROWS)
    assert "jnp.linalg.norm(x, " in str(error.value)


def test_wrong_axes_are_refused_by_jax():
    with pytest.raises(ValueError, match="axis"):
        nsi.norm(ROWS, axis=2)
    with pytest.raises(ValueError, match="axes"):
        nsi.norm(jnp.ones((2, 2, 2)), axis=(0, 1, 2))


def test_integers_have_jaxs_norm():
    assert nsi.norm(jnp.array([3, 4])) == 5 and nsi.norm(jnp.array([3, -4]), 1) == 7
