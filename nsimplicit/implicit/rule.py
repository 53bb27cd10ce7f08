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

* ``custom_linear_solve`` transposes only if every leaf of its right-hand side and of its product
  depends on the linear input (jax-ml/jax#10929). Leaves that happen not to are *anchored*: they
  get a zero selected from the input, which costs nothing and cannot carry a nan.
* A guard may not look at the tangent in the rule, which must stay linear; it acts inside the solve.
* An array made here from nothing is replicated under ``shard_map``; arrays are made from b or z.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, add, blank_like, cast_like, is_float, partition
from nsimplicit.calculus.replay import Program, checks_replication, trace, varying
from nsimplicit.implicit.equation import Equation
from nsimplicit.implicit.guards import Checked, GuardBase, Solved, check
from nsimplicit.implicit.tap import Report, record
from nsimplicit.linear_solvers.anchor import anchor
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.operator import LinearSolver, Operator, Vector


@dataclasses.dataclass(frozen=True)
class Traced:
    """An equation traced at a state: one program per map, and what they closed over."""

    equation: Equation
    programs: tuple[Program, ...]
    space: Space

    @property
    def consts(self) -> tuple[tuple[Any, ...], ...]:
        """The constants of each program: what derivatives are taken in."""
        return tuple(p.consts for p in self.programs)

    def end(self, consts: Sequence[Sequence[Any]], z: Vector) -> Vector:
        """The end of the chain of maps at z."""
        for program, captured in zip(self.programs, consts, strict=True):
            z = program(captured, z)
        return z

    def linearise(self, consts: Sequence[Sequence[Any]], z: Vector) -> tuple[Vector, Operator]:
        """The residual at z and the operator M there."""
        point, products = z, []
        for program, captured in zip(self.programs, consts, strict=True):
            point, product = jax.linearize(lambda v, program=program, captured=captured: program(captured, v), point)
            products.append(product)
        return self.equation.residual(z, point), self.equation.operator(tuple(products), self.space)


def trace_equation(equation: Equation, z: Any, space: Space, where: str) -> tuple[Traced, Vector, Any]:
    """Trace an equation at z, once, and check that it fits: structure, size, dtype, collectives.

    Args:
        equation: the equation, on trees like ``z``.
        z: the state; 16-bit leaves must have been promoted.
        space: the inner product of states.
        where: the call, for error messages.

    Returns:
        The traced equation, the vector of z's differentiable leaves, and the way back to the tree.
    """
    vector, combine = partition(z)
    if not jax.tree.leaves(vector):
        found = jax.tree.map(lambda x: str(jnp.result_type(x)), z)
        raise InputError(
            message(
                where,
                f"the solution has no floating-point leaf: {found}.",
                "A derivative needs a solution that can move.",
                "return the solution as floats, e.g. z.astype(float)",
                "return integers as aux: has_aux=True",
            )
        )
    programs, point = [], vector
    for apply in equation.maps:

        def leaf_level(v: Vector, apply=apply) -> Vector:
            out = apply(combine(v))
            return _fit(out, z, v, equation.is_root, where)

        program = trace(leaf_level, point)
        _check_collectives(program, vector, space, where)
        programs.append(program)
    return Traced(equation, tuple(programs), space), vector, combine


def attach(
    traced: Traced,
    z: Vector,
    *,
    linear_solver: LinearSolver = Auto(),
    guard: GuardBase = Solved(),
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

    @jax.custom_jvp
    def identity(z: Vector, consts: Any, tap: Report | None) -> Vector:
        del consts, tap
        return z

    def rule(primals: Any, tangents: Any) -> tuple[Vector, Vector]:
        _, consts, tap = primals
        _, consts_dot, tap_dot = tangents
        z = identity(*primals)
        with jax.default_matmul_precision("highest"):
            return z, _tangent(traced, z, consts, consts_dot, tap, tap_dot, linear_solver, guard)

    identity.defjvp(rule, symbolic_zeros=True)
    return identity(lax.stop_gradient(z), traced.consts, tap)


def _tangent(traced, z, consts, consts_dot, tap, tap_dot, linear_solver, guard) -> Vector:
    leaves, treedef = jax.tree.flatten(consts)
    dots = treedef.flatten_up_to(consts_dot)
    live = [i for i, d in enumerate(dots) if not isinstance(d, SymbolicZero) and is_float(leaves[i])]
    probes = [d for d in jax.tree.leaves(tap_dot) if not isinstance(d, SymbolicZero)]
    moving = [dots[i] for i in live] + probes
    if not moving:
        return jax.tree.map(jnp.zeros_like, z)

    def end(*values: jax.Array) -> Vector:
        filled = dict(zip(live, values, strict=True))
        return traced.end(treedef.unflatten([filled.get(i, x) for i, x in enumerate(leaves)]), z)

    if live:
        _, tangent = jax.jvp(end, [leaves[i] for i in live], [dots[i] for i in live])
        b = add(traced.equation.right_hand_side(tangent), blank_like(z))
    else:
        b = blank_like(z)
    residual, operator = traced.linearise(consts, z)
    space = traced.space
    forward = space.norm(residual) / (1 + space.norm(z))
    probe = jax.tree.map(lambda d: jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d, tap_dot)

    def product(system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        v, extra = system
        out = add(operator.matvec(v), blank_like(z))
        return anchor(out, jax.tree.leaves(v)), extra

    def run(operator: Operator, b: Vector, guess: Vector | None) -> tuple[Any, Checked]:
        solution = linear_solver.solve(operator, b, guess)
        return solution, check(guard, operator, b, solution)

    def solve(_, system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        b, extra = system
        return run(operator, b, None)[1].value, extra

    def transpose_solve(vecmat, system: tuple[Vector, Any]) -> tuple[Vector, Any]:
        b, extra = system
        transposed = operator.transpose(lambda v: vecmat((v, extra))[0])
        guess = None if tap is None or tap.adjoint is None else cast_like(lax.stop_gradient(tap.adjoint), b)
        solution, checked = run(transposed, b, guess)
        if tap is None:
            return checked.value, extra
        report = record(
            extra,
            num_solves=checked.solved,
            num_steps=jnp.where(checked.solved, solution.num_steps, 0),
            num_failures=checked.failed,
            residual=jnp.where(checked.solved, checked.evidence.backward_error, 0.0),
            condition=jnp.where(jnp.isnan(solution.condition), 0.0, solution.condition),
            forward_residual=forward,
        )
        kept = None if tap.adjoint is None else cast_like(checked.value, tap.adjoint)
        return checked.value, add(dataclasses.replace(report, adjoint=kept), blank_like(extra))

    system = (anchor(b, moving), anchor(probe, moving))
    return lax.custom_linear_solve(product, system, solve, transpose_solve)[0]


def _fit(out: Any, z: Any, vector: Vector, is_root: bool, where: str) -> Vector:
    """The output of a map as a vector like ``vector``; errors name what does not fit."""
    got, _ = partition(out)
    same = jax.tree.structure(out) == jax.tree.structure(z)
    sizes = [[jnp.shape(x) for x in jax.tree.leaves(v)] for v in (got, vector)]
    if sizes[0] == sizes[1] and (same or is_root):
        return cast_like(jax.tree.unflatten(jax.tree.structure(vector), jax.tree.leaves(got)), vector)
    total = [sum(x.size for x in jax.tree.leaves(v)) for v in (got, vector)]
    if is_root and total[0] == total[1]:
        space = Space()
        flat, _ = space.ravel(got)
        return space.ravel(vector)[1](flat)
    what = "residual" if is_root else "fixed-point map"
    described = [jax.tree.map(lambda x: jax.typeof(x).str_short(), t) for t in (out, z)]
    raise InputError(
        message(
            where,
            f"the {what} returns {described[0]} ({total[0]} numbers), the solution is {described[1]} ({total[1]}).",
            "The equation must be square: as many equations as unknowns."
            if is_root
            else "A fixed-point map returns a state like the one it is given.",
            f"print the shapes of the {what} at the solution",
            "check that the equation gets the arguments in the solver's order",
        )
    )


def _check_collectives(program: Program, vector: Vector, space: Space, where: str) -> None:
    missing = {
        name
        for name in program.collective_axes() - set(space.axis_name)
        if any(name in varying(x) for x in jax.tree.leaves(vector)) or not checks_replication(name)
    }
    if missing:
        names = ", ".join(sorted(missing))
        raise InputError(
            message(
                where,
                f"the equation communicates over the mesh axis {names}, over which the state is split.",
                "Norms and stopping tests must be summed over it, or devices stop at different steps and hang.",
                f"axis_name={tuple(sorted(missing))!r}",
            )
        )
