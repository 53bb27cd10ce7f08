"""The potentials of the nearest transport plan: X = max(Y - alpha - beta, 0), alpha on rows, beta on columns.

They minimise ``|max(Y - alpha - beta, 0)|^2 / 2 + a @ alpha + b @ beta``, convex and quadratic piece by piece, whose
gradient says how far the sums of X are off. Newton's system has the weights q of the entries in its matrix, 1 where
X is positive: ``[[diag(q @ 1), q], [q.T, diag(1 @ q)]]``, the Laplacian of a graph between rows and columns but for
the sign of beta. One block of the graph after the other is singular along (1, -1).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.prox.base import matmul
from nsimplicit.prox.boundary import magnitude
from nsimplicit.prox.threshold import find

LINK = 1e-8
"""The weight in Newton's system of entries that are zero: it joins the blocks, so that mass can move between them."""


def solver(q: jax.Array) -> Any:
    """``solve(rows, columns)`` for the potentials of a change of the sums, with weights q >= 0 of the entries.

    The rows are eliminated at once, the columns one by one as in a Markov chain (Grassmann, Taksar,
    Heyman): a pivot is the sum of the weights that are left. There are no differences, so all factors
    are correct to the last digits whatever the weights, and the pivot of the last column of a block
    is exactly zero: its potential is set to 0.
    """
    if q.shape[0] < q.shape[1]:
        turned = solver(q.T)
        return lambda rows, columns: turned(columns, rows)[::-1]
    sums = jnp.sum(q, axis=1)
    share = q / jnp.where(sums > 0, sums, 1)[:, None]
    m = q.shape[1]
    at = jnp.arange(m)

    def eliminate(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, turn, pivots = carry
        row = jnp.where(at > j, weights[j], 0)
        pivot = jnp.sum(row)
        factor = row / jnp.where(pivot > 0, pivot, 1)
        return weights + factor[:, None] * row, turn + factor[:, None] * turn[j], jnp.where(at == j, pivot, pivots)

    start = matmul(q.T, share), jnp.eye(m, dtype=q.dtype), jnp.zeros(m, q.dtype)
    _, turn, pivots = lax.fori_loop(0, m, eliminate, start)
    inverse = jnp.where(pivots > 0, 1 / jnp.where(pivots > 0, pivots, 1), 0)
    upside = jnp.where(sums > 0, 1 / jnp.where(sums > 0, sums, 1), 0)

    def solve(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
        beta = matmul(inverse * matmul(turn, columns - matmul(rows, share)), turn)
        return upside * rows - matmul(share, beta), beta

    return solve


def positive(u: jax.Array) -> jax.Array:
    """max(u, 0) of a constant."""
    return jnp.where(u > 0, u, 0)


def off(X: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far the sums are from those asked for."""
    return jnp.sum(X, axis=1) - a, jnp.sum(X, axis=0) - b


def _largest(*arrays: jax.Array) -> jax.Array:
    return sum((jnp.max(magnitude(x), initial=0) for x in arrays), jnp.zeros((), arrays[0].dtype))


def search(U: jax.Array, move: jax.Array, gain: jax.Array) -> jax.Array:
    """Nearly the length t of a step that minimises along it: where the slope has fallen to a tenth, and not below 0.

    The slope ``sum(move * max(U - t move, 0)) - gain`` falls in t, piece by piece linearly: Newton's
    method, within what is known to be too short and too long.
    """

    def slope(t: Any) -> tuple[jax.Array, jax.Array]:
        rest = U - t * move
        return jnp.sum(move * positive(rest)) - gain, jnp.sum(jnp.where(rest > 0, move * move, 0))

    first = slope(0.0)[0]

    def step(carry: Any) -> Any:
        t, low, high, _, count = carry
        value, curvature = slope(t)
        low, high = jnp.where(value > 0, t, low), jnp.where(value < 0, t, high)
        good = (value >= -1e-6 * first) & (value <= 0.1 * first)
        ahead = t + value / jnp.where(curvature > 0, curvature, 1)
        middle = jnp.where(high < jnp.inf, (low + high) / 2, 4 * t)
        ahead = jnp.where((curvature > 0) & (low < ahead) & (ahead < high), ahead, middle)
        return jnp.where(good, t, ahead), low, high, good, count + 1

    start = jnp.ones_like(first), jnp.zeros_like(first), jnp.full_like(first, jnp.inf), False, 0
    t, low, _, good, _ = lax.while_loop(lambda c: ~c[3] & (c[4] < 60), step, start)
    return jnp.where(good, t, low)


def potentials(Y: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """alpha, beta, and X, and whether its sums are a and b: for constants, totals of a and b being equal."""
    eps = jnp.finfo(Y.dtype).eps
    top = jnp.max(Y, axis=1)
    Y = Y - top[:, None]
    alpha = find(Y, a[:, None])[1][:, 0]
    beta = find((Y - alpha[:, None]).T, b[:, None])[1][:, 0]

    def noise(alpha: jax.Array, beta: jax.Array, factor: float) -> jax.Array:
        return factor * eps * (sum(Y.shape) * _largest(a, b) + _largest(alpha, beta))

    def step(carry: Any) -> Any:
        alpha, beta, _, count = carry
        U = Y - alpha[:, None] - beta
        rows, columns = off(positive(U), a, b)
        da, db = solver(jnp.where(U > 0, 1, jnp.asarray(LINK, U.dtype)))(rows, columns)
        t = search(U, da[:, None] + db, jnp.sum(a * da) + jnp.sum(b * db))
        alpha, beta = alpha + t * da, beta + t * db
        left = _largest(*off(positive(Y - alpha[:, None] - beta), a, b))
        return alpha, beta, left <= noise(alpha, beta, 4), count + 1

    start = alpha, beta, _largest(*off(positive(Y - alpha[:, None] - beta), a, b)) <= noise(alpha, beta, 4), 0
    alpha, beta, _, _ = lax.while_loop(lambda c: ~c[2] & (c[3] < 200), step, start)
    U = jnp.where((a > 0)[:, None] & (b > 0), Y - alpha[:, None] - beta, -1)
    X = positive(U)
    # The sums of X are known to the digits of Y; on the support they are made those of X.
    da, db = solver(jnp.where(U > 0, 1, jnp.zeros_like(U)))(*off(X, a, b))
    X = jnp.where(U > 0, positive(X - da[:, None] - db), 0)
    solved = _largest(*off(X, a, b)) <= noise(alpha, beta, 1e4)
    return alpha + top, beta, X, solved
