"""``with_selection``: the same values, other derivatives at the kinks, the same everywhere else."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi

from .cases.programs import PROGRAMS, TIED, ZERO, X

SELECTIONS = {
    "0": 0.0,
    "a quarter": 0.25,
    "mean": "mean",
    "jax": nsi.selections.jax,
    "torch": nsi.selections.torch,
}
ROWS = [pytest.param(i, id=row.name) for i, row in enumerate(PROGRAMS)]
BENT = [p for p in ROWS if PROGRAMS[p.values[0]].kinks and PROGRAMS[p.values[0]].at_kinks is not None]


def derivatives(fun, args, modes):
    """The value, one product with the Jacobian and one with its transpose."""
    moving, fixed = equinox.partition(args, equinox.is_inexact_array)

    def moved(moving):
        return fun(*equinox.combine(moving, fixed))

    def wave(x):
        return jnp.cos(jnp.arange(1.0, 1.0 + jnp.size(x))).reshape(jnp.shape(x)).astype(x.dtype)

    found = {"value": moved(moving)}
    if modes != "reverse":
        found["jvp"] = jax.jvp(moved, (moving,), (jax.tree.map(wave, moving),))[1]
    if modes != "forward":
        out, pull = jax.vjp(moved, moving)
        found["vjp"] = pull(jax.tree.map(wave, out))
    return found


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def compiled(index):
    """The program, with a quarter everywhere and with JAX's own selections: one compilation for several tests."""
    row = PROGRAMS[index]
    funs = [row.fun, *(nsi.with_selection(row.fun, SELECTIONS[name]) for name in ("a quarter", "jax"))]
    modes = "reverse" if row.modes == "both" and not row.kinks and not row.opaque else row.modes
    return jax.jit(lambda args: [derivatives(fun, args, modes) for fun in funs], compiler_options=QUICK)


def close(got, expected, ulps):
    """Within a few ulps of the largest number."""
    sizes = [np.max(np.abs(x), initial=0, where=np.isfinite(x)) for x in jax.tree.leaves(expected)]
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=ulps * 2.0**-52, atol=ulps * 2.0**-52 * max(sizes))


@pytest.mark.parametrize("index", BENT)
def test_values_are_the_same_bits(index):
    row = PROGRAMS[index]
    expected = jax.tree.leaves(row.fun(*row.at_kinks))
    for selection in (*SELECTIONS.values(), *SELECTIONS.values())[index % 5 : index % 5 + 2]:  # two in turn
        got = nsi.with_selection(row.fun, selection)(*row.at_kinks)
        for x, y in zip(jax.tree.leaves(got), expected, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("index", ROWS)
def test_off_the_kinks_nothing_changes(index):
    expected, quarter, _ = compiled(index)(PROGRAMS[index].args)
    close(quarter, expected, 16)


@pytest.mark.parametrize("index", ROWS)
def test_the_preset_jax_changes_no_derivative_at_kinks_either(index):
    row = PROGRAMS[index]
    expected, _, jaxs = compiled(index)(row.args if row.at_kinks is None else row.at_kinks)
    close(jaxs, expected, 16)


@pytest.mark.parametrize("name", ["equinox MLP", "nnx MLP", "scan", "checkpoint policy", "soft threshold", "cummax"])
def test_values_under_jit(name):
    (row,) = [row for row in PROGRAMS if row.name == name]
    expected = jax.tree.leaves(jax.jit(row.fun)(*row.args))
    got = jax.tree.leaves(jax.jit(nsi.with_selection(row.fun, 0.25))(*row.args))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_array_max_ulp(np.asarray(x), np.asarray(y), 2)


# Where a selection reaches, at the kink of relu: the derivative is that of the program with s in its place.

MESH = jax.make_mesh((4,), ("m",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])


def over_devices(fun, **kwargs):
    return jax.shard_map(fun, mesh=MESH, in_specs=P("m"), out_specs=P("m"), **kwargs)


def half(z, t):
    return nsi.relu(z) / 2 + t


def solved(t):
    return nsi.fixed_point(half, 0 * t, t).value


def solved_twice(t):
    return nsi.fixed_point(lambda z, t: solved(t + z / 4), 0 * t, t).value


def rooted(t):
    @nsi.custom_root(lambda z, t: z - half(z, t))
    def solve(init, t):
        return lax.stop_gradient(lax.fori_loop(0, 60, lambda i, z: half(z, t), init))

    return solve(0 * t, t)


def twice(x):
    return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, nsi.relu(c[1])), (0, x))[1]


