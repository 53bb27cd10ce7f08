"""Each linear solver inside the rule: both modes, every order, lanes, a mesh, 16 bits, and exports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi
from nsimplicit.linear_solvers import (
    CG,
    GMRES,
    Auto,
    BiCGStab,
    Dense,
    FixedPointAdjoint,
    NormalCG,
    ProxCG,
    RestrictedCholesky,
)

N = 8
RNG = np.random.default_rng(0)
W = 0.4 * RNG.normal(size=(N, N)) / np.sqrt(N)
A = np.linalg.qr(RNG.normal(size=(12, N)))[0] + 0.05 * RNG.normal(size=(12, N))  # 16 bits must find the support
SYMMETRIC = (W + W.T) / 2


def tanh_map(theta, derivative, tap=None):
    """A general contraction."""
    x = theta * jnp.cos(jnp.arange(N)).astype(theta.dtype)
    T = lambda z, x: jnp.tanh(W.astype(x.dtype) @ z + x)  # noqa: E731
    return nsi.fixed_point(T, 0 * theta * jnp.ones(N, theta.dtype), x, derivative=derivative, tap=tap).value


def gradient_root(theta, derivative, tap=None):
    """A symmetric Jacobian: the gradient of a strongly convex function."""
    b = theta * jnp.cos(jnp.arange(N)).astype(theta.dtype)

    def F(z, b):
        return z + SYMMETRIC.astype(z.dtype) @ z + z**3 / 10 - b

    return nsi.root(F, 0 * theta * jnp.ones(N, theta.dtype), b, derivative=derivative, tap=tap).value


def lasso(theta, derivative, tap=None):
    f = nsi.prox.LeastSquares(A.astype(theta.dtype), jnp.cos(jnp.arange(12)).astype(theta.dtype) * (1 + theta**2))
    T = nsi.splittings.ForwardBackward(f, nsi.prox.L1(theta / 2), 0.7)
    return nsi.fixed_point(
        T, 0 * theta * jnp.ones(N, theta.dtype), derivative=derivative, max_steps=5000, tap=tap
    ).value


ROWS = {
    "Dense": (Dense(), tanh_map),
    "GMRES": (GMRES(), tanh_map),
    "BiCGStab": (BiCGStab(), tanh_map),
    "NormalCG": (NormalCG(), tanh_map),
    "FixedPointAdjoint": (FixedPointAdjoint(nsi.solvers.Anderson()), tanh_map),
    "Auto": (Auto(), tanh_map),
    "CG": (CG(), gradient_root),
    "ProxCG": (ProxCG(), lasso),
    "RestrictedCholesky": (RestrictedCholesky(), lasso),
}


def value(name):
    solver, problem = ROWS[name]
    weight = np.cos(np.arange(N))
    derivative = nsi.derivatives.Implicit(linear_solver=solver)
    return lambda theta: jnp.sum(weight.astype(theta.dtype) * problem(theta, derivative))


@functools.cache
def reference(problem, dtype=float):
    """Central differences of the solution, in float64."""
    weight = np.cos(np.arange(N))

    @jax.jit
    def f(theta):
        return jnp.sum(weight * problem(theta, nsi.derivatives.Implicit()))

    h = 1e-4
    low, middle, high = (float(f(jnp.asarray(0.5 + t))) for t in (-h, 0, h))
    return (high - low) / (2 * h), (high - 2 * middle + low) / h**2


@pytest.mark.parametrize("name", ROWS)
def test_modes_orders_and_lanes(name):
    f = value(name)
    slope, curvature = reference(ROWS[name][1])

    @jax.jit
    def run(theta):
        forward = jax.jvp(f, (theta,), (jnp.ones(()),))[1]
        lanes = jax.vmap(jax.grad(f))(jnp.stack([theta, 2 * theta]))
        return forward, jax.grad(f)(theta), jax.hessian(f)(theta), jax.grad(jax.grad(f))(theta), lanes[0]

    forward, backward, second, twice, lane = run(jnp.asarray(0.5))
    np.testing.assert_allclose([forward, backward, lane], slope, rtol=1e-5)
    np.testing.assert_allclose([second, twice], curvature, rtol=1e-3, atol=1e-4)
    assert abs(curvature) > 1e-2


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", ["Dense", "GMRES", "FixedPointAdjoint", "RestrictedCholesky"])
def test_low_precision_states(name, dtype):
    """The tangent system is solved in float32: the error is that of the 16-bit solution and data."""
    got = jax.jit(jax.grad(value(name)))(jnp.asarray(0.5, dtype))
    assert got.dtype == dtype
    rtol = 1e-3 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(float(got), reference(ROWS[name][1])[0], rtol=rtol)


@pytest.mark.parametrize("name", ROWS)
def test_shard_map_with_replica_checks(name):
    """Lanes on eight devices; the gradient in a replicated parameter is a sum over them."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    f = value(name)

    def local(shared, theta):
        return jax.lax.psum(f(shared * theta[0]), "data")

    total = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    thetas = 0.5 * jnp.ones(8)
    gradient = jax.jit(jax.grad(total))(jnp.ones(()), thetas)
    np.testing.assert_allclose(gradient, 8 * 0.5 * reference(ROWS[name][1])[0], rtol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_exports(name):
    f = jax.jit(jax.grad(value(name)))
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    for platform in ("cuda", "tpu"):
        assert jax.export.export(f, platforms=[platform])(shape).mlir_module()
