"""The convex conjugate of a function, through Moreau's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit._tree import subtract
from nsimplicit.prox.base import Function, require_function
from nsimplicit.prox.rules import inherited, times


@data
class Conjugate(Function):
    """The convex conjugate of a function, through Moreau's identity.

    Formula: ``g(y) = max_u sum(u * y) - f(u)``; ``prox(y, s) = y - s * f.prox(y / s, 1 / s)``.

    Args:
        fun: f, convex.
        value: ``value(f, y)`` returns g(y): it does not follow from the prox of f. Needed only to
            evaluate g, not for its prox. Static.

    Kinks:
        Those of the prox of f at y / s.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Conjugate(prox.L1(1.0)).prox(jnp.array([3.0, 0.5]), 2.0).tolist()
        [1.0, 0.5]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.5.
    """

    fun: Function
    value: Callable[[Function, Any], Any] | None = static(None)

    is_separable = inherited("is_separable")

    def __post_init__(self) -> None:
        require_function(self.fun, "Conjugate")

    @property
    def strong_convexity(self) -> Any:
        """1/L when the gradient of f is known to be L-Lipschitz."""
        lipschitz = self.fun.lipschitz
        return 0.0 if lipschitz is None else 1 / jnp.asarray(lipschitz, float)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x, if it was given."""
        if self.value is None:
            raise InputError(
                message(
                    "prox.Conjugate(fun)(y)",
                    "the value of this conjugate is not known.",
                    "The prox of f gives the prox of its conjugate, not the value.",
                    "prox.Conjugate(fun, value=lambda f, y: ...)",
                )
            )
        return self.value(self.fun, x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(1 / step)

        def prox(x: Any) -> Any:
            return subtract(x, times(step, inner(times(1 / step, x))))

        return prox