def tripled(x):
    return lax.scan(lambda c, a: (jax.nn.relu(c) * a, c), x, jnp.array([1.0, 3.0]))[0]


def layer(s):
    return 1 / (1 - s / 2)


REACHED = {
    "jit": (jax.jit(jax.jit(jax.nn.relu)), lambda s: s),
    "scan": (tripled, lambda s: 3 * s * s),
    "reverse scan": (lambda x: lax.scan(lambda c, a: (c, nsi.relu(a)), 0, x[None], reverse=True)[1][0], lambda s: s),
    "fori": (lambda x: lax.fori_loop(0, 3, lambda i, x: nsi.relu(x) * (i + 1), x), lambda s: 6 * s**3),
    "while": (twice, lambda s: s * s),
    "cond": (lambda x: lax.cond(x[0] < 1, jax.nn.relu, jnp.sin, x), lambda s: s),
    "switch": (lambda x: lax.switch(x[0].astype(int), [nsi.relu, jnp.sin], x), lambda s: s),
    "remat": (jax.checkpoint(jax.nn.relu), lambda s: s),
    "remat, policy": (
        jax.checkpoint(lambda x: jnp.dot(nsi.relu(x), 2 * jnp.eye(4)), policy=jax.checkpoint_policies.dots_saveable),
        lambda s: 2 * s,
    ),
    "vmap": (jax.vmap(jax.nn.relu), lambda s: s),
    "shard_map": (over_devices(jax.nn.relu), lambda s: s),
    "shard_map, unchecked": (over_devices(jax.nn.relu, check_vma=False), lambda s: s),
    "jit of shard_map of scan": (
        jax.jit(over_devices(lambda x: lax.fori_loop(0, 2, lambda i, x: jnp.where(x > 0, x, 0.0), x))),
        lambda s: s * s,
    ),
    "shard_map with a collective": (
        over_devices(lambda x: nsi.relu(x) + 0 * lax.psum(jnp.sum(nsi.relu(x)), "m")),
        lambda s: s,
    ),
    "fixed point": (solved, layer),
    "fixed points under vmap": (jax.vmap(solved), layer),
    "nested fixed points": (solved_twice, lambda s: layer(s) / (1 - layer(s) / 4)),
    "custom_root": (rooted, layer),
    "custom_root under vmap and jit": (jax.jit(jax.vmap(rooted)), layer),
    "relu6": (jax.nn.relu6, lambda s: s),
    "where": (lambda x: jnp.where(x > 0, x, 0), lambda s: s),
    "where, turned": (lambda x: jnp.where(~(x <= 0), x, 0), lambda s: s),
    "where, minus": (lambda x: -jnp.where(0 < -x, 0, -x), lambda s: 1 - s),
    "maximum": (lambda x: jnp.maximum(x, 0), lambda s: s),
    "maximum, turned": (lambda x: jnp.maximum(0, x), lambda s: 1 - s),
    "minimum": (lambda x: -jnp.minimum(-x, 0), lambda s: s),
    "abs": (lambda x: jnp.abs(x), lambda s: 2 * s - 1),
    "clamp": (lambda x: lax.clamp(0.0, x, 1.0), lambda s: s),
    "upper clamp": (lambda x: lax.clamp(-1.0, x, 0.0), lambda s: s),
    "cummax": (lambda x: lax.cummax(jnp.stack([0 * x, x]))[1], lambda s: 1 - s),
    "soft threshold": (lambda x: jax.nn.relu(x) - jax.nn.relu(-x), lambda s: 2 * s),
}  # fmt: skip


def slope(fun, x, modes="both"):
    """J 1 in forward mode, and 1 J in reverse mode."""
    one = jnp.ones_like(x)
    forward = jax.jvp(fun, (x,), (one,))[1]
    return forward if modes == "forward" else jnp.stack([forward, jax.vjp(fun, x)[1](one)[0]])


@pytest.mark.parametrize(("name", "row"), REACHED.items(), ids=REACHED)
def test_reaches(name, row):
    fun, expected = row
    modes = "forward" if name == "while" else "both"
    run = jax.jit(lambda x, s: slope(nsi.with_selection(fun, s), x, modes), compiler_options=QUICK)
    for s in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(run(ZERO, s), np.broadcast_to(expected(s), run(ZERO, s).shape), rtol=1e-12)
    if name in ("jit", "where", "relu6", "fixed points under vmap"):  # a number is another path than a traced weight
        np.testing.assert_allclose(slope(nsi.with_selection(fun, 0.3), ZERO), run(ZERO, 0.3), rtol=1e-12)


