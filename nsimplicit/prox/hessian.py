"""Hessians that can be had by blocks: what a direct solver restricted to a support needs of them."""

from __future__ import annotations

from typing import Any

import jax

from nsimplicit._records import data
from nsimplicit.prox.base import matmul


@data
class MatrixHessian:
    """H = P.

    Args:
        P: (n, n), symmetric.
    """

    P: Any

    def block(self, index: jax.Array) -> jax.Array:
        """H[index, index]."""
        return self.P[index[:, None], index]


@data
class GramHessian:
    """H = AᵀA.

    Args:
        A: (m, n), real.
    """

    A: Any

    def block(self, index: jax.Array) -> jax.Array:
        """H[index, index], from the columns of A: 2 m k² flops for k columns."""
        columns = self.A[:, index]
        return matmul(columns.T, columns)


@data
class ScaledHessian:
    """A multiple of a Hessian.

    Args:
        scale: one number.
        hessian: what is multiplied.
    """

    scale: Any
    hessian: Any

    def block(self, index: jax.Array) -> jax.Array:
        """H[index, index]."""
        return self.scale * self.hessian.block(index)
