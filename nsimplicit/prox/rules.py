"""New functions from old ones: the conjugate, a shift, a scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit._tree import subtract
from nsimplicit.prox.base import Function, concrete, fit, leafwise, require, require_function


def _inherited(name: str) -> Any:
    """A property with the value it has for the function the rule is applied to."""
    return property(lambda self: getattr(self.fun, name))


def _times(alpha: Any, x: Any) -> Any:
    return leafwise(lambda leaf: fit(alpha, leaf, "the scale") * leaf, x)


@data
class Conjugate(Function):
    """The convex conjugate of a function, through Moreau's identity.

    Formula: ``g(y) = max_u sum(u * y) - f(u)``; ``prox(y, s) = y - s * f.prox(y / s, 1 / s)``.

    Args:
        fun: f, convex.
        value: ``value(f, y)`` returns g(y): it does not follow from the prox of f. Needed only to
            evaluate g, not for its prox. Static.

    Kinks:
        Those of the prox of f at y / s.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Conjugate(prox.L1(1.0)).prox(jnp.array([3.0, 0.5]), 2.0).tolist()
        [1.0, 0.5]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.5.
    """

    fun: Function
    value: Callable[[Function, Any], Any] | None = static(None)

    def __post_init__(self) -> None:
        require_function(self.fun, "Conjugate")

    @property
    def strong_convexity(self) -> Any:
        """1/L when the gradient of f is known to be L-Lipschitz."""
        lipschitz = self.fun.lipschitz
        return 0.0 if lipschitz is None else 1 / jnp.asarray(lipschitz, float)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x, if it was given."""
        if self.value is None:
            raise InputError(
                message(
                    "prox.Conjugate(fun)(y)",
                    "the value of this conjugate is not known.",
                    "The prox of f gives the prox of its conjugate, not the value.",
                    "prox.Conjugate(fun, value=lambda f, y: ...)",
                )
            )
        return self.value(self.fun, x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(1 / step)

        def prox(x: Any) -> Any:
            return subtract(x, _times(step, inner(_times(1 / step, x))))

        return prox


@data
class Translate(Function):
    """A function moved to another origin.

    Formula: ``g(x) = f(x - shift)``; ``prox(x, s) = shift + f.prox(x - shift, s)``.

    Args:
        fun: f.
        shift: array that broadcasts to the shape of x, or a pytree of those with the structure of x.

    Kinks:
        Those of the prox of f at x - shift.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Translate(prox.L1(1.0), 5.0).prox(jnp.array([5.5, 8.0]), 1.0).tolist()
        [5.0, 7.0]
    """

    fun: Function
    shift: Any

    is_convex, is_smooth = _inherited("is_convex"), _inherited("is_smooth")
    strong_convexity, lipschitz = _inherited("strong_convexity"), _inherited("lipschitz")

    def __post_init__(self) -> None:
        require_function(self.fun, "Translate")

    @property
    def as_quadratic(self) -> Any:
        """The same function as a quadratic, if f is one."""
        f = self.fun.as_quadratic
        if f is None:
            return None
        shift = jnp.broadcast_to(self.shift, jnp.shape(f.P)[:1] or jnp.shape(self.shift))
        return dataclasses.replace(f, q=f.q - f.product(shift))

    def _move(self, x: Any, sign: int) -> Any:
        return leafwise(lambda x, a: x + sign * jnp.asarray(a, x.dtype), x, self.shift)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.fun(self._move(x, -1))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step)
        return lambda x: self._move(inner(self._move(x, -1)), 1)


@data
class PreScale(Function):
    """A function of a multiple of x.

    Formula: ``g(x) = f(scale * x)``; ``prox(x, s) = f.prox(scale * x, s * scale**2) / scale``.

    Args:
        fun: f.
        scale: one real number, not 0.

    Kinks:
        Those of the prox of f at scale * x.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PreScale(prox.L1(1.0), 2.0).prox(jnp.array([3.0, 0.5]), 1.0).tolist()
        [1.0, 0.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.2.
    """

    fun: Function
    scale: Any

    is_convex, is_smooth = _inherited("is_convex"), _inherited("is_smooth")
    strong_convexity = property(lambda self: self.scale**2 * self.fun.strong_convexity)

    def __post_init__(self) -> None:
        require_function(self.fun, "PreScale")
        scale = concrete(self.scale)
        if scale is not None and (scale.ndim or scale == 0 or not np.isfinite(scale)):
            raise InputError(
                message(
                    f"prox.PreScale(fun, scale={self.scale!r})",
                    "scale must be one number, finite and not 0.",
                    "The prox of f(scale x) divides by it, and needs the same for all entries.",
                    "prox.SeparableSum for parts with different scales",
                )
            )

    @property
    def lipschitz(self) -> Any:
        """scale^2 times that of f."""
        lipschitz = self.fun.lipschitz
        return None if lipschitz is None else self.scale**2 * lipschitz

    @property
    def as_quadratic(self) -> Any:
        """The same function as a quadratic, if f is one."""
        f = self.fun.as_quadratic
        return None if f is None else dataclasses.replace(f, P=self.scale**2 * f.P, q=self.scale * f.q)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.fun(_times(self.scale, x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step * self.scale**2)
        return lambda x: _times(1 / self.scale, inner(_times(self.scale, x)))


@data
class PostScale(Function):
    """A positive multiple of a function.

    Formula: ``g(x) = scale * f(x)``; ``prox(x, s) = f.prox(x, s * scale)``.

    Args:
        fun: f.
        scale: one number > 0.

    Kinks:
        Those of the prox of f.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PostScale(prox.L1(1.0), 2.0).prox(jnp.array([3.0, 0.5]), 1.0).tolist()
        [1.0, 0.0]
    """

    fun: Function
    scale: Any

    is_convex, is_smooth = _inherited("is_convex"), _inherited("is_smooth")
    strong_convexity = property(lambda self: self.scale * self.fun.strong_convexity)

    def __post_init__(self) -> None:
        require_function(self.fun, "PostScale")
        require("positive", self.scale, "prox.PostScale", "scale", "A negative multiple is concave.")

    @property
    def lipschitz(self) -> Any:
        """``scale`` times that of f."""
        lipschitz = self.fun.lipschitz
        return None if lipschitz is None else self.scale * lipschitz

    @property
    def as_quadratic(self) -> Any:
        """The same function as a quadratic, if f is one."""
        f = self.fun.as_quadratic
        return None if f is None else dataclasses.replace(f, P=self.scale * f.P, q=self.scale * f.q)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.scale * self.fun(x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        return self.fun.prepare(step * self.scale)
