"""jaxopt's linear solvers ``solve(matvec, b, ridge=None, init=None, ...)``, by this package's.

All of them take pytrees, are differentiable, and know ``ridge`` (adds ridge·x to the product),
``init`` (where an iterative method starts), ``tol`` (relative; default eps^(3/4) of the dtype, where
jaxopt has 1e-5), ``maxiter`` and, for GMRES, ``restart``. ``atol``, ``M`` and ``solve_method`` are
accepted and ignored.

    solve_lu, solve_cholesky, solve_inv, solve_qr,
    solve_iterative_refinement                      linear_solvers.Dense
    solve_cg                                        linear_solvers.CG
    solve_normal_cg                                 linear_solvers.NormalCG; ridge goes on the normal equations
    solve_gmres, solve_bicgstab                     linear_solvers.GMRES, linear_solvers.BiCGStab
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from nsimplicit._errors import message
from nsimplicit._tree import add, subtract
from nsimplicit.compat.jaxopt._arrays import floats, move
from nsimplicit.linear_solvers import CG, GMRES, BiCGStab, Dense, LinearSolver, NormalCG, Operator
from nsimplicit.linear_solvers.anchor import linear_solve

__all__ = [
    "solve_bicgstab",
    "solve_cg",
    "solve_cholesky",
    "solve_gmres",
    "solve_inv",
    "solve_iterative_refinement",
    "solve_lu",
    "solve_normal_cg",
    "solve_qr",
]

Make = Callable[..., LinearSolver]


def _dense(tol: float | None, maxiter: int | None, restart: int | None) -> LinearSolver:
    del tol, maxiter, restart
    return Dense()


def _cg(tol: float | None, maxiter: int | None, restart: int | None) -> LinearSolver:
    del restart
    return CG(tol) if maxiter is None else CG(tol, maxiter)


def _normal_cg(tol: float | None, maxiter: int | None, restart: int | None) -> LinearSolver:
    del restart
    return NormalCG(tol) if maxiter is None else NormalCG(tol, 2 * maxiter)


def _bicgstab(tol: float | None, maxiter: int | None, restart: int | None) -> LinearSolver:
    del restart
    return BiCGStab(tol) if maxiter is None else BiCGStab(tol, 2 * maxiter)


def _gmres(tol: float | None, maxiter: int | None, restart: int | None) -> LinearSolver:
    length = 20 if restart is None else restart
    return GMRES(length, tol) if maxiter is None else GMRES(length, tol, length * maxiter)


def _function(name: str, make: Make, says: str) -> Callable[..., Any]:
    def solve(
        matvec: Callable[[Any], Any],
        b: Any,
        ridge: float | None = None,
        init: Any = None,
        *,
        tol: float | None = None,
        maxiter: int | None = None,
        restart: int | None = None,
        atol: Any = None,
        M: Any = None,
        solve_method: Any = None,
    ) -> Any:
        del atol, M, solve_method
        b, solver = floats(b), make(tol, maxiter, restart)
        product = matvec if ridge is None else lambda v: move(matvec(v), ridge, v)
        if init is None:
            return linear_solve(Operator(product), b, solver)
        init = floats(init)
        return add(init, linear_solve(Operator(product), subtract(b, product(init)), solver))

    solve.__name__ = solve.__qualname__ = name
    solve.__doc__ = f"Solve A x = b {says}."
    return solve


solve_lu = _function("solve_lu", _dense, "with the matrix built from products and factored")
solve_cholesky = _function("solve_cholesky", _dense, "as solve_lu does")
solve_inv = _function("solve_inv", _dense, "as solve_lu does")
solve_qr = _function("solve_qr", _dense, "as solve_lu does")
solve_iterative_refinement = _function("solve_iterative_refinement", _dense, "as solve_lu does, which refines once")
solve_cg = _function("solve_cg", _cg, "by conjugate gradients, A symmetric and definite")
solve_gmres = _function("solve_gmres", _gmres, "by GMRES")
solve_bicgstab = _function("solve_bicgstab", _bicgstab, "by stabilised biconjugate gradients")
_square_normal_cg = _function("solve_normal_cg", _normal_cg, "by conjugate gradients on the normal equations")


def solve_normal_cg(
    matvec: Callable[[Any], Any], b: Any, ridge: float | None = None, init: Any = None, **options: Any
) -> Any:
    """Solve AᵀA x = Aᵀb by conjugate gradients; A need not be square if ``init`` is given.

    Args:
        matvec: x -> A x.
        b: the right-hand side.
        ridge: added to AᵀA, not to A.
        init: where to start; it says what x looks like where A is not square.
        **options: ``tol``, ``maxiter``.

    Raises:
        TypeError: A is not square and there is no ``init``.
    """
    if ridge is None and init is None and _is_square(matvec, b):
        return _square_normal_cg(matvec, b, **options)
    b = floats(b)
    like = b if init is None else floats(init)
    try:
        transpose = jax.linear_transpose(matvec, like)
        right = transpose(b)[0]
    except TypeError as error:
        raise TypeError(
            message(
                "solve_normal_cg(matvec, b)",
                "matvec does not take a vector like b.",
                "The matrix is not square, and nothing says what its solution looks like.",
                "init=jnp.zeros(...), like a solution",
            )
        ) from error
    return solve_cg(lambda v: transpose(matvec(v))[0], right, ridge, init, **options)


def _is_square(matvec: Callable[[Any], Any], b: Any) -> bool:
    try:
        out = jax.eval_shape(matvec, b)
    except TypeError:
        return False
    return [x.shape for x in jax.tree.leaves(out)] == [jax.numpy.shape(x) for x in jax.tree.leaves(b)]


_MAKE: dict[Any, Make] = {
    solve_lu: _dense,
    solve_cholesky: _dense,
    solve_inv: _dense,
    solve_qr: _dense,
    solve_iterative_refinement: _dense,
    solve_cg: _cg,
    solve_normal_cg: _normal_cg,
    solve_gmres: _gmres,
    solve_bicgstab: _bicgstab,
}


def recognise(solve: Any) -> tuple[LinearSolver | None, float | None]:
    """The linear solver that a function of this module, or a ``functools.partial`` of one, stands for; its ridge."""
    options: dict[str, Any] = {}
    while isinstance(solve, functools.partial) and not solve.args:
        options = {**solve.keywords, **options}
        solve = solve.func
    make = _MAKE.get(solve) if callable(solve) else None
    if make is None:
        return None, None
    return make(options.get("tol"), options.get("maxiter"), options.get("restart")), options.get("ridge")
