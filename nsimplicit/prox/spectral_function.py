"""Functions of a symmetric matrix through its eigenvalues, and of any matrix through its singular values.

All are made of two: the positive part and the sign of a symmetric matrix W = V diag(lam) V^T, that is
V diag(phi(lam)) V^T with phi(t) = max(t, 0) or sign(t). A threshold is a shift of W, and the singular
values of X are eigenvalues of [[0, X], [X^T, 0]] (``dilated``).

The derivative is V (C * (V^T dW V)) V^T with the divided differences of phi,

    C_ij = (lam_i+ + lam_j+) / (|lam_i| + |lam_j|)           for the positive part,
           (1 - sign_i sign_j) / (|lam_i| + |lam_j|)         for the sign,

written so that no eigenvalues are subtracted: repeated ones are nothing special. They solve a linear
equation in the matrices themselves, |W| D + D |W| = P dW + dW P and = dW - S dW S, in which P, S and
|W| are kept live: differentiating it again gives every order without derivatives of eigenvectors.

Only a pair of eigenvalues that are both zero is a kink (0/0 above), and there the positive part goes
through ``switch``: one switch for a simple zero eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._tree import blank
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import matmul, real
from nsimplicit.prox.boundary import change, magnitude, snap


class Spectrum(NamedTuple):
    """A symmetric matrix, and its eigenvalues and eigenvectors as constants."""

    W: jax.Array
    lam: jax.Array
    V: jax.Array


def matrix(x: Any, where: str, *, square: bool = False) -> jax.Array:
    """A real matrix, or several along leading axes, in at least float32: decompositions have no 16-bit version."""
    x = real(x, where)
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        kind = "an n x n matrix" if square else "a matrix"
        raise InputError(message(f"{where}(...)", f"x has shape {x.shape}.", f"It must be {kind}."))
    return x.astype(jnp.result_type(x, jnp.float32))


def symmetric(x: Any, where: str) -> Spectrum:
    """The symmetric part of a square matrix."""
    x = matrix(x, where, square=True)
    W = (x + x.mT) / 2
    lam, V = jnp.linalg.eigh(lax.stop_gradient(W), symmetrize_input=False)
    return Spectrum(W, lam, V)


def decompose(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """U, sigma and V^T, constants, with square U and V."""
    U, sigma, Vh = jnp.linalg.svd(lax.stop_gradient(x), full_matrices=True)
    return U, sigma, Vh


def dilation(x: jax.Array) -> jax.Array:
    """[[0, x], [x^T, 0]]."""
    m, n = x.shape[-2:]
    above, below = (jnp.zeros_like(x, shape=(*x.shape[:-2], side, side)) for side in (m, n))
    return jnp.block([[above, x], [x.mT, below]])


def dilated(x: jax.Array, factors: tuple[jax.Array, jax.Array, jax.Array] | None = None) -> Spectrum:
    """The dilation of x, whose eigenvalues are the singular values of x, their negatives, and zeros.

    In this order. Functions of it have their upper right block at ``[..., :m, m:]``, m the rows of x.
    """
    U, sigma, Vh = factors or decompose(x)
    m, n = x.shape[-2:]
    k = min(m, n)
    half = jnp.asarray(0.5, x.dtype) ** 0.5
    left, right = half * U[..., :k], half * Vh[..., :k, :].mT
    rest = jnp.concatenate([U[..., k:], jnp.zeros_like(U[..., :n, : m - k])], axis=-2) if m > n else None
    if rest is None:
        blank = jnp.broadcast_to(jnp.zeros((), x.dtype), (*x.shape[:-2], m, n - k))
        rest = jnp.concatenate([blank, Vh[..., k:, :].mT], axis=-2)
    V = jnp.concatenate([jnp.block([[left, left], [right, -right]]), rest], axis=-1)
    lam = jnp.concatenate([sigma, -sigma, jnp.zeros_like(V[..., 0, 2 * k :])], axis=-1)
    return Spectrum(dilation(x), lam, V)


def shifted(spectrum: Spectrum, tau: Any = 0.0) -> Spectrum:
    """W - tau I; eigenvalues within a few rounding errors of tau are at it."""
    W, lam, V = spectrum
    tau = jnp.asarray(tau, W.dtype)[..., None]
    fixed = lax.stop_gradient(tau)
    size = jnp.max(magnitude(lam), axis=-1, keepdims=True) + magnitude(fixed)
    moved = snap(lam - fixed, (1 + lam.shape[-1] ** 0.5 / 4) * size)
    return Spectrum(W - tau[..., None] * jnp.eye(W.shape[-1], dtype=W.dtype), moved, V)


def positive_part(spectrum: Spectrum, selection: Any = None) -> jax.Array:
    """V diag(max(lam, 0)) V^T, differentiable: every order where no eigenvalue is zero, the first everywhere.

    Pairs of zero eigenvalues are switches between the branches above (1) and below (0). A weight s on
    k zero eigenvalues is s times the identity on their k x k block, between the limits 0 and 1.
    """
    W, lam, V = spectrum
    size, fixed = magnitude(lam), lax.stop_gradient(W)
    high, low = (size + lam) / 2, (size - lam) / 2
    # The lesser part is computed and the other is its sum with W: W itself where nothing is negative.
    mostly = jnp.sum(high, axis=-1) > jnp.sum(low, axis=-1)
    lesser = turned(V, jnp.where(mostly[..., None], low, high))
    mostly = mostly[..., None, None]
    P, N = jnp.where(mostly, fixed + lesser, lesser), jnp.where(mostly, lesser, lesser - fixed)
    moves = switches(change(within(W, V)), lam, selection)
    return _split(W, P, N, lam, V)[0] + change(turned(V, moves))


def switches(E: jax.Array, lam: jax.Array, selection: Any) -> jax.Array:
    """What the selection adds to the derivative of a positive part, in the basis of the eigenvectors; E moves there.

    Zero in value and in derivative, except that at a kink the derivative is the selected one.

    A pair of eigenvalues is a switch of the larger of them: to 1 above, to 0 below. What the other
    terms already have is taken off, so the branch not taken is what a change of sign would add.
    """
    C, _ = differences(lam)
    row, column = lam[..., :, None], lam[..., None, :]
    first = magnitude(row) >= magnitude(column)
    u = jnp.where(first, row, column)
    above, below = jnp.where(u > 0, 0, 1 - C) * E, jnp.where(u < 0, 0, -C) * E
    # How the eigenvalues move: which branch a direction enters is read off it.
    moves = jnp.diagonal(E, axis1=-2, axis2=-1)
    u = u + jnp.where(first, moves[..., :, None], moves[..., None, :])
    # A block of zeros has more derivatives than its pairs taken one by one: they turn together.
    block = (jnp.sum(lam == 0, axis=-1) > 1)[..., None, None]
    options: dict[str, Any] = {"selection": selection, "value": jnp.zeros_like(u)}
    alone = primitives.switch(jnp.where(block, 1, u), above, below, **options)
    return jnp.where(block, coupled_switch(jnp.where(block, u, 1), above, below, **options), alone)


def sign(spectrum: Spectrum, signs: jax.Array) -> jax.Array:
    """V diag(signs) V^T, differentiable in every order; ``signs`` says -1, 0 or 1 also where eigenvalues are zero.

    Pairs of zero eigenvalues of different sign are where this function jumps: they are taken as constant.
    """
    W, lam, V = spectrum
    return _sign(W, turned(V, signs), lam, V, signs)


def turned(V: jax.Array, inner: jax.Array) -> jax.Array:
    """V diag(inner) V^T, or V inner V^T for a matrix."""
    return matmul(V * inner[..., None, :] if inner.ndim < V.ndim else matmul(V, inner), V.mT)


def within(b: jax.Array, V: jax.Array) -> jax.Array:
    """V^T b V, in the order of the transpose of :func:`turned`: XLA finds out that they are the same product."""
    return matmul(V.mT, matmul(b, V))


def _sums(lam: jax.Array) -> jax.Array:
    """|lam_i| + |lam_j|, or 1 where it is zero."""
    size = magnitude(lam)
    total = size[..., :, None] + size[..., None, :]
    return jnp.where(total == 0, 1, total)


def differences(lam: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The divided differences of the positive part, and their divisors."""
    high, sums = jnp.where(lam > 0, lam, 0), _sums(lam)
    return (high[..., :, None] + high[..., None, :]) / sums, sums


