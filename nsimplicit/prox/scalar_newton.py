"""The root of an increasing scalar equation: one safeguarded Newton iteration for every prox that needs one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._tree import blank
from nsimplicit.prox.boundary import magnitude

Equation = Callable[..., jax.Array]
MAX_STEPS = 200
"""Two steps halve the length of a step at least."""


def root(equation: Equation, low: Any, high: Any, *params: jax.Array) -> jax.Array:
    """u between low and high with ``equation(u, *params) = 0``, for each entry of low and high.

    The equation increases strictly in u and is a function of a module, so that it is known again
    when it is met again. Entries of u do not mix, but one may depend on many entries of a parameter.
    Derivatives, of every order and in every parameter, are those of the implicit function: they go
    through the equation, and not through the iteration.
    """
    low, high = jnp.broadcast_arrays(*lax.stop_gradient((low, high)))
    return _root(equation, low, high, *params)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(equation: Equation, low: jax.Array, high: jax.Array, *params: jax.Array) -> jax.Array:
    eps = jnp.finfo(low.dtype).eps
    floor = eps * (high - low)
    middle = (low + high) / 2
    # Inside shard_map everything that is iterated varies over the axes of all parameters.
    zero = blank(equation(middle, *params))
    state = (low + zero, high + zero, middle + zero, high - low + zero, high - low + zero, zero > 0)

    def unfinished(state: Any) -> jax.Array:
        count, (*_, done) = state
        return (count < MAX_STEPS) & ~jnp.all(done)

    def advance(state: Any) -> Any:
        count, (low, high, u, before, last, done) = state
        excess, slope = _value_and_slope(equation, u, params)
        low, high = jnp.where(excess <= 0, u, low), jnp.where(excess >= 0, u, high)
        newton = u - excess / slope
        # A step that does not halve the last but one is not yet in the range of quadratic convergence.
        trusted = (low <= newton) & (newton <= high) & (2 * magnitude(newton - u) <= before)
        new = jnp.where(trusted, newton, (low + high) / 2)
        new = jnp.where(done, u, jnp.where(jnp.isnan(excess), excess, new))
        before, last = last, magnitude(new - u)
        size = magnitude(new) + floor
        # There the next step is about last^3 / before^2. Waiting for it would be waiting for small rounding errors.
        quadratic = (last <= eps**0.5 * size) & (last**3 <= eps * size * before**2)
        return count + 1, (low, high, new, before, last, done | quadratic | ~(last > 4 * eps * size))

    return lax.while_loop(unfinished, advance, (0, state))[1][2]


@_root.defjvp
def _root_jvp(equation: Equation, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """du = -(the change of the equation at fixed u) / (its slope in u)."""
    (low, high, *params), (_, _, *changes) = primals, tangents
    u = _root(equation, low, high, *params)
    _, change = jax.jvp(functools.partial(equation, u), params, changes)
    return u, -change / _value_and_slope(equation, u, params)[1]


def _value_and_slope(equation: Equation, u: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(lambda u: equation(u, *params), (u,), (jnp.ones_like(u),))
