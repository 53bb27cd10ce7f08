"""Krylov methods on pytrees: conjugate gradients and GMRES.

Written here because the tangent solve must work per lane, under ``shard_map`` with replica checks,
in every export, and must say whether it converged. Lanes that are done are frozen.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, add, blank, blank_like, subtract
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Product,
    Symmetric,
    Vector,
    default_tolerance,
    loop,
    quotient,
    start,
    unknowns,
)


@config
class CG(LinearSolver):
    """Conjugate gradients, for symmetric definite matrices (either sign).

    On any other matrix the recurrence loses its meaning; the guard sees the residual.

    Args:
        rtol: stop when the residual is below ``rtol`` times the right-hand side; default eps^(3/4).
        max_steps: at most this many products.
    """

    rtol: float | None = None
    max_steps: int = 2000
    structures: ClassVar[tuple[type, ...]] = (Symmetric,)

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        x, r = start(operator, b, guess)
        square = space.dot(r, r)
        target = (default_tolerance(b, self.rtol) * space.norm(b)) ** 2
        zero = blank(square)

        def active(numbers):
            square, steps, *_ = numbers
            return (square > target) & (steps < self.max_steps)

        def step(vectors, numbers):
            x, r, p = vectors
            square, steps, low, high = numbers
            m = operator.matvec(p)
            curvature = space.dot(p, m)
            a = quotient(square, curvature)
            x, r = space.axpy(a, p, x), space.axpy(-a, m, r)
            new = space.dot(r, r)
            rayleigh = jnp.abs(quotient(curvature, space.dot(p, p)))
            p = space.axpy(quotient(new, square), p, r)
            inverse = jnp.where(a == 0, jnp.inf, jnp.abs(quotient(jnp.ones_like(a), a)))
            low = jnp.minimum(low, inverse)
            high = jnp.maximum(high, jnp.where(jnp.isinf(inverse), rayleigh, inverse))
            return (x, r, p), (new, steps + 1, low, high)

        numbers = (square, zero.astype(int), zero + jnp.inf, zero)
        (x, *_), (_, steps, low, high) = loop(space, active, step, (x, r, r), numbers)
        return LinearSolution(x, steps, high, jnp.where(steps > 0, jnp.maximum(1.0, quotient(high, low)), 1.0))


BLOCK = 10
"""Basis vectors that are orthogonalised against at once: a step reads no more of the basis than there is."""


@config
class GMRES(LinearSolver):
    """Restarted GMRES, for any matrix; each new vector is orthogonalised twice.

    Args:
        restart: basis vectors kept; memory is ``restart`` states.
        rtol: stop when the residual is below ``rtol`` times the right-hand side; default eps^(3/4).
        max_steps: at most this many products, over all cycles.
    """

    restart: int = 100
    rtol: float | None = None
    max_steps: int = 2000

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        x, r = start(operator, b, guess)
        target = default_tolerance(b, self.rtol) * space.norm(b)
        beta = space.norm(r)
        # a vector split over a mesh is longer than what this device holds of it
        length = min(self.restart, self.max_steps)
        length = length if space.axis_name else min(length, max(1, unknowns(b, space)))
        cycles = -(-self.max_steps // length)
        zero = blank(beta)
        none = zero.astype(int)

        def active(numbers):
            # a cycle that gained less than a tenth has stalled, or reached what rounding allows
            beta, last, count, *_ = numbers
            return (beta > target) & (count < cycles) & (beta < 0.9 * last)

        def step(vectors, numbers):
            x, r = vectors
            beta, _, count, steps, norm, condition = numbers
            wanted = jnp.where(active(numbers), target, jnp.inf)
            dx, inner, high, low = _arnoldi(operator.matvec, space, r, beta, wanted, length)
            x = add(x, dx)
            r = subtract(b, operator.matvec(x))
            condition = jnp.maximum(condition, jnp.where(low > 0, high / low, jnp.inf))
            return (x, r), (space.norm(r), beta, count + 1, steps + inner + 1, jnp.maximum(norm, high), condition)

        numbers = (beta, zero + jnp.inf, none, none, zero, zero + 1)
        (x, _), (*_, steps, norm, condition) = loop(space, active, step, (x, r), numbers)
        return LinearSolution(x, steps, norm, condition)


def _arnoldi(matvec: Product, space: Space, r: Vector, beta, target, length: int):
    """One GMRES cycle from residual ``r`` of norm ``beta``: correction, steps, extreme pivots.

    The Hessenberg matrix is reduced by Givens rotations as it grows, so the residual norm is known
    at every step. A lane that reached its target gets unit columns with zero right-hand side:
    its coefficients stay as they are. A breakdown (a new vector that vanishes) ends its lane with
    the exact answer.
    """
    lanes = jnp.shape(beta)
    dtype = beta.dtype
    rows = -(-(length + 1) // BLOCK) * BLOCK
    basis = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype) + blank_like(x), r)
    basis = _put(basis, 0, space.scale(quotient(jnp.ones_like(beta), beta), r))
    like = (beta * 0)[None]
    triangle = jnp.zeros((length, length, *lanes), dtype) + like  # row, column, lane
    rotations = jnp.zeros((length, 2, *lanes), dtype) + like
    g = _put(jnp.zeros((length + 1, *lanes), dtype) + like, 0, beta)

    def on(k, g):
        return (jnp.abs(g[k]) > target) & (k < length)

    def body(c):
        k, basis, triangle, rotations, g, steps = c
        live = on(k, g)
        w = matvec(_take(basis, k))
        h = jnp.zeros((rows, *lanes), dtype) + like

        def project(i, carry):
            # the blocks up to vector k, and those once more
            w, h = carry
            first = BLOCK * (i % (k // BLOCK + 1))
            block = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, BLOCK, 0), basis)
            d = space.dots(block, w)
            old = lax.dynamic_slice_in_dim(h, first, BLOCK, 0)
            return subtract(w, space.combine(d, block)), lax.dynamic_update_slice_in_dim(h, old + d, first, 0)

        w, h = lax.fori_loop(0, 2 * (k // BLOCK + 1), project, (w, h))
        fresh = space.norm(w)
        h = h.at[k + 1].add(fresh)

        def rotate(i, h):
            c, s = rotations[i, 0], rotations[i, 1]
            top, low = h[i], h[i + 1]
            return h.at[i].set(c * top + s * low).at[i + 1].set(c * low - s * top)

        h = lax.fori_loop(0, k, rotate, h)
        radius = jnp.hypot(h[k], h[k + 1])
        cos = jnp.where(radius == 0, 1.0, quotient(h[k], radius))
        sin = quotient(h[k + 1], radius)
        column = h.at[k].set(radius).at[k + 1].set(0.0)[:length]
        unit = jnp.zeros_like(column).at[k].set(1.0)
        triangle = triangle.at[:, k].set(jnp.where(live, column, unit))
        rotations = rotations.at[k].set(jnp.where(live, jnp.stack([cos, sin]), jnp.stack([cos * 0 + 1, sin * 0])))
        new = jnp.where(live, -sin * g[k], 0.0)
        g = g.at[k].set(jnp.where(live, cos * g[k], 0.0)).at[k + 1].set(new)
        basis = _put(basis, k + 1, space.scale(jnp.where(live, quotient(jnp.ones_like(fresh), fresh), 0.0), w))
        return k + 1, basis, triangle, rotations, g, steps + live

    carry = (0, basis, triangle, rotations, g, (beta * 0).astype(int))
    k, basis, triangle, _, g, steps = lax.while_loop(lambda c: jnp.any(on(c[0], c[4])), body, carry)
    pivots = jnp.diagonal(triangle, axis1=0, axis2=1)  # lanes, length
    used = jnp.arange(length) < steps[..., None]
    high = jnp.where(used, jnp.abs(pivots), 0.0).max(-1)
    low = jnp.where(used, jnp.abs(pivots), jnp.inf).min(-1)

    def back(i, y):
        row = k - 1 - i
        rest = g[row] - jnp.sum(triangle[row] * y, 0)
        return y.at[row].set(quotient(rest, triangle[row, row]))

    y = lax.fori_loop(0, k, back, jnp.zeros((length, *lanes), dtype) + like)
    dx = space.combine(y, jax.tree.map(lambda x: x[:length], basis))
    return dx, steps, high, low


def _take(stack: Vector, k) -> Vector:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, k, 0, keepdims=False), stack)


def _put(stack: Vector, k, v: Vector) -> Vector:
    return jax.tree.map(lambda x, y: x.at[k].set(y.astype(x.dtype)), stack, v)
