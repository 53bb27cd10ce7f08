"""Order statistics of a payload against sorting done by hand, block by block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi


def by_hand(key, tie, descending=False):
    """The matrix of the map, from the definition: blocks of equal keys in order, each arranged on its own."""
    rows = []
    for value in sorted(set(key), reverse=descending):
        block = [i for i, k in enumerate(key) if k == value]
        if tie == "mean":
            rows += [np.mean(np.eye(len(key))[block], 0)] * len(block)
        else:
            rows += list(np.eye(len(key))[block if tie == "first" else block[::-1]])
    return np.array(rows)


KEYS = [[3, 1, 3, 2, 1, 3], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0], [-0.0, 0.0, 1, 0.0, -1, 1], [np.inf, 0, np.inf] * 2]


@pytest.mark.parametrize("tie", ["first", "last", "mean"])
@pytest.mark.parametrize("descending", [False, True])
def test_values_and_jacobians_are_those_of_sorting_by_hand(tie, descending, key):
    keys = jnp.array(KEYS, float)
    payload = jax.random.normal(key, keys.shape)
    matrices = np.stack([by_hand(k, tie, descending) for k in KEYS])
    expected = np.einsum("bij,bj->bi", matrices, payload)
    fun = jax.jit(functools.partial(nsi.ordering, tie=tie, descending=descending))
    # Means of up to six numbers round differently.
    np.testing.assert_allclose(fun(keys, payload), expected, atol=1e-15)
    forward, reverse = (
        jax.jit(jax.vmap(jac(functools.partial(nsi.ordering, tie=tie, descending=descending), 1)))(keys, payload)
        for jac in (jax.jacfwd, jax.jacrev)
    )
    np.testing.assert_allclose(forward, matrices, atol=1e-15)
    np.testing.assert_allclose(reverse, matrices, atol=1e-15)
    along_first = nsi.ordering(keys.T, payload.T, tie=tie, descending=descending, axis=0, start=1, stop=4)
    np.testing.assert_allclose(along_first, expected.T[1:4], atol=1e-15)


@pytest.mark.parametrize("name", ["sort", "top_k", "median", "max", "min", "max_pool"])
def test_selections_of_order_statistics_are_those_of_sorting_by_hand(name):
    size = 5 if name == "median" else 6
    # To JAX's top_k, and so to its default, 0.0 is larger than -0.0.
    keys = [k[:size] for k in KEYS[: 3 if name == "top_k" else 4]]
    fun, rows, descending = {
        "sort": (nsi.sort, slice(None), False),
        "top_k": (lambda x, **s: nsi.top_k(x, 3, **s)[0], slice(3), True),
        "median": (nsi.median, 2, False),
        "max": (nsi.max, 0, True),
        "min": (nsi.min, 0, False),
        "max_pool": (lambda x, **s: nsi.max_pool(x[:, None], (6,), **s)[0, 0], 0, True),
    }[name]
    ties = ("first", "last", "mean")
    jacobians = jax.jit(lambda x: [jax.vmap(jax.jacrev(functools.partial(fun, selection=tie)))(x) for tie in ties])(
        jnp.array(keys, float)
    )
    for tie, jacobian in zip(ties, jacobians, strict=True):
        expected = np.stack([by_hand(k, tie, descending)[rows] for k in keys])
        np.testing.assert_allclose(jacobian, expected, atol=1e-15)  # thirds round


def test_the_key_only_orders():
    x = jnp.array([2.0, 1.0, 3.0])
    assert not np.any(jax.jacobian(lambda k: nsi.ordering(k, x, tie="first"))(x))
    np.testing.assert_array_equal(
        jax.jacobian(lambda x: nsi.ordering(x, x**2, tie="first"))(x), np.diag([4.0, 2, 6])[[1, 0, 2]]
    )


def test_nans_come_last_and_tie():
    keys = jnp.array([np.nan, 1.0, np.nan, 0.0])
    np.testing.assert_array_equal(nsi.ordering(keys, jnp.arange(4.0), tie="first"), [3, 1, 0, 2])
    np.testing.assert_array_equal(nsi.ordering(keys, jnp.arange(4.0), tie="mean"), [3, 1, 1, 1])


def test_payloads_of_any_kind():
    keys = jnp.array([2.0, 1.0, 1.0])
    counts = nsi.ordering(keys, jnp.array([7, 8, 9]), tie="last")
    np.testing.assert_array_equal(counts, [9, 8, 7])
    assert jnp.issubdtype(counts.dtype, jnp.integer)
    z = jnp.array([1j, 2.0, 4j])
    np.testing.assert_allclose(nsi.ordering(keys, z, tie="mean"), [1 + 2j, 1 + 2j, 1j])
    tangent = jax.jvp(lambda z: nsi.ordering(keys, z, tie="mean"), (z,), (1j * z,))[1]
    np.testing.assert_allclose(tangent, [1j - 2, 1j - 2, -1])
    assert nsi.ordering(jnp.zeros((2, 0)), jnp.zeros((2, 0)), tie="mean").shape == (2, 0)


def test_a_key_shared_by_a_batch_of_payloads(key):
    keys = jnp.array([2.0, 1.0, 2.0])
    payloads = jax.random.normal(key, (4, 3))
    fun = functools.partial(nsi.ordering, tie="mean")

    @jax.jit
    def mapped(keys, payloads):
        shared_payload = jax.vmap(fun, (0, None))(jnp.stack([keys, -keys]), payloads[0])
        by_rows, by_columns = jax.vmap(fun, (None, 0))(keys, payloads), jax.vmap(fun, (None, 1))(keys, payloads.T)
        return shared_payload, [by_rows, by_columns, fun(keys, payloads)]

    shared, results = mapped(keys, payloads)
    for result in results:
        np.testing.assert_allclose(result, payloads @ by_hand([2, 1, 2], "mean").T, atol=1e-15)  # means round
    expected = [by_hand(k, "mean") @ np.asarray(payloads[0]) for k in ([2, 1, 2], [-2, -1, -2])]
    np.testing.assert_allclose(shared, expected, atol=1e-15)


def test_what_cannot_order_says_so():
    with pytest.raises(nsi.InputError, match="tie='above'.*'first', 'last', 'mean'"):
        nsi.ordering(jnp.ones(2), jnp.ones(2), tie="above")
    with pytest.raises(nsi.InputError, match="key has dtype complex128"):
        nsi.ordering(jnp.ones(2) * 1j, jnp.ones(2), tie="first")
    for wrong in (lambda x: nsi.sort(x, 2), lambda x: nsi.max(x, 1), lambda x: nsi.median(x, (0, 0))):
        with pytest.raises(ValueError, match="axis"):
            wrong(jnp.ones(3))


def test_arguments_that_jax_refuses_are_refused_by_jax():
    for name in ("max", "min"):
        for kwargs in ({"where": jnp.ones(3, bool)}, {"initial": jnp.zeros(2)}):
            with pytest.raises(ValueError, match="identity|must be a scalar"):
                getattr(nsi, name)(jnp.ones(3), **kwargs)
        with pytest.raises(ValueError, match="zero-size"):
            getattr(nsi, name)(jnp.ones(0))
        with pytest.raises(NotImplementedError, match="out"):
            getattr(nsi, name)(jnp.ones(3), out=jnp.ones(()))
        assert getattr(nsi, name)(jnp.ones((0, 2)), 0, initial=3.0).tolist() == [3, 3]
    with pytest.raises(TypeError, match="kind"):
        nsi.sort(jnp.ones(3), kind="mergesort")
