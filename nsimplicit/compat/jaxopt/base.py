"""What jaxopt's solvers return, and what they have in common: a loop with an implicit derivative attached."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space, cast_like
from nsimplicit.compat.jaxopt.implicit_diff import KKTSolution as KKTSolution
from nsimplicit.compat.jaxopt.implicit_diff import rule
from nsimplicit.custom_root import custom_fixed_point


class OptStep(NamedTuple):
    """The parameters and the state of a solver, after one step or at the end."""

    params: Any
    state: Any


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class IterativeSolver(abc.ABC):
    """A loop over ``update`` until ``state.error <= tol``, with the derivative of a fixed-point equation.

    Args:
        maxiter: largest number of updates.
        tol: stop when ``state.error`` is at most this, absolute.
        implicit_diff: differentiate the equation at the solution; False: the iterations themselves.
        implicit_diff_solve: ``solve(matvec, b)`` for the tangent system, as in
            :func:`nsimplicit.compat.jaxopt.implicit_diff.custom_root`.
        on_failure: what a derivative gives whose tangent system is singular; likewise.
        jit: False runs the loop in Python, for functions that JAX cannot trace.
        unroll: accepted and ignored: the loop is unrolled where ``implicit_diff=False`` needs it.
        verbose: accepted and ignored.
    """

    maxiter: int = 500
    tol: float = 1e-3
    implicit_diff: bool = True
    implicit_diff_solve: Callable[..., Any] | None = None
    on_failure: str | None = None
    jit: bool = True
    unroll: Any = "auto"
    verbose: Any = False

    @abc.abstractmethod
    def init_state(self, init_params: Any, *args: Any, **kwargs: Any) -> Any:
        """The state before the first update; has ``iter_num`` and ``error``."""

    @abc.abstractmethod
    def update(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> OptStep:
        """One step."""

    @abc.abstractmethod
    def optimality_fun(self, sol: Any, *args: Any, **kwargs: Any) -> Any:
        """The residual T(sol) - sol, zero at a solution."""

    @abc.abstractmethod
    def equation(self, *args: Any, **kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What is differentiated: a map or a class of splittings, and what it takes beside the solution."""

    def run(self, init_params: Any, *args: Any, **kwargs: Any) -> OptStep:
        """Solve from ``init_params``; the solution is differentiable in all other arguments.

        Returns:
            ``(params, state)``, with ``state.iter_num`` and ``state.error``.
        """
        if not self.implicit_diff:
            return (self._unrolled if self.jit else self._python)(init_params, args, kwargs)
        cut = jax.tree.map(_cut, (init_params, args, kwargs))
        params, state = (self._compiled if self.jit else self._python)(*cut)
        map_, fields = self.equation(*args, **kwargs)

        def solver(*fields: Any) -> Any:
            del fields
            return params

        solver.__name__ = type(self).__name__
        derivative = rule(self.implicit_diff_solve, self.on_failure)
        return OptStep(custom_fixed_point(map_, derivative=derivative, init_argnum=None)(solver)(*fields), state)

    def l2_optimality_error(self, params: Any, *args: Any, **kwargs: Any) -> jax.Array:
        """The norm of ``optimality_fun``."""
        return Space().norm(self.optimality_fun(params, *args, **kwargs))

    @functools.cached_property
    def _compiled(self) -> Callable[..., OptStep]:
        return jax.jit(self._loop)

    def _first(self, params: Any, args: tuple, kwargs: dict) -> OptStep:
        """One update: what it returns has the types that all later ones return."""
        params = jax.tree.map(_strong, params)
        state = self.init_state(params, *args, **kwargs)
        if self.maxiter == 0:
            return OptStep(params, state)
        return jax.tree.map(_strong, OptStep(*self.update(params, state, *args, **kwargs)))

    def _again(self, step: OptStep, args: tuple, kwargs: dict) -> OptStep:
        return cast_like(OptStep(*self.update(step.params, step.state, *args, **kwargs)), step)

    def _loop(self, params: Any, args: tuple, kwargs: dict) -> OptStep:
        step = self._first(params, args, kwargs)

        def active(step: OptStep) -> jax.Array:
            return (step.state.error > self.tol) & (step.state.iter_num < self.maxiter)

        return lax.while_loop(active, lambda step: self._again(step, args, kwargs), step)

    def _unrolled(self, params: Any, args: tuple, kwargs: dict) -> OptStep:
        def body(step: OptStep, _: None) -> tuple[OptStep, None]:
            on = step.state.error > self.tol
            new = self._again(step, args, kwargs)
            return jax.tree.map(lambda a, b: jnp.where(on, a, b), new, step), None

        return lax.scan(body, self._first(params, args, kwargs), None, length=max(self.maxiter - 1, 0))[0]

    def _python(self, params: Any, args: tuple, kwargs: dict) -> OptStep:
        step = self._first(params, args, kwargs)
        while step.state.error > self.tol and step.state.iter_num < self.maxiter:
            step = self._again(step, args, kwargs)
        return step


def _cut(x: Any) -> Any:
    return lax.stop_gradient(x) if isinstance(x, jax.Array) else x


def _strong(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(x.dtype)
