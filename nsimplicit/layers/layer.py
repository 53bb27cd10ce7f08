"""A layer: a function whose answer satisfies an equation that certificates can look at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._tree import blank
from nsimplicit.implicit.equation import Equation, Problem
from nsimplicit.prox.base import concrete


class Layer(Problem):
    """A function that is called as it is, and knows the equation of its answer: ``certify(layer)(*args)``.

    Args:
        fun: the function.
        formulate: called like it; a solution and the equation it satisfies.
    """

    def __init__(self, fun: Callable[..., Any], formulate: Callable[..., tuple[Any, Equation]]) -> None:
        """Look like the function: its name, its docstring, its signature."""
        functools.update_wrapper(self, fun)
        self._fun, self._formulate = fun, formulate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's answer."""
        return self._fun(*args, **kwargs)

    def formulate(self, *args: Any, **kwargs: Any) -> tuple[Any, Equation]:
        """A solution and its equation."""
        return self._formulate(*args, **kwargs)


def layer(formulate: Callable[..., tuple[Any, Equation]]) -> Callable[[Callable[..., Any]], Layer]:
    """Decorate a function with the equation of its answer."""
    return lambda fun: Layer(fun, formulate)


def tolerance(dtype: Any, tol: float | None) -> float:
    """The largest relative residual of a solution: ``tol``, or √eps/2."""
    return float(np.finfo(dtype).eps) ** 0.5 / 2 if tol is None else tol


@jax.custom_jvp
def shown(x: jax.Array, value: jax.Array) -> jax.Array:
    """``value``, with the derivative of x; it depends on x, so that under ``vmap`` both have the same lanes."""
    return value + blank(x)


shown.defjvp(lambda primals, tangents: (shown(*primals), tangents[0]))


def require_finite(where: str, name: str, given: Any, infinite: tuple[float, ...] = (), instead: str = "") -> None:
    """Raise where an array is known to have an entry that is neither finite nor one of ``infinite``."""
    values = None if given is None else concrete(given)
    if values is None:
        return
    bad = ~(np.isfinite(values) | np.isin(values, infinite))
    if bad.any():
        at = tuple(map(int, np.argwhere(bad)[0]))
        raise InputError(
            message(
                f"{where}({name}=...)",
                f"{name}{list(at)} is {values[at]}, and {bad.sum()} of {values.size} entries are like it.",
                f"The data of a program are finite{instead}.",
                "check where the data come from; leave out the rows of constraints that are not there",
                "inside jit nothing is raised: such a lane has status -3 and value nan",
            )
        )


def require_convex(where: str, given: jax.Array) -> None:
    """Raise where a symmetric matrix is known to have a negative eigenvalue."""
    P = concrete(given)
    if P is None:
        return
    P = (P + P.T) / 2
    slack = 10 * len(P) * np.finfo(P.dtype).eps * np.abs(P).max()
    try:
        np.linalg.cholesky(P + 2 * max(slack, np.finfo(P.dtype).tiny) * np.eye(len(P), dtype=P.dtype))
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(P)[0]
        if smallest >= -slack:
            return
        raise InputError(
            message(
                f"{where}(P=...)",
                f"the smallest eigenvalue of P is {smallest:.3g}.",
                "The program is not convex: a stationary point need not be a minimum.",
                "P + shift * jnp.eye(n) with a shift above that eigenvalue",
                "the sign of P: a minimum is sought",
            )
        ) from None
