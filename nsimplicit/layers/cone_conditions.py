"""The optimality conditions of a cone program as one square equation, and Newton's method on it.

With t = s - y (slack minus multiplier) s is the projection of t on K, and y = s - t that of -t on the dual cone: they
are orthogonal, whatever t. So (x, t) is a solution if and only if

    P x + c + Aᵀy = 0,    A x + s - b = 0.

This is the residual map of the homogeneous embedding at tau = 1. The Jacobian M of that map is singular along z, which
it is homogeneous in; its left kernel is the projection of z. Both kernels have the entry 1 at tau, so that the last row
of M is a combination of the others, and without it and the last column there is nothing left to be divided out.

Reference: E. Busseti, W. Moursi, S. Boyd, Solution refinement at regular points of conic problems (2019).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit.implicit.equation import Root
from nsimplicit.layers.cone_data import ConeProgram
from nsimplicit.layers.qp_active_set import peak
from nsimplicit.linear_solvers.dense import factor

State = tuple[jax.Array, jax.Array]
NEWTON_STEPS, PATIENCE = 20, 3


def split(program: ConeProgram, z: State) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x, y, s) of a state, kinks that are missed by rounding alone hit."""
    x, t = z
    near = lax.stop_gradient(jnp.finfo(x.dtype).eps ** 0.75 * (1 + peak(x) + peak(t)))
    t = program.cones.tied(t, near)
    s = program.cones.project(t)
    return x, s - t, s


def conditions(program: ConeProgram) -> Root:
    """The equation of a program."""

    def miss(z: State) -> State:
        x, y, s = split(program, z)
        return program.P @ x + program.c + program.A.T @ y, program.A @ x + s - program.b

    return Root((miss,))


def newton(program: ConeProgram, z: State) -> tuple[jax.Array, State]:
    """The residual at z, in the units of b and c, and a regularised Newton step from it.

    delta (x - x_k) is added to the first condition, delta (y - y_k) taken off the other. So the matrix is regular
    whatever the program, and a step is one of the proximal method of multipliers; delta falls with the residual, which
    keeps convergence fast.
    """
    P, A, b, c, (x, t) = program.P, program.A, program.b, program.c, z
    n, eye = len(x), jnp.eye(len(t), dtype=t.dtype)
    s, push = jax.linearize(program.cones.project, t)
    D = jax.vmap(push, out_axes=1)(eye) if t.size else eye
    dual, primal = P @ x + c + A.T @ (s - t), A @ x + s - b
    # Relative to b and c, not to the solution: where there is none residuals fall beside iterates that grow.
    errors = (peak(dual) / (1 + peak(c)), peak(primal) / (1 + peak(b)))
    error = jnp.where(errors[0] > errors[1], *errors)
    least = float(jnp.finfo(x.dtype).eps) ** 0.6
    delta = jnp.where(error > 0.01, 1e-4, jnp.where(0.01 * error > least, 0.01 * error, least))
    top = jnp.concatenate([P + delta * jnp.eye(n, dtype=x.dtype), -A.T @ (eye - D)], 1)
    M = jnp.concatenate([top, jnp.concatenate([A, D + delta * (eye - D)], 1)])
    step = factor(M).solve(-jnp.concatenate([dual, primal]))
    return error, (x + step[:n], t + step[n:])


@data
class Polished:
    """A state, its residual, how far a further step would go, and how many steps were made."""

    z: State
    error: jax.Array
    move: jax.Array
    count: jax.Array


def polish(program: ConeProgram, z: State, skip: jax.Array) -> Polished:
    """Newton steps while they help: the best state of all."""
    eps = jnp.finfo(z[0].dtype).eps

    def advance(carry: tuple) -> tuple:
        best, z, patience = carry
        error, new = newton(program, z)
        move = (peak(new[0] - z[0]) + peak(new[1] - z[1])) / (1 + peak(z[0]) + peak(z[1]))
        better, fast = error < best.error, error < best.error / 2
        patience = jnp.where(fast, PATIENCE, patience - 1)
        done = jnp.isnan(error) | ((error <= 4 * eps) & (move <= eps**0.5))
        here = Polished(z, error, move, best.count)
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), here, best)
        return Polished(best.z, best.error, best.move, best.count + 1), new, jnp.where(done, 0, patience)

    far = z[0].sum() * 0 + jnp.inf
    start = (Polished(z, far, far, jnp.zeros((), int)), z, jnp.where(skip, 0, PATIENCE))
    return lax.while_loop(lambda c: (c[2] > 0) & (c[0].count < NEWTON_STEPS), advance, start)[0]
