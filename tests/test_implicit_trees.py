"""Solutions of every kind: dtypes, leaves that are no floats, and the traps of systems with several leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import guards


def given(equation, solution, decorate=nsi.custom_root, **options):
    """The decorated solver that returns ``solution`` whatever it is asked."""
    return decorate(equation, init_argnum=None, **options)(lambda *theta: solution)


def test_mixed_float_dtypes():
    z = (np.float32(2.0), np.float64(3.0))
    solve = given(lambda z, a: (z[0] ** 2 - a, z[1] - z[0] - a / 4), z)
    out, moved, pulled = jax.jit(lambda a: (*jax.jvp(solve, (a,), (1.0,)), jax.grad(lambda a: solve(a)[1])(a)))(4.0)
    assert [x.dtype for x in out] == [x.dtype for x in moved] == [jnp.float32, jnp.float64]
    np.testing.assert_allclose([*moved, pulled], [0.25, 0.5, 0.5], rtol=1e-7)  # float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_are_solved_in_float32(dtype):
    # Condition number 400: a solve in bfloat16 (eps 8e-3) has no digit right; the guard of float32 passes.
    M = np.array([[1.0, 0.99], [0.99, 0.9851]])
    b = M @ np.array([1.0, -1.0])
    solve = given(lambda x, b: jnp.asarray(M, jnp.float32) @ x - b, jnp.array([1.0, -1.0], dtype))
    b = jnp.asarray(b, dtype)
    jacobian = jax.jit(jax.jacrev(solve))(b)
    assert solve(b).dtype == jacobian.dtype == dtype
    np.testing.assert_allclose(np.asarray(jacobian, float), np.linalg.inv(M), rtol=float(jnp.finfo(dtype).eps))


def test_sixteen_bit_leaf_beside_others():
    z = (jnp.asarray(2.0, jnp.bfloat16), np.float64(3.0))
    solve = given(lambda z, a: (z[0] ** 2 - a, z[1] - z[0] - a / 4), z)
    assert [x.dtype for x in solve(4.0)] == [jnp.bfloat16, jnp.float64]
    assert jax.jit(jax.grad(lambda a: solve(a)[1]))(4.0) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("decorate", [nsi.custom_root, nsi.custom_fixed_point])
def test_leaves_that_are_no_floats_are_kept(decorate):
    key, count = jax.random.key(0), jnp.arange(3)
    z = {"x": 2.0, "key": key, "count": count, "none": None, "flag": np.array(True)}

    def equation(z, a):
        assert z["key"].dtype == key.dtype and z["none"] is None
        x = z["x"] * (1 + 0 * jax.random.uniform(z["key"]) + 0 * z["count"][0])
        return {**z, "x": (x + a / x) / 2} if decorate is nsi.custom_fixed_point else x**2 - a

    solve = given(equation, z, decorate)
    out = jax.jit(solve)(4.0)
    assert out["key"] == key and out["count"].dtype == count.dtype and out["flag"].dtype == bool
    np.testing.assert_array_equal(out["count"], count)
    assert jax.jit(jax.grad(lambda a: solve(a)["x"]))(4.0) == pytest.approx(0.25)


def test_traced_key_in_the_solution():
    def outer(a, key):
        solve = given(lambda z, a: z[0] ** 2 - a * jax.random.uniform(z[1]), None)
        solve.solver = lambda a: (jnp.sqrt(a * jax.random.uniform(key)), key)
        return solve(a)[0]

    key = jax.random.key(1)
    want = np.sqrt(float(jax.random.uniform(key)) / 4) / 2
    assert jax.jit(jax.grad(outer))(4.0, key) == pytest.approx(want)


def test_residual_of_another_structure_and_equal_size():
    solve = given(lambda z, a: {"r": jnp.stack([z[1] - z[0] * a, z[0] ** 2 - a])}, (2.0, 8.0))
    np.testing.assert_allclose(jax.jit(jax.jacrev(solve))(4.0), (0.25, 3.0))  # sqrt(a), a^1.5


def test_empty_states():
    solve = given(lambda z, a: z * a, jnp.zeros((0, 3)))
    assert jax.jit(jax.jacrev(solve))(1.0).shape == jax.jacfwd(solve)(1.0).shape == (0, 3)
    solve = given(lambda z, a: (z[0] * a, z[1] ** 2 - a), (jnp.zeros((0,)), 2.0))
    assert jax.jit(jax.grad(lambda a: solve(a)[1]))(4.0) == pytest.approx(0.25)


def test_a_leaf_of_the_residual_without_parameters():
    """jax-ml/jax#10929: custom_linear_solve transposes only if every leaf depends on the linear input."""
    solve = given(lambda z, a: (z[0] ** 2 - a, z[1] ** 3 - 8.0), (2.0, 2.0))
    g = jax.grad(lambda a: solve(a)[0] * solve(a)[1])
    first, second = jax.jit(jax.value_and_grad(g))(4.0)  # of 2 sqrt(a)
    assert (first, second) == (pytest.approx(0.5), pytest.approx(-1 / 16))


