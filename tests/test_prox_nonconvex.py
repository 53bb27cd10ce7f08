"""Functions that are not convex: their prox minimises, has the derivatives of its branches, and jumps are seen."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import InputError, prox
from tests.cases.prox_nonconvex import ROWS, WRONG


def over(rows):
    return pytest.mark.parametrize("name", list(rows))


def every_point(row):
    return np.array([*row.points, *(x for x, _ in row.kinks), *(0.999 * x for x in row.jumps)])


@functools.cache
def compiled(name):
    """The prox of each entry, and its derivatives in the entry, the step, the parameters; of a selection too."""
    row = ROWS[name]

    def scalar(z, s):
        x, step, *params = z
        return row.make(*params, selection=s).prox(x, step)

    return jax.jit(jax.vmap(jax.value_and_grad(scalar), (0, None)))


def evaluate(name, xs, s=0.0):
    row = ROWS[name]
    z = np.array([[x, row.step, *row.params] for x in xs])
    return [np.asarray(out) for out in compiled(name)(z, s)]


@over(ROWS)
def test_value_and_prox_agree_with_the_oracle(name):
    row = ROWS[name]
    g, xs = row.make(*row.params), every_point(row)
    want = [row.prox(x, row.step, *row.params) for x in xs]
    np.testing.assert_allclose(evaluate(name, xs)[0], want, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jax.jit(g.__call__)(xs), sum(row.value(abs(x), *row.params) for x in xs), rtol=1e-14)


@over(ROWS)
def test_the_prox_minimises(name, key):
    row = ROWS[name]
    noise = np.asarray(jax.random.uniform(key, (20,), minval=-1, maxval=1))
    corners = [x for x, _ in row.kinks] + list(row.jumps)
    xs = np.concatenate([2.5 * np.max(np.abs(every_point(row))) * noise, *(x * (1 + 0.3 * noise) for x in corners)])
    p = evaluate(name, xs)[0]

    def cost(u, x):
        return row.step * row.value(abs(u), *row.params) + (u - x) ** 2 / 2

    for x, u in zip(xs, p, strict=True):
        best = min(cost(v, x) for v in np.linspace(-1, 1, 101) * abs(x))
        assert cost(u, x) <= best + 1e-14 * (1 + x**2)


@over(ROWS)
def test_derivatives_are_those_of_the_oracle_off_kinks(name):
    row, h = ROWS[name], 1e-5
    for x, got in zip(row.points, evaluate(name, row.points)[1], strict=True):
        z = np.array([x, row.step, *row.params])
        steps = np.eye(z.size) * h
        want = [(row.prox(*(z + d)) - row.prox(*(z - d))) / (2 * h) for d in steps]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-8, err_msg=str(x))


@over([name for name, row in ROWS.items() if row.kinks])
def test_selections_at_kinks_are_the_two_sides(name):
    row = ROWS[name]
    for x, sides in row.kinks:
        for side, s in zip(sides, (0.0, 1.0), strict=True):
            near = x + (2 * s - 1) * 1e-7
            for sign in (1.0, -1.0):
                np.testing.assert_allclose(evaluate(name, [sign * near])[1][0, 0], side, atol=1e-5)
                np.testing.assert_allclose(evaluate(name, [sign * x], s)[1][0, 0], side, rtol=1e-13, atol=1e-14)
        middle = evaluate(name, [x], 0.5)[1][0, 0]
        np.testing.assert_allclose(middle, np.mean(sides), rtol=1e-13)


@over(ROWS)
def test_kinks_tell_jumps_from_kinks(name):
    row = ROWS[name]
    g = row.make(*row.params)
    report = nsi.kinks(lambda x: g.prox(x, row.step))
    for x, _ in row.kinks:
        found = report(np.array([-x, 9.0]))
        assert found.num_jumps == 0 < found.num_active
    for x in row.jumps:
        below, above = evaluate(name, [x - 1e-9, x + 1e-9])[0]
        assert above - below > 0.05, "no jump here"
        assert report(np.array([-x, 9.0])).num_jumps == 1
        assert report(np.array([-0.99 * x, 9.0])).num_jumps == 0


@over(["L0", "SCAD, large step", "LogSum, large step"])
def test_certificates_at_a_jump_are_undecided(name):
    row = ROWS[name]
    g, x = row.make(*row.params), np.array([row.jumps[0], 9.0])
    # z = prox(z + b), where z + b = x: at the jump, and away from it.
    for at, verdict in ((x, "undecided"), (0.9 * x, "regular")):
        z = g.prox(at, row.step)
        found = nsi.certify(lambda z, b: z - g.prox(z / 2 + b, row.step))(z, at - z / 2)
        assert found.verdict == verdict
        assert verdict == "regular" or re.search(
            r"switch at test_prox_nonconvex.py:\d+, entry 0 jumps .* discontinuous", found.reason
        )


@over(ROWS)
def test_without_a_weight_the_prox_is_the_identity(name):
    row = ROWS[name]
    x = np.array([0.0, 1.3, -0.2])
    z = np.array([[u, row.step, 0.0, *row.params[1:]] for u in x])
    for s in (0.0, 0.5, 1.0):
        value, reverse = compiled(name)(z, s)
        np.testing.assert_allclose(value, x, rtol=1e-15)
        np.testing.assert_allclose(reverse[:, 0], 1.0, rtol=1e-15)


@over(ROWS)
def test_modes_and_dtypes(name):
    row = ROWS[name]
    g, xs = row.make(*row.params), np.array(row.points)
    assert not g.is_convex and "Not convex" in str(type(g).__doc__).splitlines()[0]
    want = evaluate(name, xs)[0]
    for dtype in (jnp.float32, jnp.bfloat16):
        got = jax.jit(g.prox)(jnp.asarray(xs, dtype), row.step)
        slope = 4  # the largest derivative of these rows
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(float), want, atol=8 * slope * float(jnp.finfo(dtype).eps))

    def derivative(params, x, step):
        return jax.grad(lambda p: row.make(*p).prox(x, step).sum())(params)

    params = tuple(jnp.asarray(p) for p in row.params)
    jax.export.export(jax.jit(derivative), platforms=("cpu", "cuda", "tpu"))(params, xs, row.step)


# At most k nonzero entries.

X = np.array([3.0, -0.9, -2.0, 0.5])


def test_cardinality_ball_keeps_the_largest():
    for k in (1, 3, 4):
        ball = prox.L0Ball(k)
        project = jax.jit(ball.project)
        p = np.asarray(project(X))
        kept = np.argsort(-np.abs(X))[:k]
        np.testing.assert_array_equal(np.flatnonzero(p), np.sort(kept))
        np.testing.assert_array_equal(p[kept], X[kept])
        assert ball(p) == 0 and np.isinf(ball(X)) == (k < 4) and not ball.is_convex
        np.testing.assert_array_equal(jax.jacobian(project)(X), np.diag(p != 0))
        np.testing.assert_array_equal(project(p), p)
    columns = jax.jit(prox.L0Ball(1, axis=0).project)(np.stack([X, X[::-1]], axis=1))
    np.testing.assert_array_equal(columns, [[3, 0], [0, 0], [0, 0], [0, 3]])
    assert prox.L0Ball(2).project(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


def test_cardinality_ball_at_a_tie():
    tie = np.array([3.0, -2.0, 2.0, 0.5])
    ball = prox.L0Ball(2)
    np.testing.assert_array_equal(ball.project(tie), [3, -2, 0, 0])  # the first
    np.testing.assert_array_equal(jax.jacobian(ball.project)(tie), np.diag([1, 1, 0, 0]))
    half = jax.jacobian(prox.L0Ball(2, selection=0.5).project)(tie)
    np.testing.assert_array_equal(half, np.diag([1, 0.5, 0.5, 0]))
    assert nsi.kinks(ball.project)(tie).num_jumps == 2 and nsi.kinks(ball.project)(X).num_active == 0
    # Zeros that tie are a kink: nothing jumps.
    sparse = nsi.kinks(ball.project)(np.array([3.0, 0.0, 0.0, 0.0]))
    assert sparse.num_active == 3 and sparse.num_jumps == 0
    found = nsi.certify(lambda z, b: z - ball.project(z / 2 + b))(ball.project(tie), tie - ball.project(tie) / 2)
    assert found.verdict == "undecided" and "jumps" in found.reason


@over(WRONG)
def test_bad_parameters_raise(name):
    call, text = WRONG[name]
    with pytest.raises(InputError, match=re.compile(text, re.S)):
        call()
