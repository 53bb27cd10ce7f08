"""LSQR on pytrees: least squares by products with a matrix and its transpose."""

from __future__ import annotations

import jax.numpy as jnp

from nsimplicit._tree import Space, blank, blank_like
from nsimplicit.linear_solvers.operator import Product, Vector, default_tolerance, loop, quotient


def lsqr(matvec: Product, rmatvec: Product, space: Space, b: Vector, *, max_steps: int = 500) -> Vector:
    """The minimum-norm least-squares solution, by Golub-Kahan bidiagonalisation.

    Works on M and its transpose, never on their product, so the condition number is not squared.
    Stops when ‖Mᵀr‖ <= eps^(3/4)·‖M‖‖r‖, when ‖r‖ <= eps^(3/4)·‖b‖, or after ``max_steps``.

    References: C. Paige, M. Saunders, LSQR, ACM TOMS 8 (1982), algorithm LSQR.
    """
    tol = default_tolerance(b, None)

    def unit(v: Vector):
        size = space.norm(v)
        return size, space.scale(quotient(jnp.ones_like(size), size), v)

    start, u = unit(b)
    alpha, v = unit(rmatvec(u))

    def active(numbers):
        _, phi, rho_bar, frobenius, steps = numbers
        gradient = phi * jnp.abs(rho_bar)  # ‖Mᵀr‖, since rho_bar = -cos·alpha
        return (phi > tol * start) & (gradient > tol * jnp.sqrt(frobenius) * phi) & (steps < max_steps)

    def step(vectors, numbers):
        x, u, v, w = vectors
        alpha, phi, rho_bar, frobenius, steps = numbers
        beta, u = unit(space.axpy(-alpha, u, matvec(v)))
        alpha, v = unit(space.axpy(-beta, v, rmatvec(u)))
        rho = jnp.hypot(rho_bar, beta)
        cos, sin = quotient(rho_bar, rho), quotient(beta, rho)
        x = space.axpy(quotient(cos * phi, rho), w, x)
        w = space.axpy(-quotient(sin * alpha, rho), w, v)
        return (x, u, v, w), (alpha, sin * phi, -cos * alpha, frobenius + alpha**2 + beta**2, steps + 1)

    numbers = (alpha, start, alpha, alpha**2, blank(start).astype(int))
    return loop(space, active, step, (blank_like(b), u, v, v), numbers)[0][0]
