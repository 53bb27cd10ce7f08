"""``Along``: a limiting Jacobian of the function, whatever program computes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nsimplicit as nsi

from .by_hand import CLARKE_INVERSES, clarke_map

BOTH = (1.0, -1.0)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# The identities that a selection at each kink by itself breaks: a function of a scalar, its derivatives at 0 along +1
# and along -1, and the one JAX gives by itself.
IDENTITIES = {
    "relu(x) - relu(-x) = x": (lambda x: jax.nn.relu(x) - jax.nn.relu(-x), (1, 1), 0),
    "relu(-x) + x - relu(x) = 0": (lambda x: nsi.relu(-x) + x - nsi.relu(x), (0, 0), 1),
    "x - zero(x) = x": (lambda x: x - (nsi.relu(-x) + x - nsi.relu(x)), (1, 1), 0),
    "relu(-x) + x = relu(x)": (lambda x: jax.nn.relu(-x) + x, (1, 0), 1),
    "half of each": (lambda x: 0.5 * (jax.nn.relu(x) + jax.nn.relu(-x) + x), (1, 0), 0.5),
    "a thousand zeros": (lambda x: 1000 * (nsi.relu(-x) + x - nsi.relu(x)), (0, 0), 1000),
    "abs(x) - abs(-x) = 0": (lambda x: jnp.abs(x) - jnp.abs(-x), (0, 0), 2),
    "abs(x) - abs(x) = 0": (lambda x: jnp.abs(x) - nsi.abs(x), (0, 0), 0),
    "max - min = abs": (lambda x: jnp.maximum(x, 0) - jnp.minimum(x, 0), (1, -1), 0),
    "max + min = x": (lambda x: 2 * nsi.maximum(x, 0, selection=None) + 2 * jnp.minimum(x, 0), (2, 2), 2),
    "clip, twice": (lambda x: jnp.clip(x, 0, 1) - lax.clamp(0.0, x, 1.0), (0, 0), 0.5),
    "where, turned": (lambda x: jnp.where(x > 0, x, 0) + jnp.where(x >= 0, 0, x), (1, 1), 0),
    "where of where": (lambda x: jnp.where(x > 0, jnp.where(x < 0, -x, x), -x), (1, -1), -1),
    "elu is smooth": (lambda x: jax.nn.elu(x), (1, 1), 1),
    "max(x, -x) - abs(x) = 0": (lambda x: jnp.max(jnp.stack([x, -x])) - jnp.abs(x), (0, 0), -1),
    "sorted first": (lambda x: jnp.sort(jnp.stack([x, -x]))[1], (1, -1), -1),
    "cummax": (lambda x: lax.cummax(jnp.stack([0 * x, x]))[1], (1, 0), 0.5),
    "tanh in disguise": (lambda x: jnp.tanh(x) + nsi.relu(-x) + x - nsi.relu(x), (1, 1), 2),
    "product of kinks": (lambda x: jnp.abs(jax.nn.relu(x) - jax.nn.relu(-x)), (1, -1), 0),
}


@pytest.mark.parametrize(("name", "row"), IDENTITIES.items(), ids=IDENTITIES)
def test_broken_identities(name, row):
    fun, expected, jaxs = row
    assert jax.grad(fun)(0.0) == jaxs

    def slopes(d, x):
        selected = nsi.with_selection(fun, nsi.Along((d,)))
        return jnp.stack([jax.grad(selected)(x), jax.jvp(selected, (x,), (jnp.ones_like(x),))[1]])

    run = jax.jit(jax.vmap(slopes, (0, None)), compiler_options=QUICK)
    np.testing.assert_allclose(run(jnp.array(BOTH), 0.0), np.transpose([expected, expected]), atol=1e-15)
    near = jnp.array(2.0**-20)  # nothing to decide off the kink
    np.testing.assert_allclose(run(jnp.array(BOTH), near)[:, 0], jax.grad(fun)(near), rtol=1e-14)


def test_max_is_the_first_of_top_k():
    def zero(x):
        return jnp.max(x) - lax.top_k(x, 1)[0][0]

    x = jnp.zeros(3)
    assert jax.grad(zero)(x).tolist() != [0, 0, 0]
    directions = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)))
    grads = jax.jit(jax.vmap(lambda d: jax.grad(nsi.with_selection(zero, nsi.Along((d,))))(x)))(directions)
    np.testing.assert_array_equal(grads, 0)
    # A direction that does not decide, then one that does, then none: still one and the same vertex for both.
    for more in ((), (jnp.array([0.0, 0.0, 1.0]),)):
        along = nsi.Along((jnp.array([1.0, 1.0, 0.0]),), *((d,) for d in more))
        np.testing.assert_array_equal(jax.grad(nsi.with_selection(zero, along))(x), 0)


def test_clarkes_map_gives_a_true_matrix_for_any_directions():
    ops = type("Ops", (), {"abs": staticmethod(jnp.abs)})

    def jacobian(directions):
        along = nsi.Along((directions[0],), (directions[1],))
        F = nsi.with_selection(lambda z: jnp.stack(clarke_map(ops, z[0], z[1])), along)
        return jax.jacrev(F)(jnp.zeros(2))

    rng = np.random.default_rng(0)
    directions = rng.normal(size=(500, 2, 2))
    directions[::5, 0, 0] = 0  # ties that the second direction breaks
    found = np.linalg.inv(jax.jit(jax.vmap(jacobian))(jnp.asarray(directions)))
    distances = np.abs(found[:, None] - CLARKE_INVERSES).max((-1, -2))
    assert (distances.min(1) < 1e-14).all()
    assert set(distances.argmin(1)) == {0, 1, 2, 3}
    x, y = (np.where(directions[:, 0, i] == 0, directions[:, 1, i], directions[:, 0, i]) > 0 for i in (0, 1))
    order = [[1, 1], [1, 0], [0, 0], [0, 1]]  # of CLARKE_INVERSES
    expected = np.linalg.inv([[[2 * a - 1, 1], [2, 2 * b - 1]] for a, b in order])
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        np.testing.assert_allclose(found[i], expected[order.index([int(a), int(b)])], atol=1e-14)


def network(weights, x):
    """Every kind of kink. With small integers for weights, many tie exactly at an integer point."""
    a = weights[0] @ x
    b = jnp.concatenate([jax.nn.relu(a[:2]), jnp.abs(a[2:])])
    c = jnp.sort(weights[1] @ b) + lax.cummax(a)
    d = jnp.where(c > a, c, a) + jnp.clip(b - 1, 0, 2) - jnp.minimum(c, 1.0)
    e = weights[2] @ d
    return jnp.stack([jnp.max(e), lax.top_k(e, 2)[0][1], jnp.median(e[:3]), jax.nn.hard_tanh(e[0]), jnp.min(d)])


def test_random_networks_against_differences_and_the_limit_of_jacobians():
    rng = np.random.default_rng(0)
    count = 200
    weights = jnp.asarray(rng.integers(-2, 3, size=(count, 3, 4, 4)), float)
    points = jnp.asarray(rng.integers(-1, 2, size=(count, 4)), float)
    first = jnp.asarray(rng.integers(-1, 2, size=(count, 4)), float)  # leaves ties for the second
    second = jnp.asarray(rng.normal(size=(count, 4)))

    def check(weights, x, d, e):
        fun = functools.partial(network, weights)
        selected = nsi.with_selection(fun, nsi.Along((d,), (e,)))
        out, forward = jax.jvp(selected, (x,), (d,))
        t = 2.0**-16
        limit = jax.jacfwd(fun)(x + t * d + t**2 * e)
        return out, fun(x), forward, (fun(x + t * d) - fun(x)) / t, jax.jacrev(selected)(x), limit, jax.jacrev(fun)(x)

    found = jax.jit(jax.vmap(check), compiler_options=QUICK)(weights, points, first, second)
    out, value, forward, difference, jacobian, limit, plain = found
    np.testing.assert_array_equal(out, value)
    np.testing.assert_array_equal(forward, difference)  # integers: no rounding
    np.testing.assert_array_equal(jacobian, limit)
    assert np.any(plain != limit, axis=(1, 2)).mean() > 0.5  # the ties matter


def along_one(fun):
    return nsi.with_selection(fun, nsi.Along((jnp.ones(()),)))


def zero(x):
    return jax.nn.relu(-x) + x - jax.nn.relu(x)


@pytest.mark.parametrize(
    ("name", "fun"),
    {
        "jit": jax.jit(zero),
        "scan": lambda x: lax.scan(lambda c, _: (zero(c) + c, None), x, None, length=3)[0] - x,
        "scan, stacked": lambda x: jnp.sum(lax.scan(lambda c, a: (c, zero(a * c)), x, jnp.array([1.0, -2.0]))[1]),
        "fori": lambda x: lax.fori_loop(0, 2, lambda i, c: jnp.abs(c) - jnp.abs(-c), x),
        "remat": jax.checkpoint(zero),
        "cond": lambda x: lax.cond(x < 1, zero, lambda x: x, x),
        "switch": lambda x: lax.switch(jnp.int32(1), [jnp.sin, zero], x),
        "vmap": lambda x: jax.vmap(lambda a: zero(a * x))(jnp.array([1.0, -1.0, 3.0])).sum(),
        "nested": lambda x: jax.jit(jax.checkpoint(lambda x: lax.fori_loop(0, 2, lambda i, c: zero(c), x)))(x),
        "through two scans": lambda x: lax.scan(
            lambda c, _: (lax.scan(lambda c, _: (c + zero(c), None), c, None, length=2)[0], None), x, None, length=2
        )[0] - x,
    }.items(),
)  # fmt: skip
def test_reaches_inside(name, fun):
    selected = along_one(fun)
    transforms = (jax.grad, jax.jacfwd, lambda f: jax.grad(jax.grad(f)))
    run = jax.jit(lambda x: [transform(selected)(x) for transform in transforms], compiler_options=QUICK)
    assert list(map(float, run(jnp.zeros(())))) == [0, 0, 0]


def test_a_scan_over_with_selection():
    def step(x, d):
        return x, jax.grad(nsi.with_selection(lambda x: jnp.maximum(x, 0) - jnp.minimum(x, 0), nsi.Along((d,))))(x)

    assert lax.scan(step, jnp.zeros(()), jnp.array([1.0, -1.0]))[1].tolist() == [1, -1]


def test_several_arguments_and_what_is_no_number():
    def fun(params, x, i, name):
        assert name == "net"
        return jax.nn.relu(params["a"] * x[i]) - jax.nn.relu(-params["a"] * x[i]) + params["b"]

    args = ({"a": jnp.ones(()), "b": 0.0}, jnp.zeros(3), jnp.array(1), "net")
    directions = ({"a": 0.0, "b": 0.0}, jnp.array([0.0, -1.0, 0.0]), None, None)
    selected = nsi.with_selection(fun, nsi.Along(directions))
    assert selected(*args) == 0
    assert jax.grad(selected, 1)(*args).tolist() == [0, 1, 0]
    assert jax.grad(selected, 0)(*args) == {"a": 0, "b": 1}


def test_what_a_direction_does_not_decide_is_decided_for_all_alike():
    still = jnp.zeros(3)
    relu = jax.jit(jax.grad(lambda x: jnp.sum(nsi.with_selection(zero, nsi.Along((still,)))(x))))
    np.testing.assert_array_equal(relu(still), 0)
    both = nsi.with_selection(lambda x: jnp.sum(jax.nn.relu(x)), nsi.Along((still,), (jnp.array([0.0, 1.0, -1.0]),)))
    assert jax.jit(jax.grad(both))(still)[1:].tolist() == [1, 0]


def test_the_tolerance_decides_what_is_a_tie():
    x = jnp.array([-1e-12, 1.0])
    along = nsi.Along((jnp.array([1.0, 0.0]),))

    def grad(tolerance):
        selected = nsi.with_selection(jax.nn.relu, along, tolerance=tolerance)
        return jax.jit(jax.grad(lambda x: jnp.sum(selected(x))))(x).tolist()

    assert grad(0.0) == [0, 1]
    assert grad(1e-9) == [1, 1]


@pytest.mark.parametrize(
    "tangents",
    [(jnp.ones(2),), (jnp.ones(3), jnp.ones(3)), (), (jnp.ones((3, 1)),), (jnp.ones(3, int),)],
    ids=["short", "two", "none", "matrix", "integers"],
)
def test_directions_that_do_not_fit(tangents):
    with pytest.raises(nsi.InputError, match=r"Along\(tangents\)(.|\n)*the arguments \[\(3,\)\](.|\n)*Try"):
        nsi.with_selection(jax.nn.relu, nsi.Along(tangents))(jnp.zeros(3))
    with pytest.raises(nsi.InputError, match="the tangents have shapes"):
        nsi.with_selection(jax.nn.relu, nsi.Along((jnp.ones(3),), tangents))(jnp.zeros(3))


def test_fixed_keys_and_stopped_sorts_have_no_direction():
    key = jax.random.key(0)
    shuffled = nsi.with_selection(lambda x: jax.random.permutation(key, x) ** 2, nsi.Along((jnp.ones(4),)))
    x = jnp.arange(4.0)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(shuffled(x)))(x), 2 * x)


def test_an_equation_that_sorts_is_told_of():
    def solution(t):
        return nsi.fixed_point(lambda z, t: jnp.sort(z) / 2 + t, 0 * t, t).value

    with pytest.warns(UserWarning, match=r"implicit_layer at test_along.py.*it sorts[\s\S]*wrap the equation"):
        slope = jax.jacobian(nsi.with_selection(solution, nsi.Along((jnp.ones(2),))))(jnp.zeros(2))
    np.testing.assert_allclose(slope, 2 * np.eye(2), atol=1e-14)
