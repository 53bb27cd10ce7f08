"""Elementwise primitives where a table cannot say it: dtypes, integers, shrinkage, PyTorch's selections."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

UNARY = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hard_tanh": jax.nn.hard_tanh,
    "leaky_relu": jax.nn.leaky_relu,
    "abs": jnp.abs,
    "max": jnp.max,
    "min": jnp.min,
    "sort": lambda x: jnp.sort(jnp.ravel(x)),
    "median": jnp.median,
    "norm": jnp.linalg.norm,
}
BINARY = {"maximum": jnp.maximum, "minimum": jnp.minimum, "clip": lambda x, y: jnp.clip(x, y, 5)}
INTEGERS = np.array([-3, 0, 2, 2], np.int32)
KINDS = [1, 1.0, True, np.float32(2), np.float64(0.5), INTEGERS, INTEGERS > 0, INTEGERS.astype(np.uint8)]
KINDS += [jnp.array([1, 0], jnp.bfloat16)[:1], np.array([0.5, -1], np.float16)[:1], np.ones(1, np.float32)]


def ours(name):
    if name == "clip":
        return lambda x, y: nsi.clip(x, y, 5)
    return (lambda x: nsi.sort(jnp.ravel(x))) if name == "sort" else getattr(nsi, name)


def same(ours, jaxs, *arguments):
    a, b = (jax.eval_shape(fun, *arguments) for fun in (ours, jaxs))
    assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type), arguments


@pytest.mark.parametrize("name", UNARY)
def test_dtypes_and_weak_types_are_jaxs(name):
    for x in KINDS:
        same(ours(name), UNARY[name], x)
    np.testing.assert_array_equal(ours(name)(INTEGERS), UNARY[name](INTEGERS))


@pytest.mark.parametrize("name", BINARY)
def test_promotion_is_jaxs(name):
    for x, y in itertools.product(KINDS, KINDS):
        same(ours(name), BINARY[name], x, y)
    np.testing.assert_array_equal(ours(name)(INTEGERS, 1), BINARY[name](INTEGERS, 1))


def test_complex_numbers_have_no_kinks():
    z = jnp.array([3 + 4j, 0])
    np.testing.assert_array_equal(nsi.abs(z), [5, 0])
    np.testing.assert_array_equal(nsi.maximum(z, 1j), jnp.maximum(z, 1j))
    for fun in (nsi.abs, nsi.relu, lambda z, **s: nsi.maximum(z, 1.0, **s)):
        with pytest.raises(nsi.InputError, match="has dtype complex128.*\n.*no order"):
            fun(z, selection=0.5)
    with pytest.raises(ValueError, match="[Cc]omplex"):
        nsi.clip(z, 0, 1)


def test_lists_are_refused_as_jax_does():
    for fun in (nsi.relu, nsi.abs, nsi.max, nsi.sort, nsi.norm):
        with pytest.raises(TypeError):
            fun([1.0, 2.0])


@pytest.mark.parametrize(
    ("fun", "at", "expected"),
    [
        ("relu", 0.0, 0),
        ("relu6", 0.0, 0),
        ("relu6", 6.0, 0),
        ("leaky_relu", 0.0, 0.01),
        ("hard_tanh", 1.0, 0),
        ("abs", 0.0, 0),
        ("maximum", 1.0, 0.5),
        ("minimum", 1.0, 0.5),
        ("clip", 1.0, 1),
        ("clip", 5.0, 1),
        ("soft_threshold", 1.0, 0),
    ],
)
def test_pytorchs_selections(fun, at, expected):
    more = {"maximum": (1.0,), "minimum": (1.0,), "clip": (1.0, 5.0), "soft_threshold": (1.0,)}.get(fun, ())
    slope = jax.grad(lambda x: getattr(nsi, fun)(x, *more, selection=nsi.selections.torch[fun]))(at)
    assert slope == expected


def test_soft_threshold_is_the_prox():
    x = np.array([-np.inf, -2.5, -1, -0.25, -0.0, 0.0, 0.25, 1, np.nextafter(1, 2), 2.5, np.inf, np.nan])
    for t in (0.0, 1.0, 1e-320):
        expected = np.where(np.isnan(x), x, np.copysign(np.maximum(np.abs(x) - t, 0), x))
        np.testing.assert_array_equal(nsi.soft_threshold(x, t), expected)
    assert np.all(np.isnan(nsi.soft_threshold(x, np.nan)))
    assert np.all(nsi.soft_threshold(x[1:-2], np.inf) == 0)


def test_soft_threshold_without_a_threshold_is_the_identity():
    x = jnp.array([-1.0, -0.0, 0.0, 1e-310, 2.0])
    for selection in (None, 0.25, "above"):
        value, pullback = jax.vjp(lambda x, t, s=selection: nsi.soft_threshold(x, t, selection=s), x, jnp.zeros(5))
        assert np.asarray(value).tobytes() == np.asarray(x).tobytes()
        slope, slope_in_t = pullback(jnp.ones(5))
        np.testing.assert_array_equal(slope, np.ones(5))
        np.testing.assert_array_equal(slope_in_t[jnp.array([0, 1, 2, 4])], [1, 0, 0, -1])


def test_soft_threshold_with_a_nan_has_a_nan_derivative():
    slope = jax.vmap(jax.grad(nsi.soft_threshold))
    x = jnp.array([np.nan, 1.0, 3.0])
    np.testing.assert_array_equal(slope(x, jnp.array([1.0, np.nan, 1.0])), [np.nan, np.nan, 1])


def test_soft_threshold_broadcasts_and_promotes():
    x, t = jnp.array([[3.0], [-3.0]]), jnp.array([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(nsi.soft_threshold(x, t), [[2, 1, 0], [-2, -1, 0]])
    np.testing.assert_array_equal(jax.grad(lambda t: nsi.soft_threshold(x, t)[0].sum())(t), [-1, -1, 0])
    assert nsi.soft_threshold(jnp.ones(1, jnp.bfloat16), 0.5).dtype == jnp.bfloat16
    assert nsi.soft_threshold(jnp.array([3]), 1).tolist() == [2.0]


def test_soft_threshold_shrinks_the_modulus_of_complex_numbers(key):
    z = jnp.array([3 + 4j, 0.3 + 0.4j, 0, -5j])
    np.testing.assert_allclose(nsi.soft_threshold(z, 1.0), [2.4 + 3.2j, 0, 0, -4j], rtol=1e-15)
    np.testing.assert_array_equal(nsi.soft_threshold(z, 0.0), z)

    def real(xy, t):
        value = nsi.soft_threshold(xy[0] + 1j * xy[1], t, selection=0.5)
        return jnp.array([value.real, value.imag])

    jacobian = jax.jit(jax.jacrev(real, (0, 1)))
    smooth = jax.jit(real)
    for point in (jnp.array([3.0, 4.0]), jnp.array([-1.0, 2.0])):
        by_point, by_threshold = jacobian(point, 1.0)
        step = 1e-6  # central differences of a smooth function: error of order 1e-11
        columns = [(smooth(point + step * e, 1.0) - smooth(point - step * e, 1.0)) / (2 * step) for e in np.eye(2)]
        np.testing.assert_allclose(by_point, np.stack(columns, -1), atol=1e-9)
        np.testing.assert_allclose(by_threshold, -point / jnp.linalg.norm(point), rtol=1e-14)
    np.testing.assert_array_equal(jacobian(jnp.zeros(2), 1.0)[0], np.zeros((2, 2)))
    np.testing.assert_array_equal(jacobian(jnp.zeros(2), 0.0)[0], np.eye(2))
    # On the circle |z| = t: half of the derivative outside, which keeps directions along the circle.
    np.testing.assert_allclose(jacobian(jnp.array([1.0, 0.0]), 1.0)[0], [[0.5, 0], [0, 0]], atol=1e-15)


def test_soft_threshold_of_tiny_complex_numbers():
    """Squares of their moduli are out of range; without a threshold the derivative is the identity."""
    x = jnp.array([1e-155, 1e-300j, 5e-324, 1e-170 + 1e-170j])
    for threshold, expected in ((0.3, 0), (0.0, 1)):
        _, pull = jax.vjp(lambda x, t: nsi.soft_threshold(x, t), x, threshold)
        dx, dt = pull(jnp.ones(4, complex))
        np.testing.assert_array_equal(dx, np.full(4, expected))
        assert np.isfinite(dt)


def test_thresholds_that_cannot_be():
    with pytest.raises(nsi.InputError, match=r"soft_threshold\(threshold=.*smallest threshold is -0\.5"):
        nsi.soft_threshold(1.0, np.array([1.0, -0.5]))
    with pytest.raises(nsi.InputError, match="threshold has dtype complex128"):
        nsi.soft_threshold(1.0, 1j)


def test_hessians_of_shrinkage_are_finite():
    hessian = jax.jit(jax.hessian(lambda xt: nsi.soft_threshold(xt[0] + 1j * xt[1], xt[2]).real))
    assert np.all(np.isfinite(hessian(jnp.zeros(3)))) and np.all(np.isfinite(hessian(jnp.array([1.0, 0, 1]))))
