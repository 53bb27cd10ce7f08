"""The threshold tau of a vector y, along its last axis: sum(max(y - tau, 0)) = total + slope * tau.

Simplices, the l1 ball and the largest entry are made of it. Newton's method finds tau for constants, by sums alone: a
sort takes ten times as long on a CPU. Its derivatives are those of the equation, with the weights q that the entries
have in the result: for constant q, sum(q * (dy - dtau)) = dtotal + slope * dtau + tau * dslope. The Jacobian of
(y - tau)+ is then diag(q) - outer(q, q) / sum(q): symmetric, with eigenvalues in [0, 1], whatever the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import modulus
from nsimplicit.prox.boundary import change, magnitude, snap


def find(y: jax.Array, total: jax.Array, slope: Any = 0.0) -> tuple[jax.Array, jax.Array]:
    """y - tau, exactly zero where it is zero up to rounding, and tau; constants."""
    y, total, slope = lax.stop_gradient((y, total, slope))
    top = jnp.max(y, axis=-1, keepdims=True)
    y = y - top  # the sums lose fewer digits; then tau < 0
    total = total + slope * top

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Where the line through the entries above tau meets the total: not beyond the root, for the sum is convex.

        From there fewer entries are above, until none is lost. Both the sum's distance from the total and its slope
        fall, and their product by a factor of 4 or more: the steps are O(log n) and a few for each digit, often 7.
        """
        tau, _ = state
        above = wide > tau
        gathered, count = jnp.sum(jnp.stack([jnp.where(above, wide, 0), above]), axis=-1, keepdims=True)
        line = (gathered - total) / (jnp.where(count > 0, count, 1) + slope)
        rises = line > tau
        return jnp.where(rises, line, tau), rises

    # A 16-bit number could not count the entries.
    wide, total = (a.astype(jnp.result_type(a, jnp.float32)) for a in (y, total))
    begin = -total / (1 + slope)  # as if only the largest were above
    tau, _ = lax.while_loop(lambda state: jnp.any(state[1]), step, (begin, begin == begin))
    tau = tau.astype(y.dtype)
    # Entries far from zero are known to fewer digits than their differences; but not all of them are at the kink.
    size, most = magnitude(top), -1e4 * tau
    return snap(y - tau, jnp.where(size < most, size, most) - tau), tau + top


def drift(
    weigh: Callable[[jax.Array], jax.Array], y: jax.Array, tau: jax.Array, total: jax.Array, slope: Any = 0.0
) -> jax.Array:
    """Zero, with the derivatives of tau; ``weigh`` multiplies by the weights q, through the switches."""
    _, q = jax.jvp(weigh, (lax.stop_gradient(y),), (jnp.ones_like(y),))
    weights = jnp.sum(q, axis=-1, keepdims=True) + slope
    move = jnp.sum(weigh(change(y)), axis=-1, keepdims=True) - change(total) - tau * change(slope)
    return move / jnp.where(weights > 0, weights, 1)


def positive_part(y: jax.Array, total: jax.Array, selection: Any) -> jax.Array:
    """max(y - tau, 0), with the given sum."""
    excess, tau = find(y, total)

    def keep(above: jax.Array, value: Any = None) -> jax.Array:
        return coupled_switch(excess, above, jnp.zeros_like(above), selection=selection, value=value)

    # Zero is added to what is known, with the derivatives.
    moved = excess + change(y) - drift(keep, y, tau, total)
    return keep(moved, value=jnp.where(excess < 0, 0, excess))


def direction(x: jax.Array) -> jax.Array:
    """x / abs(x), and 0 at 0."""
    if jnp.iscomplexobj(x):
        # The square of a small modulus would underflow, and 0 * inf reach the derivative of a branch not taken.
        parts = modulus(lax.stop_gradient(jnp.stack([x.real, x.imag])))
        size = jnp.max(parts, axis=0)
        zero = size < jnp.finfo(x.dtype).tiny
        x = x / jnp.where(zero, 1, size)
        return jnp.where(zero, 0, x / modulus(jnp.where(zero, 1, x)))
    x = lax.stop_gradient(x)
    return jnp.where(x == 0, 0, jnp.where(x < 0, -jnp.ones_like(x), 1))
