"""Which branches the solution of an equation enters, where its parameters follow a direction.

Along dtheta the solution moves by the dz that solves the directional derivative of the equation: a piecewise linear
system, where each kink at hand takes the branch that its own argument enters. Branches are exchanged (`_exchange`)
until the dz they give contradicts none of them. Where every selection of the equation is regular this is a linear
complementarity problem with a P-matrix, and it always ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._exchange import begin, choose
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.layer import Layer, rewrite
from nsimplicit.calculus.program import Program

Leaves = Sequence[Any]
Open = Callable[[Any], Any]
"""Feeds, or an iterator of feeds that others go on with, to a replay that takes them."""


def with_branches(entering: Open, layer: Layer, operands: Leaves, signs: Leaves) -> list[Any]:
    """The solution, differentiated with given branches.

    Args:
        entering: opens a replay that differentiates with the branches it is fed.
        layer: the equation.
        operands: of one lane.
        signs: for each kink of its chain 1 above, -1 below, 0 the selection it has.

    Returns:
        The leaves of the solution. What structured solvers know besides the chain keeps its own selections.
    """
    feeds, left = iter(signs), iter(layer.chain(*operands))

    def transform(program: Program, consts: Sequence[Any]) -> Program:
        if next(left, None) is None:
            return dataclasses.replace(program, consts=tuple(consts))
        return rewrite(entering(feeds), program, consts)

    return layer.rebuild(transform, *operands)


def follow(following: Open, entering: Open, layer: Layer, operands: Leaves, decided: Any) -> tuple[Any, Any]:
    """The solution, and the arguments of its kinks, whose tangents say what a direction decides.

    Args:
        following: opens a replay that enters the branches it is fed, and records the arguments of kinks.
        entering: as for :func:`with_branches`.
        layer: the equation.
        operands: of one lane.
        decided: signs of what earlier directions decided, 0 is open; None only where shapes are asked for.

    Returns:
        The leaves of the solution, and an array for each kink; 0 where it is none. With ``jax.jvp`` the
        directional derivative of both. Where it is not found no kink is decided.
    """
    first = layer.num_outputs

    def arguments(operands: Leaves, signs: Leaves | None) -> list[Any]:
        feeds = None if signs is None else iter(signs)
        state, records = [Cell(x, True) for x in operands[:first]], []
        for program, consts in layer.chain(*operands):
            replay = following(feeds)
            state = replay.run(program.jaxpr, [Cell(x, True) for x in consts], state)
            records += replay.records
        return records

    @jax.custom_jvp
    def solution(operands: Leaves, decided: Any) -> tuple[Any, Any]:
        return list(operands[:first]), arguments(operands, decided)

    @solution.defjvp
    def rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
        operands, decided, dots = tuple(primals[0]), primals[1], tuple(tangents[0])
        out = solution(operands, decided)

        def move(signs: Leaves) -> tuple[list[Any], list[Any], list[Any]]:
            """dz, how the arguments move with it, and the kinks that are wrong then."""
            _, dz = jax.jvp(lambda *x: with_branches(entering, layer, x, signs), operands, dots)
            dz = _without_rounding(dz, dz)
            _, moves = jax.jvp(lambda *x: arguments(x, signs), operands, (*dz, *dots[first:]))
            moves = _without_rounding(moves, [*moves, *dz])
            return dz, moves, [(d == 0) & (u * s < 0) for d, u, s in zip(decided, moves, signs, strict=True)]

        def exchange(carry: Any) -> Any:
            signs, _, _, progress, count = carry
            dz, moves, wrong = move(signs)
            chosen, number, progress = choose(wrong, progress)
            signs = [jnp.where(c, -s, s) for c, s in zip(chosen, signs, strict=True)]
            return signs, (dz, moves), number, progress, count + 1

        start = [jnp.where(d != 0, d, -1).astype(d.dtype) for d in decided]
        most, zero = sum(d.size for d in decided), jnp.zeros((), int)
        still = [jnp.zeros_like(x) for x in operands[:first]], [jnp.zeros_like(u) for u in out[1]]
        carry = start, still, zero + 1, begin(most), zero
        carry = lax.while_loop(lambda c: (c[2] > 0) & (c[-1] < 20 + 5 * most), exchange, carry)
        (dz, moves), number = carry[1:3]
        known = (number == 0) & jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in dz]))
        return out, (dz, [jnp.where(known, u, 0) for u in moves])

    return solution(operands, decided)


def _without_rounding(leaves: Leaves, like: Leaves) -> list[Any]:
    """Zero where an entry is what rounding may leave of numbers of this size."""
    size = jnp.max(jnp.array([jnp.max(jnp.abs(x), initial=0) for x in like]))
    return [jnp.where(jnp.abs(x) <= jnp.finfo(x.dtype).eps ** 0.75 * size, 0, x) for x in leaves]
