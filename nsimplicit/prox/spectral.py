"""Functions of a symmetric matrix through its eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Function, fit, matmul, real
from nsimplicit.prox.hermitian import linear_solve
from nsimplicit.prox.positive_root import roots


@data
class LogDet(Function):
    """Minus the log-determinant, plus a linear term: the likelihood of an inverse covariance.

    Formula: ``g(X) = -log(det(X)) + sum(C * X)`` for positive definite X; ``prox(Y, s) =
    V @ diag((lam + sqrt(lam**2 + 4 * s)) / 2) @ V.T``, where ``Y - s * C = V @ diag(lam) @ V.T``.

    Args:
        C: (n, n), the empirical covariance; or one number.

    It lives on symmetric matrices: C, X and Y are replaced by their symmetric parts.

    Cost:
        O(n^3), one eigendecomposition per prox. The derivative divides by no difference of
        eigenvalues: it is exact, in every order, where they repeat.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.LogDet().prox(jnp.array([[0.0, 1.5], [1.5, 0.0]]), 1.0).round(4).tolist()
        [[1.25, 0.75], [0.75, 1.25]]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.7.
        Friedman, Hastie, Tibshirani, Sparse inverse covariance estimation with the graphical lasso (2008).
    """

    C: Any = 0.0

    is_smooth = True

    def __post_init__(self) -> None:
        if jnp.ndim(self.C):
            _square(jnp.shape(self.C), "C")

    def subspace(self, x: Any) -> jax.Array:
        """The symmetric part."""
        return _symmetric(x).astype(real(x, "prox.LogDet").dtype)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x; inf unless the symmetric part of x is positive definite."""
        x = _symmetric(x)
        inside = jnp.linalg.eigvalsh(lax.stop_gradient(x))[0] > 0
        _, logdet = jnp.linalg.slogdet(jnp.where(inside, x, jnp.eye(x.shape[0], dtype=x.dtype)))
        return jnp.where(inside, jnp.sum(self._shift(x) * x) - logdet, jnp.inf)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            y = _symmetric(x)
            s = fit(step, jnp.zeros((), y.dtype), "prox.LogDet.prox(step=...)")
            return _root(y - s * self._shift(y), s)[0].astype(real(x, "prox.LogDet").dtype)

        return prox

    def _shift(self, x: jax.Array) -> jax.Array:
        C = fit(self.C, x, "prox.LogDet(C=...)")
        return (C + C.T) / 2


def _symmetric(x: Any) -> jax.Array:
    """The symmetric part, in at least float32: decompositions have no 16-bit version."""
    x = real(x, "prox.LogDet")
    _square(x.shape, "x")
    x = x.astype(jnp.result_type(x, jnp.float32))
    return (x + x.T) / 2


def _square(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        found = f"{name} has shape {shape}."
        raise InputError(message(f"prox.LogDet({name})", found, "The determinant is that of an n x n matrix."))


@jax.custom_jvp
def _root(W: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The positive definite root U of U - step U^-1 = W, and Z = step U^-1."""
    w, V = jnp.linalg.eigh(W, symmetrize_input=False)
    u, z = roots(w, step)
    return matmul(V * u, V.T), matmul(V * z, V.T)


@_root.defjvp
def _root_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> Any:
    """Differentiate the equation, not the eigendecomposition.

    U - Z = W and U Z = step I give dU + Z dU Z / step = dW + dstep Z / step. In the eigenvectors
    of W the left side is a division by 1 + z_i z_j / step >= 1: this is the divided difference of
    (w + sqrt(w^2 + 4 step)) / 2, and equal eigenvalues are nothing special. The system is kept live
    in U and Z, with the eigenvectors frozen in its solver, so this rule can be differentiated again.
    """
    (W, step), (dW, dstep) = primals, tangents
    U, Z = _root(W, step)
    w, V = jnp.linalg.eigh(lax.stop_gradient(W), symmetrize_input=False)
    _, z = roots(w, lax.stop_gradient(step))
    divisor = 1 + z[:, None] * z / lax.stop_gradient(step)

    def solve(b: jax.Array, V: jax.Array, divisor: jax.Array) -> jax.Array:
        return matmul(matmul(V, matmul(matmul(V.T, b), V) / divisor), V.T)

    def system(D: jax.Array, Z: jax.Array, step: jax.Array) -> jax.Array:
        return D + matmul(matmul(Z, D), Z) / step

    dU = linear_solve(system, dW + dstep * Z / step, Z, step, solve=solve, constants=(V, divisor), like=W)
    return (U, Z), (dU, dU - dW)
