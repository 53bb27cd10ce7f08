"""jaxopt's proximal gradient method: FISTA with backtracking, differentiated as a forward-backward splitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import Space, subtract
from nsimplicit.compat.jaxopt._arrays import move, size
from nsimplicit.compat.jaxopt.base import IterativeSolver, OptStep
from nsimplicit.compat.jaxopt.prox import make_prox_from_projection, prox_none
from nsimplicit.prox import from_function, smooth
from nsimplicit.splittings import ForwardBackward

SMALLEST_STEP = 1e-6
ROUNDING = 10
"""Errors of fun, in eps of its value: a decrease that is smaller says nothing of the step."""


class ProxGradState(NamedTuple):
    """Updates made, the step, ‖x⁺ - x‖ / step, what else fun returned, and the extrapolated point with its t."""

    iter_num: Any
    stepsize: Any
    error: Any
    aux: Any = None
    velocity: Any = None
    t: Any = 1.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ProximalGradient(IterativeSolver):
    """min fun(x, *args, **kwargs) + g(x, hyperparams_prox), g known by its prox.

    The derivative is that of x = prox(x - grad fun(x), hyperparams_prox, 1.0), whose two maps the
    linear solvers are told of: :class:`nsimplicit.splittings.ForwardBackward`.

    Args:
        fun: a smooth function of x.
        prox: ``prox(x, hyperparams_prox, scaling)``.
        value_and_grad: fun returns its gradient too: ``(value, grad)``.
        has_aux: fun returns ``(value, aux)`` for its value; the last aux is ``state.aux``.
        stepsize: a positive number, a function of ``iter_num``, or at most 0 for backtracking.
        acceleration: extrapolate as FISTA does.
        maxls: largest number of reductions of the step in one update.
        decrease_factor: factor of a reduction.

    All other arguments: :class:`~nsimplicit.compat.jaxopt.base.IterativeSolver`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.compat import jaxopt
        >>> solver = jaxopt.ProximalGradient(
        ...     lambda x, y: 0.5 * jnp.sum((x - y) ** 2), jaxopt.prox.prox_lasso, on_failure="nan"
        ... )
        >>> solver.run(jnp.zeros(2), 1.0, jnp.array([3.0, 0.5])).params.tolist()
        [2.0, 0.0]
    """

    fun: Callable[..., Any] = dataclasses.field(kw_only=False)
    prox: Callable[..., Any] = dataclasses.field(default=prox_none, kw_only=False)
    value_and_grad: bool = False
    has_aux: bool = False
    stepsize: float | Callable[..., Any] = 0.0
    acceleration: bool = True
    maxls: int = 15
    decrease_factor: float = 0.5

    def init_state(self, init_params: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> ProxGradState:
        """Step 1, nothing extrapolated."""
        del hyperparams_prox
        aux = self._evaluate(init_params, args, kwargs)[1] if self.has_aux else None
        dtype = jnp.result_type(*jax.tree.leaves(init_params), jnp.float16)
        velocity = init_params if self.acceleration else None
        number = (jnp.asarray(x, dtype) for x in (1.0, jnp.inf, 1.0))
        stepsize, error, t = number
        return ProxGradState(jnp.asarray(0), stepsize, error, aux, velocity, t)

    def update(self, params: Any, state: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> OptStep:
        """One gradient step, one prox."""
        y = state.velocity if self.acceleration else params
        value, aux, slope = self._evaluate(y, args, kwargs)
        used, next_step = self._step(state, y, value, slope, hyperparams_prox, args, kwargs)
        x = self.prox(move(y, -used, slope), hyperparams_prox, used)
        motion = subtract(x, params)
        error = size(subtract(x, y) if not self.acceleration else motion) / used
        if not self.acceleration:
            return OptStep(x, ProxGradState(state.iter_num + 1, next_step, error, aux, None, state.t))
        t = (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2
        velocity = move(x, (state.t - 1) / t, motion)
        return OptStep(x, ProxGradState(state.iter_num + 1, next_step, error, aux, velocity, t))

    def optimality_fun(self, sol: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> Any:
        """prox(x - grad fun(x), hyperparams_prox, 1.0) - x."""
        return subtract(self._map(sol, hyperparams_prox, args, kwargs), sol)

    def equation(
        self, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The splitting; where the gradient is the user's, the map."""
        if self.value_and_grad:
            return self._map, (hyperparams_prox, args, kwargs)
        f = smooth(lambda x, args, kwargs: self._value(x, args, kwargs), args, kwargs)
        return ForwardBackward, (f, proximable(self.prox, hyperparams_prox), 1.0)

    def _map(self, x: Any, hyperparams_prox: Any, args: tuple, kwargs: dict) -> Any:
        return self.prox(move(x, -1.0, self._evaluate(x, args, kwargs)[2]), hyperparams_prox, 1.0)

    def _value(self, x: Any, args: tuple, kwargs: dict) -> Any:
        out = self.fun(x, *args, **kwargs)
        out = out[0] if self.value_and_grad else out
        return out[0] if self.has_aux else out

    def _evaluate(self, x: Any, args: tuple, kwargs: dict) -> tuple[Any, Any, Any]:
        """The value, what else fun returns, and the gradient."""
        if self.value_and_grad:
            out, slope = self.fun(x, *args, **kwargs)
        else:
            out, slope = jax.value_and_grad(self.fun, has_aux=self.has_aux)(x, *args, **kwargs)
        return (*out, slope) if self.has_aux else (out, None, slope)

    def _step(self, state: Any, y: Any, value: Any, slope: Any, hyper: Any, args: tuple, kwargs: dict) -> Any:
        """The step of this update and where the next one starts; constants for derivatives."""
        dtype = state.stepsize.dtype
        if callable(self.stepsize) or self.stepsize > 0:
            step = self.stepsize(state.iter_num) if callable(self.stepsize) else self.stepsize
            return (jnp.asarray(step, dtype),) * 2
        y, value, slope, hyper, args, kwargs = jax.tree.map(_cut, (y, value, slope, hyper, args, kwargs))
        slack = ROUNDING * jnp.finfo(dtype).eps * jnp.maximum(1.0, jnp.abs(value))

        def too_long(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            step, count = carry
            new = self.prox(move(y, -step, slope), hyper, step)
            d = subtract(new, y)
            found, _, new_slope = self._evaluate(new, args, kwargs)
            square = Space().dot(d, d)
            risen = found > value + Space().dot(slope, d) + square / (2 * step) + slack
            # For a quadratic the same test, and one that rounding does not blind near the solution.
            bent = Space().dot(subtract(new_slope, slope), d) > square / step
            return (count < self.maxls) & (risen | bent)

        def shorter(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return (carry[0] * self.decrease_factor).astype(dtype), carry[1] + 1

        start = (lax.stop_gradient(state.stepsize), jnp.asarray(0))
        step, _ = lax.while_loop(too_long, shorter, start) if self.jit else _python_while(too_long, shorter, start)
        return step, jnp.where(step <= SMALLEST_STEP, 1.0, step / self.decrease_factor).astype(dtype)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ProjectedGradient(IterativeSolver):
    """min fun(x, *args, **kwargs) over the set that ``projection(x, hyperparams_proj)`` projects on.

    Args:
        fun: as in :class:`ProximalGradient`, as are the arguments after ``projection``.
        projection: ``projection(x, hyperparams_proj)``.
        value_and_grad: likewise.
        has_aux: likewise.
        stepsize: likewise.
        acceleration: likewise.
        maxls: likewise.
        decrease_factor: likewise.

    All other arguments: :class:`~nsimplicit.compat.jaxopt.base.IterativeSolver`.
    """

    fun: Callable[..., Any] = dataclasses.field(kw_only=False)
    projection: Callable[..., Any] = dataclasses.field(kw_only=False)
    value_and_grad: bool = False
    has_aux: bool = False
    stepsize: float | Callable[..., Any] = 0.0
    acceleration: bool = True
    maxls: int = 15
    decrease_factor: float = 0.5

    @property
    def proximal(self) -> ProximalGradient:
        """The same solver with the projection as a prox."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "projection"}
        return ProximalGradient(prox=make_prox_from_projection(self.projection), **options)

    def init_state(self, init_params: Any, hyperparams_proj: Any = None, *args: Any, **kwargs: Any) -> ProxGradState:
        """As in :class:`ProximalGradient`."""
        return self.proximal.init_state(init_params, hyperparams_proj, *args, **kwargs)

    def update(self, params: Any, state: Any, hyperparams_proj: Any = None, *args: Any, **kwargs: Any) -> OptStep:
        """As in :class:`ProximalGradient`."""
        return self.proximal.update(params, state, hyperparams_proj, *args, **kwargs)

    def optimality_fun(self, sol: Any, hyperparams_proj: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in :class:`ProximalGradient`."""
        return self.proximal.optimality_fun(sol, hyperparams_proj, *args, **kwargs)

    def equation(
        self, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """As in :class:`ProximalGradient`."""
        return self.proximal.equation(hyperparams_proj, *args, **kwargs)


def proximable(prox: Callable[..., Any], hyperparams: Any) -> Any:
    """The function whose prox is ``prox(x, hyperparams, scaling)``; nothing asks for its value."""
    return from_function(lambda x, _: jnp.zeros(()), lambda x, step, theta: prox(x, theta, step), hyperparams)


def _cut(x: Any) -> Any:
    return lax.stop_gradient(x) if isinstance(x, jax.Array) else x


def _python_while(condition: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
    while condition(carry):
        carry = body(carry)
    return carry
