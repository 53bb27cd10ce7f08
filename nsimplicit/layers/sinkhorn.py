"""Entropic optimal transport, with derivatives of its plan, potentials and value."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit.custom_root import custom_fixed_point, custom_root
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.derivatives.piggyback import Piggyback
from nsimplicit.derivatives.unrolled import Unrolled
from nsimplicit.fixed_point import fixed_point
from nsimplicit.implicit.guards import Solved
from nsimplicit.implicit.tap import Report
from nsimplicit.layers import entropic
from nsimplicit.layers.transport_arguments import prepare, slack
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.custom import Custom
from nsimplicit.linear_solvers.krylov import CG
from nsimplicit.prox.boundary import magnitude
from nsimplicit.solvers.base import Solver
from nsimplicit.solvers.picard import Picard

UNIT = 2.0**-20
"""Of the potentials in the iteration."""


@data
class Transport:
    """The answer of :func:`sinkhorn`. Under ``vmap`` one entry per lane.

    Args:
        plan: P, shape ``(n, m)``.
        value: the least value of the objective, a scalar: that of the dual at the potentials.
        potentials: ``(f, g)``, in units of the cost.
        marginal_error: how far the plan is from optimal: the sum of |P1 - a·exp(-f/rho_a)| and
            |Pᵀ1 - b·exp(-g/rho_b)|; where rho is infinite those are the marginals themselves.
        converged: whether the residual is at most ``tol``, and the marginals of a balanced problem are met.
        num_steps: steps that were evaluated, each of two half steps.
        residual: of the last step, the change of f/epsilon (in the mean over a) relative to 1 plus its size.
    """

    plan: jax.Array
    value: jax.Array
    potentials: tuple[jax.Array, jax.Array]
    marginal_error: jax.Array
    converged: jax.Array
    num_steps: jax.Array
    residual: jax.Array


def sinkhorn(
    a: Any,
    b: Any,
    cost: Any,
    epsilon: Any,
    *,
    rho_a: Any = float("inf"),
    rho_b: Any = float("inf"),
    init: Any = None,
    solver: Solver = Picard(),
    derivative: Derivative = Implicit(),
    tol: Any = None,
    max_steps: Any = 2000,
    tap: Report | None = None,
) -> Transport:
    """Entropic optimal transport by Sinkhorn's iteration.

    Formula: minimise <cost, P> + epsilon·KL(P | abᵀ) + rho_a·KL(P1 | a) + rho_b·KL(Pᵀ1 | b) over P >= 0,
    KL(p | q) = Σ p log(p/q) - p + q; where rho is infinite, subject to P1 = a and Pᵀ1 = b.
    P = abᵀ·exp((f + g - cost)/epsilon).

    The value's derivative takes no linear solve: it is P in the cost, the potentials in a and b of equal mass, and
    (value - <cost, P>)/epsilon in epsilon. Everything else, and every further derivative, is implicit: one
    potential is eliminated, the shift of the other is taken out, and what is left is symmetric positive
    definite with condition number 1/(1 - s²), s the second singular value of diag(a)^-½ P diag(b)^-½.

    Args:
        a: weights of the rows, shape ``(n,)``, at least 0; of any total mass.
        b: weights of the columns, shape ``(m,)``; of the same total mass where both rho are infinite.
        cost: shape ``(n, m)``; inf forbids a pair.
        epsilon: weight of the entropy, a positive scalar, in units of the cost.
        rho_a: weight of the first marginal, positive, in units of the cost; ``inf``: the marginal is exact.
        rho_b: of the second.
        init: a potential f to start from, shape ``(n,)``; it has no derivative.
        solver: the iteration, e.g. ``solvers.Anderson()``, which takes fewer steps where epsilon is small.
        derivative: how the plan and the potentials are differentiated. ``Implicit()`` uses conjugate gradients unless
            another linear solver is given. ``Unrolled`` and ``Piggyback`` go on from where the solver stopped.
        tol: stop when the residual is at most this, relative: about the relative error of the marginals in the mean;
            default eps^(2/3) of the dtype: 3.7e-11 in float64, 2.4e-5 in float32. May be traced.
        max_steps: largest number of steps. May be traced.
        tap: :func:`nsimplicit.tap`, the probe of the backward pass.

    Returns:
        A :class:`Transport`, differentiable in a, b, cost, epsilon and finite rho, in both modes and in every order.
        Where it has not converged the guard of ``derivative`` counts it as failed. By its ``on_failure``: nan, or
        zero for ``"drop"``; ``"ignore"`` and ``guards.Off()`` give the derivative of the equation where it stopped.

    Raises:
        InputError: shapes that do not fit, no points; and, where the arrays are not traced: a weight, epsilon or rho
            that is negative or nan, no mass, a cost that is nan or -inf, or different masses of a balanced problem.

    Kinks:
        None. At a weight of zero derivatives are those from above; the row of the plan is zero, its derivative is not.
        Balanced potentials are determined up to f + t, g - t: of them <a, f>/Σa = <b, g>/Σb is returned. The plan
        has a derivative along changes of a and b of equal mass; along others it is that of a plan with the mass of a.

    Cost:
        A step is two products with an n × m matrix; so is a tangent product. Memory: three such matrices, whatever the
        number of steps.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> a, b, cost = jnp.array([0.5, 0.5]), jnp.array([0.3, 0.7]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> answer = nsi.layers.sinkhorn(a, b, cost, 0.1)
        >>> bool(answer.converged), [[round(float(p), 3) for p in row] for row in answer.plan]
        (True, [[0.3, 0.2], [0.0, 0.5]])
        >>> round(float(jax.grad(lambda e: nsi.layers.sinkhorn(a, b, cost, e).plan[0, 1])(1.0)), 4)
        0.0718

    References:
        M. Cuturi, Sinkhorn distances, NeurIPS 2013; G. Luise et al., Differential properties of Sinkhorn
        approximation, NeurIPS 2018; E. Pauwels, S. Vaiter, The derivatives of Sinkhorn-Knopp converge, SIOPT 2023.
    """
    arrays = prepare(a, b, cost, epsilon, rho_a, rho_b, init)
    if tol is None:
        tol = float(jnp.finfo(arrays[0].dtype).eps) ** (2 / 3)
    return _compiled(arrays, tol, max_steps, tap, (solver, derivative))


def _solve(arrays: Any, tol: Any, max_steps: Any, tap: Report | None, options: Any) -> Transport:
    a, b, cost, epsilon, rho_a, rho_b, init = arrays
    solver, derivative = options
    ot = entropic.scaled(a, b, cost, epsilon, rho_a, rho_b)
    fixed = lax.stop_gradient(ot)
    phi, gamma, residual, steps = _iterate(fixed, lax.stop_gradient(init / epsilon), solver, tol, max_steps)
    around = entropic.absorb(phi, gamma, entropic.scale_of(fixed.a), ot)
    # A small residual says that the rows of the plan are those of a; its columns are those of b if the masses agree.
    rows, columns = entropic.marginals(lax.stop_gradient(around), fixed)
    met = _distance(rows, fixed.a) + _distance(columns, fixed.b) <= slack(tol, a.dtype) * fixed.b.sum()
    converged = (residual <= tol) & (met | (fixed.balanced == 0))
    around = dataclasses.replace(around, scale=entropic.scale_of(jnp.where(rows > 0, rows, fixed.a)))

    on_failure = derivative.guard.on_failure if isinstance(derivative, Implicit) else "ignore"
    guarded = on_failure not in ("ignore", "least_squares")
    reached = (around, ot, epsilon)
    if guarded:
        around = dataclasses.replace(around, lost=jnp.where(converged, 0, jnp.nan).astype(a.dtype))
        # Where the guard is to fail, nothing passes by it.
        reached = jax.tree.map(lambda x: jnp.where(converged, x, lax.stop_gradient(x)), reached)
    w = jnp.zeros_like(a)
    if isinstance(derivative, Unrolled | Piggyback):
        outcome = fixed_point(
            entropic.scaling_map,
            w,
            around,
            ot,
            solver=solver,
            derivative=derivative,
            tol=tol,
            max_steps=max_steps,
            tap=tap,
        )
        w, residual, converged, steps = outcome.z, outcome.residual, outcome.converged, steps + outcome.num_steps
    else:
        if isinstance(derivative, Implicit) and derivative.linear_solver == Auto():
            derivative = dataclasses.replace(derivative, linear_solver=CG())
        rule = custom_fixed_point(entropic.scaling_map, init_argnum=None, derivative=derivative)(lambda around, ot: w)
        w = (rule if tap is None else rule.reporting(tap))(around, ot)
    lost, data = around.lost, (ot.a, ot.b, around.kernel, epsilon, rho_a, rho_b)
    around, ot, epsilon = reached
    delta, eta = entropic.sweep(entropic.unscale(w, around.scale), around, ot)
    phi, gamma = around.phi + delta, around.gamma + eta  # with derivatives, which those above have not
    shift = ot.balanced * (ot.b @ gamma / ot.b.sum() - ot.a @ phi / ot.a.sum()) / 2
    phi, gamma = phi + shift, gamma - shift
    value = entropic.dual_value(data, (phi, gamma, delta, eta))
    if guarded:
        value = _gate(value, lost, on_failure)
    f, g = epsilon * phi, epsilon * gamma
    plan = (ot.a * jnp.exp(delta))[:, None] * around.kernel * (ot.b * jnp.exp(eta))
    error = _error(*lax.stop_gradient((plan, ot, f, g, rho_a, rho_b)))
    return Transport(plan, value, (f, g), error, converged, steps, residual)


_compiled = jax.jit(_solve, static_argnums=(4,))


def _iterate(ot: entropic.Scaled, phi: jax.Array, solver: Solver, tol: Any, max_steps: Any) -> tuple[jax.Array, ...]:
    """Both potentials, the residual, and the number of steps, at least one; without derivative.

    A round is one step in the log domain, and then steps with the kernel around its potentials. One round is enough
    unless they move so far that what has underflowed in the kernel may count.
    """
    scale = entropic.scale_of(ot.a)

    def again(carry: tuple[jax.Array, ...]) -> jax.Array:
        *_, steps, done = carry
        return ~done & (steps < jnp.where(max_steps < 1, 1, max_steps))

    def a_round(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        gamma = entropic.log_gamma(carry[0], ot)
        phi, steps = entropic.log_phi(gamma, ot), carry[3] + 1
        # In so small a unit a tolerance relative to 1 + ‖z‖ is absolute: the error of the marginals.
        around = entropic.absorb(phi, gamma, UNIT * scale, ot)
        options = {"solver": solver, "tol": UNIT * tol, "max_steps": max_steps - steps}
        inner = fixed_point(entropic.bounded_map, jnp.zeros_like(phi), around, ot, **options)
        old = entropic.unscale(inner.z, around.scale)
        delta, eta = entropic.half_steps(old, around, ot)
        near, resting = entropic.within(delta, 1.0) & entropic.within(eta, 1.0), ~entropic.within(old, 0.5)
        here = jnp.sqrt((scale**2 * (delta - old) ** 2).sum())
        residual = jnp.where(near, jnp.where(resting, here, inner.residual / UNIT), jnp.inf)
        phi, gamma = jnp.where(near, phi + delta, phi), jnp.where(near, gamma + eta, gamma)
        return phi, gamma, residual, steps + inner.num_steps, (near & ~resting) | jnp.isnan(phi.sum())

    zero = phi[0] * 0
    return lax.while_loop(again, a_round, (phi, ot.b * 0, zero + jnp.inf, zero.astype(jnp.int32), zero != 0))[:4]


def _distance(x: jax.Array, y: jax.Array) -> jax.Array:
    return magnitude(x - y).sum()


def _error(plan: jax.Array, ot: entropic.Scaled, f: jax.Array, g: jax.Array, rho_a: Any, rho_b: Any) -> jax.Array:
    rows, columns = ot.a * jnp.exp(-f / rho_a), ot.b * jnp.exp(-g / rho_b)
    return _distance(plan.sum(1), rows) + _distance(plan.sum(0), columns)


def _gate(value: jax.Array, lost: jax.Array, on_failure: str) -> jax.Array:
    """The value, whose derivative fails its guard where ``lost`` is nan; it would not otherwise meet one."""
    derivative = Implicit(Custom(_copy), Solved(on_failure=on_failure))
    rule = custom_root(_identity, init_argnum=None, derivative=derivative)(lambda value, lost: value)
    return rule(value, lost)


def _identity(x: jax.Array, value: jax.Array, lost: jax.Array) -> jax.Array:
    return entropic.lose(x, lost) - value


def _copy(product: Any, b: Any) -> Any:
    del product
    return b
