"""Quadratic functions given by a matrix: the data terms of least squares and of quadratic programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Function, as_float, extreme, fit, matmul, require
from nsimplicit.prox.hermitian import back, hermitian_solver, match, working
from nsimplicit.prox.hessian import GramHessian, MatrixHessian


def _smallest(eigenvalues: jax.Array) -> jax.Array:
    rounding = len(eigenvalues) * jnp.finfo(eigenvalues.dtype).eps * eigenvalues[-1]
    return jnp.where(eigenvalues[0] > rounding, eigenvalues[0] - rounding, 0)


@data
class Quadratic(Function):
    """A convex quadratic function.

    Formula: ``g(x) = 0.5 * x @ P @ x + q @ x``; ``prox(x, s) = inv(I + s * P) @ (x - s * q)``.

    Args:
        P: (n, n), positive semidefinite, used through its symmetric part; (n,), a diagonal; or one
            number, that multiple of the identity.
        q: (n,), or one number for all entries.

    Cost:
        O(n^3) once per step for a matrix P, then O(n^2) per prox.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Quadratic(jnp.array([[1.0, 1.0], [1.0, 3.0]])).prox(jnp.array([4.0, 2.0]), 1.0).round(4).tolist()
        [2.0, 0.0]
    """

    P: Any
    q: Any = 0.0

    is_smooth = True

    def __post_init__(self) -> None:
        shape, q = jnp.shape(self.P), jnp.shape(self.q)
        if len(shape) > 2 or len(set(shape)) > 1 or (shape and q and q[:1] != shape[:1]):
            raise InputError(
                message(
                    "prox.Quadratic(P, q)",
                    f"P has shape {shape}, q has shape {q}.",
                    "P is the n x n matrix of the quadratic form in n variables, q has n entries.",
                    "P of shape (n, n) and q of shape (n,)",
                    "P of shape (n,) for a diagonal",
                )
            )
        if len(shape) < 2:
            require("nonnegative", self.P, "prox.Quadratic", "P", "A negative entry of the diagonal is not convex.")

    @property
    def as_quadratic(self) -> Quadratic:
        """This object."""
        return self

    @property
    def lipschitz(self) -> jax.Array:
        """The largest eigenvalue of P, a constant; O(n^3) for a matrix."""
        if jnp.ndim(self.P) < 2:
            return extreme(jnp.max, self.P)
        return jnp.linalg.eigvalsh(lax.stop_gradient(*working(self._symmetric())))[-1]

    @property
    def strong_convexity(self) -> jax.Array:
        """The smallest eigenvalue of P less its rounding error, at least 0; O(n^3) for a matrix."""
        if jnp.ndim(self.P) < 2:
            return extreme(jnp.min, self.P)
        return _smallest(jnp.linalg.eigvalsh(lax.stop_gradient(*working(self._symmetric()))))

    def hessian(self, x: Any) -> MatrixHessian | None:
        """P, where it is a real matrix and x one vector."""
        real = jnp.shape(self.P) == jnp.shape(x) * 2 and not jnp.iscomplexobj(self.P)
        return MatrixHessian(*working(self._symmetric())) if real else None

    def dense(self, n: int) -> jax.Array:
        """P as an (n, n) matrix."""
        if jnp.ndim(self.P) == 2:
            return self._symmetric()
        return jnp.eye(n, dtype=as_float(self.P).dtype) * self.P

    def product(self, x: jax.Array) -> jax.Array:
        """P x."""
        if jnp.ndim(self.P) < 2:
            return fit(self.P, x, "prox.Quadratic(P=...)") * x
        match(x, jnp.shape(self.P)[1], "prox.Quadratic(P)", jnp.shape(self.P))
        return matmul(self._symmetric(), x)

    def _symmetric(self) -> jax.Array:
        P = as_float(self.P)
        return (P + P.conj().T) / 2

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = as_float(x)
        return jnp.sum((x.conj() * (self.product(x) / 2 + self.q)).real)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        if jnp.ndim(self.P) < 2:

            def divide(x: Any) -> jax.Array:
                x = as_float(x)
                s = fit(step, x, "prox.Quadratic.prox(step=...)")
                q = back(jnp.asarray(self.q), x)
                return (x - s * q) / (1 + s * fit(self.P, x, "prox.Quadratic(P=...)"))

            return divide

        P, step = working(self._symmetric(), step)
        solve = hermitian_solver(jnp.eye(P.shape[0], dtype=P.dtype) + step * P)

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            # Solving for the move, not for the point, loses no digits to a large step.
            move = solve(lambda v, P, step: v + step * matmul(P, v), step * (self.product(x) + self.q), P, step)
            return back(x - move, x)

        return prox


@data
class LeastSquares(Function):
    """Half the squared residual of a linear system, tall or wide.

    Formula: ``g(x) = 0.5 * sum(abs(A @ x - b)**2)``;
    ``prox(x, s) = inv(I + s * A.T @ A) @ (x + s * A.T @ b)``.

    Args:
        A: (m, n), real or complex.
        b: (m,), or (m, k) for k right-hand sides at once; x then is (n, k).

    Cost:
        O(m n min(m, n)) once per step, computed in the precision of A and b, then O(m n) per prox.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> f = prox.LeastSquares(jnp.array([[1.0], [2.0]]), jnp.array([0.0, 5.0]))
        >>> f.prox(jnp.array([2.0]), 1.0).round(4).tolist()
        [2.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), sections 6.1.1 and 4.2 (the matrix inversion lemma).
    """

    A: Any
    b: Any

    is_smooth = True

    def __post_init__(self) -> None:
        A, b = jnp.shape(self.A), jnp.shape(self.b)
        if len(A) != 2 or b[:1] != A[:1]:
            raise InputError(
                message(
                    "prox.LeastSquares(A, b)",
                    f"A has shape {A}, b has shape {b}.",
                    "A is a matrix, and b has one entry for each of its rows.",
                    "A of shape (m, n) and b of shape (m,)",
                )
            )

    @property
    def as_quadratic(self) -> Quadratic:
        """P = A^H A and q = -A^H b: the same function up to the constant |b|^2 / 2."""
        A, b = as_float(self.A), as_float(self.b)
        return Quadratic(matmul(A.conj().T, A), -matmul(A.conj().T, b))

    @property
    def lipschitz(self) -> jax.Array:
        """The largest eigenvalue of A^H A, from the smaller Gram matrix; a constant."""
        (A,) = working(lax.stop_gradient(self.A))
        A = A if A.shape[0] < A.shape[1] else A.conj().T
        return jnp.linalg.eigvalsh(matmul(A, A.conj().T))[-1]

    @property
    def strong_convexity(self) -> Any:
        """The smallest eigenvalue of A^H A less its rounding error, at least 0; 0 where A is wide."""
        (A,) = working(lax.stop_gradient(self.A))
        return 0.0 if A.shape[0] < A.shape[1] else _smallest(jnp.linalg.eigvalsh(matmul(A.conj().T, A)))

    def hessian(self, x: Any) -> GramHessian | None:
        """AᵀA by the columns of A, where A is real and x one vector."""
        real = jnp.shape(x) == jnp.shape(self.A)[1:] and not jnp.iscomplexobj(self.A)
        return GramHessian(*working(self.A)) if real else None

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        r = self._residual(as_float(x))
        return jnp.sum((r.conj() * r).real) / 2

    def _residual(self, x: jax.Array) -> jax.Array:
        match(x, jnp.shape(self.A)[1], "prox.LeastSquares(A, b)", jnp.shape(self.A))
        return matmul(self.A, x) - self.b

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        A, step = working(self.A, step)
        adjoint = A.conj().T
        # x - prox = s A^H w, where (I + s A A^H) w = A x - b: in whichever of the two spaces is smaller.
        left, right = (A, adjoint) if A.shape[0] < A.shape[1] else (adjoint, A)
        solve = hermitian_solver(jnp.eye(left.shape[0], dtype=A.dtype) + step * matmul(left, right))

        def system(v: jax.Array, left: jax.Array, step: jax.Array) -> jax.Array:
            return v + step * matmul(left, matmul(left.conj().T, v))

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            r = self._residual(x)
            wide = left is A
            move = matmul(right, solve(system, r, left, step)) if wide else solve(system, matmul(left, r), left, step)
            return back(x - step * move, x)

        return prox
