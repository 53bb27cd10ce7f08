"""What a derivative mode is, and the fence around modes that are only of first order."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from nsimplicit._errors import DerivativeError, message
from nsimplicit._tree import is_float, moving, substitute
from nsimplicit.implicit.process import Consts, Outcome, Process


class Derivative(abc.ABC):
    """How the answer of a solve is differentiated. Configuration: frozen, hashable, static."""

    @abc.abstractmethod
    def solve(self, process: Process) -> Outcome:
        """Run the process; the outcome's ``z`` carries this mode's derivative."""


def first_order(
    where: str,
    consts: Consts,
    fixed: Any,
    value: Callable[[Consts, Any], Any],
    tangent: Callable[[Consts, Any, list[int], list[jax.Array]], Any],
) -> Any:
    """``value(consts, fixed)`` whose derivative is ``tangent``, once: a second one is an error.

    Both functions may be traced long after this call (the rule of a function inside ``jit`` is), so
    they must not close over arrays: those go into ``fixed``.

    Args:
        where: the mode, for the error.
        consts: what is differentiated.
        fixed: further arrays, which are not.
        value: the value; its own derivative is not used.
        tangent: ``(consts, fixed, live, dots)``: the derivative along ``dots``, the tangents of the
            leaves numbered ``live``; linear in ``dots``.
    """

    @jax.custom_jvp
    def once(consts: Consts, fixed: Any) -> Any:
        return value(consts, fixed)

    def rule(primals: tuple[Consts, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
        consts, fixed = primals
        live, dots = moving(consts, tangents[0])
        out = once(consts, fixed)
        if not live:
            return out, jax.tree.map(jnp.zeros_like, out)
        fenced = jax.tree.map(lambda x: _fence(where, x) if is_float(x) else x, consts)
        return out, tangent(fenced, fixed, live, dots)

    once.defjvp(rule, symbolic_zeros=True)
    return once(consts, jax.lax.stop_gradient(fixed))


def along(consts: Consts, live: list[int], fun: Callable[[Consts], Any], dots: list[jax.Array]) -> Any:
    """The derivative of ``fun(consts)`` along tangents of the leaves numbered ``live``."""
    leaves = jax.tree.leaves(consts)

    def moved(*values: jax.Array) -> Any:
        return fun(substitute(consts, live, values))

    return jax.jvp(moved, [leaves[i] for i in live], dots)[1]


def _fence(where: str, x: jax.Array) -> jax.Array:
    """x, which may not be differentiated."""

    @jax.custom_jvp
    def identity(x: jax.Array) -> jax.Array:
        return x

    def rule(primals: tuple[jax.Array], tangents: tuple[Any]) -> tuple[jax.Array, jax.Array]:
        if isinstance(tangents[0], SymbolicZero):
            return primals[0], jnp.zeros_like(primals[0])
        raise DerivativeError(
            message(
                where,
                "a second derivative was asked for.",
                "This mode is an approximation of the first derivative; its own derivative approximates nothing.",
                "derivative=nsi.derivatives.Implicit(), which has every order",
                "derivative=nsi.derivatives.Unrolled(steps)",
            )
        )

    identity.defjvp(rule, symbolic_zeros=True)
    return identity(x)


def refuse(where: str, process: Process, found: str, *tries: str) -> DerivativeError:
    """The error for a cell of the solver × derivative table that makes no sense."""
    return DerivativeError(message(f"{process.where}(derivative={where})", found, _MEANING, *tries))


_MEANING = "This derivative follows the iteration, so the iteration must be one it can follow."
