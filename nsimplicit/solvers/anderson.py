"""Anderson acceleration (type II), with a safeguard.

With f_k = T(z_k) - z_k and the last m differences F of the f and G of the T(z),

    gamma = argmin ‖f_k - F gamma‖² + ridge·‖gamma‖²,    z_{k+1} = T(z_k) - G gamma.

gamma comes from the m×m normal equations: their condition number is the square of F's, which the
ridge, relative to the trace, bounds by 1/ridge. When the residual has risen the history is dropped
and the step is a plain one.

For derivatives the whole correction G gamma is a constant: dz⁺ = A dz + B at the points visited,
which contracts as T does. Past convergence F is rounding noise, and so is gamma: differentiating
it gave errors of 1e62, and mixing derivatives with it as a constant still left errors of 1e-1
where T contracts with .8 (trend filtering, 50 steps; this rule: 2e-7).

References: H. Walker, P. Ni, Anderson acceleration for fixed-point iterations, SINUM 49 (2011).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, subtract
from nsimplicit.implicit.process import Bound
from nsimplicit.linear_solvers.dense import invert
from nsimplicit.linear_solvers.operator import Vector, coarsest_eps
from nsimplicit.solvers.base import MapSolver, State, ages, evaluate, put, remember


@config
class Anderson(MapSolver):
    """Mixes the last ``memory`` steps so that the linearised residual is smallest.

    Args:
        memory: differences kept; ``memory`` states of storage, twice.
        ridge: regularisation of the mixing, relative to the trace; default eps of the dtype.
        growth: a residual above ``growth`` times the last one drops the history.
    """

    memory: int = 5
    ridge: float | None = None
    growth: float = 2.0

    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """An empty history."""
        del problem
        state, unset, place = remember(z, space, self.memory)
        gram = jnp.zeros((self.memory, self.memory, *unset.shape), unset.dtype) + unset
        return dataclasses.replace(state, numbers=(unset, gram, place))

    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One evaluation of T, one m×m solve."""
        image, move, residual = evaluate(problem, state.z, space)
        move = lax.stop_gradient(move)
        old_move, old_image = state.vectors
        moves, images = state.stacks
        length, gram, place = state.numbers
        length = jnp.where(residual <= self.growth * state.residual, length, 0.0)
        here = lax.stop_gradient(image)
        newest = subtract(move, old_move)
        moves, images = put(moves, newest, place), put(images, subtract(here, old_image), place)
        # an entry is used when both of its ends belong to this history
        used = ages(place, self.memory, residual) < length
        # of all inner products only those of the newest difference are new
        row = space.dots(moves, newest)
        gram = put(put(gram, row, place), row, place, axis=1)
        gamma = self._weights(gram, space.dots(moves, move), used, coarsest_eps(move))
        mixed = space.combine(gamma, images)
        length = jnp.minimum(length + 1, self.memory).astype(residual.dtype)
        numbers = length, gram, jnp.mod(place + 1, self.memory)
        return State(subtract(image, mixed), image, residual, (move, here), (moves, images), numbers)

    def _weights(self, gram: jax.Array, side: jax.Array, used: jax.Array, eps: float) -> jax.Array:
        both = used[:, None] & used[None, :]
        gram, side = jnp.where(both, gram, 0), jnp.where(used, side, 0)
        ridge = eps if self.ridge is None else self.ridge
        trace = jnp.trace(gram)
        diagonal = jnp.where(used, ridge * trace, 0) + jnp.where(used & (trace > 0), 0, 1)
        eye = jnp.eye(self.memory).reshape((self.memory,) * 2 + (1,) * trace.ndim)
        matrix = jnp.moveaxis(gram + eye * diagonal, (0, 1), (-2, -1))
        solved = jnp.einsum("...ij,...j->...i", invert(matrix), jnp.moveaxis(side, 0, -1))
        gamma = jnp.moveaxis(solved, -1, 0)
        return jnp.where(used & jnp.isfinite(gamma), gamma, 0)
