"""The switch normal form against programs whose every selection is an argument, and against points nearby."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

import nsimplicit as nsi
from nsimplicit.calculus import normal_form
from nsimplicit.calculus.injection import Kinked
from nsimplicit.calculus.program import trace
from nsimplicit.calculus.selected import jacobians

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Programs of one argument at their kink, and how often it has one: with one selection everywhere they have a
# derivative by another way, the selections of the primitives themselves.

X = np.array([0.0, 1.0, -2.0])
W = np.array([[1.0, -1.0, 0.5], [2.0, 0.0, 1.0], [0.0, 3.0, 1.5]])


def scan(x):
    def step(c, a):
        c = jax.nn.relu(c * a)
        return c, jnp.abs(c - a)

    return lax.scan(step, x, jnp.array([1.0, -1.0, 2.0]))


def branches(x):
    return lax.cond(jnp.asarray(True), lambda x: W @ jnp.abs(W @ x), jnp.sin, jax.nn.relu(x))


SCALAR = {
    "relu": (jax.nn.relu, 1),
    "abs": (lambda x: jnp.abs(W @ jnp.abs(x)), 2),
    "maximum": (lambda x: jnp.maximum(x, -x) * x + nsi.maximum(2 * x, x), 2),
    "minimum": (lambda x: jnp.minimum(W @ x, W[::-1] @ x), 1),
    "clip": (lambda x: W @ jnp.clip(x, -2.0, 1.0), 2),
    "clamp": (lambda x: W @ lax.clamp(0.0, x, 1.0), 2),
    "where": (lambda x: jnp.where(x >= 1, x * x, 2 * x - 1) + jnp.where(x < 0, x, jnp.sin(x)), 2),
    "relu6": (lambda x: jax.nn.relu6(6 * x), 2),
    "leaky_relu": (jax.nn.leaky_relu, 1),
    "hard_tanh": (lambda x: nsi.hard_tanh(x), 1),
    "soft_threshold": (lambda x: W @ nsi.soft_threshold(W @ x, 0.5), 0),
    "chain": (lambda x: jax.nn.relu(W @ jax.nn.relu(W @ jax.nn.relu(x))), 2),
    "cummax": (lambda x: lax.cummax(jnp.stack([x, 0 * x, x])), 3),
    "scan": (scan, 7),
    "cond": (branches, 2),
    "jit": (lambda x: jax.jit(jax.jit(jax.nn.relu))(x) * x[1], 1),
    "remat": (jax.checkpoint(lambda x: jnp.sin(jax.nn.relu(x)) + jnp.abs(x)), 2),
    "vmap": (jax.vmap(lambda x: jax.nn.relu(x) * jnp.abs(x - 1)), 2),
    "fixed point of abs": (lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.abs(x) / 2, x), 3),
}


@pytest.mark.parametrize("name", SCALAR)
def test_one_selection_everywhere_is_with_selection(name):
    fun, k = SCALAR[name]
    form = normal_form(fun)(jnp.asarray(X))
    assert form.num_kinks == k == len(form.names) == len(set(form.positions))
    assert np.array_equal(np.tril(form.coupling, -1), form.coupling)
    assert np.array_equal(np.tril(form.argument_coupling, -1), form.argument_coupling)

    def selected(s):
        return jax.jacfwd(lambda x: jax.flatten_util.ravel_pytree(nsi.with_selection(fun, s)(x))[0])(jnp.asarray(X))

    for s, expected in zip((0.0, 0.3, 1.0), jax.jit(jax.vmap(selected))(jnp.array([0.0, 0.3, 1.0])), strict=True):
        np.testing.assert_allclose(form.jacobian(np.full(k, s)), expected, rtol=1e-13, atol=1e-13)


# Random programs: each kink has its own selection, an entry of w, in the order in which the program meets them.


class Weights:
    """Hands out the selections of a program, in order; ``None`` counts them."""

    def __init__(self, w):
        self.w, self.used = w, 0

    def take(self, shape):
        size = math.prod(shape)
        self.used += size
        return jnp.full(shape, 0.5) if self.w is None else self.w[self.used - size : self.used].reshape(shape)


LAYERS = {
    "relu": lambda a, x, w: nsi.relu(x, selection=w.take(x.shape)),
    "abs": lambda a, x, w: nsi.abs(x - 1, selection=w.take(x.shape)),
    "maximum": lambda a, x, w: nsi.maximum(x, a[0], selection=w.take(x.shape)),
    "minimum": lambda a, x, w: nsi.minimum(x, x[::-1], selection=w.take(x.shape)),
    "leaky_relu": lambda a, x, w: nsi.leaky_relu(x, 0.25, selection=w.take(x.shape)),
    "switch": lambda a, x, w: nsi.switch(x - x[0], x * x, x * x[0], selection=w.take(x.shape)),
    "matmul": lambda a, x, w: a @ x,
    "product": lambda a, x, w: x * (a[1] - x[0]),
    "scan": lambda a, x, w: lax.scan(
        lambda c, v: (nsi.relu(c - v[0], selection=v[1]) + c, None), x, (a, w.take(a.shape))
    )[0],
    "remat": lambda a, x, w: jax.checkpoint(lambda x, s: nsi.relu(x, selection=s))(x, w.take(x.shape)),
    "jit": lambda a, x, w: jax.jit(lambda x, s: nsi.abs(x, selection=s))(x, w.take(x.shape)),
}


def random_program(layers, seed, n=3):
    """Small integers, so that operands tie; each layer reads all that came before it."""
    rng = np.random.default_rng(seed)
    matrices = rng.integers(-1, 2, (len(layers), n, n)).astype(float)

    def program(x, w=None):
        weights, total = Weights(w), x
        for name, a in zip(layers, matrices, strict=True):
            total = a @ total + LAYERS[name](a, x, weights)
            x = total
        program.size = weights.used
        return total

    return program, jnp.asarray(rng.integers(-1, 2, n).astype(float))


@hypothesis.settings(max_examples=6)
@hypothesis.given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=2, max_size=4), st.integers(0, 99))
def test_random_programs_with_a_selection_for_each_kink(layers, seed):
    program, x = random_program(layers, seed)
    form = normal_form(program)(x)
    k = form.num_kinks
    assert np.array_equal(np.tril(form.coupling, -1), form.coupling)
    rng = np.random.default_rng(seed)
    selections = np.concatenate([rng.random((2, k)), rng.integers(0, 2, (3, k))])
    # What the report of kinks says is active is what was opened; everything else has a selection that does nothing.
    w = rng.random((5, program.size))
    w[:, list(form.positions)] = selections
    expected = jax.jit(jax.vmap(jax.jacfwd(program), (None, 0)), compiler_options=QUICK)(x, jnp.asarray(w))
    np.testing.assert_allclose(jacobians(form, selections), expected, rtol=1e-12, atol=1e-12)
    for s, J in zip(selections, expected, strict=True):
        np.testing.assert_allclose(form.jacobian(s), J, rtol=1e-12, atol=1e-12)


def test_random_programs_have_kinks():
    counts = [normal_form(random_program(["maximum", "scan"], seed)[0])(jnp.zeros(3)).num_kinks for seed in range(2)]
    assert min(counts) >= 3


def square(dtype):
    a = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4)), dtype)
    return lambda z: a[0] @ z + jnp.sin(a[1] @ jax.nn.relu(z)) - jnp.abs(a[2] @ jnp.minimum(z, 2 * jax.nn.relu(z)))


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 1e-12), (jnp.float32, 1e-4)], ids=["float64", "float32"])
def test_determinant_is_that_of_the_base_times_that_of_the_kinks(dtype, rtol):
    form = normal_form(square(dtype))(jnp.zeros(4, dtype))
    matrices = [form.base, form.gain, form.into, form.coupling, form.argument_into, form.argument_coupling]
    assert all(m.dtype == dtype for m in matrices) and form.num_kinks == 16
    base, gain, into, coupling = (np.asarray(m, float) for m in matrices[:4])
    q = coupling - into @ np.linalg.solve(base, gain)
    rng = np.random.default_rng(1)
    for s in (*rng.random((5, 16)), *rng.integers(0, 2, (5, 16))):
        expected = np.linalg.det(base) * np.linalg.det(np.eye(16) - s[:, None] * q)
        # Next to the largest product of entries, which Hadamard's bound is: a determinant may cancel.
        J = np.asarray(form.jacobian(s), float)
        size = np.prod(np.linalg.norm(J, axis=1))
        np.testing.assert_allclose(np.linalg.det(J), expected, rtol=rtol, atol=rtol * size)


# Orderings: what the exchanges of a tied block reach.


def corner_jacobians(fun, x):
    form = normal_form(fun)(x)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=form.num_kinks)))
    return form, jacobians(form, corners)


def permutations_of(blocks):
    """Block-diagonal permutation matrices."""
    choices = [list(itertools.permutations(range(size))) for size in blocks]
    starts = np.cumsum([0, *blocks])
    return {
        tuple(start + i for start, part in zip(starts, parts, strict=False) for i in part)
        for parts in itertools.product(*choices)
    }


SORTS = {
    "nsi.sort": nsi.sort,
    "descending": lambda x: -nsi.sort(-x, descending=True),
    "a column": lambda x: jnp.sort(x[:, None], axis=0)[:, 0],
    "vmapped": lambda x: jax.vmap(jnp.sort, 1, 1)(x[:, None])[:, 0],
}


@pytest.mark.parametrize("blocks", [(1,), (3,), (4,), (2, 1, 2)], ids=str)
def test_a_tied_block_reaches_every_permutation_and_no_other_matrix(blocks):
    x = np.repeat(np.arange(len(blocks), dtype=float), blocks)
    form, found = corner_jacobians(jnp.sort, jnp.asarray(x))
    assert form.num_kinks == sum(m * (m - 1) // 2 for m in blocks)
    reached = {tuple(int(i) for i in J.argmax(1)) for J in found}
    assert set(np.unique(found)) <= {0.0, 1.0} and np.all(found.sum(1) == 1) and np.all(found.sum(2) == 1)
    assert reached == permutations_of(blocks)
    inside = jacobians(form, np.random.default_rng(0).random((20, form.num_kinks)))
    assert inside.min() >= 0
    np.testing.assert_allclose(inside.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(inside.sum(2), 1, rtol=1e-14)


@pytest.mark.parametrize("name", SORTS)
def test_every_way_to_sort(name):
    x = jnp.array([2.0, 0.0, 2.0, 1.0])
    form, found = corner_jacobians(SORTS[name], x)
    assert form.num_kinks == 1
    np.testing.assert_array_equal({tuple(J.argmax(1).tolist()) for J in found}, {(1, 3, 0, 2), (1, 3, 2, 0)})


EXTREMES = {
    "max": (jnp.max, 1.0),
    "min": (jnp.min, -1.0),
    "nsi.max": (nsi.max, 1.0),
    "nsi.min": (nsi.min, -1.0),
    "of a column": (lambda x: jnp.max(x[:, None], 0)[0], 1.0),
    "of two axes": (lambda x: jnp.max(x[:4].reshape(2, 2)), 1.0),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_a_maximum_reaches_the_vertices_of_the_simplex(name):
    fun, sign = EXTREMES[name]
    form, found = corner_jacobians(fun, sign * jnp.array([1.0, 0.0, 1.0, 1.0, 0.5]))
    assert form.num_kinks == 2
    assert {tuple(J.ravel()) for J in found} == {tuple(np.eye(5)[i]) for i in (0, 2, 3)}
    inside = jacobians(form, np.random.default_rng(0).random((20, 2)))
    assert inside.min() >= 0 and np.all(inside[..., [1, 4]] == 0)
    np.testing.assert_allclose(inside.sum(-1), 1, rtol=1e-14)


def test_top_k_and_median_take_what_a_sort_gives():
    x = jnp.array([1.0, 3.0, 1.0, 0.0, 1.0])
    _, found = corner_jacobians(lambda x: lax.top_k(x, 2)[0], x)
    assert {tuple(J.argmax(1).tolist()) for J in found} == {(1, 0), (1, 2), (1, 4)}
    _, found = corner_jacobians(nsi.median, x[:3])
    assert {int(J.argmax()) for J in found} == {0, 2}


def nearby(fun, x, count=200):
    moves = 1e-4 * np.random.default_rng(0).normal(size=(count, x.size))
    return np.asarray(jax.jit(jax.vmap(jax.jacfwd(fun)), compiler_options=QUICK)(x + moves))


PIECEWISE = {
    "sort of relu": lambda x: jnp.sort(jax.nn.relu(W @ x)) + x,
    "relu of sort": lambda x: jax.nn.relu(W @ jnp.sort(x)),
    "max of abs": lambda x: jnp.max(jnp.abs(x)) * jnp.ones(2) - jnp.max(x),
    "sort twice": lambda x: jnp.sort(W @ jnp.sort(x)),
    "payload": lambda x: lax.sort((x, 2 * x + x[::-1]), num_keys=1)[1],
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"),
    "soft_threshold": lambda x: nsi.soft_threshold(W @ x, 1.0) + nsi.clip(x, -1, 0.0),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_derivatives_nearby_are_among_the_corners(name):
    fun = PIECEWISE[name]
    form, corners = corner_jacobians(fun, jnp.zeros(3))
    corners = corners.reshape(-1, 3 * corners.shape[1])
    for J in np.unique(nearby(fun, jnp.zeros(3)).round(12).reshape(-1, corners.shape[-1]), axis=0):
        assert np.abs(corners - J).max(1).min() < 1e-11
    assert form.num_kinks >= 2


def test_arguments_pick_the_branch():
    fun = lambda x: jax.nn.relu(W @ jax.nn.relu(x)) + jnp.sort(x)  # noqa: E731
    form = normal_form(fun)(jnp.zeros(3))
    rng = np.random.default_rng(0)
    for d in rng.normal(size=(20, 3)):
        s = np.zeros(form.num_kinks)
        for i in range(form.num_kinks):  # in order: no kink moves an earlier one
            s[i] = form.arguments(s)[i] @ d > 0
        np.testing.assert_allclose(form.jacobian(s), jax.jacfwd(fun)(jnp.asarray(d)), atol=1e-13)


# What is active, and what is refused.


def test_tolerance_says_what_is_active():
    x = jnp.array([0.0, 1e-9, 1e-6, 1e-3, 1.0])
    assert normal_form(jax.nn.relu)(x).positions == (0, 1)  # sqrt(eps) of the largest, 1.5e-8
    assert normal_form(jax.nn.relu, tolerance=0.0)(x).positions == (0,)
    assert normal_form(jax.nn.relu, tolerance=1e-2)(x).positions == (0, 1, 2, 3)
    assert normal_form(jax.nn.relu, tolerance=1e-5)(100 * x).positions == (0, 1, 2)  # relative
    assert normal_form(jnp.min, tolerance=1e-5)(x).num_kinks == 2
    assert normal_form(jax.nn.relu)(x.astype(jnp.float32)).positions == (0, 1, 2)


def test_trees_and_numbers_are_raveled():
    form = normal_form(lambda x, y: {"a": x["b"] * jnp.abs(y), "c": jnp.abs(x["d"])})(
        {"b": 2.0, "d": jnp.zeros(2)}, 0.0
    )
    assert form.base.shape == (3, 4) and form.num_kinks == 3
    np.testing.assert_array_equal(form.jacobian([1, 0, 1]), [[0, 0, 0, 2], [0, -1, 0, 0], [0, 0, 1, 0]])


def test_names_say_what_and_where():
    form = normal_form(lambda x: jnp.sort(jnp.abs(x)))(jnp.zeros(2))
    assert [name.split(" at ")[0] for name in form.names] == ["abs", "abs", "sort"]
    assert all("test_normal_form.py:" in name for name in form.names)
    assert form.names[1].endswith("entry 1")


def test_no_kink():
    form = normal_form(jnp.sin)(jnp.zeros(2))
    assert form.num_kinks == 0 and form.names == ()
    np.testing.assert_array_equal(form.jacobian([]), np.eye(2))


def test_a_traced_point_is_refused():
    with pytest.raises(nsi.InputError, match=r"normal_form(.|\n)*traced(.|\n)*Try:(.|\n)*outside jit"):
        jax.jit(lambda x: normal_form(jnp.abs)(x).base)(jnp.zeros(2))


def test_a_jump_is_refused_where_it_is_active():
    step = lambda x: jnp.where(x > 0, x + 1, x)  # noqa: E731
    with pytest.raises(nsi.InputError, match=r"where at test_normal_form.py:\d+, entry 1 jumps here(.|\n)*Try:"):
        normal_form(step)(jnp.array([1.0, 0.0]))
    assert normal_form(step)(jnp.ones(2)).num_kinks == 0


@pytest.mark.parametrize(("fun", "k"), [(lambda x: jnp.sort(x)[:3], 15), (jnp.max, 5)], ids=["sort", "max"])
def test_seven_ties_are_refused_and_six_are_not(fun, k):
    with pytest.raises(nsi.InputError, match=r"more than six equal keys(.|\n)*with_selection"):
        normal_form(fun)(jnp.zeros(7))
    program, x = trace(fun, jnp.zeros(7)), jnp.array([0.0] * 6 + [-1.0])
    survey = jax.jit(lambda x: Kinked(program, tolerance=0.0).survey((), [x]), compiler_options=QUICK)(x)
    assert np.sum(survey.distance == 0) == k and np.all(survey.crowd > 0)


def test_seven_equal_numbers_do_not_matter_to_a_larger_maximum():
    assert normal_form(jnp.max)(jnp.array([0.0] * 7 + [1.0])).num_kinks == 0


def test_what_has_nothing_to_sort():
    for fun in (jnp.sort, jnp.max, lambda x: jnp.sort(x[:0]).sum() + 2 * x):
        assert normal_form(fun)(jnp.zeros(1)).num_kinks == 0
    assert normal_form(lambda x: jnp.sort(x[:1]) + jnp.abs(x))(jnp.zeros(2)).num_kinks == 2
