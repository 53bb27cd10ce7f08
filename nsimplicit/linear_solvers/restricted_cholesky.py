"""A direct solver for sparse solutions: factor the Hessian on the support of the prox, and nothing else.

The matrix is M = I - D S with S = I - step·H and D diagonal, 0 <= D <= I. Write D = C². On the
support, the entries where C is not zero,

    K = I - C S C = diag(1 - c²) + step·c cᵀ * H        (entry by entry on the support)

is symmetric, and positive definite exactly where M is invertible (H is positive semidefinite), and

    Mᵀ x = v:  x = v + S C t   with K t = C v
    M  x = b:  x = b + C t     with K t = C S b

An entry outside the support has c = 0: its row of K is that of the identity. So the support may be
padded to a size known beforehand.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._lanes import largest
from nsimplicit._records import config
from nsimplicit._tree import Space, add, blank
from nsimplicit.linear_solvers.dense import factor_definite
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    ProxGradient,
    Vector,
    default_tolerance,
)
from nsimplicit.linear_solvers.prox_cg import MAX_STEPS, range_cg

SMALLEST = 96
"""Below it a factorisation costs less than choosing one."""
PRODUCTS = 2
"""Products with a factor of M: D for the support, S for the answer."""


@config
class RestrictedCholesky(LinearSolver):
    """Cholesky factorisation on the support, with a condition number.

    For forward-backward or Douglas-Rachford splitting with a separable prox (``is_separable``) and a
    smooth function whose columns can be had (``hessian``: ``LeastSquares``, ``Quadratic``). Under
    ``vmap`` all lanes are padded to the largest support among them.

    Args:
        largest_support: a larger one is solved for by :class:`ProxCG`.

    Cost:
        For a support padded to k entries: k³/3 flops, what ``hessian`` costs (2 m k² for m rows), and two
        products; k² memory a lane. k is ``largest_support``, or a tenth of the unknowns where that suffices
        (between 96 and half the largest): every further size is compile time.
    """

    largest_support: int = 384
    structures: ClassVar[tuple[type, ...]] = (ProxGradient,)

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b; ``guess`` is not used."""
        if not reaches(operator):
            raise InputError(
                message(
                    "linear_solver=RestrictedCholesky()",
                    f"the tangent system has the structure {type(operator.structure).__name__}, without columns.",
                    "It needs a separable prox, a smooth function with a `hessian`, and one unsplit real vector.",
                    "ForwardBackward(prox.LeastSquares(A, b), prox.L1(weight))",
                    "linear_solver=nsi.linear_solvers.ProxCG(), which needs products only",
                )
            )
        structure: Any = operator.structure
        v = b if structure.transposed else structure.forward(b)
        u, steps, norm, condition = self._on_range(operator, v)
        x = add(b, structure.forward(u) if structure.transposed else u)

        def again(v: Vector, transpose: bool) -> Vector:
            if not transpose:
                return self.solve(operator, v).value
            back = jax.linear_transpose(operator.matvec, v)
            return self.solve(operator.transpose(lambda w: back(w)[0]), v).value

        return LinearSolution(x, steps, norm, condition, again)

    def _on_range(self, operator: Operator, v: Vector):
        """u = C t; the smallest size that holds the support, and conjugate gradients where none does."""
        structure: Any = operator.structure
        (x,), treedef = jax.tree.flatten(v)
        (d,) = jax.tree.leaves(structure.prox(treedef.unflatten([jnp.ones_like(x)])))
        sizes = _sizes(x.size, self.largest_support)
        # Support first; `nonzero` compiles to many more kernels. One more than fits tells that it does not fit.
        _, index = lax.top_k((d != 0).astype(jnp.float32), min(sizes[-1] + 1, x.size))
        c = jnp.sqrt(d[index])
        # The second row is inverse iteration, for the smallest eigenvalue; its start is like nothing in the data.
        right = jnp.stack([c * x[index], jnp.cos(1 + jnp.arange(c.size, dtype=c.dtype) ** 2) + 0 * c])

        def direct(size: int) -> jax.Array:
            rows = _factored(structure, index[:size], c[:size], right[:, :size])
            return jnp.pad(rows, ((0, 0), (0, c.size - size)))

        place = largest(sum(((c[size] > 0).astype(jnp.int32) for size in sizes[:-1]), jnp.zeros_like(index[0])))
        rows = lax.switch(place, [functools.partial(direct, size) for size in sizes])
        t, high = c * rows[0], jnp.max(rows[3])
        before, after = jnp.linalg.norm(rows[1:3], axis=1)
        condition, steps = high * after / before, jnp.full_like(place, PRODUCTS)
        u = blank(x)
        if sizes[-1] < x.size:
            over = c[-1] > 0
            space = Space()
            tol = jnp.where(over, default_tolerance(v, None) * space.norm(v), jnp.inf)
            most, more, *numbers = range_cg(structure, space, v, tol, MAX_STEPS)
            (u,), t = jax.tree.leaves(most), jnp.where(over, 0, t)
            steps = jnp.where(over, more, steps)
            high, condition = (jnp.where(over, a, b) for a, b in zip(numbers, (high, condition), strict=True))
        condition = jnp.where(jnp.isfinite(condition), jnp.maximum(1.0, condition), jnp.inf)
        return treedef.unflatten([u.at[index].add(t)]), steps, high, condition


def reaches(operator: Operator) -> bool:
    """Whether the columns of the Hessian can be had: what :class:`RestrictedCholesky` needs."""
    structure, space = operator.structure, operator.space
    has_columns = isinstance(structure, ProxGradient) and structure.block is not None
    return has_columns and space.batch_axis is None and not space.axis_name


def _sizes(n: int, most: int) -> list[int]:
    """The sizes a support may be padded to: a tenth of n, but between 96 and half of ``most``; and ``most``."""
    most = min(n, most)
    return sorted({min(most, max(SMALLEST, min(n // 10, most // 2))), most})


def _factored(structure: ProxGradient, index: jax.Array, c: jax.Array, right: jax.Array) -> jax.Array:
    """The rows K⁻¹ right, the last of them times K⁻¹ once more, and the diagonal of K."""
    block: Any = structure.block
    matrix = jnp.diag(1 - c**2) + c[:, None] * c * block(index).astype(c.dtype)
    solve = factor_definite(matrix)
    first = solve(right.T)
    return jnp.concatenate([first, solve(first)[:, 1:], jnp.diagonal(matrix)[:, None]], 1).T
