"""Broyden's (good) method with a short memory, with a safeguard.

With f(z) = T(z) - z the step is p = B f, B an approximation of the inverse of I - T' that takes the last change y of f
into minus the change s of z that caused it:

    B⁺ = B + u vᵀ,    v = Bᵀs,    u = -(s + B y)/(vᵀy),

B = I at the start, where the step is a plain one, and I + Σ u vᵀ over the last updates then. When the residual has
risen they are dropped and the step is a plain one. An update whose vᵀy is lost in rounding is left out.

For derivatives B f - f is a constant, as is Anderson's correction, and for the reason given there.

References: C. Broyden, A class of methods for solving nonlinear simultaneous equations, Math. Comp. 19 (1965);
S. Bai, J. Z. Kolter, V. Koltun, Deep equilibrium models, NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, add, subtract
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.operator import Vector, coarsest_eps
from nsimplicit.solvers.base import MapSolver, State, ages, evaluate, put, remember


@config
class Broyden(MapSolver):
    """A quasi-Newton method that never forms a matrix.

    Args:
        memory: updates kept; ``memory`` states of storage, twice.
        growth: a residual above ``growth`` times the last one drops the updates.
    """

    memory: int = 10
    growth: float = 2.0

    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """No updates."""
        del problem
        state, unset, place = remember(z, space, self.memory)
        return dataclasses.replace(state, numbers=(unset, place))

    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One evaluation of T, and six products of a stack of ``memory`` states and a state."""
        image, move, residual = evaluate(problem, state.z, space)
        here, move = lax.stop_gradient((state.z, move))
        (last, old_move), (us, vs), (length, place) = state.vectors, state.stacks, state.numbers
        length = jnp.where(residual <= self.growth * state.residual, length, 0.0)

        def correction(v: Vector, right: Vector, left: Vector, newest: jax.Array, count: jax.Array) -> Vector:
            """Σ left (rightᵀv) over ``count`` updates, the newest of them in that place."""
            used = ages(newest, self.memory, residual) < count
            return space.combine(jnp.where(used, space.dots(right, v), 0), left)

        s, y = subtract(here, last), subtract(move, old_move)
        v = add(s, correction(s, us, vs, place - 1, length - 1))
        missed = add(s, add(y, correction(y, vs, us, place - 1, length - 1)))
        slope = space.dot(v, y)
        sure = jnp.abs(slope) > coarsest_eps(move) * space.norm(v) * space.norm(y)
        u = space.scale(jnp.where(sure, -1 / jnp.where(sure, slope, 1), 0), missed)
        us, vs = put(us, u, place), put(vs, v, place)
        z = add(image, correction(move, vs, us, place, length))
        length = jnp.minimum(length + 1, self.memory).astype(residual.dtype)
        return State(z, image, residual, (here, move), (us, vs), (length, jnp.mod(place + 1, self.memory)))
