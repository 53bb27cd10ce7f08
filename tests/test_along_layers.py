"""``Along`` through implicit layers: one-sided derivatives of solutions, whose kinks answer to each other."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

N, ROWS = 7, 5
T = 2.0**-20
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
compiled = functools.partial(jax.jit, compiler_options=QUICK)


def weakly_active(seed, dtype=float):
    """A program whose solution is known, with active, weakly active and inactive rows and bounds, and a direction."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(N, N))
    P, A, G = root @ root.T + np.eye(N), rng.normal(size=(1, N)), rng.normal(size=(ROWS, N))
    x, y = rng.normal(size=N), rng.normal(size=1)
    # Of both kinds one is active, one or two weakly; with the equation that is one less than there are variables.
    m, slack = np.array([1.0, 0, 0, 0, 0]), np.array([0, 0, 0, 1.0, 2.0])
    force, gap = np.array([1.0, 0, 0, 0, 0, 0, 0]), np.array([0, 0, 1.0, 1.0, 1.0, 2.0, np.inf])
    q = -(P @ x + A.T @ y + G.T @ m - force)
    data = dict(P=P, q=q, A=A, b=A @ x, G=G, h=G @ x + slack, lo=x - gap)
    move = {k: rng.normal(size=v.shape) for k, v in data.items()}
    move["P"] = move["P"] + move["P"].T
    return (jax.tree.map(lambda v: jnp.asarray(v, dtype), d) for d in (data, move))


def solution(data):
    parts = dict(eq=(data["A"], data["b"]), ineq=(data["G"], data["h"]), bounds=(data["lo"], None))
    found = nsi.layers.qp(data["P"], data["q"], **parts)
    return jnp.concatenate([found.value, found.eq, found.ineq])


def along(fun, move):
    return nsi.with_selection(fun, nsi.Along((move,)))


def stacked(*trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def forward(data, move):
    return jax.jvp(along(solution, move), (data,), (move,))


@compiled
@jax.vmap
def one_sided(data, move):
    out, pull = jax.vjp(along(solution, move), data)
    rows = jax.vmap(lambda e: jax.tree.map(jnp.vdot, *pull(e), move))(jnp.eye(len(out), dtype=out.dtype))
    return *forward(data, move), sum(jax.tree.leaves(rows)), jax.jvp(solution, (data,), (move,))[1]


def test_programs_with_weakly_active_constraints():
    data, move = (stacked(*group) for group in zip(*map(weakly_active, range(12)), strict=True))
    value, slope, back, plain = one_sided(data, move)
    ahead = compiled(jax.vmap(solution))(jax.tree.map(lambda v, d: v + T * d, data, move))
    np.testing.assert_allclose(slope, (ahead - value) / T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slope, back, rtol=1e-10, atol=1e-10)
    assert (np.abs(plain - slope).max(1) > 1e-3).mean() > 0.5  # the default is no directional derivative
    opposite = one_sided(data, jax.tree.map(jnp.negative, move))[1]
    assert (np.abs(opposite + slope).max(1) > 1e-3).mean() > 0.5


def test_programs_in_single_precision():
    (data, move), wide = weakly_active(0, "float32"), (stacked(group) for group in weakly_active(0))
    found = compiled(forward)(data, move)
    np.testing.assert_allclose(found[1], compiled(jax.vmap(forward))(*wide)[1][0], rtol=2e-3, atol=2e-3)


CIRCLE = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])


def complementary(d):
    """All z with 0 <= z, 0 <= CIRCLE z - d, and one of the two zero in each place: one, by the P-matrix."""
    found = []
    for pattern in itertools.product([0, 1], repeat=3):
        s = np.diag(pattern)
        z = np.linalg.solve(np.eye(3) - s @ (np.eye(3) - CIRCLE), s @ d)
        if (z >= -1e-12).all() and (CIRCLE @ z - d >= -1e-12).all():
            found.append(z)
    return found


def cycles(d):
    """Whether changing all wrong branches at a time never ends."""
    s = np.array([1.0, 0, 0])
    for _ in range(9):
        z = np.linalg.solve(np.eye(3) - s[:, None] * (np.eye(3) - CIRCLE), s * d)
        new = (z - CIRCLE @ z + d > 0) * 1.0
        if (new == s).all():
            return False
        s = new
    return True


