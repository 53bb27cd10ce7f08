"""Derivatives of a root that is already known: the rule without a solver around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._tree import Space, cast_like, is_float, promote
from nsimplicit.implicit.equation import Root
from nsimplicit.implicit.rule import attach
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.linear_solvers.auto import Auto
from nsimplicit.linear_solvers.custom import Custom

Solve = Callable[[Callable[[Any], Any], Any], Any]


def root_jvp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    tangents: tuple[Any, ...],
    solve: Solve | None = None,
) -> Any:
    """The derivative of the root of F(., args) along tangents of args, from a known root.

    Args:
        optimality_fun: F(sol, args).
        sol: a root.
        args: the other arguments of F.
        tangents: one tangent per argument, like ``args``.
        solve: ``solve(matvec, b)``; default the package's choice.

    Returns:
        The tangent of the root, like ``sol``.

    Example:
        >>> import nsimplicit as nsi
        >>> float(nsi.root_jvp(lambda x, a: x**2 - a, 2.0, (4.0,), (1.0,)))
        0.25
    """
    args, tangents = tuple(args), tuple(tangents)
    like = jax.tree.map(lambda x: jnp.asarray(x) if is_float(x) else x, args)
    moves = jax.tree.map(lambda x, d: jnp.asarray(d, x.dtype) if is_float(x) else d, like, tangents)
    return jax.jvp(_known(optimality_fun, sol, solve, "root_jvp"), like, moves)[1]


def root_vjp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    cotangent: Any,
    solve: Solve | None = None,
) -> tuple[Any, ...]:
    """The cotangents of args for a cotangent of the root of F(., args).

    Args:
        optimality_fun: F(sol, args).
        sol: a root.
        args: the other arguments of F.
        cotangent: like ``sol``.
        solve: ``solve(matvec, b)``; default the package's choice.

    Returns:
        One cotangent per argument.

    Example:
        >>> import nsimplicit as nsi
        >>> [float(v) for v in nsi.root_vjp(lambda x, a: x**2 - a, 2.0, (4.0,), 1.0)]
        [0.25]
    """
    out, pull = jax.vjp(_known(optimality_fun, sol, solve, "root_vjp"), *args)
    return pull(jax.tree.map(lambda o, c: jnp.asarray(c, o.dtype) if is_float(o) else c, out, cotangent))


def _known(optimality_fun: Callable[..., Any], sol: Any, solve: Solve | None, name: str) -> Callable[..., Any]:
    sol = jax.tree.map(jnp.asarray, sol)
    where = f"{name}({getattr(optimality_fun, '__name__', type(optimality_fun).__name__)}, ...)"

    def root(*args: Any) -> Any:
        wide = promote(args)
        equation = Root((lambda z: optimality_fun(z, *wide),))
        traced, vector, combine = trace_equation(equation, promote(sol), Space(), where)
        z = attach(traced, vector, linear_solver=Auto() if solve is None else Custom(solve))
        return cast_like(combine(z), sol)

    return root
