"""Solving a cone program: scaled, steps of splitting in rounds, and Newton's method where they have come near.

After each round the point is tried as a start of Newton's method and as a proof that there is no solution; the scale is
evened out, and the splitting goes on from its own point.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._lanes import one_by_one
from nsimplicit._records import data
from nsimplicit.layers import cone_embedding as embedding
from nsimplicit.layers.cone_conditions import Polished, State, polish
from nsimplicit.layers.cone_data import ConeProgram
from nsimplicit.layers.qp_active_set import peak
from nsimplicit.layers.qp_interior import INFEASIBLE, INVALID, MAX_STEPS, SOLVED, UNBOUNDED
from nsimplicit.linear_solvers import lapack
from nsimplicit.prox.boundary import magnitude

Direction = tuple[jax.Array, jax.Array, jax.Array]
ROUND = 50
"""Steps between two attempts at first; later more."""
PASSES = 10


@data
class Scales:
    """x = columns · x̂ / primal, s = ŝ / (rows · primal), y = rows · ŷ / dual."""

    rows: jax.Array
    columns: jax.Array
    primal: jax.Array
    dual: jax.Array


def scales(program: ConeProgram) -> Scales:
    """Scales that make rows and columns of magnitude one, and b and c; rows of one cone have one scale."""
    P, A, b, c = lax.stop_gradient((program.P, program.A, program.b, program.c))
    P, A = magnitude(P), magnitude(A)

    def root(x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, 1 / jnp.sqrt(jnp.where(x > 0, x, 1)), 1)

    def even(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, columns = carry
        A_now, P_now = rows[:, None] * A * columns, columns[:, None] * P * columns
        high = jnp.max(jnp.concatenate([A_now, P_now]), 0, initial=0)
        return rows * root(program.cones.per_cone(jnp.max(A_now, 1, initial=0))), columns * root(high)

    start = (jnp.ones_like(b), jnp.ones_like(c))
    rows, columns = lax.fori_loop(0, PASSES, even, start)
    size_b, size_c = peak(rows * b), peak(columns * c)
    primal, dual = (1 / jnp.where(v > 1e-3, v, jnp.where(v > 0, 1e-3, 1)) for v in (size_b, size_c))
    # With curvature one number scales both, so that P keeps its magnitude.
    both = jnp.where(primal < dual, primal, dual)
    curved = jnp.any(P > 0)
    return Scales(rows, columns, jnp.where(curved, both, primal), jnp.where(curved, both, dual))


def scaled(program: ConeProgram, by: Scales) -> ConeProgram:
    """The program in scaled variables."""
    P = (by.dual / by.primal) * (by.columns[:, None] * program.P * by.columns)
    A = by.rows[:, None] * program.A * by.columns
    return ConeProgram(A, by.primal * by.rows * program.b, by.dual * by.columns * program.c, P, program.cones)


def unscaled(by: Scales, x: jax.Array, y: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x, y, s) in the units of the data."""
    return by.columns * x / by.primal, by.rows * y / by.dual, s / (by.rows * by.primal)


def proves(program: ConeProgram, x: jax.Array, y: jax.Array, s: jax.Array, proof: float) -> jax.Array:
    """What a direction proves; it may have any length, y is in the dual cone and s in the cone."""
    gap, fall = -(program.b @ y), -(program.c @ x)
    infeasible = (gap > 0) & (peak(program.A.T @ y) <= proof * gap)
    unbounded = (fall > 0) & (peak(program.P @ x) <= proof * fall) & (peak(program.A @ x + s) <= proof * fall)
    return jnp.where(infeasible, INFEASIBLE, jnp.where(unbounded, UNBOUNDED, MAX_STEPS))


@data
class Found:
    """A scaled state, what it is, and what proves that there is none."""

    z: State
    x: jax.Array
    y: jax.Array
    status: jax.Array
    num_steps: jax.Array
    residual: jax.Array


def tolerance_of_proofs(program: ConeProgram) -> float:
    """How small, beside what it gains, a direction must be that proves something."""
    return float(jnp.finfo(program.c.dtype).eps) ** 0.5


