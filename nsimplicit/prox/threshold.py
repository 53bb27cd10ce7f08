"""The threshold tau of a vector y, along its last axis: sum(max(y - tau, 0)) = total + slope * tau.

Simplices, the l1 ball and the largest entry are made of it. One sort of constants finds tau. Its derivatives are
those of the equation, with the weights q that the entries have in the result: for constant q,
sum(q * (dy - dtau)) = dtotal + slope * dtau + tau * dslope. The Jacobian of (y - tau)+ is then
diag(q) - outer(q, q) / sum(q): symmetric, with eigenvalues in [0, 1], whatever the weights.
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
    ordered = -jnp.sort(-y, axis=-1)
    tau = (jnp.cumsum(ordered, axis=-1) - total) / (jnp.arange(1, y.shape[-1] + 1, dtype=y.dtype) + slope)
    support = jnp.sum(ordered > tau, axis=-1, keepdims=True)
    tau = jnp.take_along_axis(tau, jnp.where(support > 0, support - 1, 0), axis=-1)
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
