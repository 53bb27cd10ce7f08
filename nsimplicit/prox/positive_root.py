"""The positive root u of u - t/u = x, of which the proxes of logarithms are made."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def roots(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The positive root u of u - t/u = x, and t/u; both without cancellation."""
    larger = (jnp.where(x < 0, -x, x) + jnp.sqrt(x * x + 4 * t)) / 2
    return jnp.where(x < 0, t / larger, larger), jnp.where(x < 0, larger, t / larger)


@jax.custom_jvp
def positive_root(x: jax.Array, t: jax.Array) -> jax.Array:
    """The positive root u of u - t/u = x, t > 0: smooth, also where the formula changes its form."""
    return roots(x, t)[0]


@positive_root.defjvp
def _positive_root_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """(1 + t/u^2) du = dx + dt/u."""
    u, t = positive_root(*primals), primals[1]
    return u, (tangents[0] + tangents[1] / u) / (1 + t / u / u)
