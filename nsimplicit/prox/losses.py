"""Smooth functions whose prox acts on each entry alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data
from nsimplicit.prox.base import Function, add_up, as_float, extreme, fit, leafwise, require
from nsimplicit.prox.quadratic import Quadratic


@data
class Zero(Function):
    """The function that is zero everywhere: its prox is the identity.

    Formula: ``g(x) = 0``; ``prox(x, s) = x``.

    Example:
        >>> from nsimplicit import prox
        >>> prox.Zero().prox(3.0, 1.0)
        3.0
    """

    is_smooth = is_separable = True
    lipschitz = 0.0

    @property
    def as_quadratic(self) -> Quadratic:
        """The same function as a :class:`Quadratic`."""
        return Quadratic(0.0)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x: jnp.zeros((), jnp.finfo(x.dtype).dtype), x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        del step
        return lambda x: x


@data
class Linear(Function):
    """A linear function.

    Formula: ``g(x) = sum(c * x)``; ``prox(x, s) = x - s * c``.

    Args:
        c: one number, or a real array that broadcasts to the shape of x.

    Example:
        >>> from nsimplicit import prox
        >>> float(prox.Linear(2.0).prox(3.0, 0.5))
        2.0
    """

    c: Any

    is_smooth = is_separable = True
    lipschitz = 0.0

    @property
    def as_quadratic(self) -> Quadratic:
        """The same function as a :class:`Quadratic`."""
        return Quadratic(0.0, self.c)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = as_float(x)
        return jnp.sum(fit(self.c, x, "prox.Linear(c=...)") * x.real)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            return x - fit(step, x, "prox.Linear.prox(step=...)") * fit(self.c, x, "prox.Linear(c=...)")

        return prox


@data
class SquaredL2(Function):
    """Half the squared Euclidean norm, weighted.

    Formula: ``g(x) = sum(w / 2 * abs(x)**2)``; ``prox(x, s) = x / (1 + s * w)``.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of
            those with the structure of x. Entries of x may be complex.

    Example:
        >>> from nsimplicit import prox
        >>> float(prox.SquaredL2(2.0).prox(3.0, 0.5))
        1.5

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.1.1.
    """

    weight: Any

    is_smooth = is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.SquaredL2", "weight", "A negative weight makes the function concave.")

    @property
    def lipschitz(self) -> jax.Array:
        """The largest weight."""
        return extreme(jnp.max, self.weight)

    @property
    def strong_convexity(self) -> jax.Array:
        """The smallest weight."""
        return extreme(jnp.min, self.weight)

    @property
    def as_quadratic(self) -> Quadratic:
        """The same function as a :class:`Quadratic`, whose x is one number or one vector."""
        return Quadratic(self.weight)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            return fit(weight, x, "prox.SquaredL2(weight=...)") / 2 * (x.conj() * x).real

        return add_up(leafwise(leaf, x, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            s = fit(step, x, "prox.SquaredL2.prox(step=...)")
            return x / (1 + s * fit(weight, x, "prox.SquaredL2(weight=...)"))

        return lambda x: leafwise(leaf, x, self.weight)
