"""The homogeneous self-dual embedding of a cone program, solved by Douglas-Rachford splitting.

u = (x, y, tau) and v = (0, s, kappa) with u in C = Rⁿ x K* x R₊, v in the dual of C, u and v orthogonal, and

    v = Q(u) = (P x + Aᵀy + tau c,  tau b - A x,  -xᵀP x / tau - cᵀx - bᵀy).

With tau > 0 (x, y, s)/tau solves the program. With tau = 0 < kappa there is no solution: bᵀy < 0 proves that no x is
feasible, cᵀx < 0 that feasible ones are not bounded. A step is a resolvent of Q, one product with a cached inverse
factor and a quadratic equation for tau, and a projection; R, the metric of both, is constant on each cone.

References: B. O'Donoghue, Operator splitting for a homogeneous embedding of the linear complementarity problem, SIAM J.
Optim. 31 (2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._records import data
from nsimplicit.layers.cone_data import ConeProgram
from nsimplicit.linear_solvers import lapack

Triple = tuple[jax.Array, jax.Array, jax.Array]
RELAXATION = 1.5
LIGHT = 1e-6
"""The metric of x: as good as no step size."""
EQUATIONS = 1e-3
"""The metric of multipliers of equations, relative to that of others."""


@data
class Point:
    """An iterate: u in the cone C, and v in its dual."""

    u: Triple
    v: Triple


def metric(program: ConeProgram, scale: jax.Array) -> Triple:
    """R, a positive diagonal, for a scale: a large one weighs feasibility more."""
    light = np.where(program.cones.equations(), EQUATIONS, 1.0)
    return jnp.full_like(program.c, LIGHT), jnp.asarray(light, program.b.dtype) / scale, 1 / scale


def resolvent(program: ConeProgram, R: Triple) -> Callable[[Triple], Triple]:
    """w -> the u with R u + Q(u) = R w; what does not depend on w is computed here, once."""
    P, A, b, c = program.P, program.A, program.b, program.c
    rx, ry, rt = R
    K = P + jnp.diag(rx) + A.T @ (A / ry[:, None])
    eye = jnp.eye(len(c), dtype=c.dtype)
    inverse = lapack.triangular(lapack.cholesky(K), eye, lower=True)

    def solve(f: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x, y) with (R + P) x + Aᵀy = f, R y - A x = g."""
        x = inverse.T @ (inverse @ (f - A.T @ (g / ry)))
        return x, (g + A @ x) / ry

    hx, hy = solve(c, b)

    def dot(a: tuple[jax.Array, jax.Array], d: tuple[jax.Array, jax.Array]) -> jax.Array:
        return a[0] @ (rx * d[0]) + a[1] @ (ry * d[1])

    def apply(w: Triple) -> Triple:
        x, y, tau = w
        p = solve(rx * x, ry * y)
        left = (x - p[0], y - p[1])
        # The product of R u + Q(u) = R w with u is a quadratic equation for tau, with one positive root.
        two = rt + dot((hx, hy), (hx, hy))
        one = dot((hx, hy), left) - dot(p, (hx, hy)) - rt * tau
        none = -dot(p, left)
        root = jnp.sqrt(one * one - 4 * two * jnp.where(none < 0, none, 0))
        # Of the two forms of the root the one that does not subtract.
        tau = jnp.where(one < 0, (root - one) / (2 * two), -2 * none / jnp.where(one < 0, 1, one + root + 1e-30))
        tau = jnp.where(tau > 0, tau, 0)
        return p[0] - tau * hx, p[1] - tau * hy, tau

    return apply


def run(program: ConeProgram, scale: jax.Array, start: Point, steps: jax.Array) -> Point:
    """So many steps from a point."""
    R = metric(program, scale)
    solve = resolvent(program, R)

    def step(_: Any, carry: Any) -> Any:
        w = carry[0]
        half = solve(w)
        x, y, tau = (2 * a - b for a, b in zip(half, w, strict=True))
        u = (x, program.cones.project_dual(y), jnp.where(tau > 0, tau, 0))
        v = tuple(r * (a + b - 2 * h) for r, a, b, h in zip(R, u, w, half, strict=True))
        w = tuple(b + RELAXATION * (a - h) for a, b, h in zip(u, w, half, strict=True))
        return w, Point(u, v)  # pyright: ignore[reportArgumentType]

    w = tuple(a + b / r for a, b, r in zip(start.u, start.v, R, strict=True))
    return lax.fori_loop(0, steps, step, (w, start))[1]  # pyright: ignore[reportArgumentType]


def cold(program: ConeProgram) -> Point:
    """Where the iteration starts: tau = kappa = 1, or nearly so, and zeros."""
    one = jnp.ones((), program.c.dtype)
    zeros = (jnp.zeros_like(program.c), jnp.zeros_like(program.b))
    return Point((*zeros, one), (*zeros, one))


def imbalance(program: ConeProgram, point: Point) -> jax.Array:
    """The primal residual over the dual one, each relative: what a better scale evens out."""
    (x, y, tau), (_, s, _) = point.u, point.v
    P, A, b, c = program.P, program.A, program.b, program.c
    primal = _relative(A @ x + s - b * tau, A @ x, s, b * tau)
    dual = _relative(P @ x + A.T @ y + c * tau, P @ x, A.T @ y, c * tau)
    return primal / dual


def _relative(miss: jax.Array, *terms: jax.Array) -> jax.Array:
    tiny = jnp.finfo(miss.dtype).tiny ** 0.5
    size = sum(jnp.sqrt(jnp.sum(t * t)) for t in terms)
    return (jnp.sqrt(jnp.sum(miss * miss)) + tiny) / (size + tiny)