def test_kinks_that_answer_to_each_other():
    def complementarity(z, d):
        u = z - CIRCLE @ z + d
        first = u[:1] + nsi.relu(-u[:1])  # the branch tried first is the one the others try second
        return z - jnp.concatenate([first, nsi.relu(u[1:])])

    @nsi.custom_root(complementarity)
    def solver(init, d):
        return jnp.zeros(3)  # the solution for d = 0

    def root(d):
        return solver(None, d)

    directions = np.random.default_rng(0).normal(size=(60, 3))
    expected = np.concatenate([complementary(d) for d in directions])
    assert sum(map(cycles, directions)) > 3
    run = compiled(jax.vmap(lambda d: jax.jvp(along(root, d), (jnp.zeros(3),), (d,))[1]))
    np.testing.assert_allclose(run(directions), expected, atol=1e-12)


def half(z, t):
    return nsi.relu(z) / 2 + t


def solved(t):
    """2 t for t > 0, t for t < 0."""
    return nsi.fixed_point(half, 0 * t, t).value


PROGRAMS = {
    "alone": solved,
    "jit": jax.jit(solved),
    "lanes": lambda t: jnp.sum(jax.vmap(solved)(t * jnp.array([1.0, 1.0]))) / 2,
    "lanes of lanes": lambda t: jnp.sum(jax.vmap(jax.vmap(solved))(t * jnp.ones((2, 3)))) / 6,
    "scan": lambda t: jax.lax.scan(lambda c, _: (c, solved(t)), t, None, length=2)[1][1],
    "checkpoint": jax.checkpoint(solved),
    "in an equation": lambda t: nsi.fixed_point(lambda z, t: 0.25 * z + 0.75 * solved(t), 0 * t, t).value,
    "tracked tie": lambda t: solved(t) - solved(t) + solved(t),
    "identity": lambda t: solved(t) + t - nsi.relu(t),  # of two programs for one function
    "kinks after it": lambda t: jnp.maximum(solved(t), 1.5 * t) / 2 + nsi.relu(solved(t)) / 2 + (t - nsi.relu(t)) / 4,
}


@pytest.mark.parametrize(("name", "fun"), PROGRAMS.items(), ids=PROGRAMS)
def test_wherever_a_layer_is(name, fun):
    @compiled
    def slopes(d):
        chosen = along(fun, d)
        return jnp.stack([jax.grad(chosen)(0.0), jax.jvp(chosen, (0.0,), (1.0,))[1]])

    for d in (1.0, -1.0):
        np.testing.assert_allclose(slopes(d), fun(d) / d, rtol=1e-6)  # piecewise linear
    assert (name == "identity") == bool(abs(fun(1.0) + fun(-1.0)) < 0.4)


def test_what_a_direction_leaves_open_the_next_decides():
    def both(t):
        return nsi.fixed_point(half, jnp.zeros(2), t).value

    along_both = nsi.Along((jnp.array([1.0, 0.0]),), (jnp.array([0.0, -1.0]),))
    found = compiled(jax.jacobian(nsi.with_selection(both, along_both)))
    np.testing.assert_allclose(found(jnp.zeros(2)), np.diag([2.0, 1.0]), atol=1e-9)


def test_a_selection_by_name_is_kept():
    def root(t):
        return nsi.fixed_point(lambda z, t: nsi.relu(z, selection=0.5) / 2 + t, 0 * t, t).value

    np.testing.assert_allclose(compiled(jax.grad(along(root, 1.0)))(0.0), 4 / 3, rtol=1e-9)
    overruled = nsi.with_selection(root, nsi.Along((1.0,)), override=True)
    np.testing.assert_allclose(compiled(jax.grad(overruled))(0.0), 2, rtol=1e-9)


def test_an_equation_without_a_direction_decides_nothing():
    """z = 2 relu(z) + t has two solutions for t < 0 and none for t > 0."""

    @nsi.custom_root(lambda z, t: 2 * nsi.relu(z) + t - z)
    def solver(init, t):
        return 0 * t

    for d in (1.0, -1.0):
        slope = jax.grad(along(lambda t: solver(None, t), d))(0.0)
        assert slope in (1.0, -1.0)
