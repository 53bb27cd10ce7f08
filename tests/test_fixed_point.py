"""fixed_point and root: tolerances, dtypes, trees, traces that are made once, and input that cannot work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi


def counted():
    """A contraction that counts how often its Python code runs. It closes over nothing it could change."""
    calls = []

    def T(z, theta):
        calls.append(1)
        return 0.5 * jnp.cos(z) + theta

    return T, calls


TRACES = []


def global_map(z, theta):
    TRACES.append(1)
    return 0.5 * jnp.cos(z) + theta


def test_eager_calls_trace_a_plain_function_once():
    theta = jnp.arange(3.0)
    for derivative in (nsi.derivatives.Implicit(), nsi.derivatives.Neumann(3)):
        TRACES.clear()
        for tol, max_steps in ((1e-3, 10), (1e-6, 20), (1e-9, 1000)):
            nsi.fixed_point(global_map, jnp.zeros(3), theta, derivative=derivative, tol=tol, max_steps=max_steps)
        assert len(TRACES) == 1


def test_tolerance_and_steps_may_be_traced():
    T, calls = counted()
    solve = jax.jit(lambda tol, n: nsi.fixed_point(T, 0.0, 1.0, tol=tol, max_steps=n).num_steps)
    steps = [int(solve(tol, n)) for tol, n in ((1e-2, 100), (1e-6, 100), (1e-12, 100), (1e-12, 3))]
    assert steps == sorted(steps[:3]) + [3] and len(set(steps)) == 4
    assert len(calls) == 1


def test_a_closure_sees_what_it_captured_change():
    box = {"theta": 1.0}
    T = lambda z: 0.5 * z + box["theta"]  # noqa: E731
    assert nsi.fixed_point(T, 0.0, tol=1e-9).value == pytest.approx(2.0)
    box["theta"] = 3.0
    assert nsi.fixed_point(T, 0.0, tol=1e-9).value == pytest.approx(6.0)


def test_what_residual_and_converged_mean():
    solution = nsi.fixed_point(lambda z: 0.5 * z + 1, jnp.zeros(4), tol=1e-6)
    assert solution.converged and solution.residual <= 1e-6
    early = nsi.fixed_point(lambda z: 0.5 * z + 1, jnp.zeros(4), max_steps=3)
    assert not early.converged and early.num_steps == 3
    np.testing.assert_allclose(early.value, 1.75)  # three plain steps
    z = jnp.full(4, 1.5)  # the last point evaluated
    np.testing.assert_allclose(early.residual, jnp.linalg.norm(0.5 * z + 1 - z) / (1 + jnp.linalg.norm(z)))
    none = nsi.fixed_point(lambda z: 0.5 * z + 1, jnp.zeros(4), max_steps=0)
    assert not none.converged and none.num_steps == 0 and jnp.all(none.value == 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "solver", [nsi.solvers.Picard(), nsi.solvers.Picard(0.8), nsi.solvers.Anderson(), nsi.solvers.Broyden()]
)
def test_the_state_keeps_its_dtype(dtype, solver):
    theta = jnp.asarray(0.2, dtype)
    solve = jax.value_and_grad(lambda t: nsi.fixed_point(lambda z, t: 0.8 * z + t, jnp.zeros((), dtype), t).value)
    value, slope = solve(theta)
    assert value.dtype == slope.dtype == dtype
    tol = float(jnp.finfo(dtype).eps) ** (2 / 3)  # on the residual, relative to 1 + |z| = 2; the error is 4 times that
    # The slope is solved for in float32: with the 0.8 of bfloat16 it would be 5.03, with that of float16 4.996.
    assert abs(float(value) - 1) <= 8 * tol and abs(float(slope) - 5) < 1e-3


def test_a_numpy_step_does_not_promote_a_float32_loop():
    A, b = jnp.eye(3, dtype=jnp.float32), jnp.ones(3, jnp.float32)
    f, g = nsi.prox.LeastSquares(A, b), nsi.prox.L1(jnp.float32(0.1))
    for T in (
        nsi.splittings.ForwardBackward(f, g, np.float64(0.5)),
        nsi.splittings.DouglasRachford(f, g, np.float64(0.5)),
        nsi.splittings.ADMM(f, g, step=np.float64(0.5)),
        nsi.splittings.DavisYin(f, g, nsi.prox.Zero(), np.float64(0.5), np.float64(1.1)),
        nsi.splittings.ChambollePock(f, g, np.eye(3), np.float64(0.5), np.float64(0.8), np.float64(0.9)),
    ):
        z0 = jnp.zeros(3, jnp.float32)
        solution = nsi.fixed_point(T, (z0, z0) if isinstance(T, nsi.splittings.ChambollePock) else z0)
        assert {x.dtype for x in jax.tree.leaves((solution.value, T(solution.z)))} == {jnp.dtype(jnp.float32)}
        np.testing.assert_allclose(solution.value, 0.9, rtol=1e-4)  # tolerance 2.4e-5 over 1 - factor


def test_trees_strings_and_functions_as_arguments():
    def T(z, how, act, theta):
        assert how == "half"
        return {"a": 0.5 * act(z["a"]) + theta["t"], "b": (0.25 * z["b"][0],)}

    z0 = {"a": jnp.zeros(2), "b": (jnp.ones(3, jnp.float32),)}

    def loss(theta):
        return nsi.fixed_point(T, z0, "half", jnp.sin, theta, tol=1e-6).value["a"].sum()

    slope = jax.grad(loss)({"t": jnp.array([0.1, 0.2])})["t"]
    z = nsi.fixed_point(T, z0, "half", jnp.sin, {"t": jnp.array([0.1, 0.2])}, tol=1e-12).value["a"]
    np.testing.assert_allclose(slope, 1 / (1 - 0.5 * jnp.cos(z)), rtol=1e-4)  # the forward tolerance is 1e-6


@pytest.mark.parametrize(
    ("T", "z0", "pattern"),
    [
        (lambda z: (z, z), jnp.zeros(2), r"fixed_point[\s\S]*state like the one it is given"),
        (lambda z: jnp.concatenate([z, z]), jnp.zeros(2), r"fixed_point[\s\S]*4 numbers"),
        (lambda z: z, jnp.zeros(2, int), r"fixed_point[\s\S]*no floating-point leaf"),
    ],
    ids=["structure", "shape", "integers"],
)
def test_a_map_that_does_not_fit_is_refused(T, z0, pattern):
    with pytest.raises(nsi.InputError, match=pattern):
        nsi.fixed_point(T, z0)


def test_root():
    A = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) + 4 * np.eye(3))

    def F(x, b):
        return A @ x + x**3 - b

    b = jnp.array([1.0, -2.0, 0.5])
    solution = jax.jit(nsi.root, static_argnums=0)(F, jnp.zeros(3), b)
    assert solution.converged and solution.num_steps < 10
    np.testing.assert_allclose(F(solution.value, b), 0, atol=1e-10)
    jacobian = jax.jacobian(lambda b: nsi.root(F, jnp.zeros(3), b).value)(b)
    np.testing.assert_allclose(jacobian, jnp.linalg.inv(A + jnp.diag(3 * solution.value**2)), rtol=1e-9)
    with pytest.raises(nsi.InputError, match=r"root\(solver=Picard\(\)\)[\s\S]*SemismoothNewton"):
        nsi.root(F, jnp.zeros(3), b, solver=nsi.solvers.Picard())
    with pytest.raises(nsi.InputError, match=r"root[\s\S]*square"):
        nsi.root(lambda x: x[:2], jnp.zeros(3))


def test_inside_scan_and_vmap():
    def step(carry, theta):
        value, slope = jax.value_and_grad(lambda t: nsi.fixed_point(global_map, 0.0, t).value)(theta)
        return carry + slope, value

    thetas = jnp.linspace(0.0, 1.0, 5)
    total, values = jax.jit(lambda t: jax.lax.scan(step, 0.0, t))(thetas)
    slopes = jax.vmap(jax.grad(lambda t: nsi.fixed_point(global_map, 0.0, t).value))(thetas)
    np.testing.assert_allclose(total, slopes.sum(), rtol=1e-12)
    np.testing.assert_allclose(slopes, 1 / (1 + 0.5 * jnp.sin(values)), rtol=1e-9)


def test_broyden_solves_a_linear_equation_in_twice_as_many_steps_as_unknowns():
    """D. Gay, Some convergence properties of Broyden's method (1979); plain iteration takes 300."""
    n = 4
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0])
    found = nsi.fixed_point(lambda z: 0.9 * turn @ z + 1, jnp.zeros(n), solver=nsi.solvers.Broyden(), tol=1e-9)
    assert found.converged and found.num_steps <= 2 * n + 1
