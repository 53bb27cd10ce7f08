"""Sets at centers, vertices, ties and infinite bounds; far away; and where two of them are the same set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nsimplicit import prox

V4 = np.array([1.2, -0.3, 0.8, 2.0])
WIDE = np.array([[1.0, 2.0, 0.5, -0.4], [-1.0, 0.3, 1.0, 0.7]])


def jacobian(g):
    return jax.jit(jax.jacrev(g.project))


@pytest.mark.parametrize("center", (0.0, np.array([1.0, -2.0, 0.5])), ids=["zero", "elsewhere"])
def test_the_center_of_a_ball_is_inside(center):
    x = jnp.zeros(3) + center
    for ball in (prox.L2Ball(2.0, center), prox.L2Ball(2.0, center, selection="outside")):

        def both(ball, x):
            return jax.jacfwd(jax.jacrev(lambda g, x: g.project(x), (0, 1)), (0, 1))(ball, x)

        with jax.debug_nans(True):
            second = jax.jit(both)(ball, x)
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(second))
        for near in (x, x + 1e-300 * jnp.ones(3), x + 1e-170):
            np.testing.assert_array_equal(jacobian(ball)(near), np.eye(3))
    np.testing.assert_array_equal(jacobian(prox.L1Ball(2.0))(jnp.zeros(3)), np.eye(3))


@pytest.mark.parametrize("selection", (0.0, 0.3, "inside", "outside"))
def test_intervals_agree_whatever_they_are_called(selection):
    names = ("Box", "LInfBall", "L2Ball", "L1Ball", "Hyperslab", "Halfspace")
    s = {"inside": 1.0, "outside": 0.0}.get(selection, selection)
    for name in names:
        args = {"Box": (-1.0, 1.0), "Hyperslab": (2.0, -2.0, 2.0), "Halfspace": (2.0, 2.0)}.get(name, (1.0,))
        g = getattr(prox, name)(*args, selection=selection)
        J = jax.jit(jax.vmap(jax.jacrev(g.project)))(np.array([[1.0], [0.5], [3.0]]))
        np.testing.assert_allclose(J.ravel(), [s, 1, 0], atol=1e-15, err_msg=name)


@pytest.mark.parametrize("s", (0.0, 0.3, 1.0))
def test_the_l1_ball_is_a_simplex_in_each_orthant(s):
    x, signs = np.array([2.5, 1.0, 1.0, 0.0]), np.array([1, -1, 1, -1])
    simplex = jacobian(prox.Simplex(1.5, selection=s))(x)
    np.testing.assert_array_equal(jacobian(prox.L1Ball(1.5, selection=s))(x * signs), simplex * np.outer(signs, signs))


def test_large_and_small_numbers(key):
    x = np.asarray(jax.random.normal(key, (1000,)))
    project = jax.jit(prox.L1Ball(2.0).project)
    for scale in (1e-2, 1.0, 1e6):
        np.testing.assert_allclose(np.abs(project(scale * x)).sum(), 2.0, rtol=1e-12)
    np.testing.assert_array_equal(project(np.append([1e12, -1e11], 0 * x))[:3], [2, 0, 0])
    capped = jax.jit(prox.CappedSimplex(7.5).project)
    for scale, shift in ((1.0, 0.0), (1e-3, 0.0), (1.0, 1e6)):
        p = np.asarray(capped(scale * x + shift))
        assert p.min() >= 0 and p.max() <= 1
        np.testing.assert_allclose(p.sum(), 7.5, rtol=1e-9 if shift else 1e-13)
    np.testing.assert_allclose(jax.jit(prox.L2Ball(2.0).project)(1e150 * np.array([0.6, 0.8])), [1.2, 1.6], rtol=1e-15)


def test_without_caps_it_is_the_simplex(key):
    x = np.asarray(jax.random.normal(key, (3, 6)))
    both = jax.jit(jax.jacrev(lambda x, t, cap: prox.CappedSimplex(t, cap).project(x), (0, 1, 2)))
    want = jax.jit(jax.jacrev(lambda x, t: prox.Simplex(t).project(x), (0, 1)))(x, 2.0)
    for cap in (np.full(6, np.inf), np.array([np.inf, 9.0, 9.0, np.inf, np.inf, 9.0])):
        with jax.debug_nans(True):
            *got, caps = both(x, 2.0, cap)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-14), tuple(got), want)
        np.testing.assert_array_equal(caps, 0)


def test_a_vertex_of_the_capped_simplex():
    """The largest entries are at their caps, and no entry moves with x; one of them takes what the total gains."""

    @jax.jit
    def derivatives(x, total, cap):
        project = lambda x, t, c: prox.CappedSimplex(t, c).project(x)  # noqa: E731
        return project(x, total, cap), jax.jacrev(project, (0, 1, 2))(x, total, cap)

    one = np.ones(4)
    for x, total, caps, p, taker in (
        ([5.0, 4.0, 0.3, 0.3], 2.0, one, [1, 1, 0, 0], 2),  # the first of a tie
        ([0.3, 4.0, 0.1, 3.0], 0.6, 0.3 * one, [0, 0.3, 0, 0.3], 0),  # 0.3 + 0.3 is not 0.6, up to rounding
        ([5.0, 4.0, 0.3, -7.0], 4.0, one, one, 3),  # one point: all at their caps
        ([5.0, 4.0, 0.3, 0.5], 0.1, 0.1 * one, [0.1, 0, 0, 0], 1),
    ):
        value, (J, slope, caps_slope) = derivatives(np.array(x), total, caps)
        np.testing.assert_allclose(value, p, rtol=1e-15)
        np.testing.assert_array_equal(J, 0)
        np.testing.assert_array_equal(slope, np.arange(4) == taker)
        at_cap = np.array(p) > 0
        np.testing.assert_array_equal(caps_slope, np.diag(at_cap.astype(float)) - np.outer(slope, at_cap))


@pytest.mark.parametrize(("total", "cap"), [(0.3, 0.1), (0.7 - 0.4, 0.1), (np.nextafter(0.375, 1), 0.125)])
def test_ties_at_a_vertex_are_no_kink(total, cap):
    """Where a whole interval of tau gives the total, no entry is at a kink, whatever the selection and the rounding."""
    x = np.array([5.0, 4.0, 4.0, 0.3, 0.3, 0.1])
    slopes = jax.jit(jax.jacrev(prox.CappedSimplex(total, cap, selection=1.0).project))
    for shift in (0.0, 0.7, 1e3):
        np.testing.assert_array_equal(slopes(x + shift), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_capped_simplex_finds_both_kinks_through_rounding(dtype, key):
    jacobians = jax.jit(lambda x, t, s: jax.jacrev(prox.CappedSimplex(t, 0.7, selection=s).project)(x))
    for k, shift in enumerate([0.1, -3.7, 1e2]):
        inner = 0.1 + 0.5 * np.asarray(jax.random.uniform(jax.random.fold_in(key, k), (3,)))
        y = np.append(inner, [0.0, 0.7, 1.5, -1.0])
        total = np.clip(y, 0, 0.7).sum()
        for s, free in ((0.0, 3), (1.0, 5)):
            J = jacobians((y + shift).astype(dtype), dtype(total), s)
            assert np.sum(np.diag(J) > 0) == free


def test_capped_simplices_along_an_axis(key):
    x, total = np.asarray(jax.random.normal(key, (3, 5))), np.array([1.0, 2.0, 0.5])
    caps = 0.5 + np.asarray(jax.random.uniform(key, (3, 5)))
    rows = jax.jit(prox.CappedSimplex(total, caps).project)(x)
    one = jax.jit(lambda t, c, r: prox.CappedSimplex(t, c).project(r))
    np.testing.assert_allclose(rows, [one(*row) for row in zip(total, caps, x, strict=True)], atol=1e-15)
    np.testing.assert_allclose(jax.jit(prox.CappedSimplex(total, caps.T, axis=0).project)(x.T), rows.T, atol=1e-15)


def test_slabs_without_a_bound_differentiate_without_nan():
    a, x = jnp.array([1.0, 2.0, -2.0]), jnp.array([3.0, 0.5, -1.0])
    slab, half = prox.Hyperslab(a, -jnp.inf, 2.0), prox.Halfspace(a, 2.0)
    with jax.debug_nans(True):
        for point in (x, jnp.array([1.0, 1.0, 0.5]), jnp.zeros(3)):
            ours, theirs = (jax.jit(jax.jacrev(lambda g, x: g.project(x), (0, 1)))(g, point) for g in (slab, half))
            np.testing.assert_array_equal(ours[1], theirs[1])
            np.testing.assert_array_equal(ours[0].a, theirs[0].a)
            np.testing.assert_array_equal(ours[0].lo, 0)
    free = prox.Hyperslab(a, -jnp.inf, jnp.inf)
    np.testing.assert_array_equal(jacobian(free)(x), np.eye(3))
    # A whole array of numbers, or one for all entries.
    np.testing.assert_allclose(prox.Hyperplane(1.0, 1.0).project(jnp.ones((2, 2))), 0.25)


def test_entries_far_away_do_not_blur_the_others():
    project = jax.jit(prox.CappedSimplex(1.5).project)
    for far, p in ((1e12, [15, 4, 2.5, 1]), (1e16, [15, 4, 2.5, 1]), (1e30, [15, 4, 2.5, 1]), (-1e16, [0, 9, 7.5, 6])):
        np.testing.assert_allclose(15 * project(np.array([far, 0.3, 0.2, 0.1])), p, rtol=1e-14)
    spread = np.tan(np.pi * (np.arange(1, 1000) / 1000 - 0.5)) ** 9  # up to 1e22
    np.testing.assert_allclose(np.sum(jax.jit(prox.CappedSimplex(100.0).project)(spread)), 100, rtol=1e-14)


def test_sums_find_the_threshold():
    for g in (prox.L1Ball(0.5), prox.L1Sphere(0.5), prox.CappedSimplex(0.5), prox.Simplex(0.5)):
        text = str(jax.make_jaxpr(jax.grad(lambda x, g=g: g.project(x)[0]))(V4))
        assert (text.count("sort["), text.count("while[")) == (0, 1), g


def test_affine_sets_are_factored_once():
    apply = prox.AffineSet(WIDE, np.ones(2)).prepare()

    def loop(x):
        return lax.scan(lambda x, _: (apply(x), None), x, None, length=3)[0]

    for fun in (loop, jax.jacfwd(loop), jax.jacrev(loop)):
        text = str(jax.make_jaxpr(fun)(V4))
        assert "dot_general" in text and "cholesky" not in text and "triangular_solve" not in text
    program = str(jax.make_jaxpr(jax.grad(lambda a: prox.AffineSet(a, np.ones(2)).project(V4).sum()))(WIDE))
    assert program.count("triangular_solve[") == 1


def test_affine_sets_keep_their_digits(key):
    """At condition 1e5 the normal equations alone would leave a residual of 1e-6."""
    A = np.asarray(jax.random.normal(key, (3, 8))) * np.array([[1.0], [1.0], [1.0]])
    A[2] = A[1] + 1e-5 * A[2]
    b = A @ np.ones(8)
    p = jax.jit(prox.AffineSet(A, b).project)(np.linspace(-1, 1, 8))
    assert np.linalg.norm(A @ p - b) < 1e-14 * np.linalg.norm(A) * np.linalg.norm(p)
    assert prox.AffineSet(A, b)(p) == 0


def test_affine_sets_with_several_right_hand_sides_and_complex_numbers():
    x, b = np.stack([V4, V4 + 1], axis=1), np.array([[1.0, 0.0], [-2.0, 3.0]])
    both = jax.jit(lambda b, x: prox.AffineSet(WIDE, b).project(x))
    np.testing.assert_allclose(both(b, x), np.stack([both(b[:, k], x[:, k]) for k in range(2)], axis=1), rtol=1e-13)
    A = WIDE + 1j * WIDE[::-1]
    z = V4 + 1j * V4[::-1]
    g = prox.AffineSet(A, b[:, 0] - 1j)
    p = jax.jit(g.project)(z)
    assert g(p) == 0 and g(z) == np.inf
    # What is taken off is in the range of the adjoint.
    np.testing.assert_allclose(np.linalg.lstsq(A.conj().T, z - p, rcond=None)[1], 0, atol=1e-25)