def test_a_split_array_gives_what_the_whole_one_gives():
    def fun(x):
        return jnp.sum(jnp.sin(jnp.outer(jax.nn.relu(x), jnp.abs(x)) @ jax.nn.relu(x)))

    grad = jax.jit(jax.grad(nsi.with_selection(jax.jit(fun), 0.25)))
    x = jnp.tile(TIED, 2)
    np.testing.assert_allclose(grad(jax.device_put(x, NamedSharding(MESH, P("m")))), grad(x), rtol=1e-14)


def test_higher_orders_and_lanes():
    def fun(x):
        return jnp.sum(nsi.relu(x) * jnp.sin(x) + jnp.abs(x) * x)

    selected = nsi.with_selection(fun, 0.25)
    # relu' = s twice in the mixed term of relu(x) sin(x); (|x| x)'' likewise, with |.|' = 2s - 1.
    expected = np.eye(4) * (2 * 0.25 + 2 * (2 * 0.25 - 1))
    for hessian in (jax.hessian(selected), jax.jacrev(jax.jacrev(selected)), jax.jacfwd(jax.jacfwd(selected))):
        np.testing.assert_allclose(hessian(ZERO), expected, atol=1e-15)
    np.testing.assert_allclose(jax.hessian(selected)(X), jax.hessian(fun)(X), rtol=1e-12)
    lanes = jnp.stack([ZERO, X, TIED])
    total = jax.jit(jax.grad(lambda lanes: jnp.sum(jax.vmap(selected)(lanes))))(lanes)
    np.testing.assert_allclose(total, jnp.stack([jax.grad(selected)(x) for x in lanes]), rtol=1e-14)
    assert jax.grad(nsi.with_selection(jax.grad(lambda x: jnp.abs(x) ** 3), 0.5))(0.0) == 0.0


def test_of_a_gradient():
    """What is left in a gradient is a mask: its branches are flat, so no weight moves them."""
    for fun in (jax.nn.relu, nsi.relu, jnp.abs, jax.checkpoint(jax.nn.relu)):
        bend = jax.vmap(jax.grad(lambda x, fun=fun: jnp.sin(fun(x)) ** 2 + x * fun(x)))
        selected = nsi.with_selection(bend, 0.25)
        np.testing.assert_array_equal(selected(TIED), bend(TIED))
        got, expected = (jax.jvp(f, (X,), (X,))[1] for f in (selected, bend))
        np.testing.assert_allclose(got, expected, rtol=1e-14)


# What a selection may be.


def several(x):
    return jax.nn.relu(x) + 10 * jnp.abs(x) + 100 * jnp.maximum(x, 0) + 1000 * jnp.where(x > 0, x, 0)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("jax", 1060.0 - 1000),
        ("below", -10.0),
        ("above", 1111.0),
        ("mean", 0.5 * 1101),
        (np.float32(0.5), 0.5 * 1101),
        (0, -10.0),
        ({}, 60.0),
        ({"relu": "above"}, 61.0),
        ({"where": 0.5, "abs": 0.0}, 540.0),
        (nsi.selections.torch, 50.0),
        ({**nsi.selections.torch, "maximum": 0.0}, 0.0),
    ],
)
def test_names_numbers_and_mappings(selection, expected):
    assert jax.grad(nsi.with_selection(several, selection))(0.0) == expected


def test_measured_selections_of_jax():
    """Where JAX 0.10 and 0.12 stand at each kink; a library that says "jax" reproduces these."""
    tied = np.array([1.0, 1.0, 0.0])
    table = [
        (jax.nn.relu, 0.0, 0.0),
        (lambda x: jnp.maximum(x, 0), 0.0, 0.5),
        (lambda x: jnp.clip(x, 0, 1), 0.0, 0.5),
        (lambda x: jnp.clip(x, 0, 1), 1.0, 0.5),
        (lambda x: lax.clamp(0.0, x, 1.0), 1.0, 0.0),
        (lambda x: jnp.where(x > 0, x, 0), 0.0, 0.0),
        (jax.nn.relu6, 0.0, 0.0),
        (jnp.abs, 0.0, 1.0),
        (jax.nn.leaky_relu, 0.0, 1.0),
        (jnp.max, tied, [0.5, 0.5, 0.0]),
        (lambda x: jnp.sort(x)[1], tied, [1.0, 0.0, 0.0]),
        (lambda x: lax.top_k(x, 1)[0][0], tied, [1.0, 0.0, 0.0]),
        (lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 1, 0), 1.0, 0.5),
        (lambda x: jax.nn.relu(x - 1) - jax.nn.relu(-x - 1), 1.0, 0.0),
    ]
    for fun, at, expected in table:
        for f in (fun, nsi.with_selection(fun, "jax"), nsi.with_selection(fun, nsi.selections.jax)):
            np.testing.assert_array_equal(jax.grad(f)(at), expected)


