"""Krylov methods for any matrix that keep a handful of vectors: BiCGStab, and CG on the normal equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nsimplicit._records import config
from nsimplicit._tree import blank, blank_like
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Vector,
    coarsest_eps,
    default_tolerance,
    loop,
    quotient,
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
        zero = blank(size)

        def active(numbers):
            *_, size, steps, _ = numbers
            return (size > target) & (steps < self.max_steps)

        def step(vectors, numbers):
            x, r, p, v = vectors
            rho, alpha, omega, peak, _, steps, norm = numbers
            new = space.dot(shadow, r)
            p = space.axpy(quotient(new * alpha, rho * omega), space.axpy(-omega, v, p), r)
            v = operator.matvec(p)
            alpha = quotient(new, space.dot(shadow, v))
            s = space.axpy(-alpha, v, r)
            t = operator.matvec(s)
            along, square = space.dot(t, s), space.dot(t, t)
            omega = quotient(along, square)
            x = space.axpy(alpha, p, space.axpy(omega, s, x))
            r = space.axpy(-omega, t, s)
            size = space.norm(r)
            # ‖t‖/‖s‖, t = M s: what is left of s is orthogonal to t.
            norm = jnp.maximum(norm, jnp.sqrt(quotient(square, size**2 + omega * along)))
            peak = jnp.maximum(peak, size)
            # A lane that broke down stops: nan is not above the target.
            size = jnp.where((alpha == 0) | ((omega == 0) & (size > target)), jnp.nan, size)
            return (x, r, p, v), (new, alpha, omega, peak, size, steps + 2, norm)

        one = zero + 1
        numbers = (one, one, one, size, size, zero.astype(int), zero)
        (x, *_), numbers = loop(space, active, step, (x, shadow, still, still), numbers)
        *_, peak, size, steps, norm = numbers
        return LinearSolution(x, steps, norm, zero, followed=size + coarsest_eps(b) * peak)


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
        zero = blank(size)

        def active(numbers):
            square, size, steps, *_ = numbers
            # the second test: the residual is orthogonal to the range, which is all that can be had
            return (size > target) & (square > flat) & (steps < self.max_steps)

        def step(vectors, numbers):
            x, r, p = vectors
            square, _, steps, longest, high = numbers
            m = operator.matvec(p)
            a = quotient(square, space.dot(m, m))
            x, r = space.axpy(a, p, x), space.axpy(-a, m, r)
            s = back(r)[0]
            new = space.dot(s, s)
            p = space.axpy(quotient(new, square), p, s)
            longest, high = jnp.maximum(longest, a), jnp.maximum(high, quotient(jnp.ones_like(a), a))
            return (x, r, p), (new, space.norm(r), steps + 2, longest, high)

        numbers = (square, size, zero.astype(int), zero, zero)
        (x, *_), (_, _, steps, longest, high) = loop(space, active, step, (x, r, s), numbers)
        return LinearSolution(x, steps, jnp.sqrt(high), jnp.maximum(1.0, jnp.sqrt(longest * high)))