def test_a_leaf_of_the_product_without_curvature():
    """The same trap at second order: the product with a linear residual does not depend on the solution."""
    solve = given(lambda z, a: (z[0] ** 2 - a, 3 * z[1] - a), (2.0, 4 / 3))
    f = lambda a: solve(a)[0] * solve(a)[1]  # noqa: E731
    for outer, inner in [(jax.grad, jax.grad), (jax.jacfwd, jax.grad), (jax.grad, jax.jacfwd)]:
        assert jax.jit(outer(inner(f)))(4.0) == pytest.approx(0.125)  # of a^1.5 / 3: a^-0.5 / 4


def test_an_output_nobody_reads():
    """The same trap again: its cotangent is a constant, also where the pulled-back function is transposed."""
    solve = given(lambda z, a: (z[0] ** 2 - a, 3 * z[1] - a), (2.0, 4 / 3))
    assert jax.jit(jax.grad(jax.grad(lambda a: solve(a)[0])))(4.0) == pytest.approx(-1 / 32)
    assert jax.jit(jax.grad(jax.grad(lambda a: solve(a)[1])))(4.0) == 0.0
    pull = jax.jit(jax.grad(lambda c: jax.vjp(solve, 4.0)[1]((c, 1.0))[0]))
    assert pull(1.0) == pytest.approx(0.25)


def test_an_unknown_that_enters_no_residual():
    """A zero column: no derivative exists, and that is said by nan, not by an error of JAX or by a number."""
    solve = given(lambda z, a: (z[0] ** 2 - a, z[0] - 2.0), (2.0, 2.0))
    assert np.isnan(jax.jit(jax.grad(lambda a: solve(a)[1]))(4.0))
    assert np.isnan(jax.jit(lambda a: jax.jvp(solve, (a,), (1.0,))[1][1])(4.0))


def test_the_guard_leaves_the_rule_linear():
    """A guard that looked at the tangent would make the rule nonlinear: it could not be transposed or linearised."""
    M = np.array([[2.0, 1.0], [0.0, 1.0]])
    for on_failure in ("nan", "least_squares"):
        derivative = nsi.derivatives.Implicit(guard=guards.Solved(on_failure=on_failure))
        solve = given(lambda x, b: M @ x - b, np.linalg.solve(M, np.ones(2)), derivative=derivative)

        @jax.jit
        def both(v, solve=solve):
            _, push = jax.linearize(solve, jnp.ones(2))
            return push(v), jax.linear_transpose(push, v)(v)[0]

        pushed, pulled = both(jnp.array([1.0, 2.0]))
        np.testing.assert_allclose(pushed, np.linalg.solve(M, [1.0, 2.0]))
        np.testing.assert_allclose(pulled, np.linalg.solve(M.T, [1.0, 2.0]))
