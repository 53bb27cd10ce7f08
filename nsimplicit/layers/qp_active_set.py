"""Active sets of a quadratic program: guess one, solve the equations it leaves, flip what has the wrong sign.

Flipping every constraint that is violated, or whose multiplier has the wrong sign, is Newton's method on the optimality
conditions; `_exchange` says which are flipped where that cycles. It ends for every strictly convex program with bounds.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._exchange import begin, choose
from nsimplicit._records import data
from nsimplicit._tree import add
from nsimplicit.layers.qp_conditions import State
from nsimplicit.layers.qp_program import Program
from nsimplicit.layers.qp_tangent import factor_once, regularised
from nsimplicit.linear_solvers.operator import Saddle
from nsimplicit.prox.boundary import magnitude


@data
class Active:
    """Which constraints hold with equality: three boolean vectors; no variable is at both its bounds."""

    lo: jax.Array
    hi: jax.Array
    rows: jax.Array


def peak(x: jax.Array) -> jax.Array:
    """The largest entry in absolute value; 0 of nothing."""
    return jnp.max(magnitude(x), initial=0)


def newton(program: Program, steps: Any, active: Active, z: State) -> State:
    """A step from z to the solution with these constraints active and the others absent.

    Regularised: it leaves 1e-8 of the way, and what the equations leave open stays as it is in z.
    """
    P, q, A, b, G, h = (getattr(program, name) for name in "PqAbGh")
    p, a, g = steps
    x, y, m = z
    free = ~(active.lo | active.hi)
    at = jnp.where(active.hi, q if program.hi is None else program.hi, q if program.lo is None else program.lo)
    excess = jnp.where(active.rows, g * (G @ x - jnp.where(active.rows, h, 0)), -m)
    gradient = P @ x + q + A.T @ y + G.T @ m
    weights = (free.astype(q.dtype), jnp.ones_like(b), active.rows.astype(q.dtype))
    step = regularised(Saddle(weights, (P, A, G), steps), factor_once)
    return add(z, step((jnp.where(free, -p * gradient, at - x), a * (A @ x - b), excess)))


def pivot(
    program: Program, steps: Any, start: Active, z: State, max_steps: int, skip: jax.Array
) -> tuple[State, jax.Array, jax.Array]:
    """Exchange constraints until none is wrong twice: the last state, whether it got there, the number of steps.

    Args:
        program: the data, of magnitude one.
        steps: (p, a, g) of the linear systems.
        start: the first guess.
        z: where to start; it decides what the constraints leave open.
        max_steps: largest number of steps.
        skip: whether to take none.
    """
    q, G, h, lo, hi = program.q, program.G, program.h, program.lo, program.hi
    n, tau = len(q), jnp.finfo(q.dtype).eps ** 0.75

    def wrong(z: State, active: Active) -> Active:
        x, y, m = z
        gradient = program.P @ x + q + program.A.T @ y + program.G.T @ m
        near, flat = tau * (1 + peak(x)), tau * (1 + peak(m) + peak(gradient))
        none = jnp.zeros_like(active.lo)
        below = none if lo is None else jnp.where(active.lo, gradient < -flat, ~active.hi & (x < lo - near))
        above = none if hi is None else jnp.where(active.hi, gradient > flat, ~active.lo & (x > hi + near))
        return Active(below, above, jnp.where(active.rows, m < -flat, G @ x > h + near))

    def step(carry: tuple) -> tuple:
        active, z, progress, count, before, _ = carry
        z = newton(program, steps, active, z)
        flips = wrong(z, active)
        (bounds, rows), number, progress = choose([flips.lo | flips.hi, flips.rows], progress)
        new = Active(
            active.lo ^ (flips.lo & bounds), active.hi ^ (flips.hi & bounds), active.rows ^ (flips.rows & rows)
        )
        return new, z, progress, count + 1, number, (number == 0) & (before == 0)

    zero = jnp.zeros((), int)
    carry = (start, z, begin(n + len(h)), zero, zero + 1, skip)
    _, z, _, count, _, done = lax.while_loop(lambda c: ~c[-1] & (c[3] < max_steps), step, carry)
    return z, done, count
