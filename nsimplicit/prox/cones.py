"""The cones that need no arithmetic, and how points of cones are laid out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Set, add_up, as_float, indicator, leafwise, real
from nsimplicit.prox.boundary import magnitude


def entries(x: Any, size: int, cone: str, names: str) -> list[jax.Array]:
    """The entries of points with so many, in at least float32."""
    x = real(x, f"prox.{cone}")
    cone_entries(x, size, cone, names)
    return list(jnp.moveaxis(x.astype(jnp.result_type(x, jnp.float32)), -1, 0))


def in_range(split: Callable[..., tuple[jax.Array, jax.Array]]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The same projections, on a cone and on its polar, found near one, where products are in range.

    Points are multiplied by a power of two, which rounds nothing, and derivatives do not know it.
    """

    @functools.wraps(split)
    def scaled(v: list[jax.Array], *args: Any) -> tuple[jax.Array, jax.Array]:
        size = jnp.max(magnitude(lax.stop_gradient(jnp.stack(v))), axis=0)
        _, exponent = jnp.frexp(jnp.where(jnp.isfinite(size), size, 1))
        most = jnp.finfo(size.dtype).maxexp - 2
        exponent = jnp.where(exponent < -most, -most, jnp.where(exponent > most, most, exponent))
        unit = jnp.ldexp(jnp.ones_like(size), -exponent)
        onto, away = split([unit * u for u in v], *args)
        return onto / unit[..., None], away / unit[..., None]

    return scaled


def pieced(inner: Any, outer: Any, inside: Any, between: Any, outside: Any, selection: Any) -> jax.Array:
    """``inside`` where inner > 0, ``outside`` where outer < 0, ``between`` elsewhere, with a kink at either zero.

    The selection is the weight on ``inside`` at the one, on ``between`` at the other. The values of the
    outer pieces are exact.
    """
    rest = primitives.switch(outer, between, outside, selection=selection)
    value = jnp.where(inner >= 0, inside, rest)
    return primitives.switch(inner, inside, rest, selection=selection, value=value)


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


def still(project: Callable[[Any], jax.Array], x: Any) -> jax.Array:
    """0 where a projection moves no point along the last axis, inf elsewhere.

    The tolerance is eps^(3/4): near the edges of a curved cone, errors of rounding are magnified.
    """
    x = lax.stop_gradient(as_float(x))
    moved, size = (jnp.sum(u * u, axis=-1) for u in (x - project(x), x))
    return indicator(moved <= jnp.finfo(x.dtype).eps ** 1.5 * size, size)


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
