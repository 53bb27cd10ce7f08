"""A proximal interior-point method: sure where active sets are not, and it knows when there is no solution.

Mehrotra's predictor and corrector on min ½ xᵀP x + qᵀx, A x = b, C x + s = d, s >= 0, every step regularised by
delta/2‖x - x_k‖² and by delta in the rows of A and C: neither a flat direction nor dependent constraints stop it.

Where there is no solution the iterates grow, along a direction that proves it: multipliers (y, lambda >= 0) with
Aᵀy + Cᵀlambda = 0 and bᵀy + dᵀlambda < 0 (no x satisfies the constraints), or an x with P x = 0, A x = 0, C x <= 0 and
qᵀx < 0 (none is the best). Up to eps they say: whatever solves the program is larger than 1/eps.

References: S. Mehrotra, On the implementation of a primal-dual interior point method (1992); S. Pougkakiotis,
J. Gondzio, An interior point-proximal method of multipliers for convex quadratic programming (2021).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.layers.qp_active_set import peak
from nsimplicit.layers.qp_tangent import factor, gram

SOLVED, MAX_STEPS, INFEASIBLE, UNBOUNDED, INVALID = 1, 0, -1, -2, -3
Iterate = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def interior(P, q, A, b, C, d, *, tol: float, max_steps: int) -> tuple[Iterate, jax.Array, jax.Array]:
    """The last (x, y, lambda, s), what was found (0 where nothing was proved), and the number of steps.

    Args:
        P: symmetric positive semidefinite, of magnitude one.
        q: linear term.
        A: rows of norm one.
        b: right-hand sides.
        C: rows of norm one, or zero for a constraint that is not there.
        d: finite right-hand sides.
        tol: largest residual and mean product of slack and multiplier.
        max_steps: largest number of factorisations.
    """
    delta = jnp.finfo(q.dtype).eps ** 0.4
    eye = jnp.eye(len(q), dtype=q.dtype)
    count = max(len(d), 1)
    proof = float(jnp.finfo(q.dtype).eps) ** 0.625

    def matrix(weights: jax.Array) -> jax.Array:
        return P + delta * eye + gram(A, jnp.full_like(b, 1 / delta)) + gram(C, weights)

    def residuals(z: Iterate) -> tuple[jax.Array, ...]:
        x, y, m, s = z
        return P @ x + q + A.T @ y + C.T @ m, A @ x - b, C @ x + s - d

    def longest(v: jax.Array, dv: jax.Array) -> jax.Array:
        """The longest step up to one that keeps v >= 0."""
        return jnp.min(jnp.where(dv < 0, -v / jnp.where(dv < 0, dv, -1), 1), initial=1)

    def solved(z: Iterate) -> jax.Array:
        x, y, m, s = z
        dual, equal, unequal = residuals(z)
        size = tol * (1 + peak(A @ x) + peak(C @ x))
        force = tol * (1 + peak(P @ x) + peak(A.T @ y + C.T @ m))
        primal = (peak(equal) <= size) & (peak(unequal) <= size)
        return primal & (peak(dual) <= force) & (s @ m / count <= tol)

    def proves(v: Iterate, proof: jax.Array) -> jax.Array:
        """What v proves, an iterate or the difference of two; it may have any length."""
        x, y, m, _ = v
        m = jnp.where(m > 0, m, 0)
        gap, fall = -(b @ y + d @ m), -(q @ x)
        infeasible = (gap > 0) & (peak(A.T @ y + C.T @ m) <= proof * gap)
        flat = (peak(P @ x) <= proof * fall) & (peak(A @ x) <= proof * fall)
        unbounded = (fall > 0) & flat & (jnp.max(C @ x, initial=-jnp.inf) <= proof * fall)
        return jnp.where(infeasible, INFEASIBLE, jnp.where(unbounded, UNBOUNDED, MAX_STEPS))

    def step(carry: tuple) -> tuple:
        z, _, taken, _ = carry
        x, y, m, s = z
        dual, equal, unequal = residuals(z)
        wide = s + delta * m
        solve = factor(matrix(m / wide))

        def direction(product: jax.Array) -> Iterate:
            dx = solve(-dual - A.T @ (equal / delta) - C.T @ ((m * unequal - product) / wide))
            dm = (m * (unequal + C @ dx) - product) / wide
            return dx, (A @ dx + equal) / delta, dm, delta * dm - unequal - C @ dx

        mu = s @ m / count

        def aim(_: jax.Array, carry: tuple) -> tuple:
            """A direction, its longest step, and the products a better one aims at: predictor, then corrector."""
            move = direction(carry[2])
            _, _, dm, ds = move
            alpha = longest(jnp.append(s, m), jnp.append(ds, dm))
            ahead = (s + alpha * ds) @ (m + alpha * dm) / count
            return move, alpha, s * m + ds * dm - (ahead / jnp.where(mu > 0, mu, 1)) ** 3 * mu

        move, alpha, _ = lax.fori_loop(0, 2, aim, (z, mu, s * m))
        alpha = jnp.where(alpha < 1, 0.995 * alpha, 1)
        new = tuple(v + alpha * dv for v, dv in zip(z, move, strict=True))
        sound = jnp.all(jnp.array([jnp.all(jnp.isfinite(v)) for v in new]))
        # Less and less strict: rounding limits what rays prove, and nothing better will come.
        enough = jnp.where(sound, proof ** (1 - 0.25 * (taken + 1) / max_steps), proof**0.75)
        z, move = (jax.tree.map(lambda v, old: jnp.where(sound, v, old), u, z) for u in (new, move))
        both = jax.vmap(lambda *v: proves(v, enough))(*map(lambda u, v: jnp.stack([u, v]), move, z))
        code = jnp.where(solved(z), SOLVED, jnp.min(both))
        return z, code, taken + 1, ~sound | (code != MAX_STEPS)

    s, zero = jnp.where(d > 1, d, 1), jnp.zeros((), int)
    start = (jnp.zeros_like(q), jnp.zeros_like(b), jnp.ones_like(d), s)
    z, code, taken, _ = lax.while_loop(lambda c: ~c[3] & (c[2] < max_steps), step, (start, zero, zero, zero > 0))
    return z, code, taken
