"""The Huber function: a square near zero, a norm far away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, as_float, extreme, fit, leafwise, modulus, require


@data
class Huber(Function):
    """The Huber function of each entry, or of the length of x: quadratic up to delta, then linear.

    Formula: ``g(x) = sum(w * h(abs(x)))``, ``h(t) = t**2 / 2`` where t <= delta, else
    ``delta * (t - delta / 2)``; ``prox(x, s) = x / (1 + s * w)`` where
    ``abs(x) <= delta * (1 + s * w)``, else ``(1 - s * w * delta / abs(x)) * x``. With ``radial``,
    ``g(x) = w * h(norm(x))``, and norm(x) in place of abs(x).

    Args:
        delta: where the linear part begins, > 0: one number, an array that broadcasts to the shape
            of x, or a pytree of those with the structure of x.
        weight: w >= 0, likewise. Entries of x may be complex.
        radial: whether h is taken of norm(x), of all of x, not of each entry; delta and weight are
            numbers then. Static.
        selection: which derivative it has where the two parts meet: the weight in [0, 1] on the
            linear one, or a name. Static.

    Kinks:
        abs(x) = delta (1 + s w), where the derivative of the prox is between 1/(1 + s w), the
        default, and 1 (radial: along x; across it is 1/(1 + s w)). The gradient has the
        same selection, at abs(x) = delta.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Huber(1.0).prox(jnp.array([3.0, -1.0]), 1.0).tolist()
        [2.0, -0.5]

    References:
        Huber, Robust estimation of a location parameter (1964).
    """

    delta: Any
    weight: Any = 1.0
    radial: bool = static(False)
    selection: Any = static(None)

    is_smooth = True

    def __post_init__(self) -> None:
        meaning = "The linear part begins there; for delta = 0 the function is zero."
        require("positive", self.delta, "prox.Huber", "delta", meaning)
        require("nonnegative", self.weight, "prox.Huber", "weight", "A negative weight makes the function concave.")

    @property
    def is_separable(self) -> bool:
        """Unless radial."""
        return not self.radial

    @property
    def lipschitz(self) -> jax.Array:
        """The largest weight."""
        return extreme(jnp.max, self.weight)

    def _leafwise(self, fun: Callable[..., jax.Array], x: Any) -> Any:
        """``fun(x, length, delta, weight)``, for each leaf, or for all of x."""

        def leaf(x: jax.Array, delta: Any, weight: Any) -> jax.Array:
            length = primitives.norm(x.reshape(-1)) if self.radial else modulus(x)
            delta, weight = fit(delta, length, "prox.Huber(delta=...)"), fit(weight, length, "prox.Huber(weight=...)")
            return fun(x, length, delta, weight)

        return leaf(as_float(x), self.delta, self.weight) if self.radial else leafwise(leaf, x, self.delta, self.weight)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, length: jax.Array, delta: jax.Array, weight: jax.Array) -> jax.Array:
            square = jnp.real(x.conj() * x)
            square = jnp.sum(square) if self.radial else square
            linear = delta * (length - delta / 2)
            return weight * primitives.switch(length - delta, linear, square / 2, selection=self.selection)

        return add_up(self._leafwise(leaf, x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, length: jax.Array, delta: jax.Array, weight: jax.Array) -> jax.Array:
            t = fit(step, length, "prox.Huber.prox(step=...)") * weight
            edge = delta * (1 + t)
            far = 1 - t * delta / jnp.where(length > edge / 2, length, edge)  # finite where it is not taken
            return primitives.switch(length - edge, far, 1 / (1 + t), selection=self.selection) * x

        return lambda x: self._leafwise(leaf, x)
