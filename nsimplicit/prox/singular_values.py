"""The singular values of a matrix lowered by a threshold: F(X) = U max(sigma - tau, 0) V^T.

F is twice the upper right block of the positive part of the dilation less tau (``spectral_function``), from which it
has its higher derivatives. The first is found with smaller matrices. With A = U^T dX V and s = sigma - tau,

    U^T dF V = even * (sym(A) - dtau I) + odd * skew(A)    for the pairs of min(m, n) singular vectors,
               rest * A                                    for those of a singular vector and a null vector,

    even_ij = (s_i+ + s_j+) / (|s_i| + |s_j|),    rest_i = s_i+ / (|s_i| + tau),
    odd_ij = s_i+ / (|s_i| + sigma_j + tau) + s_j+ / (|s_j| + sigma_i + tau),

a symmetric map. Zero and repeated singular values are nothing special.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import blank
from nsimplicit.prox.base import matmul
from nsimplicit.prox.boundary import change, magnitude
from nsimplicit.prox.spectral_function import differences, dilated, dilation, shifted, switches, turned, within


class Basis(NamedTuple):
    """Constants: singular vectors, and the eigenvalues of the shifted dilation with their eigenvectors."""

    U: jax.Array
    V: jax.Array
    lam: jax.Array
    E: jax.Array


def lowered(x: jax.Array, tau: jax.Array, factors: tuple[jax.Array, jax.Array, jax.Array], selection: Any) -> jax.Array:
    """F(x) for matrices along leading axes, of which ``factors`` are the decompositions, and one threshold tau > 0."""

    def one(x: jax.Array, U: jax.Array, sigma: jax.Array, Vh: jax.Array) -> jax.Array:
        k, spectrum = min(x.shape), shifted(dilated(x, (U, sigma, Vh)), tau)
        basis = Basis(U, Vh.mT, spectrum.lam, spectrum.V)
        s, pairs = basis.lam[:k], (U[:, :k], Vh[:k])
        value = matmul(pairs[0] * jnp.where(s > 0, s, 0), pairs[1])
        positive = turned(basis.E, jnp.where(basis.lam > 0, basis.lam, 0))
        moves = change(matmul(pairs[0].T, matmul(x, pairs[1].T)))
        moves = (moves + moves.T) / 2 - change(tau) * jnp.eye(k, dtype=x.dtype)
        chosen = matmul(matmul(pairs[0], switches(moves, s, selection)), pairs[1])
        return _lowered(x, tau, value, positive, basis)[0] + change(chosen)

    return jnp.vectorize(one, signature="(m,n),(m,m),(k),(n,n)->(m,n)")(x, *factors)


@jax.custom_jvp
def _lowered(x: jax.Array, tau: jax.Array, value: jax.Array, positive: jax.Array, basis: Basis) -> Any:
    """``value``, F, and ``positive``, the positive part of the dilation less tau, as functions of x and tau."""
    return value, positive


@_lowered.defjvp
def _lowered_jvp(primals: Any, tangents: Any) -> Any:
    """With P the positive part of W, P - W that of -W: |W| dP + dP |W| = P dW + dW P, |W| = 2 P - W, F in P.

    The unknowns are dP, dF and what they depend on, dx and dtau.
    """
    x, tau, _, _, basis = primals
    value, positive = _lowered(*primals)
    size = 2 * positive - dilation(x) + tau * jnp.eye(sum(x.shape), dtype=x.dtype)
    m = len(x)
    C, sums = differences(basis.lam)

    def widened(dx: jax.Array, dtau: jax.Array) -> jax.Array:
        return dilation(dx) - dtau * jnp.eye(len(size), dtype=size.dtype)

    def system(unknown: Any) -> Any:
        dP, dF, dx, dtau = unknown
        E = widened(dx, dtau)
        left = matmul(size, dP) + matmul(dP, size) - matmul(positive, E) - matmul(E, positive)
        return left, dF - 2 * dP[:m, m:], dx, dtau

    def scaled(b: jax.Array, weights: jax.Array) -> jax.Array:
        """Nothing is multiplied for a first derivative, where b is zero."""
        return lax.cond(jnp.any(b != 0), lambda: turned(basis.E, weights * within(b, basis.E)), lambda: blank(b))

    def solve(_: Any, b: Any) -> Any:
        r, f, dx, dtau = b
        E, dP = widened(dx, dtau), scaled(r, 1 / sums)
        A = matmul(basis.U.T, matmul(dx, basis.V)) - dtau * jnp.eye(*x.shape, dtype=x.dtype)
        dF = matmul(basis.U, matmul(_weighed(A, basis.lam), basis.V.T))
        return dP + turned(basis.E, C * within(E, basis.E)), f + 2 * dP[:m, m:] + dF, dx, dtau

    def transpose_solve(_: Any, b: Any) -> Any:
        r, f, dx, dtau = b
        K = scaled(r, C)
        A = _weighed(matmul(basis.U.T, matmul(f, basis.V)), basis.lam)
        corner = jnp.pad(2 * f, ((0, len(size) - m), (m, 0)))
        dP = turned(basis.E, within(r + corner, basis.E) / sums)
        dx = dx + K[:m, m:] + K[m:, :m].T + matmul(basis.U, matmul(A, basis.V.T))
        return dP, f, dx, dtau - jnp.trace(K) - jnp.trace(A)

    dx, dtau = tangents[:2]
    # A right-hand side that does not depend on the tangents could not be transposed.
    zero = blank(dx) + blank(dtau)
    b = blank(widened(zero, dtau)), zero, dx + zero, dtau + jnp.sum(zero)
    dP, dF, _, _ = lax.custom_linear_solve(system, b, solve, transpose_solve)
    return (value, positive), (dF, dP)


def _weighed(A: jax.Array, lam: jax.Array) -> jax.Array:
    """U^T dF V for a constant threshold, from A."""
    k = min(A.shape)
    s, other, null = lam[:k], -lam[k : 2 * k], -lam[-1]  # sigma - tau, sigma + tau, and tau if there is a rest
    high = jnp.where(s > 0, s, 0)
    odd = high[:, None] / (magnitude(s)[:, None] + other)
    even, odd = differences(s)[0], odd + odd.T
    square = (even + odd) / 2 * A[:k, :k] + (even - odd) / 2 * A[:k, :k].T
    rest = high / (magnitude(s) + null)
    if len(A) > k:
        return jnp.concatenate([square, A[k:] * rest])
    return jnp.concatenate([square, A[:, k:] * rest[:, None]], axis=1)
