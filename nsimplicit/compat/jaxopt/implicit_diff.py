"""jaxopt's ``implicit_diff``: the decorators and products of :mod:`nsimplicit`, under its conventions.

Where the tangent system is singular, jaxopt's users get a number: the minimum-norm least-squares
solution. They do here too, and are told so once; ``on_failure=`` chooses, and says nothing.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from nsimplicit._tree import add
from nsimplicit.compat.jaxopt.linear_solve import recognise
from nsimplicit.custom_root import custom_fixed_point as fixed_point_decorator
from nsimplicit.custom_root import custom_root as root_decorator
from nsimplicit.derivatives import Implicit
from nsimplicit.implicit.guards import Off, Solved
from nsimplicit.linear_solvers import Auto, Custom

__all__ = ["custom_fixed_point", "custom_root", "make_kkt_optimality_fun", "root_jvp", "root_vjp"]

LOOSE = 1e-4
"""Backward error accepted of a user's own ``solve``: ten times what ``jax.scipy``'s methods stop at."""

_told: list[str] = []


class KKTSolution(NamedTuple):
    """A primal point with the multipliers of its equalities and inequalities."""

    primal: Any
    dual_eq: Any = None
    dual_ineq: Any = None


def custom_root(
    optimality_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Any = None,
    *,
    on_failure: str | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate ``solver(init, *args, **kwargs)`` where ``optimality_fun(solution, *args, **kwargs) = 0``.

    Args:
        optimality_fun: F, with as many outputs as the solution has numbers.
        has_aux: the solver returns ``(solution, aux)``.
        solve: ``solve(matvec, b)``. A function of :mod:`~nsimplicit.compat.jaxopt.linear_solve`, or a
            ``functools.partial`` of one, runs as this package's solver; with ``ridge=`` its answer is
            taken as it is. Default: chosen by size.
        reference_signature: a function, or a signature, that names the arguments.
        on_failure: what a derivative gives whose tangent system is singular or was not solved:
            ``"least_squares"`` (default, with one warning), or ``"nan"``, ``"drop"``, ``"ignore"``, ``"raise"``,
            ``"warn"`` (:mod:`nsimplicit.guards`).

    Returns:
        A decorator.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.compat import jaxopt
        >>> @jaxopt.implicit_diff.custom_root(lambda x, a: x**2 - a, on_failure="nan")
        ... def solver(init, a):
        ...     return jnp.sqrt(a)
        >>> float(jax.grad(solver, argnums=1)(None, 4.0))
        0.25
    """
    return root_decorator(
        _positional(optimality_fun), has_aux, None, _named(reference_signature), derivative=rule(solve, on_failure)
    )


