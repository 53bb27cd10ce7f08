"""The cones that need no arithmetic, and how points of cones are laid out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Set, add_up, as_float, leafwise


def indicator(inside: jax.Array, like: jax.Array) -> jax.Array:
    """0 if all of ``inside`` holds, inf if not."""
    return jnp.where(jnp.all(inside), 0, jnp.asarray(jnp.inf, like.dtype))


def cone_entries(x: jax.Array, size: int | None, cone: str, entries: str) -> None:
    """Raise unless the last axis of x holds the entries of a cone: ``size`` of them, or (``None``) at least two."""
    if x.ndim and (x.shape[-1] == size if size else x.shape[-1] >= 2):
        return
    raise InputError(
        message(
            f"prox.{cone}(...)",
            f"x has shape {x.shape}.",
            f"The last axis holds the entries {entries} of a point; other axes are points side by side.",
            "jnp.concatenate([t[None], z]) to join them",
        )
    )


@data
class ZeroCone(Set):
    """The point zero alone: the cone of equality constraints.

    Formula: ``project(x) = 0``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.ZeroCone().project(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 0.0]
    """

    is_separable = True

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x: jnp.where(x == 0, 0, jnp.asarray(jnp.inf, x.real.dtype)), x))

    def project(self, x: Any) -> Any:
        """Zeros like x."""
        return leafwise(jnp.zeros_like, x)


@data
class FreeCone(Set):
    """The whole space: no constraint, the dual of :class:`ZeroCone`.

    Formula: ``project(x) = x``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.FreeCone().project(jnp.array([-1.0, 2.0])).tolist()
        [-1.0, 2.0]
    """

    is_separable = True

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x: jnp.zeros((), x.real.dtype), x))

    def project(self, x: Any) -> Any:
        """x itself."""
        return leafwise(as_float, x)
