"""Norms at zero, without weight, and beside the sets they are conjugate to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsimplicit import prox

V3 = np.array([0.9, -1.7, 0.4])


def orders(fun, x):
    """Value, Jacobian in both modes, and its derivative."""
    return jax.jit(lambda x: (fun(x), jax.jacrev(fun)(x), jax.jacfwd(fun)(x), jax.jacfwd(jax.jacrev(fun))(x)))(x)


def jacobian(g, step=0.5):
    return jax.jacrev(lambda x: g.prox(x, step))


def test_the_largest_entry_of_zero():
    for g in (prox.LInf(1.0), prox.L1PlusGroupL2(1.0, 1.0), prox.Huber(1.0, radial=True), prox.Huber(1.0)):
        scale = 1 / 1.5 if isinstance(g, prox.Huber) else 0.0
        p, reverse, forward, second = orders(lambda x, g=g: g.prox(x, 0.5), jnp.zeros(3))
        np.testing.assert_array_equal(p, 0)
        for J in (reverse, forward):
            np.testing.assert_allclose(J, scale * np.eye(3), atol=1e-15)
        np.testing.assert_array_equal(second, 0)
    gradient = jax.jit(lambda x: [jax.grad(g)(x) for g in (prox.LInf(1.0), prox.SquaredLInf(1.0))])(jnp.zeros(3))
    assert np.isfinite(gradient).all() and np.sum(np.abs(gradient[0])) <= 1 and np.all(gradient[1] == 0)


@pytest.mark.parametrize("selection", (None, 1.0))
def test_half_the_squared_largest_entry_at_zero(selection):
    """The mean of the cases in which one entry is the largest: in one dimension that is the derivative."""
    g = prox.SquaredLInf(2.0, selection=selection)
    for x in (jnp.zeros(1), jnp.zeros(3), jnp.zeros(2, complex)):
        p, tangent = jax.jit(lambda x, g=g: jax.jvp(lambda x: g.prox(x, 0.5), (x,), (x + 1,)))(x)
        np.testing.assert_array_equal(p, 0)
        np.testing.assert_allclose(tangent, 1 - 0.5 / x.size, rtol=1e-15)


@pytest.mark.parametrize("selection", (None, 1.0, "above"))
def test_no_weight_is_the_identity_whatever_the_selection(selection):
    for make in (prox.LInf, prox.SquaredLInf):

        def apply(x, w, make=make):
            return make(w, selection=selection).prox(x, 0.5)

        derivatives = jax.jit(lambda x, apply=apply: (apply(x, 0.0), *jax.jacrev(apply, (0, 1))(x, 0.0)))
        for x in (np.zeros(2), np.array([1.0, -1.0]), np.array([2.0, 1.0])):
            p, J, slope = derivatives(x)
            np.testing.assert_array_equal(p, x)
            np.testing.assert_array_equal(J, np.eye(2))
            # What a weight takes off, it takes off the largest entries.
            top = (abs(x) == abs(x).max()) * np.sign(x)
            height = 1 if make is prox.LInf else abs(x).max()
            np.testing.assert_allclose(slope, -0.5 * height * top / max(1, abs(top).sum()), rtol=1e-15)


@pytest.mark.parametrize("s", (0.0, 0.3, 1.0))
def test_the_largest_entry_and_the_l1_ball_share_x(s):
    """Moreau: prox of w max|x| plus the projection on the ball of radius step w, kinks and all."""
    ball, norm = prox.L1Ball(1.5, selection=1 - s), prox.LInf(3.0, selection=s)
    both = jax.jit(jax.vmap(lambda x: (jacobian(ball)(x), jacobian(norm)(x))))
    points = np.array([[2.5, -1.0, 1.0, 0.5], [1.0, -0.5, 0.0, 0.0], [0.1, 0.2, 0.3, -0.4], [0.75, 0.75, 0.0, 3.0]])
    for first, second in zip(*both(points), strict=True):
        np.testing.assert_allclose(first + second, np.eye(4), atol=1e-15)


@pytest.mark.parametrize("groups", [dict(groups=[[0, 1], [2, 3]]), dict(axis=0)], ids=["groups", "axis"])
def test_one_zero_group_does_not_poison_the_others(groups):
    x = jnp.array([0.2, 0.0, 3.5, 4.5]) if "groups" in groups else jnp.array([[0.2, 3.5], [0.0, 4.5]])

    def value(x, w):
        g = prox.L1PlusGroupL2(1.0, w, **groups)
        return jnp.sum(g.prox(x, 0.5) ** 2)

    gx, gw = jax.jit(jax.grad(value, argnums=(0, 1)))(x, jnp.array([1.0, 2.0]))
    # The second group: soft-thresholded it is (3, 4), the rest as for GroupL2: squared norm (5 - w/2)^2.
    np.testing.assert_allclose(gx.T.ravel(), [0, 0, 2 * 4 * 0.6, 2 * 4 * 0.8], rtol=1e-14)
    np.testing.assert_allclose(gw, [0, -4], rtol=1e-14)


def test_either_part_of_the_sparse_group_norm_may_be_missing():
    x = np.array([0.9, -1.7, 0.4, 0.0])
    pairs = ((prox.L1PlusGroupL2(0.0, 1.0), prox.GroupL2(1.0)), (prox.L1PlusGroupL2(1.0, 0.0), prox.L1(1.0)))
    for g, alone in pairs:
        np.testing.assert_array_equal(*jax.jit(lambda x, g=g, h=alone: (jacobian(g)(x), jacobian(h)(x)))(x))


@pytest.mark.parametrize("selection", (None, 0.25, 1.0))
def test_the_huber_function_of_one_entry_is_that_of_its_length(selection):
    """At the kink too, and in the gradient: 1/(1 + s h) is the derivative of the prox where h is the Hessian."""
    entries, length = (prox.Huber(0.5, 2.0, radial=radial, selection=selection) for radial in (False, True))
    assert entries.is_separable and not length.is_separable
    s = selection or 0.0
    for g in (entries, length):
        slopes = jax.jit(lambda x, g=g: [jax.jacrev(lambda x: g.prox(x, 0.5))(x), jax.jacfwd(g.gradient)(x / 2)])
        inner, hessian = slopes(np.array([1.0]))
        np.testing.assert_allclose(inner, [[s + (1 - s) / 2]], rtol=1e-15)
        np.testing.assert_allclose(hessian, [[2 * (1 - s)]], atol=1e-15)
        for x in (1e-200, 1e-310):
            np.testing.assert_allclose(slopes(np.array([x]))[0], [[0.5]], rtol=1e-15)


def test_nonnegative_l1_without_weight_is_the_orthant():
    x = np.array([0.0, 2.0, -1.0])
    for s in (0.0, 0.3, "above"):
        pair = prox.Nonnegative(selection=s), prox.NonnegativeL1(0.0, selection=s)
        jacobians = [jacobian(g)(x) for g in pair]
        np.testing.assert_array_equal(*jacobians)
    assert prox.NonnegativeL1(0.0)(x) == np.inf and prox.NonnegativeL1(2.0)(x[:2]) == 4.0


def test_sums_find_the_height():
    for g in (prox.LInf(1.0), prox.SquaredLInf(1.0)):
        text = str(jax.make_jaxpr(jax.grad(lambda x, g=g: g.prox(x, 0.5).sum()))(V3))
        assert (text.count("sort["), text.count("while[")) == (0, 1)


def test_small_complex_entries_have_finite_derivatives():
    terms = prox.LInf(1.0), prox.SquaredLInf(1.0), prox.Huber(1.0), prox.L1Ball(1.0), prox.LInfBall(0.5)
    points = np.array([[size, 1j, 2.0] for size in (1e-160, 1e-200, 1e-310)])
    pull = jax.jit(jax.vmap(lambda x: [jax.vjp(lambda x, g=g: g.prox(x, 1.0), x)[1](1 + 0j * x) for g in terms]))
    assert np.isfinite(pull(points)).all()