def judge(program: ConeProgram, at: Polished, direction: Direction, tol: float) -> jax.Array:
    """The status of a state, and of a direction (x, y, s).

    Where an optimum is not attained residuals fall all the same, along a sequence that never ends: its states are far
    out, or Newton's method would take them further.
    """
    eps = jnp.finfo(program.c.dtype).eps
    near = peak(at.z[0]) + peak(at.z[1]) <= eps**-0.45
    solved = (at.error <= tol) & near & (at.move <= eps**0.25)
    return jnp.where(solved, SOLVED, proves(program, *direction, tolerance_of_proofs(program)))


def invalid(program: ConeProgram) -> jax.Array:
    """Whether the data are not finite, or P is not positive semidefinite."""
    P, size = program.P, peak(program.P)
    slack = 20 * len(P) * jnp.finfo(P.dtype).eps * jnp.where(size > 0, size, 1)
    arrays = (lapack.cholesky(P + slack * jnp.eye(len(P), dtype=P.dtype)), program.A, program.b, program.c)
    return jnp.any(jnp.array([~jnp.all(jnp.isfinite(a)) for a in arrays]))


def solve(program: ConeProgram, tol: float, max_steps: int) -> Found:
    """The solution of a scaled program, without derivative; under ``vmap`` on a CPU lanes take their own time."""
    leaves, structure = jax.tree.flatten(program)

    @one_by_one
    def alone(*leaves: jax.Array) -> Found:
        return _solve(structure.unflatten(leaves), tol, max_steps)

    return alone(*leaves)


def _solve(program: ConeProgram, tol: float, max_steps: int) -> Found:
    zero = jnp.zeros((), program.c.dtype)
    bad = invalid(program)

    def unfinished(carry: tuple) -> jax.Array:
        _, found, *_ = carry
        return (found.status == MAX_STEPS) & (found.num_steps < max_steps)

    def attempt(carry: tuple) -> tuple:
        point, found, scale, turn = carry
        length = ROUND * (1 + turn // 4)
        point = embedding.run(program, scale, point, length)
        (x, y, tau), (_, s, _) = point.u, point.v
        one = jnp.where(tau > 0, tau, 1)
        at = polish(program, (x / one, (s - y) / one), ~(tau > 1e-6 * point.v[2]))
        status = judge(program, at, (x, y, s), tol)
        better = (at.error < found.residual) | (status == SOLVED)
        z = jax.tree.map(lambda a, b: jnp.where(better, a, b), at.z, found.z)
        steps, error = found.num_steps + length + at.count, jnp.where(better, at.error, found.residual)
        ratio = embedding.imbalance(program, point)
        factor = jnp.sqrt(jnp.where(ratio > 100, 100, jnp.where(ratio < 0.01, 0.01, ratio)))
        change = (factor > 2) | (factor < 0.5)
        scale = jnp.where(change, scale * factor, scale)
        return point, Found(z, x, y, status, steps, error), scale, turn + 1

    start = embedding.cold(program)
    nothing = (jnp.zeros_like(program.c), jnp.zeros_like(program.b))
    status = jnp.where(bad, INVALID, MAX_STEPS)
    found = Found(nothing, *nothing, status, jnp.zeros((), int), zero + jnp.inf)
    return lax.while_loop(unfinished, attempt, (start, found, zero + 0.1, jnp.zeros((), int)))[1]


def check(program: ConeProgram, by: Scales, given: tuple[jax.Array, jax.Array, jax.Array], tol: float) -> Found:
    """What an answer in the units of the data is, after Newton's method; nothing is believed."""
    x, y, s = given
    x, y, s = x * by.primal / by.columns, y * by.dual / by.rows, s * by.primal * by.rows
    sound = jnp.all(jnp.isfinite(jnp.concatenate([x, y, s])))
    at = polish(program, (x, s - y), ~sound)
    y, s = program.cones.project_dual(jnp.nan_to_num(y)), program.cones.project(jnp.nan_to_num(s))
    x = jnp.nan_to_num(x)
    status = jnp.where(invalid(program), INVALID, judge(program, at, (x, y, s), tol))
    return Found(at.z, x, y, status, at.count, at.error)
