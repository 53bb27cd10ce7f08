"""The sum of logarithms: what reweighted l1 minimisation minimises. Not convex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, fit, leafwise, real, require
from nsimplicit.prox.cardinality import modulus_sign
from nsimplicit.prox.logistic import wide
from nsimplicit.prox.scalar_newton import root


@data
class LogSum(Function):
    """The sum of logarithms of moduli. Not convex: its prox jumps if s w >= epsilon^2.

    A derivative of this prox holds the pieces fixed. At a jump there is no derivative, the minimum
    may be one of several, and no theorem behind an implicit derivative applies:
    :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: ``g(x) = sum(w * log(1 + abs(x) / epsilon))``; prox(x, s) has the sign of x, and is 0 or
    the larger root u of (u - abs(x)) (u + epsilon) + s w = 0, whichever costs less.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.
        epsilon: > 0, likewise: the size up to which an entry counts as small.
        selection: what an entry exactly at the kink or the jump does: the weight in [0, 1] on the
            branch of the larger abs(x), or a name. Static.

    Kinks:
        For s w < epsilon^2: abs(x) = s w / epsilon, with derivatives between 0 and
        1 / (1 - s w / epsilon^2); default 0. Otherwise a jump, where 0 and the root cost the same.
        None where w = 0.

    Cost:
        Where it jumps, some five to ten steps of Newton's method for the place of the jump.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> print(prox.LogSum(2.0, 1.0).prox(jnp.array([3.0, -1.5, 0.5]), 1.0).round(4))
        [2.4142 0.     0.    ]

    References:
        Candes, Wakin, Boyd, Enhancing sparsity by reweighted l1 minimization (2008).
        Prater-Bennette, Shen, Tripp, The proximity operator of the log-sum penalty (2022), theorem 1.
    """

    weight: Any
    epsilon: Any = 1.0
    selection: Any = static(None)

    is_convex = False
    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.LogSum", "weight", "A negative weight rewards size.")
        require("positive", self.epsilon, "prox.LogSum", "epsilon", "The logarithm of 0 is not finite.")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, weight: Any, epsilon: Any) -> jax.Array:
            x = real(x, "prox.LogSum")
            epsilon = fit(epsilon, x, "prox.LogSum(epsilon=...)")
            return fit(weight, x, "prox.LogSum(weight=...)") * jnp.log1p(primitives.abs(x) / epsilon)

        return add_up(leafwise(leaf, x, self.weight, self.epsilon))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any, epsilon: Any) -> jax.Array:
            z = wide(real(x, "prox.LogSum"))
            t = fit(step, z, "prox.LogSum.prox(step=...)") * fit(weight, z, "prox.LogSum(weight=...)")
            t, epsilon = (jnp.broadcast_to(a, z.shape) for a in (t, fit(epsilon, z, "prox.LogSum(epsilon=...)")))
            size, sign = modulus_sign(z)
            kept = sign * _stationary(size, t, epsilon)
            out = primitives.switch(size - _threshold(t, epsilon), kept, jnp.zeros_like(z), selection=self.selection)
            return out.astype(x.dtype)

        return lambda x: leafwise(leaf, x, self.weight, self.epsilon)


def _stationary(size: jax.Array, t: jax.Array, epsilon: jax.Array) -> jax.Array:
    """The larger root; any number where there is none."""
    square = (size + epsilon) ** 2 - 4 * t
    some = lax.stop_gradient(square) > 0
    return (size - epsilon + jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)) / 2


def _threshold(t: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Up to where the prox is 0; below 0 where t is 0, and the prox the identity."""
    jumps = lax.stop_gradient(t) >= lax.stop_gradient(epsilon) ** 2
    some = lax.stop_gradient(t) > 0
    # One where there is no jump: a cost that the iteration below solves at once.
    jump_t, jump_epsilon = jnp.where(jumps, t, 1), jnp.where(jumps, epsilon, 1)
    low, high = 2 * jnp.sqrt(jump_t) - jump_epsilon, jump_t / jump_epsilon
    where_equal = root(_gain, low, high, jump_t, jump_epsilon)
    return jnp.where(some, jnp.where(jumps, where_equal, t / epsilon), -1)


def _gain(size: jax.Array, t: jax.Array, epsilon: jax.Array) -> jax.Array:
    """What the root costs less than 0. It is stationary there, so its own derivatives do not count."""
    u = lax.stop_gradient(_stationary(size, t, epsilon))
    return size * u - u * u / 2 - t * jnp.log1p(u / epsilon)
