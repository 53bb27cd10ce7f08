"""Laws of every primitive: JAX's values and derivatives, and the derivative you ask for at a kink."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nsimplicit as nsi
from tests.cases.primitives import ROWS, VARIANTS

rows = pytest.mark.parametrize("row", ROWS, ids=[f"{row.name}-{i}" for i, row in enumerate(ROWS)])
CASES = [(row, dtype) for row in ROWS for dtype in ("float64", "float32")]
CASES += [(row, "bfloat16") for row in ROWS if row.primitive == "switch" or row.name in ("max", "sort")]
CASES += [(row, "float64") for row in VARIANTS]
cases = pytest.mark.parametrize(("row", "dtype"), CASES, ids=[f"{r.name}-{i}-{d}" for i, (r, d) in enumerate(CASES)])
KINKS = [(row, kink) for row in ROWS for kink in row.kinks]
kinks = pytest.mark.parametrize(("row", "kink"), KINKS, ids=[f"{row.name}-{i}" for i, (row, _) in enumerate(KINKS)])


def numbers(shape, dtype):
    """Positive numbers that every dtype holds exactly, no two neighbours equal."""
    return jnp.asarray(((np.arange(np.prod(shape)) * 5 % 64 + 1) / 8).reshape(shape).astype(dtype))


def derivatives(fun, x):
    """The value, a cotangent pulled back, a tangent pushed forward."""
    value, pullback = jax.vjp(fun, x)
    (gradient,) = pullback(numbers(value.shape, value.dtype))
    return value, gradient, jax.jvp(fun, (x,), (numbers(x.shape, x.dtype),))[1]


@cases
def test_values_and_derivatives_are_jaxs(row, dtype):
    x = jnp.asarray(row.special(jnp.dtype(dtype)))
    ours, jaxs = jax.jit(lambda x: (derivatives(row.ours, x), derivatives(row.jaxs, x)))(x)
    assert [z.shape for z in ours] == [z.shape for z in jaxs] and [z.dtype for z in ours] == [z.dtype for z in jaxs]
    assert np.asarray(ours[0]).tobytes() == np.asarray(jaxs[0]).tobytes()
    for a, b in zip(ours[1:], jaxs[1:], strict=True):
        a, b = (np.asarray(z).astype(np.float64) for z in (a, b))
        slack = row.ulps * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(a, b, rtol=slack, atol=0)


@rows
def test_eager_values_are_jaxs(row):
    x = jnp.asarray(row.special(np.dtype("float32")))
    ours, jaxs = row.ours(x), row.jaxs(x)
    assert ours.dtype == jaxs.dtype and np.asarray(ours).tobytes() == np.asarray(jaxs).tobytes()


@rows
def test_empty_arrays(row):
    x = jnp.zeros((row.arguments, *row.empty) if row.arguments > 1 else row.empty)
    ours, jaxs = jax.jit(lambda x: (derivatives(row.ours, x), derivatives(row.jaxs, x)))(x)
    assert [z.shape for z in ours] == [z.shape for z in jaxs] and ours[0].size == ours[1].size == 0


@kinks
def test_presets_are_legal_and_the_jax_one_is_the_default(row, kink):
    x = jnp.asarray(kink.at)
    if row.name == "ordering":
        assert "ordering" not in nsi.selections.jax  # its tie is not optional
        return
    jax_preset, torch_preset = (preset[row.name] for preset in (nsi.selections.jax, nsi.selections.torch))
    default, ours, torchs = jax.jit(
        lambda x: [jax.jacrev(lambda x, s=s: row.ours(x, selection=s))(x) for s in (None, jax_preset, torch_preset)]
    )(x)
    np.testing.assert_array_equal(ours, default)
    assert np.all(np.isfinite(torchs))


@kinks
def test_the_derivative_at_a_kink_is_the_selected_one(row, kink):
    x = jnp.asarray(kink.at)
    chosen = [{} if selection is None else {"selection": selection} for selection, _ in kink.jacobians]

    @jax.jit
    def at_kink(x):
        values = [row.ours(x, **choice) for choice in chosen]
        return values, [jax.jacrev(lambda x, choice=choice: row.ours(x, **choice))(x) for choice in chosen]

    values, jacobians = at_kink(x)
    for choice, value, jacobian, (_, expected) in zip(chosen, values, jacobians, kink.jacobians, strict=True):
        # Sums of weights and of thirds round in the last place.
        np.testing.assert_allclose(jacobian, expected, rtol=0, atol=1e-15, err_msg=str(choice))
        assert np.asarray(value).tobytes() == np.asarray(values[0]).tobytes()


@kinks
def test_selections_span_the_limits_of_nearby_jacobians(row, kink, key):
    x = jnp.asarray(kink.at)
    if not kink.limits:  # the norm: every unit vector is a limit
        gradients = jax.jit(jax.vmap(jax.grad(row.ours)))(1e-8 * jax.random.normal(key, (64, *x.shape)))
        np.testing.assert_allclose(jnp.sum(gradients**2, -1), 1, atol=1e-12)
        assert all(np.sum(np.square(jacobian)) <= 1 + 1e-12 for _, jacobian in kink.jacobians)
        return
    nearby = np.asarray(x) + 1e-8 * np.asarray(jax.random.normal(key, (256, *x.shape)))
    found = np.asarray(jax.jit(jax.vmap(jax.jacfwd(row.ours)))(nearby)).reshape(256, -1)
    limits = np.stack([np.ravel(limit) for limit in kink.limits])
    # 1e-7: the branch 2x + x^2 has slope 2 + 2x at the points 1e-8 away.
    near = np.abs(found[:, None] - limits[None]).max(-1) < 1e-7
    assert near.any(1).all(), "a Jacobian nearby is no limit in the table"
    assert near.any(0).all(), "no Jacobian nearby is this limit of the table"
    for selection, jacobian in kink.jacobians:
        hull = np.vstack([limits.T, np.ones(len(limits))])
        _, distance = scipy.optimize.nnls(hull, np.append(np.ravel(jacobian), 1.0))
        assert distance < 1e-12, f"{selection=} is outside the convex hull of the limits"


@rows
def test_wrong_selections_say_what_fits(row):
    x = jnp.asarray(row.kinks[0].at)
    for selection, match in row.wrong:
        with pytest.raises(nsi.InputError, match=re.compile(match, re.DOTALL)) as error:
            row.ours(x, selection=selection)
        first, _, last = str(error.value).split("\n")
        assert first.startswith(f"`{row.name}(") and last.startswith("Try: (a) ")


@rows
def test_primitives_are_visible_in_jaxprs(row):
    x = jnp.asarray(row.kinks[0].at)

    def found(fun):
        equations = jax.make_jaxpr(fun)(x).eqns
        return [e.params for e in equations if e.primitive.name in ("switch", "ordering")]

    default = found(row.ours)
    assert default and {params["name"] for params in default} == {row.name}
    if row.name != "ordering":  # its tie is not optional
        assert not any(params["explicit"] for params in default)
    chosen = found(lambda x: row.ours(x, selection=row.selection))
    assert len(chosen) == len(default) and all(params["explicit"] for params in chosen)
    names = {e.primitive.name for e in jax.make_jaxpr(row.ours)(x).eqns}
    assert row.primitive in names


def test_the_star_import_hides_no_builtin():
    names = {}
    exec("from nsimplicit.primitives import *", names)
    assert "relu" in names and not {"abs", "max", "min"} & set(names)
