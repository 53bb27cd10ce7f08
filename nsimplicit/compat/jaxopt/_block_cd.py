"""jaxopt's block coordinate descent, differentiated as a forward-backward splitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import subtract
from nsimplicit.compat.jaxopt._proximal_gradient import proximable
from nsimplicit.compat.jaxopt.base import IterativeSolver, OptStep
from nsimplicit.prox import smooth
from nsimplicit.splittings import ForwardBackward

METHODS = ("subfun", "make_linop", "columnwise_lipschitz_const")


class BlockCDState(NamedTuple):
    """Rounds made, ‖x⁺ - x‖ of the last one, and A x with the slope of ``fun.subfun`` there."""

    iter_num: Any
    error: Any
    predictions: Any
    subfun_g: Any


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BlockCoordinateDescent(IterativeSolver):
    """min fun(x, *args, **kwargs) + sum of g(x[i], hyperparams_prox), one proximal step on each x[i] in turn.

    Args:
        fun: a composite objective: one of :mod:`~nsimplicit.compat.jaxopt.objective`, or any object with its
            methods ``subfun``, ``make_linop``, ``b`` and ``columnwise_lipschitz_const``.
        block_prox: ``block_prox(x[i], hyperparams_prox, scaling)``.

    All other arguments: :class:`~nsimplicit.compat.jaxopt.base.IterativeSolver`.
    """

    fun: Any = dataclasses.field(kw_only=False)
    block_prox: Callable[..., Any] = dataclasses.field(kw_only=False)
    tol: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse a function that is not composite."""
        missing = [
            name for name in ("subfun", "make_linop", "columnwise_lipschitz_const") if not hasattr(self.fun, name)
        ]
        if missing:
            raise AttributeError(
                f"`BlockCoordinateDescent(fun=...)`: fun has no {', '.join(missing)}. It must be composite, "
                "like those of nsimplicit.compat.jaxopt.objective; ProximalGradient takes any smooth function."
            )

    def init_state(self, init_params: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> BlockCDState:
        """The predictions at ``init_params``."""
        del hyperparams_prox
        predictions = self.fun.make_linop(*args, **kwargs).matvec(init_params)
        slope = jax.grad(self.fun.subfun)(predictions, *args, **kwargs)
        return BlockCDState(jnp.asarray(0), jnp.asarray(jnp.inf), predictions, slope)

    def update(self, params: Any, state: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> OptStep:
        """One round over all blocks."""
        linop, linear = self.fun.make_linop(*args, **kwargs), self.fun.b(*args, **kwargs)
        steps = 1.0 / self.fun.columnwise_lipschitz_const(*args, **kwargs)

        def block(
            i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            x, predictions, slope = carry
            g = linop.rmatvec_element(slope, i)
            g = g if linear is None else g + linear[i]
            new = self.block_prox(x[i] - steps[i] * g, hyperparams_prox, steps[i])
            predictions = linop.update_matvec(predictions, new - x[i], i)
            return x.at[i].set(new), predictions, jax.grad(self.fun.subfun)(predictions, *args, **kwargs)

        x, predictions, slope = lax.fori_loop(0, params.shape[0], block, (params, state.predictions, state.subfun_g))
        error = lax.stop_gradient(jnp.linalg.norm((x - params).ravel()))
        return OptStep(x, BlockCDState(state.iter_num + 1, error, predictions, slope))

    def optimality_fun(self, sol: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> Any:
        """prox(x - grad fun(x), hyperparams_prox, 1.0) - x."""
        slope = jax.grad(self.fun)(sol, *args, **kwargs)
        return subtract(self._prox(sol - slope, hyperparams_prox, 1.0), sol)

    def equation(
        self, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The splitting."""
        f = smooth(lambda x, args, kwargs: self.fun(x, *args, **kwargs), args, kwargs)
        return ForwardBackward, (f, proximable(self._prox, hyperparams_prox), 1.0)

    def _prox(self, x: Any, hyperparams_prox: Any, scaling: Any) -> Any:
        return jax.vmap(lambda block: self.block_prox(block, hyperparams_prox, scaling))(x)
