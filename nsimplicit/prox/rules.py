"""New functions from old ones: a shift, a scale of the argument, a multiple."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Function, concrete, fit, leafwise, require, require_function
from nsimplicit.prox.hessian import ScaledHessian


def inherited(name: str) -> Any:
    """A property with the value it has for the function the rule is applied to."""
    return property(lambda self: getattr(self.fun, name))


def times(alpha: Any, x: Any) -> Any:
    """alpha·x, leaf by leaf."""
    return leafwise(lambda leaf: fit(alpha, leaf, "the scale") * leaf, x)


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

    is_convex, is_smooth, is_separable = (inherited(f"is_{x}") for x in ("convex", "smooth", "separable"))
    strong_convexity, lipschitz = inherited("strong_convexity"), inherited("lipschitz")

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

    def subspace(self, x: Any) -> Any:
        """That of f, shifted."""
        return self._move(self.fun.subspace(self._move(x, -1)), 1)

    def hessian(self, x: Any) -> Any:
        """That of f at x - shift."""
        return self.fun.hessian(self._move(x, -1))

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

    is_convex, is_smooth, is_separable = (inherited(f"is_{x}") for x in ("convex", "smooth", "separable"))
    subspace = inherited("subspace")
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
        return self.fun(times(self.scale, x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step * self.scale**2)
        return lambda x: times(1 / self.scale, inner(times(self.scale, x)))


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

    is_convex, is_smooth, is_separable = (inherited(f"is_{x}") for x in ("convex", "smooth", "separable"))
    subspace = inherited("subspace")
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

    def hessian(self, x: Any) -> Any:
        """``scale`` times that of f."""
        hessian = self.fun.hessian(x)
        return None if hessian is None else ScaledHessian(self.scale, hessian)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.scale * self.fun(x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        return self.fun.prepare(step * self.scale)
