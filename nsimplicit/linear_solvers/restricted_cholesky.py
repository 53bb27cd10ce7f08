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
from nsimplicit._records import config
from nsimplicit._tree import Space, add, blank
from nsimplicit.linear_solvers.dense import factor_definite
from nsimplicit.linear_solvers.lanes import largest
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
        For a support padded to k entries, 96, 192 or 384 (every further size is compile time): k³/3 flops,
        what ``hessian`` costs (2 m k² for m rows), and two products; k² memory a lane.
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
        """u = C t, by the cheapest of the sizes that hold the support."""
        structure: Any = operator.structure
        (x,), treedef = jax.tree.flatten(v)
        (d,) = jax.tree.leaves(structure.prox(treedef.unflatten([jnp.ones_like(x)])))
        count = jnp.sum(d != 0)
        sizes = _sizes(x.size, self.largest_support)
        index = lax.top_k((d != 0).astype(jnp.float32), sizes[-1])[1]  # `nonzero` compiles to many more kernels
        c = jnp.where(jnp.arange(sizes[-1]) < count, jnp.sqrt(d[index]), 0)
        # The second column is inverse iteration, for the smallest eigenvalue; its start is like nothing in the data.
        right = jnp.stack([c * x[index], jnp.cos(1 + jnp.arange(c.size, dtype=c.dtype) ** 2) + 0 * c], 1)

        def direct(size: int) -> tuple[Any, ...]:
            t, before, after, high = _factored(structure, index[:size], c[:size], right[:size])
            short = jnp.zeros(sizes[-1] - size, t.dtype) + 0 * c[size:]
            u = treedef.unflatten([blank(x).at[index].add(c * jnp.concatenate([t, short]))])
            return u, jnp.full_like(count, PRODUCTS), high, high * after / before

        def iterative() -> tuple[Any, ...]:
            space = Space()
            return range_cg(structure, space, v, default_tolerance(v, None) * space.norm(v), MAX_STEPS)

        methods = [functools.partial(direct, size) for size in sizes] + [iterative] * (sizes[-1] < x.size)
        most = largest(count)
        place = sum(((most > size).astype(jnp.int32) for size in sizes), jnp.zeros_like(most, jnp.int32))
        u, steps, norm, condition = lax.switch(place, methods)
        return u, steps, norm, jnp.where(jnp.isfinite(condition), jnp.maximum(1.0, condition), jnp.inf)


def reaches(operator: Operator) -> bool:
    """Whether the columns of the Hessian can be had: what :class:`RestrictedCholesky` needs."""
    structure, space = operator.structure, operator.space
    has_columns = isinstance(structure, ProxGradient) and structure.block is not None
    return has_columns and space.batch_axis is None and not space.axis_name


def _sizes(n: int, most: int) -> list[int]:
    """The sizes a support may be padded to."""
    sizes = [min(n, most, SMALLEST)]
    while sizes[-1] < min(n, most):
        sizes.append(min(2 * sizes[-1], n))
    return sizes


def _factored(structure: ProxGradient, index: jax.Array, c: jax.Array, right: jax.Array):
    """Of K⁻¹ right the first column, of the second the norms before and after another K⁻¹; and a norm of K."""
    block: Any = structure.block
    matrix = jnp.diag(1 - c**2) + c[:, None] * c * block(index).astype(c.dtype)
    solve = factor_definite(matrix)
    first = solve(right)
    second = solve(first[:, 1:])
    return first[:, 0], jnp.linalg.norm(first[:, 1]), jnp.linalg.norm(second), jnp.max(jnp.diagonal(matrix))