def test_ties_are_broken_by_name():
    tied = np.array([1.0, 1.0, 0.0])
    for name, fun in {"max": jnp.max, "top_k": lambda x: lax.top_k(x, 1)[0][0], "min": lambda x: -jnp.min(-x)}.items():
        for tie, expected in {"first": [1, 0, 0], "last": [0, 1, 0], "mean": [0.5, 0.5, 0]}.items():
            np.testing.assert_array_equal(jax.grad(nsi.with_selection(fun, {name: tie}))(tied), expected)
    np.testing.assert_array_equal(jax.grad(nsi.with_selection(jnp.max, 0.25))(tied), [0.5, 0.5, 0])  # not a scalar kink
    pool = nsi.with_selection(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID")[0], {"max_pool": "last"}
    )
    np.testing.assert_array_equal(jax.grad(pool)(tied), [0, 1, 0])
    assert jax.grad(nsi.with_selection(lambda x: lax.cummax(jnp.stack([0 * x, x]))[1], {"cummax": 0.25}))(0.0) == 0.75


def test_bounds_are_set_by_name_and_in_pairs():
    def both(selection):
        slopes = jax.grad(
            lambda x: jnp.sum(nsi.with_selection(lambda x: lax.clamp(0.0, x, 1.0), {"clamp": selection})(x))
        )
        return slopes(jnp.array([-1.0, 0.0, 0.5, 1.0])).tolist()

    assert both("inside") == [0, 1, 1, 1]
    assert both("outside") == [0, 0, 1, 0]
    assert both((0.25, 0.75)) == [0, 0.25, 1, 0.75]


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"relu": w}], ids=["everywhere", "mapping"])
def test_a_weight_for_each_entry(wrap):
    weights = jnp.array([0.0, 0.25, 0.5, 1.0])

    def total(x, weights):
        return jnp.sum(nsi.with_selection(jax.jit(jax.nn.relu), wrap(weights))(x))

    np.testing.assert_array_equal(jax.grad(total)(ZERO, np.asarray(weights)), weights)
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(ZERO, weights), weights)
    np.testing.assert_array_equal(jax.vmap(jax.grad(total))(ZERO, weights), weights)
    np.testing.assert_array_equal(jax.grad(total, 1)(ZERO, weights), 0)  # a selection is not differentiated
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(ZERO, 3 * weights - 1), np.clip(3 * weights - 1, 0, 1))


def test_an_explicit_selection_wins_unless_overridden():
    def fun(x):
        return nsi.relu(x, selection=0.25) + 10 * nsi.relu(x)

    assert jax.grad(nsi.with_selection(fun, 0.5))(0.0) == 5.25
    assert jax.grad(nsi.with_selection(fun, 0.5, override=True))(0.0) == 5.5
    inner = nsi.with_selection(jax.nn.relu, 0.25)
    assert jax.grad(nsi.with_selection(inner, 0.75))(0.0) == 0.25
    assert jax.grad(nsi.with_selection(inner, 0.75, override=True))(0.0) == 0.75
    assert jax.grad(nsi.with_selection(inner, nsi.Along((1.0,))))(0.0) == 0.25
    assert jax.grad(nsi.with_selection(inner, nsi.Along((1.0,)), override=True))(0.0) == 1.0
    first = nsi.with_selection(lambda x: nsi.max(x, selection="first"), {"max": "last"})
    np.testing.assert_array_equal(jax.grad(first)(np.ones(2)), [1, 0])


