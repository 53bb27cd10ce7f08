"""The solutions of a linear system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Set, as_float, concrete, indicator, matmul, modulus
from nsimplicit.prox.hermitian import back, hermitian_solver, match, working


@data
class AffineSet(Set):
    """The solutions of a linear system with independent rows.

    Formula: ``A @ x = b``; ``project(x) = x - A.T @ inv(A @ A.T) @ (A @ x - b)``.

    Args:
        A: (m, n), m <= n, of rank m; real or complex.
        b: (m,), or (m, k) for k systems at once; x then is (n, k).

    Cost:
        O(m^2 n) once in ``prepare``, computed in the precision of A and b, then O(m n) per
        projection. Knowing A, its rank is checked once, on the host.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> plane = prox.AffineSet(jnp.array([[1.0, 1.0, 0.0]]), jnp.array([1.0]))
        >>> plane.project(jnp.array([2.0, 1.0, 5.0])).round(4).tolist()
        [1.0, 0.0, 5.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.2.2.
    """

    A: Any
    b: Any

    def __post_init__(self) -> None:
        A, b = jnp.shape(self.A), jnp.shape(self.b)
        if len(A) != 2 or b[:1] != A[:1] or A[0] > A[1]:
            found = f"A has shape {A}, b has shape {b}."
            meaning = "A has at least as many columns as rows, and b has one entry for each row."
            tries = "A of shape (m, n) with m <= n, b of shape (m,)", "prox.LeastSquares(A, b) for more rows"
            raise InputError(message("prox.AffineSet(A, b)", found, meaning, *tries))
        rank = _rank(self.A)
        if rank is not None and rank < A[0]:
            found = f"{A[0]} rows, of which {rank} are independent up to rounding."
            meaning = "The projection solves a system with A A^T, which has to be invertible."
            raise InputError(message("prox.AffineSet(A, b)", found, meaning, "leave out rows that depend on others"))

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding; inf elsewhere."""
        x = as_float(x)
        match(x, jnp.shape(self.A)[1], "prox.AffineSet(A, b)", jnp.shape(self.A))
        eps = max(float(jnp.finfo(as_float(v).dtype).eps) for v in (self.A, self.b, x))
        A, b, x = working(self.A, self.b, x)
        gap = modulus(matmul(A, x) - b)
        size = matmul(modulus(A), modulus(x)) + modulus(b)
        return indicator(gap <= 2 * x.shape[0] * eps * size, gap)

    def prepare(self, step: Any = None) -> Callable[[Any], Any]:
        """The projection, with A A^H factored; the step does not matter."""
        del step
        A, b = working(self.A, self.b)
        adjoint = A.conj().T
        solve = hermitian_solver(matmul(A, adjoint))

        def system(v: jax.Array, A: jax.Array) -> jax.Array:
            return matmul(A, matmul(A.conj().T, v))

        def off(x: jax.Array) -> jax.Array:
            return matmul(adjoint, solve(system, matmul(A, x) - b, A))

        def project(x: Any) -> jax.Array:
            x = as_float(x)
            match(x, A.shape[1], "prox.AffineSet(A, b)", A.shape)
            out = x - off(x)
            # The condition number of A A^H is in the first residual, and its square in that of a second step.
            return back(out - lax.stop_gradient(off(out)), x)

        return project

    def project(self, x: Any) -> jax.Array:
        """The nearest solution."""
        return self.prepare()(x)


def _rank(A: Any) -> int | None:
    """How many rows are independent as far as A A^H can tell, where A is known."""
    numbers = concrete(A)
    if numbers is None:
        return None
    eps = max(float(jnp.finfo(as_float(A).dtype).eps), np.finfo(float).eps)
    wide = numbers.astype(complex if np.iscomplexobj(numbers) else float)
    eigenvalues = np.linalg.eigvalsh(wide @ wide.conj().T)
    return int(np.sum(eigenvalues > len(wide) * eps * eigenvalues[-1]))
