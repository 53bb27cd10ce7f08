"""Conjugate gradients for the Jacobian of a proximal gradient step, kept in the range of D.

The matrix is M = I - D(I - step·H) with D (the Jacobian of the prox) and H (the Hessian) symmetric
and 0 <= D <= I. Write S = I - step·H. Then N = D - D S D is symmetric, positive semidefinite when
H is, and the two systems of implicit differentiation reduce to it:

    Mᵀ x = v:  x = v + S u   with N w = D v,  u = D w
    M  x = b:  x = b + u     with N w = D S b,  u = D w

The kernel of D is an eigenvalue conjugate gradients never see but rounding slowly fills, so every
vector is kept in the range of D: the loop carries q, rho and the answer as preimages under D.
(Iterating outside the range lost two digits on a simplex at condition number 1e2, everything at
1e6, while reporting convergence.) (I - step·H)·rho is the true residual.

    q = rho = D v
    p = D q;  s = q - S p;  a = <rho, rho> / <p, s>
    w += a q;  rho -= a D s;  q <- rho + beta q
    u = D w
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import Space, add, blank, blank_like, subtract
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    ProxGradient,
    Vector,
    default_tolerance,
    loop,
    quotient,
)

MAX_STEPS = 2000


@config
class ProxCG(LinearSolver):
    """Conjugate gradients in the range of D for M = I - D(I - step·H) and its transpose.

    Two products with D and one with H a step; at most rank(D) steps in exact arithmetic, so a
    Lasso costs its support, not its size. A step of negative curvature (H indefinite on the range
    of D, or a D that is not a prox Jacobian) stops its lane unconverged: the guard sees the residual.

    Args:
        rtol: stop when the residual is below ``rtol`` times the right-hand side (Euclidean,
            relative); default eps^(3/4) of the dtype.
        max_steps: at most this many steps.
    """

    rtol: float | None = None
    max_steps: int = MAX_STEPS
    structures: ClassVar[tuple[type, ...]] = (ProxGradient,)

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b. A guess is used through its residual."""
        structure, space = operator.structure, operator.space
        if not isinstance(structure, ProxGradient):
            raise InputError(
                message(
                    "linear_solver=ProxCG()",
                    f"the tangent system has the structure {type(structure).__name__}.",
                    "ProxCG works with the two factors of a proximal gradient step, which this equation does not have.",
                    "splittings.ForwardBackward(f, g), whose equation has them",
                    "linear_solver=nsi.linear_solvers.GMRES()",
                )
            )
        shift = guess if guess is not None else blank_like(b)
        remainder = subtract(b, operator.matvec(shift)) if guess is not None else b
        tol = default_tolerance(b, self.rtol) * space.norm(b)
        v = remainder if structure.transposed else structure.forward(remainder)
        u, steps, norm, condition = range_cg(structure, space, v, tol, self.max_steps)
        x = add(remainder, structure.forward(u) if structure.transposed else u)
        return LinearSolution(add(shift, x), steps, norm, condition)


def range_cg(structure: ProxGradient, space: Space, v: Vector, tol: Any, max_steps: int):
    """u = D w with N w = D v, the steps, the largest eigenvalue seen and the condition number seen.

    Args:
        structure: the factors of M.
        space: the inner product.
        v: the right-hand side.
        tol: stop when the residual is below, absolute, per lane.
        max_steps: at most this many steps.
    """
    rho = structure.prox(v)
    square = space.dot(rho, rho)
    zero = blank(square)

    def active(numbers):
        square, steps, *_ = numbers
        return (square > tol**2) & (steps < max_steps)

    def step(vectors, numbers):
        w, q, rho = vectors
        square, steps, longest, high = numbers
        p = structure.prox(q)
        s = subtract(q, structure.forward(p))
        curvature = space.dot(p, s)
        fine = curvature > 0
        a = jnp.where(fine, quotient(square, curvature), 0)
        w = space.axpy(a, q, w)
        rho = space.axpy(-a, structure.prox(s), rho)
        new = space.dot(rho, rho)
        q = space.axpy(quotient(new, square), q, rho)
        longest, high = jnp.maximum(longest, a), jnp.maximum(high, quotient(fine.astype(a.dtype), a))
        # A lane of negative curvature stops: nan is not above the tolerance.
        return (w, q, rho), (jnp.where(fine, new, jnp.nan), steps + 1, longest, high)

    numbers = (square, zero.astype(int), zero, zero)
    (w, *_), (_, steps, longest, high) = loop(space, active, step, (blank_like(rho), rho, rho), numbers)
    return structure.prox(w), steps, high, jnp.maximum(1.0, high * longest)
