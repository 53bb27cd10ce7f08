"""The implicit rule under every transformation, for every row of the table, with solvers JAX cannot look into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases.implicit import ROWS

rows = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def direction(tree, seed=0):
    """A fixed direction like ``tree``."""
    rng = np.random.default_rng(seed)

    def draw(x):
        d = rng.normal(size=np.shape(x))
        return d + 1j * rng.normal(size=np.shape(x)) if np.iscomplexobj(x) else d

    return jax.tree.map(draw, tree)


def along(tree, d, step):
    return jax.tree.map(lambda x, v: x + step * v, tree, d)


def dot(a, b):
    """The pairing of JAX's cotangents and tangents: real, without conjugation."""
    return sum(jnp.sum(x * y).real for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(a, b, rtol):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


@rows
def test_jvp_and_vjp(row):
    solve, d = row.solver(), direction(row.theta)
    ct = direction(row.solution(*row.theta), 1)

    @jax.jit
    def both(theta):
        out, moved = jax.jvp(solve, theta, d)
        return out, moved, jax.vjp(solve, *theta)[1](ct)

    out, moved, pulled = both(row.theta)
    close(out, row.solution(*row.theta), rtol=1e-14)
    plus, minus = (row.solution(*along(row.theta, d, s)) for s in (1e-5, -1e-5))
    differences = jax.tree.map(lambda p, m: (p - m) / 2e-5, plus, minus)
    close(moved, differences, rtol=1e-8)  # central differences: h² = 1e-10 times third derivatives, eps/h = 1e-11
    np.testing.assert_allclose(dot(ct, moved), dot(pulled, d), rtol=1e-12)


def scalar(solve, weight):
    """A nonlinear function of the solution, so that second derivatives see all of the first ones."""
    return lambda *theta: dot(weight, jax.tree.map(jnp.cos, solve(*theta)))


FORWARD, REVERSE = "forward", "reverse"
FOUR_ORDERS = [(FORWARD, FORWARD), (FORWARD, REVERSE), (REVERSE, FORWARD), (REVERSE, REVERSE)]


@pytest.mark.parametrize(
    "name, orders", [("nonlinear", FOUR_ORDERS), ("leaves", FOUR_ORDERS), ("fixed point", FOUR_ORDERS[-1:])]
)
def test_hessian_in_four_orders(name, orders):
    row = ROWS[name]
    d, e = direction(row.theta), direction(row.theta, 2)
    weight = direction(row.solution(*row.theta), 1)

    def directional(f, d):
        return lambda *theta: jax.jvp(f, theta, d)[1]

    def reverse(f, d):
        return lambda *theta: dot(jax.grad(f, tuple(range(len(theta))))(*theta), d)

    want = jax.jit(directional(directional(scalar(row.newton, weight), d), e))(*row.theta)
    f, mode = scalar(row.solver(), weight), {FORWARD: directional, REVERSE: reverse}

    @jax.jit
    def second(*theta):
        return [mode[outer](mode[inner](f, d), e)(*theta) for outer, inner in orders]

    np.testing.assert_allclose(second(*row.theta), [want] * len(orders), rtol=1e-11)


def test_third_order():
    row = ROWS["nonlinear"]
    A, B, t = row.theta
    weight = direction(row.solution(*row.theta), 1)

    def third(f):
        def g(s):
            return f(A, B, t + s * jnp.array([1.0, -0.5]))

        return jax.grad(jax.grad(jax.grad(g)))(0.0)

    want = jax.jit(lambda: third(scalar(row.newton, weight)))()
    np.testing.assert_allclose(jax.jit(lambda: third(scalar(row.solver(), weight)))(), want, rtol=1e-10)


# The reference starts its Newton steps at the solution of the first point, for which three are not quite enough.
RTOL = 1e-9


@pytest.fixture(scope="module")
def lanes():
    """A scalar function of the default problem's last argument, points, and its gradients there."""
    row = ROWS["nonlinear"]
    A, B, t = row.theta
    weight = direction(row.solution(*row.theta), 1)
    solve = row.solver()

    def f(t):
        return scalar(solve, weight)(A, B, t)

    points = jnp.stack([jnp.asarray(t), t + 0.1, t - 0.2])
    reference = jax.jit(jax.vmap(jax.grad(lambda t: scalar(row.newton, weight)(A, B, t))))(points)
    return f, points, reference


def test_vmap_of_grad(lanes):
    f, points, want = lanes
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(f)))(points), want, rtol=RTOL)


def test_jit_of_grad_of_vmap(lanes):
    f, points, want = lanes
    np.testing.assert_allclose(jax.jit(jax.grad(lambda p: jax.vmap(f)(p).sum()))(points), want, rtol=RTOL)


def test_checkpoint(lanes):
    f, points, want = lanes
    np.testing.assert_allclose(jax.jit(jax.grad(jax.checkpoint(f)))(points[0]), want[0], rtol=RTOL)


def test_inside_scan(lanes):
    f, points, want = lanes

    def total(points):
        return jax.lax.scan(lambda c, t: (c + f(t), None), 0.0, points)[0]

    np.testing.assert_allclose(jax.jit(jax.grad(total))(points), want, rtol=RTOL)


def test_inside_cond(lanes):
    f, points, want = lanes
    g = jax.jit(jax.grad(lambda t, on: jax.lax.cond(on, f, lambda t: t.sum(), t)))
    np.testing.assert_allclose(g(points[0], True), want[0], rtol=RTOL)
    np.testing.assert_allclose(g(points[0], False), np.ones(2))
