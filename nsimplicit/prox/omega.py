"""The Wright omega function, which the proxes of entropies and of the log of a sum of exponentials are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit.prox.scalar_newton import root


@jax.custom_jvp
def omega(c: jax.Array) -> jax.Array:
    """r > 0 with ``r + log(r) = c``, without overflow for any c; W(exp(c)) in terms of Lambert's W.

    Up to c = 1 Newton's method solves exp(v) + v = c for v = log(r) <= 0, beyond it the equation for
    r >= 1. Both start on the side from which the iteration is monotone, and where the curvature is
    less than half the slope: the number of steps below reaches float64.
    """
    low, high = jnp.where(c > 1, 1, c), jnp.where(c > 1, c, 1)
    v = jnp.where(low < 0, low, 0)
    for _ in range(6):
        v -= (jnp.exp(v) + v - low) / (jnp.exp(v) + 1)
    r = high - jnp.log(high)
    for _ in range(5):
        r *= (1 + high - jnp.log(r)) / (1 + r)
    return jnp.where(c > 1, r, jnp.exp(v))


@omega.defjvp
def _omega_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    r = omega(*primals)
    return r, tangents[0] * (r / (1 + r))


def shares(z: jax.Array, total: jax.Array) -> jax.Array:
    """``omega(z - shift)`` along the last axis, the shift such that they add up to total > 0, of shape (..., 1).

    With q = r / (1 + r) the Jacobian is ``diag(q) - outer(q, q) / sum(q)``.
    """
    z = z - lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
    # The largest share is between total / n and total, and omega is the inverse of r + log(r).
    low, high = (-(r + jnp.log(r)) for r in (total, total / z.shape[-1]))
    return omega(z - root(_missing, low, high, z, total))


def _missing(shift: jax.Array, z: jax.Array, total: jax.Array) -> jax.Array:
    return total - jnp.sum(omega(z - shift), axis=-1, keepdims=True)
