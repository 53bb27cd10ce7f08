"""Solving a quadratic program: active sets from a cold start, an interior point for the lanes they leave, a polish.

The data are scaled first: rows of norm one, a cost of magnitude one. Few programs need the second method, and under
``vmap`` on a CPU it is run for those alone, one after another; elsewhere all lanes take its steps if one needs it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._lanes import largest, one_by_one
from nsimplicit.layers.qp_active_set import Active, peak, pivot
from nsimplicit.layers.qp_conditions import State, steps_for
from nsimplicit.layers.qp_interior import INFEASIBLE, INVALID, MAX_STEPS, SOLVED, UNBOUNDED, interior
from nsimplicit.layers.qp_program import Program
from nsimplicit.layers.qp_tangent import factor

Start = tuple[State, Active, jax.Array, jax.Array]
COLD = 12
"""Active sets that are tried at least; where there are only bounds trying more of them always ends."""


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
        m = jnp.where(m > 0, m, 0)
        x, y, m = (jnp.where(lost, jnp.nan, v) for v in (x, y * cost / rows_A, m * cost / rows_G))
        return (x, y, m), jnp.asarray(status, int), count, error


def _solve(program: Program, tol: float, max_steps: int) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """Active sets from a cold start; in a second turn from an interior point. One loop, so that it is compiled once."""
    steps, q = steps_for(program), program.q
    limit = COLD if program.h.size else COLD + 5 * len(q)
    leaves, structure = jax.tree.flatten(program)

    @one_by_one
    def warm(needed: jax.Array, *leaves: jax.Array) -> Start:
        here = structure.unflatten(leaves)
        return lax.cond(needed, lambda: _interior(here, tol, max_steps), lambda: _cold(here))

    def attempt(carry: tuple) -> tuple:
        _, _, count, error, turn = carry
        needed = (turn > 0) & ~(error <= tol)
        rough, active, code, inner = lax.cond(largest(needed), lambda: warm(needed, *leaves), lambda: _cold(program))
        fine, done, outer = pivot(program, steps, active, rough, limit, (turn > 0) & ~needed)
        z = jax.tree.map(lambda u, v: jnp.where(done, u, v), fine, rough)
        error = residual(program, steps, z)
        unsolved = jnp.where(code == SOLVED, MAX_STEPS, code)
        status = jnp.where((error <= tol) & (code != INVALID), SOLVED, unsolved)
        return z, status, count + inner + outer, error, turn + 1

    z, _, zero, _ = _cold(program)
    start = (z, zero, zero, jnp.full_like(q[0], jnp.inf), zero)
    z, status, count, error, _ = lax.while_loop(lambda c: ~(c[3] <= tol) & (c[4] < 2), attempt, start)
    return z, status, count, error


def _cold(program: Program) -> Start:
    """Nothing."""
    q, no, zero = program.q, jnp.zeros_like(program.q, bool), jnp.zeros((), int)
    z = (jnp.zeros_like(q), jnp.zeros_like(program.b), jnp.zeros_like(program.h))
    return z, Active(no, no, jnp.zeros_like(program.h, bool)), zero, zero


def _interior(program: Program, tol: float, max_steps: int) -> Start:
    """An interior point, the constraints that are active there, what was found, and the number of steps."""
    P, q, A, b, G, h, lo, hi = (getattr(program, n) for n in ("P", "q", "A", "b", "G", "h", "lo", "hi"))
    n, eye = len(q), jnp.eye(len(q), dtype=q.dtype)
    below = (-eye, -lo) if lo is not None else (eye[:0], q[:0])
    above = (eye, hi) if hi is not None else (eye[:0], q[:0])
    C, d = (jnp.concatenate(parts) for parts in zip((G, h), below, above, strict=True))
    there = ~(d == jnp.inf)
    C, d = jnp.where(there[:, None], C, 0), jnp.where(there, d, 1)
    # The factor is nan where P is not convex, 0·v where v is nan or infinite.
    convex = factor(P + 10 * n * float(jnp.finfo(q.dtype).eps) * eye)(jnp.ones_like(q))
    bad = jnp.any(jnp.array([jnp.any(jnp.isnan(v)) for v in (convex, 0 * q, 0 * A, 0 * b, 0 * C, 0 * d)]))
    (x, y, m, s), code, count = interior(P, q, A, b, C, d, tol=tol / 10, max_steps=max_steps)
    m, tight = jnp.where(there, m, 0), there & (m > s)
    at_lo = tight[len(h) : len(h) + n] if lo is not None else jnp.zeros(n, bool)
    at_hi = tight[len(d) - n :] & ~at_lo if hi is not None else jnp.zeros(n, bool)
    return (x, y, m[: len(h)]), Active(at_lo, at_hi, tight[: len(h)]), jnp.where(bad, INVALID, code), count
