"""Direct solution: the matrix is built from n products, factored, and one refinement step made."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import add, blank, subtract
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
        matrix = materialise(operator, b)
        solve, inverse_norm = factor(matrix)
        x = unravel(solve(flat))
        residual, _ = space.ravel(subtract(b, operator.matvec(x)))
        x = add(x, unravel(solve(residual)))
        norm = jnp.abs(matrix).sum(-2).max(-1)
        condition = norm * inverse_norm
        condition = jnp.where(jnp.isfinite(condition), condition, jnp.inf)  # a zero pivot gave inf or nan

        def again(v: Vector, transpose: bool) -> Vector:
            return unravel(solve(space.ravel(v)[0], transpose))

        return LinearSolution(x, jnp.full(norm.shape, flat.shape[-1] + 1), norm, condition, again)


def materialise(operator: Operator, b: Vector) -> jax.Array:
    """The matrix, shape ``(n, n)`` or ``(lanes, n, n)``; ``b`` is a vector it acts on."""
    flat, unravel = operator.space.ravel(b)
    n = flat.shape[-1]
    basis = jnp.eye(n, dtype=flat.dtype).reshape([n] + [1] * (flat.ndim - 1) + [n]) + blank(flat)
    columns = jax.vmap(lambda e: operator.space.ravel(operator.matvec(unravel(e)))[0])(basis)
    return jnp.moveaxis(columns, 0, -1)


def factor(matrix: jax.Array):
    """A solver for vectors ``(..., n)``, and the 1-norm of the inverse (exact up to n = 64)."""
    n = matrix.shape[-1]
    if n <= PLAIN_SIZE:
        inverse = invert(matrix)

        def multiply(v: jax.Array, transpose: bool = False) -> jax.Array:
            return jnp.einsum("...ji,...j->...i" if transpose else "...ij,...j->...i", inverse, v)

        return multiply, jnp.abs(inverse).sum(-2).max(-1)
    factors, permutation = lapack.lu(matrix)

    def substitute(v: jax.Array, transpose: bool = False) -> jax.Array:
        for lower in (False, True) if transpose else (True, False):
            v = lapack.triangular(factors, v[..., None], lower=lower, unit=lower, transpose=transpose)[..., 0]
        return v

    def solve(v: jax.Array, transpose: bool = False) -> jax.Array:
        if transpose:
            v = substitute(v, transpose)
            return jnp.put_along_axis(blank(v), permutation, v, -1, inplace=False, mode="promise_in_bounds")
        return substitute(jnp.take_along_axis(v, permutation, -1, mode="promise_in_bounds"))

    # The 1-norm does not depend on the order of columns.
    return solve, _inverse_norm(substitute, n, matrix)


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


def _inverse_norm(solve, n: int, matrix: jax.Array) -> jax.Array:
    """Hager's lower estimate of the 1-norm of the inverse: ‖M⁻¹v‖ for four vectors v of norm one.

    Higham's vector of alternating signs comes first; then three steps of ascent from the mean.

    References: N. Higham, Accuracy and Stability of Numerical Algorithms, section 15.2.
    """
    like = matrix[..., 0]
    alternating = (1 + jnp.arange(n) / max(n - 1, 1)) * (-1.0) ** jnp.arange(n) / (1.5 * n)
    start = alternating.astype(like.dtype) + blank(like)

    def ascend(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        v, best = carry
        u = solve(v)
        slope = solve(jnp.where(u < 0, -1.0, 1.0).astype(u.dtype), transpose=True)
        steepest = jnp.argmax(jnp.abs(slope), -1, keepdims=True) == jnp.arange(n)
        v = jnp.where(k == 0, 1 / n, steepest.astype(v.dtype)).astype(v.dtype) + blank(slope)
        return v, jnp.maximum(best, jnp.abs(u).sum(-1))

    return lax.fori_loop(0, 4, ascend, (start, blank(like[..., 0])))[1]


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
