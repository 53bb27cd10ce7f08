"""The nearest point of a polyhedron, by the dual active-set method of Goldfarb and Idnani, for constants.

Rows k of unit length, c their bounds; the first are equations. Begun at the nearest solution of the equations, each
round takes in the inequality violated most: x moves along what its normal adds to those that are held, and their
multipliers change so that y - x stays the sum of the multipliers times the normals. Where a multiplier reaches zero
first, that inequality leaves and the round goes on. Every round ends farther from y, so no set of held inequalities
comes twice, and the method is finite. An inequality that depends on those that are held cannot move x; if no
multiplier falls either, the polyhedron is empty.

References:
    Goldfarb, Idnani, A numerically stable dual method for solving strictly convex quadratic programs (1983).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.prox.base import matmul
from nsimplicit.prox.boundary import magnitude
from nsimplicit.prox.orthonormal import Basis, add, apart, drop, empty


class Nearest(NamedTuple):
    """The point; one multiplier for each row; whether a row is held with equality; the basis of those rows."""

    x: jax.Array
    multipliers: jax.Array
    held: jax.Array
    basis: Basis


class _State(NamedTuple):
    x: jax.Array
    multipliers: jax.Array
    held: jax.Array
    basis: Basis
    incoming: jax.Array
    rounds: jax.Array


def length(x: jax.Array) -> jax.Array:
    """The norm of a constant."""
    return jnp.sqrt(jnp.sum(x * x))


def dependent(n: int, eps: float) -> float:
    """How near to the span of others a row of length 1 counts as in it."""
    return 8 * (n + 2) ** 0.5 * eps


def stretch(basis: Basis) -> jax.Array:
    """At least 1: how far the held rows are from dependent; an error in their bounds moves x by this factor."""
    return jnp.max(jnp.sqrt(jnp.sum(basis.made**2, axis=1)), initial=1)


def back_on(x: jax.Array, k: jax.Array, c: jax.Array, basis: Basis) -> jax.Array:
    """The nearest point where the held rows are equations."""
    return x - matmul(basis.q, matmul(matmul(k, x) - c, basis.made))


def span(k: jax.Array, order: jax.Array, count: Any, tolerance: float) -> tuple[Basis, jax.Array]:
    """A basis of the first ``count`` rows in ``order``, without those that depend on earlier ones; which are in it."""

    def step(carry: Any) -> Any:
        basis, kept, j = carry
        row = order[j]
        rest, size, along = apart(basis, k[row])
        new = size > tolerance
        more = add(basis, row, rest, jnp.where(new, size, 1), along)
        basis = jax.tree.map(lambda a, b: jnp.where(new, a, b), more, basis)
        return basis, kept | (new & (jnp.arange(len(k)) == row)), j + 1

    start = empty(k.shape[1], len(k), k.dtype), jnp.zeros(len(k), bool), jnp.zeros((), int)
    return lax.while_loop(lambda carry: carry[2] < count, step, start)[:2]


def nearest(y: jax.Array, k: jax.Array, c: jax.Array, equations: int, eps: float) -> Nearest:
    """The nearest point to y with ``k @ x = c`` in the first rows, ``k @ x <= c`` in the others; nan if there is none.

    Args:
        y: (n,).
        k: rows of length 1, or 0.
        c: one number for each row; ``inf`` for none.
        equations: how many rows are equations.
        eps: the rounding unit of the numbers that came in.
    """
    rows, n = k.shape
    at = jnp.arange(rows)
    free, bounded = at >= equations, c < jnp.inf
    c = jnp.where(bounded, c, 0)
    least = dependent(n, eps)

    def excess(x: jax.Array, basis: Basis) -> tuple[jax.Array, jax.Array]:
        unit = (n + 2) * eps * stretch(basis)
        gap = jnp.where(bounded, matmul(k, x) - c, -1)
        return gap, unit * (magnitude(c) + length(x) + unit * length(y))

    def choose(x: jax.Array, held: jax.Array, basis: Basis) -> jax.Array:
        gap, noise = excess(x, basis)
        over = jnp.where(free & ~held, gap - noise, -jnp.inf)
        best = jnp.argmax(over)
        return jnp.where(over[best] > 0, best, -1)

    def step(state: _State) -> _State:
        x, multipliers, held, basis, incoming, rounds = state
        rest, size, along = apart(basis, k[incoming])
        falls = matmul(basis.made, along)
        sure = falls > 8 * eps * jnp.sqrt(jnp.sum(basis.made**2, axis=1))
        ratio = jnp.where(held & free & sure, multipliers / jnp.where(sure, falls, 1), jnp.inf)
        leaving = jnp.argmin(ratio)
        independent = size > least
        gap = matmul(k[incoming], x) - c[incoming]
        whole = jnp.where(independent, jnp.where(gap > 0, gap, 0) / jnp.where(independent, size, 1) ** 2, jnp.inf)
        reach = jnp.where(whole <= ratio[leaving], whole, ratio[leaving])
        possible = reach < jnp.inf
        enters = (whole <= ratio[leaving]) & possible
        reach = jnp.where(possible, reach, 0)
        multipliers = multipliers - reach * jnp.where(held & free, falls, 0) + reach * (at == incoming)
        x = x - jnp.where(independent, reach, 0) * rest
        one, other = add(basis, incoming, rest, jnp.where(independent, size, 1), along), drop(basis, leaving)
        basis = jax.tree.map(lambda a, b, old: jnp.where(enters, a, jnp.where(possible, b, old)), one, other, basis)
        gone = (at == leaving) & ~enters & possible
        held = (held | ((at == incoming) & enters)) & ~gone
        multipliers = jnp.where(gone | (held & (multipliers < 0)), 0, multipliers)
        x = back_on(x, k, c, basis)
        incoming = jnp.where(enters, choose(x, held, basis), jnp.where(possible, incoming, -1))
        return _State(x, multipliers, held, basis, incoming, rounds + 1)

    basis, held = span(k, at, equations, least) if equations else (empty(n, rows, k.dtype), jnp.zeros(rows, bool))
    x = back_on(back_on(y, k, c, basis), k, c, basis)
    state = _State(x, jnp.zeros_like(c), held, basis, choose(x, held, basis), jnp.zeros((), int))
    last = 20 * (rows + n) + 100
    found = lax.while_loop(lambda s: (s.incoming >= 0) & (s.rounds < last), step, state)
    # The same again in one step, without what the rounds left behind; at a vertex y does not matter.
    vertex = jnp.sum(found.held) == n
    x = back_on(back_on(jnp.where(vertex, 0, y), k, c, found.basis), k, c, found.basis)
    multipliers = matmul(found.basis.made, matmul(y - x, found.basis.q))
    gap, noise = excess(x, found.basis)
    solved = jnp.all(jnp.where(free, gap, magnitude(gap)) <= 64 * noise)
    return Nearest(jnp.where(solved, x, jnp.nan), multipliers, found.held, found.basis)
