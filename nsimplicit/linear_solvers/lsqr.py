"""LSQR on pytrees: least squares by products with a matrix and its transpose."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space, blank_like
from nsimplicit.linear_solvers.operator import Product, Vector, default_tolerance, quotient


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

    beta, u = unit(b)
    alpha, v = unit(rmatvec(u))
    start = beta
    carry = (blank_like(b), u, v, v, alpha, beta, alpha, alpha**2, (beta * 0).astype(int))

    def active(c):
        _, _, _, _, _, phi, rho_bar, frobenius, steps = c
        gradient = phi * jnp.abs(rho_bar)  # ‖Mᵀr‖, since rho_bar = -cos·alpha
        return (phi > tol * start) & (gradient > tol * jnp.sqrt(frobenius) * phi) & (steps < max_steps)

    def body(c):
        x, u, v, w, alpha, phi, rho_bar, frobenius, steps = c
        on = active(c)
        beta, u_new = unit(space.axpy(-alpha, u, matvec(v)))
        alpha_new, v_new = unit(space.axpy(-beta, v, rmatvec(u_new)))
        rho = jnp.hypot(rho_bar, beta)
        cos, sin = quotient(rho_bar, rho), quotient(beta, rho)
        x_new = space.axpy(quotient(cos * phi, rho), w, x)
        w_new = space.axpy(-quotient(sin * alpha_new, rho), w, v_new)
        new = (
            x_new,
            u_new,
            v_new,
            w_new,
            alpha_new,
            sin * phi,
            -cos * alpha_new,
            frobenius + alpha_new**2 + beta**2,
            steps + 1,
        )
        keep = [space.where(on, a, old) for a, old in zip(new[:4], c[:4], strict=True)]
        return (*keep, *(jnp.where(on, a, old) for a, old in zip(new[4:], c[4:], strict=True)))

    return lax.while_loop(lambda c: jnp.any(active(c)), body, carry)[0]
