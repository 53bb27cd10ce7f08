"""What a replay finds, keeps and lists, over programs nobody wrote for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.core import Tracer

import nsimplicit as nsi
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.kink import Treatment
from nsimplicit.calculus.liveness import is_float, live
from nsimplicit.calculus.program import trace
from nsimplicit.calculus.replay import Replay

from .cases.programs import PROGRAMS, TIED, ZERO, X

ROWS = [pytest.param(row, id=row.name) for row in PROGRAMS]


class Everything(Treatment):
    """Look at every kink, change none."""

    def wants(self, name, is_ordering):
        return True

    def switch(self, kink, feed):
        return kink.bind(), None

    def ordering(self, kink, feed):
        return kink.bind(), None


class Active(Everything):
    """How many entries of each kink tie."""

    records = True

    def switch(self, kink, feed):
        return kink.bind(), jnp.sum(jnp.broadcast_to(kink.left == kink.right, kink.value.shape))

    def ordering(self, kink, feed):
        ordered = jnp.sort(kink.key, kink.axis)
        return kink.bind(), jnp.sum(jnp.diff(ordered, axis=kink.axis) == 0)


def replay(fun, args, treatment):
    """The replay of ``fun(*args)``; numbers of Python are static."""
    leaves, treedef = jax.tree.flatten(args)
    arrays = [x for x in leaves if isinstance(x, np.ndarray | jax.Array)]

    def flat(*arrays):
        rest = iter(arrays)
        return fun(*treedef.unflatten([next(rest) if isinstance(x, np.ndarray | jax.Array) else x for x in leaves]))

    program = trace(flat, *arrays)
    constants = [Cell(c, isinstance(c, Tracer)) for c in program.consts]
    cells = [Cell(x, is_float(v)) for x, v in zip(arrays, program.jaxpr.invars, strict=True)]
    out = Replay(treatment)
    out.outs = [c.value for c in out.run(program.jaxpr, constants, cells)]
    return out


def names(sites):
    return tuple(site.name for site in sites)


@functools.cache
def followed(index, at_kinks=False):
    """A row run equation by equation, ties counted; one run for several tests."""
    row = PROGRAMS[index]
    return replay(row.fun, row.at_kinks if at_kinks else row.args, Active())


@pytest.mark.parametrize("row", ROWS)
def test_kinks_are_found_and_nothing_else_is(row):
    out = []
    leaves, treedef = jax.tree.flatten(row.args)
    arrays = [x for x in leaves if isinstance(x, np.ndarray | jax.Array)]

    def look(arrays):
        rest = iter(arrays)
        args = treedef.unflatten([next(rest) if isinstance(x, np.ndarray | jax.Array) else x for x in leaves])
        out.append(replay(row.fun, args, Everything()))
        return out[0].outs

    jax.eval_shape(look, arrays)
    (found,) = out
    assert names(found.sites) == row.kinks
    assert names(found.opaque) == row.opaque
    assert len(found.records) == len(found.sites)


@pytest.mark.parametrize("index", [pytest.param(i, id=row.name) for i, row in enumerate(PROGRAMS) if row.kinks])
def test_kinks_are_active_where_the_row_says(index):
    row, found = PROGRAMS[index], followed(index)
    if not found.sites:  # a loop of unknown length, a shard_map and a layer record nothing, and say so
        assert names(found.opaque) in (("while",), ("shard_map",), ("custom_jvp_call",))
        return
    assert not any(np.any(x) for x in found.records)
    for site, record in zip(found.sites, found.records, strict=True):
        assert record.shape == site.shape[: record.ndim]  # loops around a kink come first
    if row.at_kinks is not None:
        assert any(np.any(x) for x in followed(index, True).records) != row.far


@pytest.mark.parametrize("index", [pytest.param(i, id=row.name) for i, row in enumerate(PROGRAMS)])
def test_a_replay_that_changes_nothing_returns_the_same_bits(index):
    row = PROGRAMS[index]
    for got, expected in zip(followed(index).outs, jax.tree.leaves(row.fun(*row.args)), strict=True):
        assert got.dtype == expected.dtype
        if row.ulps:
            np.testing.assert_array_almost_equal_nulp(np.asarray(got), np.asarray(expected), row.ulps)
        else:
            np.testing.assert_array_equal(got, expected)


def test_a_site_in_loops_has_their_lengths_first():
    def fun(x):
        def outer(x, _):
            return lax.fori_loop(0, 3, lambda i, x: jnp.sort(nsi.relu(x)), x), None

        return lax.scan(outer, x, None, length=2)[0]

    switch, ordering = replay(fun, (X,), Active()).sites
    assert (switch.shape, switch.axis, switch.is_ordering) == ((2, 3, 4), None, False)
    assert (ordering.shape, ordering.axis, ordering.is_ordering) == ((2, 3, 4), 2, True)


def test_records_of_a_branch_not_taken_are_blank():
    def fun(i, x):
        return lax.switch(i, [lambda x: jnp.abs(x), lambda x: jnp.maximum(x, 0), jnp.sin], x)

    for i, expected in enumerate([(4, 0), (0, 4), (0, 0)]):
        assert tuple(map(int, replay(fun, (np.int32(i), ZERO), Active()).records)) == expected


def test_records_come_out_of_jit_scan_remat_and_cond():
    @jax.jit
    def fun(x):
        def step(x, a):
            x = jax.checkpoint(lambda x: nsi.relu(x))(x)
            return lax.cond(a > 0, lambda x: jnp.abs(x) - 1, lambda x: x, x), None

        return lax.scan(step, x, jnp.array([1.0, -1.0, 1.0]))[0]

    run = jax.jit(lambda x: [jnp.asarray(r) for r in replay(fun, (x,), Active()).records])
    ties = run(np.array([0.0, 1.0, 2.0]))
    # relu: (0, 1, 2) and |x| - 1: (-1, 0, 1); relu: (0, 0, 1); relu: (0, 0, 1) and |x| - 1.
    assert [x.tolist() for x in ties] == [[1, 1, 2], [1, 0, 2]]


@pytest.mark.parametrize(
    ("name", "fun"),
    {
        "stop_gradient": lambda x: lax.stop_gradient(x),
        "comparison": lambda x: x > 0,
        "integers": lambda x: x.astype(int),
        "floor": lambda x: jnp.floor(x),
        "sign": lambda x: jnp.sign(x),
        "argmax": lambda x: jnp.argmax(x),
        "jit": lambda x: jax.jit(lax.stop_gradient)(x),
        "scan": lambda x: lax.scan(lambda c, a: (c + jnp.floor(a), None), jnp.zeros(()), x)[0],
        "while": lambda x: lax.while_loop(lambda c: c[0] < 2.0, lambda c: (c[0] + 1, c[1]), (jnp.zeros(()), x))[0],
        "cond": lambda x: lax.cond(True, jnp.sign, jnp.round, x),
        "remat": lambda x: jax.checkpoint(jnp.round)(x),
    }.items(),
)
def test_dead_paths(name, fun):
    jaxpr = jax.make_jaxpr(fun)(X)
    assert live(jaxpr, [True]) == [False]
    assert live(jax.make_jaxpr(lambda x: fun(x) + x * jnp.ones(()))(X), [True]) == [True]


def test_a_value_carried_by_a_loop_comes_alive_after_some_steps():
    def fun(x):
        return lax.fori_loop(0, 5, lambda i, c: (x, c[0], c[1]), (jnp.zeros(4), jnp.zeros(4), jnp.zeros(4)))[2]

    assert live(jax.make_jaxpr(fun)(X), [True]) == [True]
    assert names(replay(lambda x: jnp.abs(fun(x)), (X,), Everything()).sites) == ("abs",)


@pytest.mark.parametrize("bound", [3, np.array(3)], ids=["scan", "while"])
def test_a_kink_in_a_loop_that_starts_with_a_constant(bound):
    def fun(x, n):
        return lax.fori_loop(0, n, lambda i, c: jnp.abs(c) + x, jnp.zeros(4))

    args = (X, bound) if isinstance(bound, np.ndarray) else (X,)
    found = replay(fun if len(args) == 2 else lambda x: fun(x, bound), args, Everything())
    assert names(found.sites) == ("abs",)


def test_a_comparison_nobody_else_reads_is_a_kink():
    w = np.array([1.0, -2.0, 0.5, 0.0])

    def fun(x):
        return jnp.where(x @ w > 0.25, jnp.sum(x), x[0])

    assert names(replay(fun, (X,), Everything()).sites) == ("where",)
    assert not replay(lambda x: jnp.where(lax.stop_gradient(x) @ w > 0, x, 2 * x), (X,), Everything()).sites


def test_what_is_sorted_along_is_no_kink():
    keys = np.array([3, 1, 2, 2])
    found = replay(lambda x: lax.sort((keys, x), num_keys=1)[1], (TIED,), Everything())
    assert not found.sites
    found = replay(lambda x: lax.sort((x, 2 * x, keys), num_keys=1)[1], (X,), Everything())
    assert names(found.sites) == ("sort", "sort")


def test_a_rule_with_a_kink_inside_a_loop_is_listed():
    @jax.custom_vjp
    def rule(x):
        return lax.scan(lambda c, _: (jnp.maximum(c - 1, 0), None), x, None, length=2)[0]

    rule.defvjp(lambda x: (rule(x), None), lambda _, g: (g,))
    (opaque,) = replay(lambda x: 2 * rule(x), (X,), Everything()).opaque
    assert (opaque.name, "rule" in opaque.reason, opaque.place.startswith("test_replay.py:")) == (
        "custom_vjp_call",
        True,
        True,
    )


@pytest.mark.filterwarnings("ignore")
def test_an_optimality_function_of_jaxopt():
    import jaxopt  # not above: it warns on import

    solver = jaxopt.ProximalGradient(fun=jaxopt.objective.least_squares, prox=jaxopt.prox.prox_lasso)
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.normal(size=(10, 4))), jnp.asarray(rng.normal(size=10))

    def optimality(w, weight):
        return solver.optimality_fun(w, weight, data)

    w = jnp.array([1.0, 0.0, -0.5, 0.0])
    report = nsi.kinks(optimality)(w, 0.1)
    assert sorted(row.operation for row in report.rows) == ["abs", "relu"] and report.num_active == 0
    selected = nsi.with_selection(optimality, 0.25)
    np.testing.assert_array_equal(selected(w, 0.1), optimality(w, 0.1))
    np.testing.assert_allclose(jax.jacobian(selected)(w, 0.1), jax.jacobian(optimality)(w, 0.1), rtol=1e-14)
    # Where the gradient step ends exactly on the threshold, relu is on its kink and takes what was asked for.
    step, threshold = w - jax.grad(solver.fun)(w, data), jnp.abs(w - jax.grad(solver.fun)(w, data))
    at_kink = jax.jacobian(nsi.with_selection(lambda t: optimality(w, t), 1.0))(threshold)
    np.testing.assert_allclose(jnp.diag(at_kink), -jnp.sign(step), rtol=1e-14)
