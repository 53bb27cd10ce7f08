"""One state split over eight devices: the solve neither hangs nor differs from the one on a single device.

The devices converge at different speeds. A stopping test that looked at the local part of the state would let some
devices leave the loop while others wait for them in a collective, for ever; so the table runs in a child process,
under a time-out.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi

D, S = nsi.derivatives, nsi.solvers
SIZE = 16
TIMEOUT = 300  # seconds; the child needs about 20

ROWS = {
    "Picard": (S.Picard(), D.Implicit()),
    "Picard, relaxed": (S.Picard(0.8), D.Unrolled(120)),
    "Picard, BiCGStab": (S.Picard(), D.Implicit(nsi.linear_solvers.BiCGStab())),
    "Picard, NormalCG": (S.Picard(), D.Implicit(nsi.linear_solvers.NormalCG())),
    "Anderson": (S.Anderson(), D.Implicit(nsi.linear_solvers.GMRES())),
    "Nesterov": (S.Nesterov(), D.Neumann(120)),
    "SemismoothNewton": (S.SemismoothNewton(), D.Implicit()),
    "SemismoothNewton, GMRES": (S.SemismoothNewton(nsi.linear_solvers.GMRES()), D.OneStep()),
    "Anderson, unrolled": (S.Anderson(), D.Unrolled(60, checkpoint=True)),
    "Nesterov, forward": (S.Nesterov(), D.Piggyback()),
}


def coupled(total):
    """T for a way to sum over the whole state: nonlinear, nonsymmetric, one device slower than the next."""

    def T(z, weight, data, rate):
        hidden = jnp.tanh(total(rate * z) + weight)  # replicated, and so is the weight it meets
        return rate * jnp.tanh(z) + data * weight * hidden / SIZE + data

    return T


def problem():
    rng = np.random.default_rng(0)
    data, rate = jnp.asarray(rng.normal(size=SIZE)), jnp.linspace(0.0, 0.7, SIZE)
    return jnp.asarray(0.3), data, rate


def solve(T, solver, derivative, axis_name=()):
    def run(weight, data, rate):
        z0 = jnp.zeros_like(data)
        out = nsi.fixed_point(
            T, z0, weight, data, rate, solver=solver, derivative=derivative, tol=1e-13, axis_name=axis_name
        )
        return out.value, out.num_steps, out.residual, out.converged

    return run


def over_devices(run, *specs, check_vma=True):
    """``run`` with its state split over the axis "m" of eight devices."""
    mesh = jax.make_mesh((8,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    outs = (P("m"), P(), P(), P())
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=check_vma)


def value_and_derivatives(run, derivative):
    theta, seed = problem(), jnp.sin(jnp.arange(1.0, SIZE + 1))

    @jax.jit
    def everything(theta, seed):
        def value(*theta):
            out = run(*theta)
            return out[0], out[1:]

        x, linear, numbers = jax.linearize(value, *theta, has_aux=True)
        forward = linear(*(jnp.cos(t) for t in theta))
        reverse = () if isinstance(derivative, D.Piggyback) else jax.linear_transpose(linear, *theta)(seed)
        return x, forward, reverse, numbers

    return jax.tree.map(np.asarray, everything(theta, seed))


def main():
    """In the child: one line of JSON for each row, the sharded numbers and the plain ones."""
    for name, (solver, derivative) in ROWS.items():
        plain = value_and_derivatives(solve(coupled(jnp.sum), solver, derivative), derivative)
        total = coupled(lambda x: jax.lax.psum(jnp.sum(x), "m"))
        run = over_devices(solve(total, solver, derivative, "m"), P(), P("m"), P("m"))
        sharded = value_and_derivatives(run, derivative)
        print(json.dumps([name, *([np.asarray(x).tolist() for x in jax.tree.leaves(r)] for r in (sharded, plain))]))
        sys.stdout.flush()


@pytest.fixture(scope="module")
def rows():
    result = subprocess.run(
        [sys.executable, "-m", "tests.test_sharded"],
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: (sharded, plain) for name, sharded, plain in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize("name", ROWS)
def test_a_split_state_gives_what_the_whole_one_gives(rows, name):
    sharded, plain = rows[name]
    *numbers, steps, residual, converged = (np.asarray(x) for x in sharded)
    assert converged and residual <= 1e-13
    assert steps == plain[-3]
    # GMRES stops at 1.8e-12 of the right-hand side; sums over devices are added in another order.
    for got, expected in zip(numbers, plain[:-3], strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-11)


def test_the_residual_is_that_of_the_whole_state():
    # Far from the solution: a norm with another factor shows in it, and hardly in the number of steps.
    total = coupled(lambda x: jax.lax.psum(jnp.sum(x), "m"))
    run = over_devices(solve(total, S.Picard(), D.Unrolled(3), "m"), P(), P("m"), P("m"))
    expected = solve(coupled(jnp.sum), S.Picard(), D.Unrolled(3))(*problem())[2]
    np.testing.assert_allclose(jax.jit(run)(*problem())[2], expected, rtol=1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_collective_without_axis_name_is_refused_when_traced(check_vma):
    total = coupled(lambda x: jax.lax.psum(jnp.sum(x), "m"))
    run = over_devices(solve(total, S.Picard(), D.Implicit()), P(), P("m"), P("m"), check_vma=check_vma)
    with pytest.raises(nsi.InputError, match=r"mesh axis m(.|\n)*hang(.|\n)*axis_name=\('m',\)"):
        jax.eval_shape(run, *problem())


def test_dense_factors_of_a_split_matrix_are_refused_when_traced():
    total = coupled(lambda x: jax.lax.psum(jnp.sum(x), "m"))
    solver = S.SemismoothNewton(nsi.linear_solvers.Dense())
    run = over_devices(solve(total, solver, D.Implicit(), "m"), P(), P("m"), P("m"))
    with pytest.raises(nsi.InputError, match=r"Dense\(\)(.|\n)*GMRES"):
        jax.eval_shape(run, *problem())


@pytest.mark.parametrize("mode", [D.Implicit(), D.Unrolled(80), D.Neumann(80)], ids=lambda d: type(d).__name__)
def test_a_lasso_split_by_features(mode):
    # The columns of the matrix lie on eight devices; the residual A x - b is a sum over them.
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.normal(size=(24, SIZE)))
    A = jnp.asarray(left * np.linspace(1, 2, SIZE))
    b = A @ jnp.where(jnp.arange(SIZE) % 5 == 0, 2.0, 0.0) + 0.1 * jnp.asarray(rng.normal(size=24))

    def lasso(total, axis_name, weight, A):
        def loss(x, A):
            return 0.5 * jnp.sum((total(A @ x) - b) ** 2)

        T = nsi.splittings.ForwardBackward(nsi.smooth(loss, A), nsi.prox.L1(weight), 0.4)
        z0 = jnp.zeros_like(A[0])
        out = nsi.fixed_point(T, z0, derivative=mode, tol=1e-13, axis_name=axis_name)
        return out.value, out.num_steps, out.residual, out.converged

    psum = over_devices(functools.partial(lasso, lambda v: jax.lax.psum(v, "m"), "m"), P(), P(None, "m"))
    plain = functools.partial(lasso, lambda v: v, ())

    weight = jnp.asarray(0.3)

    @functools.partial(jax.jit, static_argnums=0)
    def slopes(run, weight, A):
        forward = jax.jvp(lambda w: run(w, A)[0], (weight,), (weight,))
        return forward, jax.grad(lambda A: jnp.sum(run(weight, A)[0] ** 2))(A)

    # ProxCG stops at 1.8e-12 of the right-hand side; 80 terms of a series with ratio .6 leave 2e-18.
    answers = zip(jax.tree.leaves(slopes(psum, weight, A)), jax.tree.leaves(slopes(plain, weight, A)), strict=True)
    for got, expected in answers:
        np.testing.assert_allclose(got, expected, atol=1e-10)


if __name__ == "__main__":
    main()
