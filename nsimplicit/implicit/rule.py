"""The one place that knows the implicit function theorem.

Let z solve E(z, theta) = 0. Where E is differentiable and M = dE/dz is invertible,

    M dz = b,    b = -(dE/dtheta) dtheta,

and where E is a nonsmooth program the same formula, with the selected derivative of each kink,
gives an element of the conservative Jacobian of the solution map, provided *every* element of the
set of M's is invertible. (Bolte, Le, Pauwels, Silveti-Falls, Nonsmooth implicit differentiation
for machine learning and optimization, NeurIPS 2021, Theorem 2.)

How it is attached. The solver runs under ``stop_gradient``. The equation is traced once; all that
it closes over becomes an explicit argument of an identity ``attach(z, constants, tap)`` whose JVP
rule solves the tangent system in ``lax.custom_linear_solve``. The rule applies ``attach`` to its
own primal output, so derivatives of every order and in every order of modes follow from it.

Three traps, each with a regression test:

* ``custom_linear_solve`` transposes only if every leaf depends on the linear input
  (jax-ml/jax#10929); ``linear_solvers.anchor`` sees to that, at every order.
* A guard may not look at the tangent in the rule, which must stay linear; it acts inside the solve.
* An array made here from nothing is replicated under ``shard_map``; arrays are made from b or z.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from nsimplicit._tree import add, blank_like, cast_like, moving, substitute
from nsimplicit.calculus.layer import mark_layer
from nsimplicit.calculus.program import vary, varying
from nsimplicit.implicit.guard import Checked, Guard, check
from nsimplicit.implicit.guards import Solved
from nsimplicit.implicit.tap import Report, record
from nsimplicit.implicit.traced import Traced as Traced
from nsimplicit.implicit.traced import trace_equation as trace_equation
from nsimplicit.linear_solvers.anchor import anchored_solve
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.operator import LinearSolver, Operator, Vector


def attach(
    traced: Traced,
    z: Vector,
    *,
    linear_solver: LinearSolver = Auto(),
    guard: Guard = Solved(),
    tap: Report | None = None,
) -> Vector:
    """``z`` itself, with the derivative the equation gives it.

    Args:
        traced: the equation, traced at ``z``.
        z: the vector that solves it; its own derivative is cut.
        linear_solver: solves the tangent system.
        guard: checks each solve.
        tap: probe of the backward pass.

    Returns:
        z, differentiable in everything the equation closed over.
    """
    if not any(x.size for x in jax.tree.leaves(z)):
        return z
    # How precise the iteration is was the user's choice; the rule's matrix products are not to be rounded to 16 bits.
    traced = dataclasses.replace(traced, programs=tuple(p.precise() for p in traced.programs))

    def rebuild(transform: Any, z: Vector, rest: Any) -> Vector:
        consts, tap = rest
        programs = tuple(map(transform, traced.programs, consts))
        changed = Traced(traced.equation, programs, traced.space)
        return attach(changed, z, linear_solver=linear_solver, guard=guard, tap=tap)

    def chain(rest: Any) -> list[tuple[Any, Any]]:
        consts, _ = rest
        return list(zip(traced.programs, consts, strict=True))[: len(traced.equation.maps)]

    @jax.custom_jvp
    def identity(z: Vector, consts: Any, tap: Report | None) -> Vector:
        return mark_layer(z, (consts, tap), rebuild, chain)

    def rule(primals: Any, tangents: Any) -> tuple[Vector, Vector]:
        _, consts, tap = primals
        _, consts_dot, tap_dot = tangents
        z = identity(*primals)
        with jax.default_matmul_precision("highest"):
            return z, _tangent(traced, z, consts, consts_dot, tap, tap_dot, linear_solver, guard)

    identity.defjvp(rule, symbolic_zeros=True)
    return identity(lax.stop_gradient(z), traced.consts, tap)


def _tangent(traced, z, consts, consts_dot, tap, tap_dot, linear_solver, guard) -> Vector:
    leaves = jax.tree.leaves(consts)
    live, dots = moving(consts, consts_dot)
    theta_dot = [jnp.asarray(d) for d in dots]
    sources = theta_dot + [d for d in jax.tree.leaves(tap_dot) if not isinstance(d, SymbolicZero)]
    if not sources:
        return jax.tree.map(jnp.zeros_like, z)

    # A lane whose solve diverged fails its guard, and may be dropped: its adjoint is then zero, which
    # must not meet a nan of dE/dtheta here.
    finite = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), z)

    def end(*values: jax.Array) -> Vector:
        return traced.end(substitute(consts, live, values), finite)

    if live:
        _, tangent = jax.jvp(end, [leaves[i] for i in live], theta_dot)
        b = add(traced.equation.right_hand_side(tangent), blank_like(z))
    else:
        b = blank_like(z)
    space = traced.space
    residual, operator = traced.linearise(consts, finite)
    axes = varying(*jax.tree.leaves(b))
    # Every guard fails what is not finite. One number: to look at z entry by entry would keep it to the end.
    whole = space.dot(z, jax.tree.map(jnp.ones_like, z))
    lost = vary(jnp.where(jnp.isfinite(whole), 1.0, jnp.nan), axes)
    forward = lax.stop_gradient(space.norm(residual) / (1 + space.norm(z)))
    probe = jax.tree.map(lambda t, d: jnp.zeros_like(t) if isinstance(d, SymbolicZero) else d, tap, tap_dot)

    def product(system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        v, extra = system
        return operator.matvec(v), extra

    def run(operator: Operator, b: Vector, guess: Vector | None, transposed: bool) -> tuple[Any, Checked, Any]:
        solution = linear_solver.solve(operator, b, guess)
        code, num_kinks = guard.inspect(traced, consts, z, linear_solver, solution.factors(transposed))
        seen = dataclasses.replace(operator, matvec=lambda v: space.scale(lost, operator.matvec(v)))
        return solution, check(guard, seen, b, solution, code=code, rtol=linear_solver.rtol), num_kinks

    def solve(_, system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        b, extra = system
        return run(operator, b, None, False)[1].value, extra

    def transpose_solve(vecmat, system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        b, extra = system
        transposed = operator.transpose(lambda v: vecmat((v, extra))[0])
        guess = None if tap is None or tap.adjoint is None else cast_like(lax.stop_gradient(tap.adjoint), b)
        solution, checked, num_kinks = run(transposed, b, guess, True)
        if tap is None:
            return checked.value, extra
        report = record(
            extra,
            num_solves=checked.solved,
            num_steps=jnp.where(checked.solved, solution.num_steps, 0),
            num_failures=checked.failed,
            residual=jnp.where(checked.solved, checked.evidence.backward_error, 0.0),
            condition=jnp.where(jnp.isnan(checked.evidence.condition), 0.0, checked.evidence.condition),
            forward_residual=forward,
            num_kinks=jnp.where(checked.solved, num_kinks, 0),
        )
        # What is passed in next time must be a possible start: a failed solve leaves none.
        start = space.where(checked.failed, blank_like(b), checked.value)
        kept = None if tap.adjoint is None else cast_like(jax.tree.map(jnp.nan_to_num, start), tap.adjoint)
        return checked.value, add(dataclasses.replace(report, adjoint=kept), blank_like(extra))

    # Every leaf of the system must vary over the same mesh axes: JAX types all results alike.
    system = (b, vary(probe, axes))
    touch = next(x for x in jax.tree.leaves(z) if x.size)
    return anchored_solve(product, system, solve, transpose_solve, sources=sources, coefficient=touch)[0]
