"""Solving a quadratic program: active sets from a cold start, an interior point for the lanes they leave, a polish.

The data are scaled first: rows of norm one, a cost of magnitude one. Few programs need the second method, and under
``vmap`` on a CPU it is run for those alone, one after another; elsewhere all lanes take its steps if one needs it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.layers.qp_active_set import Active, peak, pivot
from nsimplicit.layers.qp_conditions import State, steps_for
from nsimplicit.layers.qp_interior import INFEASIBLE, INVALID, MAX_STEPS, SOLVED, UNBOUNDED, interior
from nsimplicit.layers.qp_program import Program
from nsimplicit.layers.qp_tangent import factor
from nsimplicit.linear_solvers.lanes import largest
from nsimplicit.linear_solvers.lapack import one_by_one

COLD, POLISH = 12, 8
"""Active sets that are tried from a cold start, and from an interior point."""


def scaled(program: Program) -> tuple[Program, jax.Array, jax.Array, jax.Array]:
    """The program with rows of norm one and a cost of magnitude one; the cost, and the norms of both kinds of rows."""

    def unit(matrix: jax.Array, side: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        norm = jnp.sqrt(jnp.sum(matrix * matrix, 1))
        norm = jnp.where(norm > 0, norm, 1)
        return matrix / norm[:, None], side / norm, norm

    P, q = program.P, program.q
    largest_entry = peak(jnp.append(P.ravel(), q))
    cost = jnp.where(largest_entry > 0, largest_entry, 1)
    (A, b, rows_A), (G, h, rows_G) = unit(program.A, program.b), unit(program.G, program.h)
    return Program(P / cost, q / cost, A, b, G, h, program.lo, program.hi), cost, rows_A, rows_G


def residual(program: Program, steps: Any, z: State) -> jax.Array:
    """By how much z misses the conditions of a scaled program, each kind of row relative to 1 + its largest term."""
    (x, y, m), (p, _, _) = z, steps
    force = program.A.T @ y + program.G.T @ m
    u = x - p * (program.P @ x + program.q + force)
    u = u if program.lo is None else jnp.where(u < program.lo, program.lo, u)
    u = u if program.hi is None else jnp.where(u > program.hi, program.hi, u)
    stationary = peak(u - x) / p / (1 + peak(program.P @ x) + peak(force))
    equal = peak(program.A @ x - program.b) / (1 + peak(program.b))
    level = program.G @ x
    slack, strain = (program.h - level) / (1 + peak(level)), m / (1 + peak(m))
    outside = _excess(program.lo, x) + _excess(x, program.hi)
    off = (stationary, equal, peak(jnp.where(slack < strain, slack, strain)), outside / (1 + peak(x)))
    return jnp.max(jnp.array(off))


def _excess(low: jax.Array | None, high: jax.Array | None) -> Any:
    """By how much ``low <= high`` is missed; 0 where one of them is not there."""
    return 0.0 if low is None or high is None else peak(jnp.where(low > high, low - high, 0))


def solve(program: Program, tol: float, max_steps: int) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """(x, y, lambda) without derivative, the status, the number of factorisations, the residual."""
    program = lax.stop_gradient(program)
    with jax.default_matmul_precision("highest"):
        inner, cost, rows_A, rows_G = scaled(program)
        z, status, count, error = _solve(inner, tol, max_steps)
        x, y, m = z
        lost = (status == INFEASIBLE) | (status == UNBOUNDED) | (status == INVALID)
        x, y, m = (jnp.where(lost, jnp.nan, v) for v in (x, y * cost / rows_A, m * cost / rows_G))
        return (x, y, m), jnp.asarray(status, int), count, error


def _solve(program: Program, tol: float, max_steps: int) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    steps, q = steps_for(program), program.q
    no = jnp.zeros_like(q, bool)
    zero = (jnp.zeros_like(q), jnp.zeros_like(program.b), jnp.zeros_like(program.h))
    nothing = Active(no, no, jnp.zeros_like(program.h, bool))
    cold = COLD if program.h.size else COLD + 5 * len(q)
    z, count = pivot(program, steps, nothing, zero, cold)
    error = residual(program, steps, z)
    failed = ~(error <= tol)
    leaves, structure = jax.tree.flatten(program)

    @one_by_one
    def rescue(failed: jax.Array, *operands: jax.Array) -> tuple:
        program = structure.unflatten(operands[4:])

        def run() -> tuple:
            return _interior(program, steps_for(program), tol, max_steps)

        def keep() -> tuple:
            return *operands[:3], jnp.asarray(SOLVED), jnp.zeros((), int), operands[3]

        return lax.cond(failed, run, keep)

    def done() -> tuple:
        return *z, jnp.asarray(SOLVED), jnp.zeros((), int), error

    x, y, m, status, more, error = lax.cond(largest(failed), lambda: rescue(failed, *z, error, *leaves), done)
    return (x, y, m), status, count + more, error


def _interior(program: Program, steps: Any, tol: float, max_steps: int) -> tuple:
    """The interior point, and the better of it and its polish."""
    P, q, A, b, G, h, lo, hi = (getattr(program, n) for n in ("P", "q", "A", "b", "G", "h", "lo", "hi"))
    n, eye = len(q), jnp.eye(len(q), dtype=q.dtype)
    below = (-eye, -lo) if lo is not None else (eye[:0], q[:0])
    above = (eye, hi) if hi is not None else (eye[:0], q[:0])
    C, d = (jnp.concatenate(parts) for parts in zip((G, h), below, above, strict=True))
    there = ~(d == jnp.inf)
    # The factor is nan where P is not convex, 0·v where v is nan or infinite.
    convex = factor(P + 10 * n * float(jnp.finfo(q.dtype).eps) * eye)(jnp.ones_like(q))
    C, d = jnp.where(there[:, None], C, 0), jnp.where(there, d, 1)
    bad = jnp.any(jnp.array([jnp.any(jnp.isnan(v)) for v in (convex, 0 * q, 0 * A, 0 * b, 0 * C, 0 * d)]))
    (x, y, m, s), code, count = interior(P, q, A, b, C, d, tol=tol / 10, max_steps=max_steps)
    m, tight = jnp.where(there, m, 0), there & (m > s)
    at_lo = tight[len(h) : len(h) + n] if lo is not None else jnp.zeros(n, bool)
    at_hi = tight[len(d) - n :] & ~at_lo if hi is not None else jnp.zeros(n, bool)
    rough = (x, y, m[: len(h)])
    fine, more = pivot(program, steps, Active(at_lo, at_hi, tight[: len(h)]), rough, POLISH)
    errors = residual(program, steps, rough), residual(program, steps, fine)
    better = errors[1] <= errors[0]
    z = tuple(jnp.where(better, u, v) for u, v in zip(fine, rough, strict=True))
    error = jnp.where(better, errors[1], errors[0])
    status = jnp.where(error <= tol, SOLVED, jnp.where(code == SOLVED, MAX_STEPS, code))
    return *z, jnp.where(bad, INVALID, status), count + more, error