def _derivative(
    E: jax.Array, size: jax.Array, image: Callable[[jax.Array], jax.Array], V: jax.Array, C: jax.Array, sums: jax.Array
) -> jax.Array:
    """D with size D + D size = image(E); in the basis V this is the product with C, to the last digit.

    Solved for the pair (D, E), so that the solver sees E itself: the small entries of image(E) would
    carry rounding errors of the large ones. Both systems are triangular.
    """

    def system(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        D, E = pair
        return matmul(size, D) + matmul(D, size) - image(E), E

    def solve(_: Any, b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return turned(V, within(b[0], V) / sums + C * within(b[1], V)), b[1]

    def transpose_solve(_: Any, b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slope = within(b[0], V)
        return turned(V, slope / sums), b[1] + turned(V, C * slope)

    # A right-hand side that does not depend on the tangent could not be transposed.
    return lax.custom_linear_solve(system, (blank(E), E), solve, transpose_solve)[0]


@jax.custom_jvp
def _split(W: jax.Array, P: jax.Array, N: jax.Array, lam: jax.Array, V: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P and N: the positive parts of W and -W, functions of W."""
    return P, N


@_split.defjvp
def _split_jvp(primals: Any, tangents: Any) -> Any:
    """P - N = W and P N = 0 give |W| dP + dP |W| = P dW + dW P, with |W| = P + N."""
    (W, P, N, lam, V), E = primals, tangents[0]
    P, N = _split(W, P, N, lam, V)
    C, sums = differences(lam)
    dP = _derivative(E, P + N, lambda E: matmul(P, E) + matmul(E, P), V, C, sums)
    return (P, N), (dP, dP - E)


@jax.custom_jvp
def _sign(W: jax.Array, S: jax.Array, lam: jax.Array, V: jax.Array, signs: jax.Array) -> jax.Array:
    """S: the sign of W, a function of W."""
    return S


@_sign.defjvp
def _sign_jvp(primals: Any, tangents: Any) -> Any:
    """S W = |W| and S^2 W = W give |W| dS + dS |W| = dW - S dW S; zero eigenvalues stay zero."""
    (W, S, lam, V, signs), E = primals, tangents[0]
    S = _sign(W, S, lam, V, signs)
    zero = lam == 0
    differ = jnp.where(zero[..., :, None] & zero[..., None, :], 0, 1 - signs[..., :, None] * signs[..., None, :])
    size = matmul(S, W)
    dS = _derivative(E, (size + size.mT) / 2, lambda E: E - matmul(matmul(S, E), S), V, differ / _sums(lam), _sums(lam))
    return S, dS
