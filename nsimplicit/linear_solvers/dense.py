"""Direct solution: the matrix is built from n products, factored, and one refinement step made."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import blank, subtract
from nsimplicit.linear_solvers import lapack
from nsimplicit.linear_solvers.operator import LinearSolution, LinearSolver, Operator, Vector

PLAIN_SIZE = 64
"""Up to this size the elimination is written in plain XLA: on CPU, LAPACK calls inside a vmapped
loop can stop for ever (seen with batches of 256 at n = 50), and a training loop is such a loop."""


@config
class Dense(LinearSolver):
    """LU with partial pivoting, one step of refinement through the product, and a condition number.

    Cost: n products, 2n³/3 flops (2n³ up to n = 64, where the inverse is formed), n² memory a lane.
    """

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b; ``guess`` is not used."""
        del guess
        space = operator.space
        if space.axis_name:
            raise InputError(
                message(
                    "linear_solver=Dense()",
                    f"the state is split over the mesh axes {space.axis_name}.",
                    "A matrix cannot be factored when no device holds its rows.",
                    "linear_solver=nsi.linear_solvers.GMRES()",
                    "leave linear_solver out: Auto takes a Krylov method here",
                )
            )
        flat, unravel = space.ravel(b)

        def residual(x: jax.Array) -> jax.Array:
            return space.ravel(subtract(b, operator.matvec(unravel(x))))[0]

        matrix = materialise(operator, b)
        factors = factor(matrix)
        x, inverse_norm = factors.refined(flat, residual)
        norm = jnp.abs(jnp.swapaxes(matrix, -1, -2)).sum(-1).max(-1)  # by columns, as it was built
        condition = norm * inverse_norm
        condition = jnp.where(jnp.isfinite(condition), condition, jnp.inf)  # a zero pivot gave inf or nan

        def again(v: Vector, transpose: bool) -> Vector:
            return unravel(factors.solve(space.ravel(v)[0], transpose))

        return LinearSolution(unravel(x), jnp.full(norm.shape, flat.shape[-1] + 1), norm, condition, again)


def materialise(operator: Operator, b: Vector) -> jax.Array:
    """The matrix, shape ``(n, n)`` or ``(lanes, n, n)``; ``b`` is a vector it acts on."""
    flat, unravel = operator.space.ravel(b)
    n = flat.shape[-1]
    basis = jnp.eye(n, dtype=flat.dtype).reshape([n] + [1] * (flat.ndim - 1) + [n]) + blank(flat)
    columns = jax.vmap(lambda e: operator.space.ravel(operator.matvec(unravel(e)))[0])(basis)
    return jnp.moveaxis(columns, 0, -1)


def factor(matrix: jax.Array) -> Inverse | Factors:
    """What solves with the matrix ``(..., n, n)``, and with its transpose."""
    return Inverse(invert(matrix)) if matrix.shape[-1] <= PLAIN_SIZE else Factors(*lapack.lu(matrix))


