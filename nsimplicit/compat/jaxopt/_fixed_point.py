"""jaxopt's solvers of T(x) = x."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, partition, subtract
from nsimplicit.compat.jaxopt._arrays import size
from nsimplicit.compat.jaxopt.base import IterativeSolver, OptStep
from nsimplicit.linear_solvers.fixed_point_adjoint import PlainMap
from nsimplicit.solvers import Anderson


class FixedPointState(NamedTuple):
    """Updates made, ‖T(x) - x‖ at the last point, and what else T returned."""

    iter_num: Any
    error: Any
    aux: Any = None
    num_fun_eval: Any = 0


class AndersonState(NamedTuple):
    """As :class:`FixedPointState`, with the history of the mixing."""

    iter_num: Any
    error: Any
    history: Any
    aux: Any = None
    num_fun_eval: Any = 0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FixedPointIteration(IterativeSolver):
    """x <- T(x).

    Args:
        fixed_point_fun: ``T(x, *args, **kwargs)``, which returns a state like x.
        has_aux: T returns ``(x, aux)``; the last aux is ``state.aux``.

    All other arguments: :class:`~nsimplicit.compat.jaxopt.base.IterativeSolver`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.compat import jaxopt
        >>> solver = jaxopt.FixedPointIteration(lambda x, t: jnp.cos(x) * t, on_failure="nan")
        >>> round(float(jax.grad(lambda t: solver.run(1.0, t).params)(1.0)), 3)
        0.442
    """

    fixed_point_fun: Callable[..., Any] = dataclasses.field(kw_only=False)
    has_aux: bool = False
    maxiter: int = 100
    tol: float = 1e-5

    def init_state(self, init_params: Any, *args: Any, **kwargs: Any) -> FixedPointState:
        """Nothing was done yet."""
        del init_params, args, kwargs
        return FixedPointState(jnp.asarray(0), jnp.asarray(jnp.inf), None, jnp.asarray(0))

    def update(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> OptStep:
        """One application of T."""
        image, aux = _apply(self, params, args, kwargs)
        error = size(subtract(image, params))
        return OptStep(image, FixedPointState(state.iter_num + 1, error, aux, state.num_fun_eval + 1))

    def optimality_fun(self, sol: Any, *args: Any, **kwargs: Any) -> Any:
        """T(x) - x."""
        return subtract(_apply(self, sol, args, kwargs)[0], sol)

    def equation(self, *args: Any, **kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """T."""
        return lambda x, args, kwargs: _apply(self, x, args, kwargs)[0], (args, kwargs)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AndersonAcceleration(IterativeSolver):
    """Anderson acceleration of T(x) = x, by :class:`nsimplicit.solvers.Anderson`.

    Args:
        fixed_point_fun: ``T(x, *args, **kwargs)``, which returns a state like x.
        history_size: differences kept.
        has_aux: T returns ``(x, aux)``; the last aux is ``state.aux``.
        mixing_frequency: accepted and ignored: every step mixes.
        beta: accepted and ignored: 1.
        ridge: accepted and ignored: relative to the data, eps of the dtype.

    All other arguments: :class:`~nsimplicit.compat.jaxopt.base.IterativeSolver`.
    """

    fixed_point_fun: Callable[..., Any] = dataclasses.field(kw_only=False)
    history_size: int = 5
    mixing_frequency: int = 1
    beta: float = 1.0
    ridge: float = 1e-5
    has_aux: bool = False
    maxiter: int = 100
    tol: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse a history of fewer than two."""
        if self.history_size < 2:
            where = f"AndersonAcceleration(history_size={self.history_size})"
            found, meaning = "history_size must be at least 2.", "One difference mixes nothing."
            raise InputError(message(where, found, meaning, "history_size=5", "FixedPointIteration(T)"))

    def init_state(self, init_params: Any, *args: Any, **kwargs: Any) -> AndersonState:
        """An empty history."""
        problem, vector, _ = self._problem(init_params, args, kwargs)
        history = Anderson(memory=self.history_size).init(problem, vector, Space())
        aux = _apply(self, init_params, args, kwargs)[1] if self.has_aux else None
        return AndersonState(jnp.asarray(0), jnp.asarray(jnp.inf), history, aux, jnp.asarray(0))

    def update(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> OptStep:
        """One mixed step; its parameters are a plain T of the point that mixing chose."""
        problem, _, combine = self._problem(params, args, kwargs)
        history = Anderson(memory=self.history_size).step(problem, state.history, Space())
        error = size(subtract(history.image, state.history.z))
        aux = _apply(self, combine(state.history.z), args, kwargs)[1] if self.has_aux else None
        new = AndersonState(state.iter_num + 1, error, history, aux, state.num_fun_eval + 1)
        return OptStep(combine(history.image), new)

    def optimality_fun(self, sol: Any, *args: Any, **kwargs: Any) -> Any:
        """T(x) - x."""
        return subtract(_apply(self, sol, args, kwargs)[0], sol)

    def equation(self, *args: Any, **kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """T."""
        return lambda x, args, kwargs: _apply(self, x, args, kwargs)[0], (args, kwargs)

    def _problem(self, params: Any, args: tuple, kwargs: dict) -> tuple[Any, Any, Callable[[Any], Any]]:
        """T as this package's solvers see it, the vector of ``params``, and the way back.

        It is not traced, so that ``jit=False`` means it.
        """
        vector, combine = partition(jax.tree.map(jnp.asarray, params))
        return PlainMap(lambda v: partition(_apply(self, combine(v), args, kwargs)[0])[0]), vector, combine


def _apply(solver: FixedPointIteration | AndersonAcceleration, x: Any, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    out = solver.fixed_point_fun(x, *args, **kwargs)
    return (out[0], out[1]) if solver.has_aux else (out, None)
