"""Krylov methods for any matrix that keep a handful of vectors: BiCGStab, and CG on the normal equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import blank_like
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Vector,
    default_tolerance,
    quotient,
    seen,
    start,
)


@config
class BiCGStab(LinearSolver):
    """Stabilised biconjugate gradients, for any matrix: eight vectors of memory, two products a step.

    Its residual is not monotone and it may break down, which ends a lane unconverged; the guard sees
    that. ``GMRES`` is safer where its basis fits into memory.

    Args:
        rtol: stop when the residual is below ``rtol`` times the right-hand side; default eps^(3/4).
        max_steps: at most this many products.

    References:
        van der Vorst, Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG (1992).
    """

    rtol: float | None = None
    max_steps: int = 2000

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        x, shadow = start(operator, b, guess)
        target = default_tolerance(b, self.rtol) * space.norm(b)
        size, still = space.norm(shadow), blank_like(b)
        one = jnp.ones_like(size)
        carry = (x, shadow, still, still, one, one, one, size, (size * 0).astype(int), size * 0)

        def active(c):
            return (c[7] > target) & (c[8] < self.max_steps)

        def body(c):
            x, r, p, v, rho, alpha, omega, size, steps, norm = c
            on = active(c)
            new = space.dot(shadow, r)
            turn = quotient(new, rho) * quotient(alpha, omega)
            p = space.where(on, space.axpy(turn, space.axpy(-omega, v, p), r), p)
            v = space.where(on, operator.matvec(p), v)
            a = quotient(new, space.dot(shadow, v))
            s = space.axpy(-a, v, r)
            t = operator.matvec(s)
            along, square = space.dot(t, s), space.dot(t, t)
            w = quotient(along, square)
            x = space.where(on, space.axpy(a, p, space.axpy(w, s, x)), x)
            r = space.where(on, space.axpy(-w, t, s), r)
            left = space.norm(r)
            # ‖t‖/‖s‖, t = M s: what is left of s is orthogonal to t.
            norm = jnp.where(on, jnp.maximum(norm, jnp.sqrt(quotient(square, left**2 + w * along))), norm)
            # A lane that broke down stops: nan is not above the target.
            left = jnp.where((a == 0) | ((w == 0) & (left > target)), jnp.nan, left)
            return x, r, p, v, new, a, w, jnp.where(on, left, size), steps + 2 * on, norm

        out = lax.while_loop(lambda c: jnp.any(active(c)), body, carry)
        return LinearSolution(out[0], out[8], out[9], seen(space, out[0], b, out[9]))


@config
class NormalCG(LinearSolver):
    """Conjugate gradients on the normal equations, for any matrix: steady, but slow.

    It works with the square of the condition number: as many steps as the condition number, where
    GMRES needs its root at best, and half of the digits at worst. A singular system ends at a
    least-squares solution, which the guard judges by its residual.

    Args:
        rtol: stop when the residual is below ``rtol`` times the right-hand side; default eps^(3/4).
        max_steps: at most this many products, with M and with its transpose.

    References:
        Björck, Numerical Methods for Least Squares Problems (1996), section 7.4 (CGLS).
    """

    rtol: float | None = None
    max_steps: int = 4000

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        x, r = start(operator, b, guess)
        back = jax.linear_transpose(operator.matvec, b)
        target = default_tolerance(b, self.rtol) * space.norm(b)
        s = back(r)[0]
        square, size = space.dot(s, s), space.norm(r)
        flat = jnp.finfo(size.dtype).eps ** 2 * square
        carry = (x, r, s, square, size, (size * 0).astype(int), size * 0, size * 0)

        def active(c):
            # the second test: the residual is orthogonal to the range, which is all that can be had
            return (c[4] > target) & (c[3] > flat) & (c[5] < self.max_steps)

        def body(c):
            x, r, p, square, size, steps, longest, high = c
            on = active(c)
            m = operator.matvec(p)
            a = jnp.where(on, quotient(square, space.dot(m, m)), 0)
            x, r = space.axpy(a, p, x), space.axpy(-a, m, r)
            s = back(r)[0]
            new = jnp.where(on, space.dot(s, s), square)
            p = space.where(on, space.axpy(quotient(new, square), p, s), p)
            longest, high = jnp.maximum(longest, a), jnp.maximum(high, quotient(on.astype(a.dtype), a))
            return x, r, p, new, jnp.where(on, space.norm(r), size), steps + 2 * on, longest, high

        out = lax.while_loop(lambda c: jnp.any(active(c)), body, carry)
        return LinearSolution(out[0], out[5], jnp.sqrt(out[7]), jnp.maximum(1.0, jnp.sqrt(out[6] * out[7])))
