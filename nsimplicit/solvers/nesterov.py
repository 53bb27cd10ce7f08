"""Nesterov's extrapolation with two restarts.

The weight restarts when the step turns against the motion. And when the residual has risen, the
extrapolation is taken back: the next point is the last plain iterate x, whose residual a
contraction has already lowered. So on a contraction it converges, whatever the step size.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, subtract
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.operator import Vector
from nsimplicit.solvers.base import MapSolver, State, evaluate, start


@config
class Nesterov(MapSolver):
    """x⁺ = T(y), y⁺ = x⁺ + (t - 1)/t⁺ (x⁺ - x), restarted when the step turns against the motion.

    On a forward-backward map with step at most 1/L this is FISTA. The extrapolation weights are
    constants for every derivative.

    References: B. O'Donoghue, E. Candès, Adaptive restart for accelerated gradient schemes,
    Found. Comput. Math. 15 (2015), the gradient scheme.
    """

    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """The last x, and t = 1."""
        del problem
        state = start(z, space)
        return State(z, z, state.residual, (z,), (), (jnp.where(jnp.isinf(state.residual), 1.0, state.residual),))

    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One application of T."""
        image, move, residual = evaluate(problem, state.z, space)
        (last,), (t,) = state.vectors, state.numbers
        motion = subtract(image, last)
        turned = space.dot(move, motion) < 0
        t = lax.stop_gradient(jnp.where(turned, 1.0, t))
        t_next = ((1 + jnp.sqrt(1 + 4 * t**2)) / 2).astype(t.dtype)
        z = space.axpy((t - 1) / t_next, motion, image)
        risen = residual > state.residual
        z, kept = space.where(risen, last, z), space.where(risen, last, image)
        return State(z, image, residual, (kept,), (), (jnp.where(risen, 1.0, t_next),))
