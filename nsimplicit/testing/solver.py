"""Checks of a solver: one of the package's kind, or a foreign one with its equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit.derivatives.unrolled import Unrolled
from nsimplicit.fixed_point import fixed_point, root
from nsimplicit.implicit.equation import Problem
from nsimplicit.prox.norms import L1
from nsimplicit.prox.quadratic import LeastSquares
from nsimplicit.solvers.base import Solver
from nsimplicit.splittings.forward_backward import ForwardBackward
from nsimplicit.testing.case import floats, pack, unpacker
from nsimplicit.testing.precision import require_64

MIX = ((0.3, -0.4, 0.1), (0.2, 0.1, -0.3), (0.0, 0.4, 0.2))


def check_solver(solver: Solver | Callable[..., Any], *args: Any, tolerance: float = 1e-6) -> None:
    """Raise unless a solver obeys the laws of its kind.

    An iteration (a :class:`nsimplicit.solvers.Solver`), tried on small problems of ours: it converges
    to the solution; each lane of a batch stops by its own test, with the answer and the count it has
    alone, and a nan lane spoils no other; the answer ends with a plain step, so that zeros are exact;
    the state keeps its dtype; unrolled, it has the derivative of the solution.

    A decorated solver (:func:`nsimplicit.custom_root`, :func:`nsimplicit.custom_fixed_point`), called
    with ``args``: what it returns solves its equation; the derivative in every floating argument is
    the difference of its own answers, the same in both modes, and under jit.

    Args:
        solver: an iteration, or a decorated solver.
        *args: for a decorated solver, arguments in float64 at which it is smooth.
        tolerance: for a decorated solver, of its answers, relative; its derivatives are compared with
            differences to the square root of it.

    Raises:
        AssertionError: a law fails; the message names it.
        InputError: neither kind; or 64-bit numbers are off.

    Example:
        >>> import jax, nsimplicit as nsi
        >>> with jax.enable_x64(True):
        ...     nsi.testing.check_solver(nsi.solvers.Picard())
    """
    require_64("check_solver")
    if isinstance(solver, Solver):
        _check_iteration(solver)
    elif isinstance(solver, Problem):
        _check_decorated(solver, args, tolerance)
    else:
        found = f"solver is a {type(solver).__name__}."
        meaning = "It must be an iteration, or a function that was given its equation."
        tries = "nsi.custom_root(F)(solver)", "nsi.custom_fixed_point(T)(solver)"
        raise InputError(message("testing.check_solver(solver)", found, meaning, *tries))


def _map(z: jax.Array, theta: Any) -> jax.Array:
    """A contraction of each row of z, nonsymmetric, with a kink that is not met."""
    y = z @ jnp.asarray(MIX, z.dtype).T + theta
    return 0.7 * jnp.tanh(y) + 0.2 * jnp.maximum(y, 0)


def _residual(z: jax.Array, theta: Any) -> jax.Array:
    return z - _map(z, theta)


def _solve(solver: Solver, z0: jax.Array, theta: Any, **options: Any) -> Any:
    if solver.contracts:
        return fixed_point(_map, z0, theta, solver=solver, **options)
    return root(_residual, z0, theta, solver=solver, **options)


def _check_iteration(solver: Solver) -> None:
    name, theta = type(solver).__name__, jnp.array([0.4, -0.7, 0.2])
    z = theta
    for _ in range(400):
        z = _map(z, theta)
    alone = jax.jit(lambda t: _solve(solver, jnp.zeros(3), t, tol=1e-13))
    found = alone(theta)
    assert bool(found.converged), f"{name}: no convergence"
    np.testing.assert_allclose(found.value, z, atol=1e-11, err_msg=f"{name}: another solution")

    thetas = jnp.stack([theta, 0 * theta, 3 * theta, theta.at[1].set(jnp.nan)])
    lanes = jax.jit(lambda t: _solve(solver, jnp.zeros((4, 3)), t, tol=1e-13, batch_axis=0))(thetas)
    for k in range(3):
        one = alone(thetas[k])
        np.testing.assert_allclose(lanes.value[k], one.value, atol=1e-11, err_msg=f"{name}: a lane is not itself")
        assert abs(int(lanes.num_steps[k]) - int(one.num_steps)) <= 1, f"{name}: a lane does not stop by itself"
    assert not bool(lanes.converged[3]), f"{name}: a nan lane counts as solved"

    slope = jax.jit(jax.jacfwd(lambda t: _solve(solver, jnp.zeros(3), t, derivative=Unrolled(60), tol=1e-15).value))
    step = jax.jacfwd(_map, argnums=(0, 1))(z, theta)
    want = jnp.linalg.solve(jnp.eye(3) - step[0], step[1])
    np.testing.assert_allclose(slope(theta), want, atol=1e-9, err_msg=f"{name}: unrolled derivative")

    single = _solve(solver, jnp.zeros(3, jnp.float32), theta.astype(jnp.float32))
    assert single.value.dtype == jnp.float32, f"{name}: does not keep float32"
    np.testing.assert_allclose(single.value, z, atol=1e-3, err_msg=f"{name}: float32")
    if solver.contracts:
        A = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(8, 6)))[0]) * jnp.linspace(1, 1.5, 6)
        b = A @ jnp.array([2.0, -2.0, 0.0, 0.0, 1.5, 0.0])
        sparse = fixed_point(ForwardBackward(LeastSquares(A, b), L1(0.3)), jnp.ones(6), solver=solver, tol=1e-10)
        zeros = int(jnp.sum(sparse.value == 0))
        assert zeros == 3, f"{name}: {zeros} exact zeros of 3: the answer must be a plain step"


def _check_decorated(solver: Any, args: tuple[Any, ...], tolerance: float) -> None:
    name = getattr(solver, "__name__", type(solver).__name__)
    z, equation = solver.formulate(*args)
    end = z
    for apply in equation.maps:
        end = apply(end)
    off = np.linalg.norm(pack(equation.residual(z, end))) / (1 + np.linalg.norm(pack(z)))
    assert off <= tolerance, f"{name}: what it returns misses its equation by {off:.1e}"
    theta, rebuild = floats(args)

    def value(theta: Any) -> Any:
        out = solver(*rebuild(theta))
        return out[0] if getattr(solver, "has_aux", False) else out

    rng = np.random.default_rng(0)
    tangent = [jnp.asarray(rng.normal(size=np.shape(t))) for t in theta]
    weights = unpacker(z)(rng.normal(size=pack(z).size))
    moved = pack(jax.jvp(value, (theta,), (tangent,))[1])
    h = tolerance**0.5
    ahead, behind = (pack(value([t + s * h * d for t, d in zip(theta, tangent, strict=True)])) for s in (1, -1))
    size = 1 + np.abs(moved).max()
    np.testing.assert_allclose(moved, (ahead - behind) / (2 * h), atol=10 * h * size, err_msg=f"{name}: derivative")
    pulled = jax.vjp(value, theta)[1](weights)[0]
    np.testing.assert_allclose(pack(pulled) @ pack(tangent), pack(weights) @ moved, rtol=1e-6, err_msg=f"{name}: vjp")
    jitted = jax.jit(lambda t, d: jax.jvp(value, (t,), (d,))[1])(theta, tangent)
    np.testing.assert_allclose(pack(jitted), moved, rtol=1e-6, atol=tolerance, err_msg=f"{name}: under jit")
