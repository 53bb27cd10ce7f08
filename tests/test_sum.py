"""The prox of a sum is the one known by other means, with its derivatives; bad terms raise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.sum import POINT, SUMS


def both(name, dtype=float):
    """The prox of the sum and the known one, as functions of point, step and parameter."""
    terms, known = SUMS[name]
    tol = 1e-15 if dtype is float else 1e-6

    def ours(x, s, t):
        return nsi.layers.Sum(*terms(t), tol=tol, max_steps=20000).prox(x, s)

    return ours, known, [jnp.asarray(a, dtype) for a in (POINT, 0.5, 0.3)]


@pytest.mark.parametrize("name", SUMS)
def test_value_and_derivatives(name):
    ours, known, args = both(name)

    def orders(fun):
        def second(*a):
            return jax.jvp(jax.grad(lambda *a: jnp.sum(jnp.sin(fun(*a))), (0, 1, 2)), a, a)[1]

        every = [fun, jax.jacrev(fun, (0, 1, 2)), jax.jacfwd(fun, (0, 1, 2)), second]
        return jax.jit(lambda *a: [call(*a) for call in every])

    for got, want in zip(*(jax.tree.leaves(orders(fun)(*args)) for fun in (ours, known)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


def test_float32():
    ours, known, args = both("group after entries", np.float32)
    got = jax.jit(ours)(*args)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, known(*args), rtol=0, atol=1e-5)


def test_lanes():
    ours, known, (x, s, t) = both("box and hyperplane")
    points = x + jnp.arange(3.0)[:, None]
    lanes = jax.jit(jax.vmap(ours, (0, None, None)))
    np.testing.assert_allclose(lanes(points, s, t), jax.jit(known)(points, s, t), rtol=0, atol=1e-10)


def test_constants():
    terms = nsi.prox.ElasticNet(0.1, 2.0), nsi.prox.L0(1.0)
    assert nsi.layers.Sum(terms[0], terms[0]).strong_convexity == 4.0
    assert nsi.layers.Sum(*terms).is_convex is False
    assert nsi.layers.Sum(terms[0], terms[0])(np.ones(2)) == 2 * terms[0](np.ones(2))


def test_a_term_without_a_prox_raises():
    with pytest.raises(nsi.InputError, match="must be an object of nsimplicit.prox"):
        nsi.layers.Sum(jnp.sin, nsi.prox.L1(1.0))
