"""Forward-mode propagation along the iterations, stopped when the derivative has converged."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit.derivatives.base import Derivative, first_order, refuse
from nsimplicit.implicit.process import Consts, Iteration, Outcome, Process
from nsimplicit.primitives.forward_only import forward_only

REVERSE = (
    "`derivatives.Piggyback()`: a reverse-mode derivative was asked for.\n"
    "Piggyback carries tangents forward along the iterations; its loop has no static length to run back through.\n"
    "Try: (a) jax.jvp or jax.jacfwd; (b) derivative=nsi.derivatives.Implicit(), which has both modes; "
    "(c) derivative=nsi.derivatives.Unrolled(steps)."
)


@config
class Piggyback(Derivative):
    """J_{k+1} = A_k J_k + B_k beside z_{k+1} = T(z_k), until both have converged. Forward mode only.

    The derivative stops by its own test, ‖dz⁺ - dz‖ <= tol·(1 + ‖dz‖), which the iterate's does not
    imply; memory is flat. First order only.

    References: A. Griewank, C. Faure, Piggyback differentiation and optimization (2003);
    J. Bolte, E. Pauwels, S. Vaiter, Automatic differentiation of nonsmooth iterative algorithms,
    NeurIPS 2022.
    """

    def solve(self, process: Process) -> Outcome:
        """Run; the tangent runs its own loop when asked for."""
        if process.advance is None:
            raise refuse(
                "derivatives.Piggyback()",
                process,
                "the solver is opaque: its steps cannot be seen.",
                "derivative=nsi.derivatives.Implicit()",
            )
        outcome = process.solve()
        iteration = process.advance

        def tangent(consts: Consts, fixed: Any, live: list[int], dots: list[jax.Array]) -> Any:
            return forward_only(lambda *dots: _propagate(iteration, consts, fixed, live, dots), REVERSE)(*dots)

        fixed = (outcome.z, process.start, process.tol, process.max_steps)
        z = first_order("derivatives.Piggyback()", process.traced.consts, fixed, lambda _, fixed: fixed[0], tangent)
        return dataclasses.replace(outcome, z=z)


def _propagate(iteration: Iteration, consts: Consts, fixed: Any, live: list[int], dots: Any) -> Any:
    _, start, tol, max_steps = fixed
    space = iteration.space
    state = lax.stop_gradient(iteration.init(consts, start))
    moving = jax.tree.map(jnp.zeros_like, state)
    gap = state.residual * 0 + jnp.inf

    def advance(state: Any, moving: Any) -> tuple[Any, Any]:
        def moved(state: Any, *values: jax.Array) -> Any:
            leaves, treedef = jax.tree.flatten(consts)
            filled = dict(zip(live, values, strict=True))
            return iteration.step(treedef.unflatten([filled.get(i, x) for i, x in enumerate(leaves)]), state)

        leaves = jax.tree.leaves(consts)
        return jax.jvp(moved, (state, *(leaves[i] for i in live)), (moving, *dots))

    def active(c: Any) -> jax.Array:
        state, _, gap, count = c
        return ((state.residual > tol) | (gap > tol)) & (count < max_steps)

    def body(c: Any) -> Any:
        state, moving, gap, count = c
        on = active(c)
        new, new_moving = advance(state, moving)
        change = jax.tree.map(jnp.subtract, new_moving.image, moving.image)
        size = space.norm(change) / (1 + space.norm(moving.image))
        state, moving = iteration.freeze(on, new, state), iteration.freeze(on, new_moving, moving)
        return state, moving, jnp.where(on, size, gap), count + on.astype(count.dtype)

    count = (gap == 0).astype(jnp.int32)
    return lax.while_loop(lambda c: jnp.any(active(c)), body, (state, moving, gap, count))[1].image