def test_the_tolerance_is_relative_to_the_largest_operand():
    def slopes(x, tolerance):
        selected = nsi.with_selection(jax.nn.relu, 0.25, tolerance=tolerance)
        return jax.grad(lambda x: jnp.sum(selected(x)))(jnp.asarray(x)).tolist()

    assert slopes([1e-9, -1e-9, 0.0, 1.0], 0.0) == [1, 0, 0.25, 1]
    assert slopes([1e-9, -1e-9, 0.0, 1.0], 1e-8) == [0.25, 0.25, 0.25, 1]
    assert slopes([1e-9, -1e-9, 0.0, 1e-2], 1e-8) == [1, 0, 0.25, 1]
    assert slopes([1e-9, jnp.inf, jnp.nan], 1e-8)[0] == 1


@pytest.mark.parametrize(
    ("selection", "error"),
    [
        (1.5, r"with_selection\(selection=1\.5\)"),
        (float("nan"), "weight in"),
        ("first", "'above'"),
        ("inside", "'mean'"),
        (None, None),
        ({"rleu": 0.5}, "no operation is called 'rleu'"),
        ({"relu": 2.0}, r"with_selection: relu\(selection=2\.0\)"),
        ({"max": 0.5}, "with_selection: max.*'first', 'last', 'mean'"),
        ({"relu": np.ones(3)}, r"shape \(3,\), the result has shape \(2,\)"),
    ],
)
def test_wrong_selections(selection, error):
    def fun(x):
        return nsi.relu(x) + jnp.max(x)

    if error is None:
        np.testing.assert_array_equal(nsi.with_selection(fun, selection)(np.ones(2)), fun(np.ones(2)))
        return
    with pytest.raises(nsi.InputError, match=error):
        nsi.with_selection(fun, selection)(np.ones(2))


def test_arguments_that_are_no_arrays():
    class Network(equinox.Module):
        inner: equinox.nn.MLP
        drop: equinox.nn.Dropout
        name: str

        def __call__(self, x, *, power=1, flag=False, extra=None):
            assert self.name == "net" and extra is None
            return self.drop(self.inner(x)) ** power if flag else x

    network = Network(equinox.nn.MLP(4, 2, 3, 1, key=jax.random.key(0)), equinox.nn.Dropout(0.5, inference=True), "net")
    selected = nsi.with_selection(lambda net, x, **kwargs: net(x, **kwargs), 0.25)
    np.testing.assert_array_equal(selected(network, X, power=2, flag=True), network(X, power=2, flag=True))
    assert selected.__wrapped__ is not None
    grads = equinox.filter_grad(lambda net: jnp.sum(selected(net, X, power=2, flag=True)))(network)
    expected = equinox.filter_grad(lambda net: jnp.sum(net(X, power=2, flag=True)))(network)
    close(grads, expected, 16)


def test_a_keyed_program_and_integers():
    def fun(key, x, i, scale):
        noise = jax.random.normal(key, x.shape)
        return {"y": nsi.relu(x) * scale + 0 * noise, "i": i + 1, "none": None}

    args = (jax.random.key(1), ZERO, np.arange(3), 2.0)
    got, expected = nsi.with_selection(fun, 0.25)(*args), fun(*args)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_debug_print_runs_once_for_each_call(capsys):
    def fun(x):
        jax.debug.print("here")
        return nsi.relu(x)

    nsi.with_selection(jax.jit(fun), 0.25)(0.0)
    jax.effects_barrier()
    assert capsys.readouterr().out == "here\n"


def test_the_memory_of_a_rematerialised_training_step():
    def network(params, x):
        def block(x, w):
            return jax.nn.relu(jax.nn.relu(x @ w) @ w.T), None

        policy = jax.checkpoint_policies.nothing_saveable
        return jnp.sum(lax.scan(jax.checkpoint(block, policy=policy), x, params)[0] ** 2)

    def memory(loss):
        transform = optax.sgd(1e-2)

        def step(params, x):
            updates, _ = transform.update(jax.grad(loss)(params, x), transform.init(params))
            return optax.apply_updates(params, updates)

        return jax.jit(step).lower(params, x).compile().memory_analysis().temp_size_in_bytes

    params, x = jnp.ones((12, 16, 32)), jnp.ones((256, 16))
    plain, selected = memory(network), memory(nsi.with_selection(network, 0.25))
    saved = memory(lambda params, x: jnp.sum(lax.scan(lambda x, w: (jax.nn.relu(x @ w) @ w.T, None), x, params)[0]))
    assert selected <= 1.02 * plain < 0.8 * saved  # one buffer less than ``jax.nn.relu`` in fact
