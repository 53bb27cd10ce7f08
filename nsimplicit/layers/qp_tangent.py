"""The linear system of a quadratic program: one Cholesky factor of n numbers, whatever the number of constraints.

With weights D (1: a variable is free, a constraint is active) M = I - D(I - K) is, row by row,

    (1 - D_x) x + p D_x (P x + Aᵀy + Gᵀz) = r
                                   -a A x = s
                    (1 - D_z) z - g D_z G x = t

Where the active constraints are dependent M is singular, and so it is where P has no curvature that they do not
restrict. So the multipliers are eliminated with delta added to the diagonal of their rows, and delta·I to p P; products
with the true M refine the answer. Each step is one of the proximal method of multipliers: it takes away all but
delta/(delta + sigma²) of an error, and never leaves the range of the constraints. Started at zero it tends to the
multipliers of least norm where the system is compatible, and leaves a residual where it is not.

What is left is (1 - D_x) x + D_x N x = r', N = p P + Aᵀ(p a/delta)A + Gᵀ(p g D_z/(1 - D_z + delta))G, which is
symmetric with x = C u, C² = D_x: the identity on fixed variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import add, subtract
from nsimplicit.linear_solvers import lapack
from nsimplicit.linear_solvers.dense import Dense, factor_definite
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Saddle,
    Vector,
    coarsest_eps,
    quotient,
    seen,
)

PLAIN_SIZE = 16
"""Up to this size lanes are eliminated together in plain XLA; above, LAPACK takes one after another."""
REFINEMENTS = 10


def factor(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A solver for vectors, of a symmetric positive definite matrix; nan where it is not definite."""
    if matrix.shape[-1] <= PLAIN_SIZE:
        inverse = factor_definite(matrix)

        def solve(v: jax.Array) -> jax.Array:
            # A product with an inverse is backward stable after one step of refinement, as substitution is.
            x = inverse(v[:, None])
            return (x + inverse(v[:, None] - matrix @ x))[:, 0]

        return solve
    lower = lapack.cholesky(matrix)
    return lambda v: lapack.cholesky_solve(lower, v[:, None])[:, 0]


def factor_once(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """As :func:`factor`, for one vector: the factor of a lane is not kept."""
    return (
        factor(matrix) if matrix.shape[-1] <= PLAIN_SIZE else lambda v: lapack.solve_definite(matrix, v[:, None])[:, 0]
    )


def gram(matrix: jax.Array, weights: jax.Array) -> Any:
    """Mᵀ diag(weights) M."""
    return matrix.T @ (weights[:, None] * matrix) if matrix.size else 0.0


def regularised(
    system: Saddle, factor: Callable[[jax.Array], Callable[[jax.Array], jax.Array]] = factor
) -> Callable[[Vector], Vector]:
    """``v -> x`` with M x = v up to the regularisation, from one factor."""
    (P, A, G), (p, a, g), (free, _, active) = system.matrices, system.steps, system.weights
    delta = jnp.finfo(P.dtype).eps ** 0.5
    loose = jnp.where(active == 0, 1, 1 - active + delta)  # an inactive row is solved as it is
    N = p * P + delta * jnp.eye(len(P), dtype=P.dtype) + gram(A, p * a / delta) + gram(G, p * g * active / loose)
    C = jnp.sqrt(free)
    solve = factor(jnp.diag(1 - free) + C[:, None] * N * C)
    loaded = free >= 0.5
    inverse = jnp.where(loaded, 1 / jnp.where(loaded, C, 1), 0)  # of C, where x = C u is safely inverted

    def forward(v: Vector) -> Vector:
        r, s, t = v
        fixed = jnp.where(loaded, 0, r)
        shift = N @ fixed + p * (A.T @ (s / delta) + G.T @ (t / loose))
        x = fixed + C * solve(jnp.where(loaded, inverse * r, C * r) - C * shift)
        return x, (s + a * (A @ x)) / delta, (t + active * g * (G @ x)) / loose

    def transposed(v: Vector) -> Vector:
        r, s, t = v
        r = r + A.T @ (a * s / delta) + G.T @ (g * active * t / loose)
        u = solve(C * r)
        moved = C * u  # D_x times the answer
        x = jnp.where(loaded, inverse * u, r + moved - N @ moved)
        return x, (s - p * (A @ moved)) / delta, (t - p * (G @ moved)) / loose

    return transposed if system.transposed else forward


@config
class Condensed(LinearSolver):
    """Solves :class:`Saddle` systems by :func:`regularised` and refinement; others are built and factored.

    The condition number is infinite where refinement leaves more than eps^(1/4) of the right-hand side: the system is
    singular, and this right-hand side has no solution.
    """

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b, of least norm where there are several."""
        if not isinstance(operator.structure, Saddle):
            return Dense().solve(operator, b, guess)
        space, step = operator.space, regularised(operator.structure)
        eps = coarsest_eps(b)
        size = space.norm(b)

        def unfinished(carry: tuple) -> jax.Array:
            _, _, left, before, count = carry
            return (left > 4 * eps * size) & (left < before / 2) & (count < REFINEMENTS)

        def refine(carry: tuple) -> tuple:
            x, residual, left, _, count = carry
            new = add(x, step(residual))
            r = subtract(b, operator.matvec(new))
            error = space.norm(r)
            better = error < left
            keep = space.where(better, (new, r), (x, residual))
            return *keep, jnp.where(better, error, left), left, count + 1

        x = step(b)
        r = subtract(b, operator.matvec(x))
        error = space.norm(r)
        start = (x, r, error, error * jnp.inf, jnp.zeros_like(error, int))
        x, r, error, _, count = lax.while_loop(unfinished, refine, start)
        norm = quotient(space.norm(subtract(b, r)), space.norm(x))
        condition = jnp.where(error <= eps**0.25 * size, seen(space, x, b, norm), jnp.inf)
        return LinearSolution(x, count + 1, norm, condition)
