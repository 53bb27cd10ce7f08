"""The Moreau envelope: a function smoothed by its own prox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data
from nsimplicit._tree import subtract
from nsimplicit.prox.base import Function, add_up, as_float, fit, leafwise, require, require_function
from nsimplicit.prox.rules import inherited


@data
class MoreauEnvelope(Function):
    """The Moreau envelope of a convex function: smooth, with the same minimisers.

    Formula: ``g(x) = min_u f(u) + sum(abs(u - x)**2) / (2 * mu)``;
    ``prox(x, s) = x + s / (s + mu) * (f.prox(x, s + mu) - x)``. Its gradient is
    (x - f.prox(x, mu)) / mu.

    Args:
        fun: f.
        mu: one number > 0: the larger, the smoother.

    Kinks:
        Those of the prox of f, with step s + mu; in the gradient, with step mu.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> huber = prox.MoreauEnvelope(prox.L1(1.0), 2.0)
        >>> float(huber(jnp.array([1.0, 4.0]))), huber.gradient(jnp.array([1.0, 4.0])).tolist()
        (3.25, [0.5, 1.0])

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 3.1.
        Bauschke, Combettes, Convex Analysis and Monotone Operator Theory (2017), proposition 12.30.
    """

    fun: Function
    mu: Any

    is_convex = is_smooth = inherited("is_convex")
    is_separable = inherited("is_separable")

    def __post_init__(self) -> None:
        require_function(self.fun, "MoreauEnvelope")
        require("positive", self.mu, "prox.MoreauEnvelope", "mu", "It is the step of a prox.")

    @property
    def strong_convexity(self) -> Any:
        """c / (1 + mu c), where c is that of f."""
        return self.fun.strong_convexity / (1 + self.mu * self.fun.strong_convexity)

    @property
    def lipschitz(self) -> Any:
        """1 / mu, or L / (1 + mu L) where that is known of f; None where f is not convex."""
        lipschitz = self.fun.lipschitz
        if not self.is_convex:
            return None
        return 1 / self.mu if lipschitz is None else lipschitz / (1 + self.mu * lipschitz)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return _envelope(self.fun, self.mu, jax.tree.map(as_float, x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step + self.mu)
        share = step / (step + self.mu)

        def prox(x: Any) -> Any:
            def leaf(x: jax.Array, u: jax.Array) -> jax.Array:
                return x + fit(share, x, "prox.MoreauEnvelope.prox(step=...)") * (u - x)

            return jax.tree.map(leaf, jax.tree.map(as_float, x), inner(x))

        return prox


def _objective(fun: Function, mu: Any, away: Any, u: Any) -> jax.Array:
    def leaf(away: jax.Array) -> jax.Array:
        return jnp.sum((away.conj() * away).real) / (2 * fit(mu, away, "prox.MoreauEnvelope(mu=...)"))

    return fun(u) + add_up(leafwise(leaf, away))


@jax.custom_jvp
def _envelope(fun: Function, mu: Any, x: Any) -> jax.Array:
    u = fun.prepare(mu)(x)
    return _objective(fun, mu, subtract(x, u), u)


@_envelope.defjvp
def _envelope_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """The minimiser does not move the minimum: only x, mu and f do.

    The derivative of f at the minimiser, often a kink, is not needed. The minimiser is live in this
    rule, so that derivatives of the gradient are those of the prox.
    """
    (fun, mu, x), (dfun, dmu, dx) = primals, tangents
    u = fun.prepare(mu)(x)
    away = subtract(x, u)
    _, change = jax.jvp(lambda fun, mu: _objective(fun, mu, away, u), (fun, mu), (dfun, dmu))

    def leaf(away: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.sum((away.conj() * dx).real) / fit(mu, away, "prox.MoreauEnvelope(mu=...)")

    return _envelope(fun, mu, x), change + add_up(jax.tree.map(leaf, away, dx))
