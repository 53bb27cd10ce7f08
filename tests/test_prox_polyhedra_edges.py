"""Polyhedra with rows that depend on each other, far away, or empty; transport plans at vertices; many at once."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment, linprog, nnls

import nsimplicit as nsi
from nsimplicit import prox

SQUARE, ONES = np.vstack([np.eye(2), -np.eye(2)]), np.ones(4)


def draw(rng, kind):
    """A point, four unknowns, one equation and nine inequalities; every second time small integers, hence ties."""
    n, m = 4, 9
    A, G, center = rng.normal(size=(1, n)), rng.normal(size=(m, n)), rng.normal(size=n)
    if kind % 2:
        A, G, center = np.round(2 * A), np.round(1.5 * G), np.round(center)
    A[:, 0] += np.all(A == 0, axis=1)
    G[:, 0] += np.all(G == 0, axis=1)
    if kind % 3 == 0:
        G[1], G[2] = G[0], -G[3]  # the same again, and between parallel planes
    b, h = A @ center, G @ center + rng.integers(0, 2, m) * rng.random(m)
    if kind % 5 == 0:
        b, h = 0 * b, 0 * h  # a cone
    if kind % 13 == 0:
        h = h - 0.3  # empty, mostly
    return A, b, G, h, center + 3 * rng.normal(size=n)


def is_empty(A, b, G, h):
    return linprog(np.zeros(4), G, h, A, b, (None, None)).status == 2


def test_many_polyhedra_at_once():
    """Feasible, and y - p is a nonnegative sum of normals of what holds with equality: that says nearest."""
    rng = np.random.default_rng(0)
    problems = [draw(rng, kind) for kind in range(200)]

    def everything(A, b, G, h, y):
        g = prox.Polyhedron(A, b, G, h)
        p, pull = jax.vjp(g.project, y)
        return p, jax.vmap(pull)(np.eye(4))[0], g(p), g.project(p)

    found = jax.jit(jax.vmap(everything))(*map(np.stack, zip(*problems, strict=True)))
    empty = [kind for kind in range(0, 200, 13) if is_empty(*problems[kind][:4])]
    assert len(empty) > 9
    for kind, (A, _, G, h, y) in enumerate(problems):
        p, J, inside, again = (np.asarray(out[kind]) for out in found)
        if kind in empty:
            assert np.isnan(p).all() and np.isnan(J).all()
            continue
        assert inside == 0
        np.testing.assert_allclose(again, p, rtol=1e-13, atol=1e-14)
        tight = G[G @ p > h - 1e-10]
        assert nnls(np.vstack([A, -A, tight]).T, y - p)[1] < 1e-13 * (1 + np.linalg.norm(y))
        # All that holds with equality is held, whatever depends on what.
        rows = np.vstack([A, tight])
        np.testing.assert_allclose(J, np.eye(4) - np.linalg.pinv(rows, rcond=1e-10) @ rows, atol=1e-12)


def test_a_box_and_a_simplex_are_polyhedra():
    """With s the weight inside, as theirs; on the simplex the entries at zero are not in the support."""
    x = np.array([[1.0, 0.25], [1.0, -1.0], [3.0, 0.5], [0.2, 0.1]])
    y = np.array([2.5, 1.0, 1.0, -0.5])
    box = (prox.Box, -1.0, 1.0), (lambda **s: prox.Polyhedron(G=SQUARE, h=ONES, **s),)
    rows = np.ones((1, 4)), np.array([1.5]), -np.eye(4), np.zeros(4)
    simplex = (prox.Simplex, 1.5), (prox.Polyhedron, *rows)

    def both(s):
        at_x = [jax.vmap(jax.jacrev(make(*args, selection=s).project))(x) for make, *args in box]
        at_y = [jax.jacrev(make(*args, selection=s).project)(y) for make, *args in simplex]
        return at_x, at_y

    for mine, theirs in jax.jit(jax.vmap(both))(np.array([0.0, 0.3, 1.0])):
        np.testing.assert_allclose(mine, theirs, atol=1e-15)


def test_dependent_rows_have_the_derivatives_of_independent_ones():
    """The same inequality twice, and a corner where three meet: it moves outwards with all of them."""
    y = jnp.array([2.0, 3.0])
    G, h = np.vstack([SQUARE, np.eye(2), [1.0, 1.0]]), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])

    def slopes(s):
        return jax.jacrev(lambda h: prox.Polyhedron(G=G, h=h, selection=s).project(y))(h)

    for slope in jax.jit(jax.vmap(slopes))(np.array([0.0, 0.5, 1.0])):
        np.testing.assert_allclose(slope @ h, [1, 1], atol=1e-14)
        np.testing.assert_allclose(slope[:, [2, 3]], 0, atol=1e-15)
    equal = jax.jit(jax.jacrev(lambda b: prox.Polyhedron(np.ones((2, 2)), b).project(y)))(np.ones(2))
    np.testing.assert_allclose(equal.sum(1), [0.5, 0.5], atol=1e-15)


def test_points_inside_bounds_that_are_none_and_one_unknown():
    G, h = np.vstack([SQUARE, np.eye(2)]), np.append(ONES, [np.inf, np.inf])
    with jax.debug_nans(True):
        project = jax.jit(jax.jacrev(lambda g, x: g.project(x), (0, 1)))
        by_set, by_point = project(prox.Polyhedron(G=G, h=h), np.array([0.5, -0.25]))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(by_set))
    np.testing.assert_array_equal(by_point, np.eye(2))
    half = jax.jit(prox.Polyhedron(G=np.array([[2.0]]), h=np.array([3.0])).project)
    np.testing.assert_array_equal(half(np.array([[5.0], [1.0], [-7.0]])), [[1.5], [1.0], [-7.0]])


def test_far_away_and_close_to_parallel_in_float32(key):
    dtype, eps = np.float32, np.finfo(np.float32).eps
    y = np.asarray(jax.random.normal(key, (50, 2)), dtype)
    # Two planes at an angle of 1e-3, and a point whose nearest one is where they meet.
    y[0] = [0.5, 2e-4]
    G = np.array([[1.0, 0.0], [1.0, 1e-3], [0.5, -1.0], [-1.0, 0.0]], dtype)

    def is_in(g, y):
        p = g.project(y)
        return p, jax.vmap(g)(p)

    project = jax.jit(lambda h, y: is_in(prox.Polyhedron(G=G, h=h), y))
    for scale in (1e-3, 1.0, 1e4):
        h = dtype(scale) * np.array([1.0, 1.0, 0.7, 1.0], dtype)
        p, inside = project(h, dtype(10 * scale) * y)
        assert np.all(inside == 0) and p.dtype == dtype
        for start, end in zip(10 * scale * y, p, strict=True):
            tight = G[G @ end > h - 100 * eps * scale]
            assert nnls(tight.T, start - end)[1] <= 20 * eps * scale if len(tight) else np.all(start == end)


def test_certificates_see_the_kinks():
    at = nsi.kinks(prox.Polyhedron(G=SQUARE, h=ONES).project)
    assert at(jnp.array([1.0, -1.0])).num_active == 2


def test_plans_at_vertices():
    """Far away: assignments, and a plan by the north-west corner rule; there the Jacobian is zero."""
    X = 1e3 * np.random.default_rng(0).normal(size=(20, 5, 5))
    P, J = jax.jit(jax.vmap(lambda x: (prox.Birkhoff().project(x), jax.jacrev(prox.Birkhoff().project)(x))))(X)
    for x, plan in zip(X, P, strict=True):
        np.testing.assert_allclose(plan, np.eye(5)[linear_sum_assignment(x, maximize=True)[1]], atol=1e-15)
    np.testing.assert_allclose(J, 0, atol=1e-15)
    a, b = np.array([0.5, 0.0, 0.5]), np.array([0.25, 0.5, 0.25])
    corner = 1e3 * np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    plan, by_sums = jax.jit(lambda a: (lambda f: (f(a), jax.jacrev(f)(a)))(
        lambda a: prox.TransportPolytope(a, jnp.sum(a) * b).project(corner)))(a)  # fmt: skip
    np.testing.assert_allclose(plan, [[0.25, 0.25, 0], [0, 0, 0], [0, 0.25, 0.25]], atol=1e-15)
    # An empty row has no kink, and takes what it gains: more of a is more of every column.
    np.testing.assert_allclose(by_sums.sum(1), np.eye(3), atol=1e-14)
    np.testing.assert_allclose(by_sums.sum(0), np.tile(b[:, None], 3), atol=1e-14)


def test_totals_that_differ_are_nan_in_their_lane_only():
    X = np.eye(2)
    a, b = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[2.0, 1.0], [2.0, 2.0]])
    p = jax.jit(jax.vmap(lambda a, b: prox.TransportPolytope(a, b).project(X)))(a, b)
    assert np.isnan(p[1]).all()
    np.testing.assert_allclose(p[0], [[1.0, 0.0], [1.0, 1.0]], atol=1e-15)
    one_row = prox.TransportPolytope(np.ones(1), np.array([1.0, 0.0]))
    several = jax.jit(one_row.project)(np.array([[[3.0, 1.0]], [[0.0, 7.0]]]))
    np.testing.assert_allclose(several, [[[1.0, 0.0]], [[1.0, 0.0]]], atol=1e-15)
