"""Nonconvex sets of matrices: of low rank, and with orthonormal columns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, indicator, matmul, real
from nsimplicit.prox.boundary import change, snap
from nsimplicit.prox.spectral_function import Spectrum, dilated, matrix, shifted, sign


@data
class RankBall(Set):
    """Not convex: matrices of rank at most r. The projection jumps where singular values r and r + 1 are equal.

    Formula: ``project(X) = U[:, :r] @ diag(sigma[:r]) @ V[:, :r].T``, where
    ``X = U @ diag(sigma) @ V.T`` with sigma in falling order.

    Args:
        rank: r >= 1. Static.

    X is a matrix of any shape, or several along leading axes.

    Kinks:
        sigma[r-1] = sigma[r] > 0: a jump, one switch whose branches differ. The projection is any of
        several matrices; the one returned is that of the decomposition, with a finite derivative that
        leaves out how the equal singular vectors turn. The derivative grows like sigma / gap near a
        jump. Where X has rank below r the projection is X, and its derivative is taken as the identity.

    Cost:
        O((m + n)^3), one singular value decomposition for m x n.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.RankBall(1).project(jnp.array([[0.0, 3.0], [0.5, 0.0]])).round(5).tolist()
        [[0.0, 3.0], [0.0, 0.0]]

    References:
        Eckart, Young, The approximation of one matrix by another of lower rank (1936).
        Lewis, Malick, Alternating projections on manifolds (2008), for the derivative.
    """

    rank: int = static(kw_only=False)

    is_convex = False

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            found = f"rank is {self.rank!r}."
            raise InputError(message("prox.RankBall(rank)", found, "A rank is a whole number, at least 1.", "rank=1"))

    def __call__(self, x: Any) -> jax.Array:
        """0 where the rank is at most r, up to rounding; inf elsewhere."""
        x = matrix(x, "prox.RankBall")
        sigma = jnp.linalg.svd(lax.stop_gradient(x), compute_uv=False)
        rest = snap(sigma[..., self.rank :], sum(x.shape[-2:]) * sigma[..., :1])
        return indicator(rest == 0, sigma)

    def project(self, x: Any) -> jax.Array:
        """The nearest matrix of rank r, or one of them."""
        y = matrix(x, "prox.RankBall")
        m, k, r = y.shape[-2], min(y.shape[-2:]), self.rank
        if r >= k:
            return real(x, "prox.RankBall")
        spectrum = dilated(y)
        first, second = (snap(spectrum.lam[..., i], (m + k) * spectrum.lam[..., 0]) for i in (r - 1, r))
        # Between the two singular values the sign of the dilation is 1 on what is kept, -1 on the rest.
        between = shifted(spectrum, (first + second) / 2)
        # Below rank r both are 0. Half of the null space is then on either side: X itself is kept.
        counts = jnp.where(between.lam == 0, jnp.where(second > 0, -1, 0)[..., None], jnp.where(between.lam > 0, 1, -1))
        kept = jnp.arange(counts.shape[-1]) < r
        signs = jnp.where(kept & (second > 0)[..., None], 1, counts).astype(y.dtype)
        W = spectrum.W
        nearest = (matmul(sign(between, signs), W) + W)[..., :m, m:]
        swap = second[..., None, None] * _pair(spectrum, r, m) - first[..., None, None] * _pair(spectrum, r - 1, m)
        nearest = nearest + _jump(y, first - second, second, swap)
        return nearest.astype(real(x, "prox.RankBall").dtype)


@data
class Stiefel(Set):
    """Not convex: matrices with orthonormal columns. The projection jumps where X has dependent columns.

    Formula: ``project(X) = U @ V.T``, where ``X = U @ diag(sigma) @ V.T``: the orthogonal factor of
    the polar decomposition. For square X, the orthogonal matrices.

    X has at least as many rows as columns, or is several such matrices along leading axes.

    Kinks:
        The smallest singular value is 0: a jump, one switch whose branches differ. The matrix returned
        there is that of the decomposition, with a finite derivative that leaves out the directions that
        have no limit. The derivative is 1 / (sigma_i + sigma_j) near it.

    Cost:
        O((m + n)^3), one singular value decomposition for m x n.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Stiefel().project(jnp.array([[0.0, 3.0], [0.5, 0.0]])).round(5).tolist()
        [[0.0, 1.0], [1.0, 0.0]]

    References:
        Higham, Functions of matrices (2008), chapter 8.
    """

    is_convex = False

    def __call__(self, x: Any) -> jax.Array:
        """0 where the columns are orthonormal, up to rounding; inf elsewhere."""
        x = _tall(x)
        sigma = jnp.linalg.svd(lax.stop_gradient(x), compute_uv=False)
        return indicator(snap(sigma - 1, sum(x.shape[-2:]) + 0 * sigma) == 0, sigma)

    def project(self, x: Any) -> jax.Array:
        """The nearest matrix with orthonormal columns, or one of them."""
        y = _tall(x)
        m, k = y.shape[-2:]
        spectrum = shifted(dilated(y))
        n = spectrum.lam.shape[-1]
        signs = jnp.where(jnp.arange(n) < k, 1.0, jnp.where(jnp.arange(n) < 2 * k, -1.0, 0.0)).astype(y.dtype)
        polar = sign(spectrum, jnp.broadcast_to(signs, spectrum.lam.shape))[..., :m, m:]
        least = spectrum.lam[..., k - 1]
        return (polar + _jump(y, least, spectrum.lam[..., 0] + (least == 0), -2 * _pair(spectrum, k - 1, m))).astype(
            real(x, "prox.Stiefel").dtype
        )


def _tall(x: Any) -> jax.Array:
    x = matrix(x, "prox.Stiefel")
    if x.shape[-2] < x.shape[-1]:
        found = f"x has shape {x.shape}."
        raise InputError(message("prox.Stiefel()(x)", found, "More columns than rows are never orthonormal.", "x.mT"))
    return x


def _pair(spectrum: Spectrum, i: int, m: int) -> jax.Array:
    """u v^T for the singular vectors at position i."""
    left, right = spectrum.V[..., :m, i], spectrum.V[..., m:, i]
    return 2 * left[..., :, None] * right[..., None, :]


def _jump(x: jax.Array, gap: jax.Array, size: jax.Array, other: jax.Array) -> jax.Array:
    """Zero, as a switch that says to whoever looks at x that adding ``other`` is as good where the gap is zero."""
    gap = jnp.where(size > 0, snap(gap, (1 + other.shape[-1]) * size), 1)
    zero = jnp.sum(0 * change(x), axis=(-2, -1))
    jump = primitives.switch(gap, zero, zero + 1, selection=1.0, value=jnp.zeros_like(gap))
    return jump[..., None, None] * lax.stop_gradient(other)
