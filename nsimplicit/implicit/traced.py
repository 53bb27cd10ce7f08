"""An equation as a program: traced once, checked that it fits its solution, ready to be linearised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import Space, cast_like, partition
from nsimplicit.calculus.program import Program, checks_replication, trace, vary, varying
from nsimplicit.implicit.equation import Equation
from nsimplicit.linear_solvers.operator import Operator, Vector


@config
class Traced:
    """An equation traced at a state: one program per map, one for a Hessian, and what they closed over."""

    equation: Equation
    programs: tuple[Program, ...]
    space: Space

    @property
    def consts(self) -> tuple[tuple[Any, ...], ...]:
        """The constants of each program: what derivatives are taken in."""
        return tuple(p.consts for p in self.programs)

    def end(self, consts: Sequence[Sequence[Any]], z: Vector) -> Vector:
        """The end of the chain of maps at z."""
        for _, program, captured in zip(self.equation.maps, self.programs, consts, strict=False):
            z = program(captured, z)
        return z

    def linearise(self, consts: Sequence[Sequence[Any]], z: Vector) -> tuple[Vector, Operator]:
        """The residual at z and the operator M there."""
        point, products = z, []
        for _, program, captured in zip(self.equation.maps, self.programs, consts, strict=False):
            point, product = jax.linearize(lambda v, program=program, captured=captured: program(captured, v), point)
            # custom_linear_solve types what its product closes over as varying over the mesh; a product
            # of two replicated arrays, one of them a sum over devices, then fails to lower. Inside a
            # function of its own every array keeps its type.
            products.append(jax.jit(product) if self.space.axis_name else product)
        hessian = None
        if self.equation.hessian is not None:
            # As above: what a solve closes over is typed as varying, and must be so from the start.
            hessian = vary(self.programs[-1](consts[-1], z), varying(*jax.tree.leaves(z)))
        return self.equation.residual(z, point), self.equation.operator(tuple(products), self.space, hessian)


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
    # The tangent system is one vector: its leaves differ between the same devices of a mesh.
    vector = vary(vector, varying(*jax.tree.leaves(vector)))
    programs, point = [], vector
    for apply in equation.maps:

        def leaf_level(v: Vector, apply=apply) -> Vector:
            out = apply(combine(v))
            return _fit(out, z, v, equation.is_root, where)

        program = trace(leaf_level, point)
        _check_mesh(program, vector, space, where)
        programs.append(program)
    if equation.hessian is not None:
        programs.append(trace(equation.hessian, vector))
    return Traced(equation, tuple(programs), space), vector, combine


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
            "has_aux=True if the solver returns more than the solution",
        )
    )


def _check_mesh(program: Program, vector: Vector, space: Space, where: str) -> None:
    """Inside ``shard_map``: the state and its equation are split over the same devices."""
    state = varying(*jax.tree.leaves(vector))
    missing = {
        name
        for name in program.collective_axes() - set(space.axis_name)
        if name in state or not checks_replication(name)
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
    if local := program.varying() - state:
        names = ", ".join(sorted(local))
        raise InputError(
            message(
                where,
                f"the equation differs between the devices of mesh axis {names}, the solution does not.",
                "One solution for all devices needs one equation; a solution for each must be typed as such.",
                f"jax.lax.psum(residual, {sorted(local)[0]!r}) in the equation: one solution for all",
                f"jax.lax.pcast(solution, {sorted(local)[0]!r}, to='varying'): one each; nsi.host does it",
            )
        )