@config
class Inverse:
    """The inverse of a small matrix."""

    inverse: jax.Array

    def solve(self, v: jax.Array, transpose: bool = False) -> jax.Array:
        """The solution for vectors ``(..., n)``."""
        return jnp.einsum("...ji,...j->...i" if transpose else "...ij,...j->...i", self.inverse, v)

    def refined(self, v: jax.Array, residual: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The solution after one step of refinement, and the 1-norm of the inverse."""
        x = self.solve(v)
        return x + self.solve(residual(x)), jnp.abs(self.inverse).sum(-2).max(-1)


@config
class Factors:
    """P M = L U: both factors in one matrix, and the permutation."""

    factors: jax.Array
    permutation: jax.Array

    def solve(self, v: jax.Array, transpose: bool = False) -> jax.Array:
        """The solution for vectors ``(..., n)``."""
        if not transpose:
            return self._substitute(self._permute(v)[..., None])[..., 0]
        v = self._substitute(v[..., None], transpose)[..., 0]
        return jnp.put_along_axis(blank(v), self.permutation, v, -1, inplace=False, mode="promise_in_bounds")

    def refined(self, v: jax.Array, residual: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The solution after one step of refinement, and an estimate of the 1-norm of the inverse, from below.

        Hager's, started at the solution: the norm of the column of M⁻¹ along which the norm of x grows fastest.
        It is solved for beside the refinement; the order of the columns does not matter, so P is left out.

        References: W. Hager, Condition estimates, SIAM J. Sci. Stat. Comput. 5 (1984).
        """
        x = self.solve(v)
        slope = self._substitute(jnp.where(x < 0, -1.0, 1.0).astype(v.dtype)[..., None], transpose=True)
        axis = (jnp.argmax(jnp.abs(slope), -2) == jnp.arange(v.shape[-1])).astype(v.dtype)
        dx, column = jnp.moveaxis(self._substitute(jnp.stack([self._permute(residual(x)), axis], -1)), -1, 0)
        return x + dx, jnp.abs(column).sum(-1)

    def _permute(self, v: jax.Array) -> jax.Array:
        return jnp.take_along_axis(v, self.permutation, -1, mode="promise_in_bounds")

    def _substitute(self, columns: jax.Array, transpose: bool = False) -> jax.Array:
        for lower in (False, True) if transpose else (True, False):
            columns = lapack.triangular(self.factors, columns, lower=lower, unit=lower, transpose=transpose)
        return columns


def factor_definite(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A solver for columns ``(n, k)`` of a symmetric positive definite matrix; nan where it is not definite."""
    if matrix.shape[-1] <= PLAIN_SIZE:
        inverse = _sweep(matrix)
        return lambda v: inverse @ v
    lower = lapack.cholesky(matrix)
    return lambda v: lapack.cholesky_solve(lower, v)


def _sweep(matrix: jax.Array) -> jax.Array:
    """The inverse of a definite matrix by Gauss-Jordan elimination in place: without pivots it is stable here."""
    rows = jnp.arange(matrix.shape[-1])

    def eliminate(k: jax.Array, work: jax.Array) -> jax.Array:
        column = jnp.where(rows == k, 0, work[:, k])
        pivot = jnp.where(work[k, k] > 0, work[k, k], jnp.nan)
        row = jnp.where(rows == k, 1, work[k]) / pivot
        return jnp.where((rows == k)[:, None], row, jnp.where(rows == k, 0, work) - column[:, None] * row)

    return lax.fori_loop(0, matrix.shape[-1], eliminate, matrix)


def invert(matrix: jax.Array) -> jax.Array:
    """The inverse by Gauss-Jordan elimination with partial pivoting, in plain XLA, batched.

    A singular matrix gives inf or nan in its own lane.
    """
    n = matrix.shape[-1]
    if n == 0:
        return matrix
    work = jnp.concatenate([matrix, jnp.eye(n, dtype=matrix.dtype) + blank(matrix)], -1)
    rows = jnp.arange(n)

    def eliminate(k: jax.Array, work: jax.Array) -> jax.Array:
        column = lax.dynamic_index_in_dim(work, k, -1, keepdims=False)
        size = jnp.where(rows >= k, jnp.abs(column), -1.0)
        p = jnp.argmax(jnp.where(jnp.isnan(size), jnp.inf, size), -1)[..., None]
        order = jnp.where(rows == k, p, jnp.where(rows == p, k, rows))
        work = jnp.take_along_axis(work, order[..., None], -2)
        pivot = lax.dynamic_index_in_dim(work, k, -2, keepdims=True)
        pivot = pivot / lax.dynamic_index_in_dim(pivot, k, -1, keepdims=True)
        column = lax.dynamic_index_in_dim(work, k, -1, keepdims=True)
        return jnp.where((rows == k)[:, None], pivot, work - column * pivot)

    return lax.fori_loop(0, n, eliminate, work)[..., n:]