def custom_fixed_point(
    fixed_point_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Any = None,
    *,
    on_failure: str | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate ``solver(init, *args, **kwargs)`` where ``fixed_point_fun(solution, *args, **kwargs) = solution``.

    Args:
        fixed_point_fun: T; returns a state like the solution.
        has_aux: as in :func:`custom_root`.
        solve: as in :func:`custom_root`; called with I - dT.
        reference_signature: as in :func:`custom_root`.
        on_failure: as in :func:`custom_root`.

    Returns:
        A decorator.
    """
    return fixed_point_decorator(
        _positional(fixed_point_fun), has_aux, None, _named(reference_signature), derivative=rule(solve, on_failure)
    )


def root_vjp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    cotangent: Any,
    solve: Callable[..., Any] | None = None,
    *,
    on_failure: str | None = None,
) -> tuple[Any, ...]:
    """The cotangents of ``args`` for a cotangent of the root ``sol`` of F(., *args).

    Args:
        optimality_fun: F.
        sol: a root.
        args: the other arguments of F.
        cotangent: like ``sol``.
        solve: as in :func:`custom_root`.
        on_failure: as in :func:`custom_root`.

    Returns:
        One cotangent per argument.
    """
    return jax.vjp(_known(optimality_fun, sol, solve, on_failure), *args)[1](cotangent)


def root_jvp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    tangents: tuple[Any, ...],
    solve: Callable[..., Any] | None = None,
    *,
    on_failure: str | None = None,
) -> Any:
    """The derivative of the root ``sol`` of F(., *args) along tangents of ``args``.

    Args:
        optimality_fun: F.
        sol: a root.
        args: the other arguments of F.
        tangents: one per argument, like ``args``.
        solve: as in :func:`custom_root`.
        on_failure: as in :func:`custom_root`.

    Returns:
        A tangent like ``sol``.
    """
    return jax.jvp(_known(optimality_fun, sol, solve, on_failure), tuple(args), tuple(tangents))[1]


def make_kkt_optimality_fun(
    obj_fun: Callable[..., Any], eq_fun: Callable[..., Any] | None, ineq_fun: Callable[..., Any] | None = None
) -> Callable[..., KKTSolution]:
    """The KKT equations of min obj(x) subject to eq(x) = 0 and ineq(x) <= 0.

    Args:
        obj_fun: ``obj_fun(x, params_obj)``, a scalar.
        eq_fun: ``eq_fun(x, params_eq)``.
        ineq_fun: ``ineq_fun(x, params_ineq)``; may be left out.

    Returns:
        ``optimality_fun((x, dual_eq, dual_ineq), params_obj, params_eq, params_ineq)``: the gradient of the
        Lagrangian, the equalities, and each inequality times its multiplier. A multiplier may be None.
    """

    def optimality_fun(params: Any, params_obj: Any, params_eq: Any = None, params_ineq: Any = None) -> KKTSolution:
        x, *duals = params
        slope, residuals = jax.grad(obj_fun)(x, params_obj), []
        for fun, theta, dual in zip((eq_fun, ineq_fun), (params_eq, params_ineq), duals, strict=True):
            if dual is None or fun is None:
                residuals.append(None)
                continue
            value, pull = jax.vjp(lambda x, fun=fun, theta=theta: fun(x, theta), x)
            slope = add(slope, pull(dual)[0])
            residuals.append(value)
        if residuals[1] is not None:
            residuals[1] = jax.tree.map(lambda a, b: a * b, residuals[1], duals[1])
        return KKTSolution(slope, *residuals)

    return optimality_fun


def rule(solve: Callable[..., Any] | None, on_failure: str | None) -> Implicit:
    """The derivative mode for jaxopt's ``solve`` argument; says once what a singular system gives."""
    if on_failure is None:
        on_failure = "least_squares"
        if not _told:
            _told.append(WARNING)
            warnings.warn(WARNING, UserWarning, stacklevel=3)
    if solve is None:
        return Implicit(Auto(), Solved(on_failure=on_failure))
    solver, ridge = recognise(solve)
    if ridge is not None:
        return Implicit(Custom(solve), Off())
    if solver is not None:
        return Implicit(solver, Solved(on_failure=on_failure))
    return Implicit(Custom(solve), Solved(rtol=LOOSE, on_failure=on_failure))


WARNING = (
    "nsimplicit.compat.jaxopt: where a tangent system is singular the derivative is the minimum-norm least-squares "
    "solution, as in jaxopt; nsimplicit itself would give nan. Pass on_failure='nan', 'drop', 'raise' or "
    "'least_squares' to choose, and to silence this warning, which is shown once."
)


def _known(fun: Callable[..., Any], sol: Any, solve: Any, on_failure: str | None) -> Callable[..., Any]:
    def root(*args: Any) -> Any:
        del args
        return sol

    return root_decorator(fun, derivative=rule(solve, on_failure), init_argnum=None)(root)


def _positional(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun`` called by position where its signature allows: it may be an ``f(x, *args)`` in disguise."""
    try:
        signature = inspect.signature(fun)
    except (TypeError, ValueError):
        return fun

    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        return fun(*bound.args, **bound.kwargs)

    return call


def _named(reference: Any) -> Callable[..., Any] | None:
    """A function whose signature names the arguments: jaxopt also takes a signature, or a composite objective."""
    reference = getattr(reference, "subfun", reference)
    if not isinstance(reference, inspect.Signature):
        return reference

    def named(*args: Any, **kwargs: Any) -> None:
        del args, kwargs

    vars(named)["__signature__"] = reference
    return named
