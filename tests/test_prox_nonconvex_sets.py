"""Spheres and sparse simplices: nearest points by enumeration, derivatives away from jumps, and the jumps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import prox

V4 = np.array([1.2, -0.3, 0.8, 2.0])
Z3 = np.array([0.6 - 1.1j, 0.1 + 0.2j, -0.9j])


def on_face(y, total):
    """The nearest vector with a given sum and no negative entry, among those that are zero outside of a support."""
    best = np.full(len(y), np.inf)
    for size in range(1, len(y) + 1):
        for support in map(list, itertools.combinations(range(len(y)), size)):
            u = np.zeros(len(y))
            u[support] = y[support] - (y[support].sum() - total) / size
            if u.min() >= 0 and np.linalg.norm(u - y) < np.linalg.norm(best - y):
                best = u
    return best


def sparse_simplex(x, total, k=2):
    candidates = []
    for support in map(list, itertools.combinations(range(len(x)), k)):
        u = np.zeros(len(x))
        u[support] = on_face(x[support], total)
        candidates.append(u)
    return min(candidates, key=lambda u: np.linalg.norm(u - x))


def l1_sphere(x, r):
    """The best of all orthants."""
    candidates = (np.array(s) * on_face(np.array(s) * x, r) for s in itertools.product((1.0, -1.0), repeat=len(x)))
    return min(candidates, key=lambda u: np.linalg.norm(u - x))


def l1_sphere_complex(x, r):
    return x / abs(x) * on_face(abs(x), r)


def l2_sphere(x, r, c):
    return c + r * (x - c) / np.linalg.norm(x - c)


C4 = np.array([1.0, 0.0, 0.5, -1.0])
SETS = {
    "SparseSimplex": (lambda t, **o: prox.SparseSimplex(2, t, **o), sparse_simplex, (1.5,), (V4, 0.1 * V4, -V4)),
    "L1Sphere": (prox.L1Sphere, l1_sphere, (1.5,), (V4, 0.1 * V4, np.array([5.0, -0.1, 0.2, 0.3]))),
    "L1Sphere complex": (prox.L1Sphere, l1_sphere_complex, (1.5,), (Z3, 0.5 * Z3)),
    "L2Sphere": (prox.L2Sphere, l2_sphere, (1.5, C4), (V4, 0.9 * C4 + 0.1 * V4)),
    "L2Sphere complex": (lambda r: prox.L2Sphere(r, 0.5j), lambda x, r: l2_sphere(x, r, 0.5j), (1.5,), (Z3,)),
}


def parts(x, xp=np):
    return xp.concatenate([x.real, x.imag]) if xp.iscomplexobj(x) else x


def joined(v, like):
    return v[: like.size] + 1j * v[like.size :] if np.iscomplexobj(like) else v


@functools.cache
def compiled(name, is_complex):
    make, _, params, points = SETS[name]

    def project(v, params):
        return parts(make(*params).project(joined(v, points[0])), jnp)

    return jax.jit(lambda v, p: (project(v, p), jax.jacrev(project, (0, 1))(v, p), jax.jacfwd(project, (0, 1))(v, p)))


@pytest.mark.parametrize("name", SETS)
def test_projections_and_derivatives_are_those_of_the_enumeration(name):
    make, oracle, params, points = SETS[name]
    assert not make(*params).is_convex
    inside = jax.jit(make(*params).__call__)
    for x in points:
        p, reverse, forward = compiled(name, np.iscomplexobj(x))(parts(x), params)
        np.testing.assert_allclose(p, parts(oracle(x, *params)), rtol=1e-13, atol=1e-14)
        assert inside(joined(np.asarray(p), x)) == 0
        assert inside(joined(np.asarray(p) * (1 + 1e-9), x)) == np.inf
        again = compiled(name, np.iscomplexobj(x))(p, params)[0]
        np.testing.assert_allclose(again, p, rtol=1e-15, atol=1e-15)
        jax.tree.map(lambda f, r: np.testing.assert_allclose(f, r, atol=1e-14), forward, reverse)
        h = 1e-5
        up, down = (
            np.array([parts(oracle(joined(parts(x) + d, x), *params)) for d in s * np.eye(p.size)]) for s in (h, -h)
        )
        want = (up - down).T / (2 * h)
        np.testing.assert_allclose(forward[0], want, atol=1e-8)
        np.testing.assert_allclose(forward[0], forward[0].T, atol=1e-14)
        radius = [parts(oracle(x, params[0] + d, *params[1:])) for d in (h, -h)]
        np.testing.assert_allclose(forward[1][0], (radius[0] - radius[1]) / (2 * h), atol=1e-8)


def test_the_selection_decides_which_zeros_are_support():
    """As on the simplex: diag(q) - q q^T / sum(q), here with signs; entries that are not chosen have no part in it."""
    x = np.array([2.5, -1.0, 0.0, 1.0])
    for s in (0.0, 0.3, 1.0):
        q, signs = np.array([1, s, 0, s]), np.array([1, -1, 1, 1])
        J = jax.jit(jax.jacrev(prox.L1Sphere(1.5, selection=s).project))(x)
        np.testing.assert_allclose(J, np.diag(q) - np.outer(q * signs, q * signs) / q.sum(), atol=1e-15)
        q = np.array([1, 0, 0, s])
        J = jax.jit(jax.jacrev(prox.SparseSimplex(2, 1.5, selection=s).project))(x)
        np.testing.assert_allclose(J, np.diag(q) - np.outer(q, q) / q.sum(), atol=1e-15)


def test_jumps_are_finite_and_counted():
    at = {
        prox.L1Sphere(2.0): np.array([0.5, 0.0, -0.25]),
        prox.L2Sphere(2.0, 1.0): np.ones(3),
        prox.SparseSimplex(2, 2.0): np.array([1.0, 0.5, 0.5]),
    }
    for g, x in at.items():
        p, J = jax.jit(lambda x, g=g: (g.project(x), jax.jacrev(g.project)(x)))(x)
        assert g(p) == 0 and np.isfinite(J).all()
        assert nsi.kinks(g.project)(x).num_jumps > 0, g
        assert nsi.kinks(g.project)(x + np.array([0.1, 0.2, -0.3])).num_jumps == 0, g
    signs = np.array([1, 1, -1])
    J = jax.jit(jax.jacrev(prox.L1Sphere(2.0).project))(np.array([0.5, 0.0, -0.25]))
    np.testing.assert_allclose(J, np.eye(3) - np.outer(signs, signs) / 3, atol=1e-15)
    # All nearest points are as good; it takes the first.
    np.testing.assert_allclose(prox.SparseSimplex(2, 2.0).project(np.array([1.0, 0.5, 0.5])), [1.25, 0.75, 0])
    # No jump where the entry that is zero stays zero.
    assert nsi.kinks(prox.L1Sphere(0.5).project)(np.array([1.0, 0.0, -0.25])).num_jumps == 0


def test_sparse_simplices_along_an_axis_and_in_low_precision():
    x = np.stack([V4, -V4, 0.1 * V4])
    total = np.array([1.0, 2.0, 0.5])
    rows = jax.jit(prox.SparseSimplex(2, total).project)(x)
    np.testing.assert_allclose(rows, [sparse_simplex(y, t) for y, t in zip(x, total, strict=True)], atol=1e-14)
    np.testing.assert_allclose(jax.jit(prox.SparseSimplex(2, total, axis=0).project)(x.T), rows.T)
    whole, few = jax.jit(lambda x: (prox.Simplex().project(x), prox.SparseSimplex(4).project(x)))(V4)
    np.testing.assert_array_equal(few, whole)
    assert prox.SparseSimplex(3)(whole) == 0 and prox.SparseSimplex(2)(np.full(4, 0.25)) == np.inf
    for dtype in (jnp.float32, jnp.bfloat16):
        for g, oracle in (
            (prox.SparseSimplex(2, 1.5), sparse_simplex(V4, 1.5)),
            (prox.L1Sphere(1.5), l1_sphere(V4, 1.5)),
            (prox.L2Sphere(1.5), l2_sphere(V4, 1.5, 0.0)),
        ):
            got = jax.jit(g.project)(jnp.asarray(V4, dtype))
            assert got.dtype == dtype
            np.testing.assert_allclose(np.asarray(got, float), oracle, atol=16 * float(jnp.finfo(dtype).eps))
