"""NumPy functions under JAX: what they are given, what they may return, how often they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

M = np.array([[2.0, 1.0], [0.0, 1.0]])
b = np.array([3.0, 1.0])


@pytest.mark.parametrize(
    "like",
    [lambda M, b: b, b, np.zeros(2), jax.ShapeDtypeStruct((2,), float)],
    ids=["function", "array", "zeros", "shape"],
)
def test_like(like):
    solve = nsi.host(np.linalg.solve, like=like)
    np.testing.assert_array_equal(solve(M, b), [1.0, 1.0])
    np.testing.assert_array_equal(jax.jit(solve)(M, b), [1.0, 1.0])


def test_default_is_like_the_first_argument():
    out = jax.jit(nsi.host(lambda start, y: (start[0] + y, {"a": start[1]["a"] * y})))(
        (np.zeros(2), {"a": np.float32(2.0)}), 3.0
    )
    np.testing.assert_array_equal(out[0], [3.0, 3.0])
    assert out[1]["a"] == 6.0 and out[1]["a"].dtype == jnp.float32


def test_result_is_cast():
    out = nsi.host(lambda x: [1, 2], like=jnp.zeros(2, jnp.bfloat16))
    with pytest.raises(Exception, match="returned"):  # a list is a tree of two numbers, not an array
        out(jnp.zeros(2))
    out = jax.jit(nsi.host(lambda x: np.array([1, 2]), like=jnp.zeros(2, jnp.bfloat16)))(jnp.zeros(2))
    assert out.dtype == jnp.bfloat16


def test_what_the_function_is_given():
    seen = {}

    def fun(x, scalar, number, word, key, *, option):
        seen.update(x=x, scalar=scalar, number=number, word=word, key=key, option=option)
        return x

    key = jax.random.key(7)
    call = nsi.host(fun)
    traced = jax.jit(lambda x, s, k: call(x, s, 0.5, "word", k, option=None))(jnp.ones(2), 0.25, key)
    jax.block_until_ready(traced)
    assert type(seen["x"]) is np.ndarray
    assert type(seen["scalar"]) is np.float64 and seen["scalar"] == 0.25  # a number scikit-learn accepts
    assert type(seen["number"]) is float and (seen["word"], seen["option"]) == ("word", None)
    np.testing.assert_array_equal(seen["key"], jax.random.key_data(key))


def test_has_no_derivative_of_its_own():
    solve = nsi.host(np.linalg.solve, like=lambda M, b: b)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda b: solve(M, b).sum() + b[0]))(b), [1.0, 0.0])
    np.testing.assert_array_equal(jax.jvp(lambda b: solve(M, b), (b,), (b,))[1], [0.0, 0.0])


@pytest.mark.parametrize("method, calls", [("sequential", 6), ("expand_dims", 1), ("broadcast_all", 1)])
def test_vmap(method, calls):
    seen = []

    def fun(x, y):
        seen.append((np.shape(x), np.shape(y)))
        return x + np.asarray(y)[..., None]

    call = nsi.host(fun, vmap_method=method)
    x, y = np.arange(12.0).reshape(2, 3, 2), np.array([10.0, 20.0])
    out = jax.jit(jax.vmap(lambda x, y: jax.vmap(lambda x: call(x, y))(x)))(x, y)
    np.testing.assert_array_equal(out, x + y[:, None, None])
    assert len(seen) == calls


def names(text):
    return pytest.raises(Exception, match=text)  # InputError, or what JAX wraps it in when compiled


def test_wrong_shape_and_structure_are_named():
    with names(r"host\(wrong\)`: the function returned \(3,\), expected \(2,\)"):

        def wrong(x):
            return np.zeros(3)

        nsi.host(wrong)(np.zeros(2))
    with names("returned .*expected"):
        jax.block_until_ready(jax.jit(nsi.host(lambda x: (x, x)))(np.zeros(2)))
    with names(r"expected \(4, 2\)"):
        call = nsi.host(lambda x: x[0], vmap_method="broadcast_all")
        jax.block_until_ready(jax.jit(jax.vmap(call))(np.zeros((4, 2))))
