"""Differentiation of the iterations themselves.

With ``checkpoint`` the K steps are cut into about √K stretches. Kept are the state at the start of
each stretch and, of one stretch at a time, the state before each step; the backward pass runs a
stretch again from its start, and each step again from its state: 2√K states, three times the
forward work. That is ``jax.checkpoint`` on a stretch and on a step, but for one thing. The backward
pass of a loop adds up the cotangent of what the loop closes over in an array of its own, and nested
loops keep one each: for a weight matrix that is more than all the states. So the tangent is written
out, and carried from step to step with the tangent of theta, which does not change:

    s⁺ = step(theta, s),    ds⁺ = step_s ds + step_theta dtheta,    dtheta⁺ = dtheta.

Transposed, this carries one cotangent of theta through all the loops, to which each step adds its
share:

    dtheta' <- dtheta' + step_thetaᵀ ds',    ds' <- step_sᵀ ds'.

The rule is made of plain operations, so every mode and order, ``vmap`` and ``shard_map`` follow.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import blank, is_float, moving, partition, substitute
from nsimplicit.calculus.rules import transparent
from nsimplicit.derivatives.base import Derivative, refuse
from nsimplicit.implicit.process import Consts, Iteration, Outcome, Process


@config
class Unrolled(Derivative):
    """Runs exactly ``steps`` steps and differentiates them, in every mode and order.

    The derivative of the iterate, not of the limit: it converges to the limit's where the iteration
    contracts, but a kink met on the way, or momentum, can keep it from converging.

    Args:
        steps: static number of steps; ``tol`` and ``max_steps`` of the call play no part.
        checkpoint: reverse mode keeps 2√steps states instead of what every step needs to be run
            back through, and the gradient in the parameters once; it evaluates each step three times.
    """

    steps: int
    checkpoint: bool = False

    def __post_init__(self) -> None:
        """Refuse a number of steps that is not a positive integer."""
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(
                message(
                    f"derivatives.Unrolled(steps={self.steps!r})",
                    "steps must be a positive Python int.",
                    "A reverse pass through a loop needs to know its length when traced.",
                    "Unrolled(steps=100)",
                    "Implicit(), which needs no static number of steps",
                )
            )

    def solve(self, process: Process) -> Outcome:
        """A differentiable scan."""
        if process.advance is None:
            raise refuse(
                "derivatives.Unrolled(...)",
                process,
                "the solver is opaque: its steps cannot be seen.",
                "derivative=nsi.derivatives.Implicit()",
                "nsi.fixed_point(T, ...), whose steps can be",
            )
        consts = process.traced.consts
        state = process.advance.init(consts, process.start)
        run = _at_root_memory if self.checkpoint else _plain
        image, residual = run(process.advance, consts, state, self.steps)
        residual = lax.stop_gradient(residual)
        count = (jnp.isnan(residual) * 0).astype(jnp.int32) + self.steps
        return Outcome(image, residual, count, residual <= process.tol)


def _plain(iteration: Iteration, consts: Consts, state: Any, steps: int) -> tuple[Any, jax.Array]:
    """The image and the residual after ``steps`` steps."""

    def one(state: Any, _: None) -> tuple[Any, None]:
        return iteration.step(consts, state), None

    return _read(lax.scan(one, state, None, length=steps)[0])


def _at_root_memory(iteration: Iteration, consts: Consts, state: Any, steps: int) -> tuple[Any, jax.Array]:
    """The same, with the rule of the module."""

    @jax.custom_jvp
    @transparent
    def last(consts: Consts, state: Any) -> tuple[Any, jax.Array]:
        return _read(_in_stretches(lambda state: iteration.step(consts, state), state, steps))

    def rule(primals: tuple[Consts, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
        consts, state = primals
        leaves = jax.tree.leaves(consts)
        live, dots = moving(consts, tangents[0])
        values = [leaves[i] for i in live]

        def one(carry: Any) -> Any:
            state, state_dot, theta_dot = carry
            vector, combine = partition(state)

            def step(vector: Any, *values: jax.Array) -> tuple[Any, Any]:
                new = iteration.step(substitute(consts, live, values), combine(vector))
                return partition(new)[0], new

            _, state_dot, state = jax.jvp(step, (vector, *values), (state_dot, *theta_dot), has_aux=True)
            return state, state_dot, theta_dot

        start = (state, _dense(state, tangents[1]), dots)
        state, state_dot, _ = _in_stretches(one, start, steps)
        vector, combine = partition(state)
        return jax.jvp(lambda vector: _read(combine(vector)), (vector,), (state_dot,))

    last.defjvp(rule, symbolic_zeros=True)
    return last(consts, state)


def _in_stretches(step: Any, carry: Any, steps: int) -> Any:
    """``steps`` steps; run back, they keep the starts of about √steps stretches, and the carries of one."""
    length = max(1, round(steps**0.5))

    @jax.checkpoint
    def one(carry: Any, _: None) -> tuple[Any, None]:
        return step(carry), None

    def stretch(carry: Any, length: int) -> Any:
        return lax.scan(one, carry, None, length=length)[0] if length else carry

    again = jax.checkpoint(lambda carry, _: (stretch(carry, length), None))
    carry = lax.scan(again, carry, None, length=steps // length)[0]
    return stretch(carry, steps % length)


def _read(state: Any) -> tuple[Any, jax.Array]:
    return state.image, state.residual


def _dense(state: Any, dots: Any) -> Any:
    """The tangent of a state's float leaves; zeros are typed like the state, which a loop asks for."""
    leaves, treedef = jax.tree.flatten(state)
    floats = [(x, d) for x, d in zip(leaves, treedef.flatten_up_to(dots), strict=True) if is_float(x)]
    zeros = [blank(x) if isinstance(d, SymbolicZero) else d for x, d in floats]
    return jax.tree.unflatten(jax.tree.structure(partition(state)[0]), zeros)
