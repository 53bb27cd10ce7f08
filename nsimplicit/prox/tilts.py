"""A function plus a linear one, and a function plus a square."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data
from nsimplicit.prox.base import Function, add_up, extreme, fit, leafwise, require, require_function
from nsimplicit.prox.rules import inherited


def _like(param: Any, x: jax.Array, name: str) -> jax.Array:
    """A parameter in the dtype of x; complex where x is."""
    return jnp.asarray(param, x.dtype) if jnp.iscomplexobj(param) and jnp.iscomplexobj(x) else fit(param, x, name)


def _spread(param: Any, f: Any) -> Any:
    """A parameter with one entry for each variable of a quadratic, whose matrix says how many there are."""
    return jnp.broadcast_to(param, jnp.shape(f.P)[:1] or jnp.shape(param))


@data
class Tilt(Function):
    """A function plus a linear one.

    Formula: ``g(x) = f(x) + sum(c * x)``; ``prox(x, s) = f.prox(x - s * c, s)``.

    Args:
        fun: f.
        c: one number, an array that broadcasts to the shape of x, or a pytree of those with the
            structure of x. Complex x: the linear function is the real part of ``sum(conj(c) * x)``.

    Kinks:
        Those of the prox of f at x - s c.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Tilt(prox.L1(1.0), 0.5).prox(jnp.array([3.0, -0.2, -2.0]), 1.0).tolist()
        [1.5, 0.0, -1.5]

    References:
        Combettes, Pesquet, Proximal splitting methods in signal processing (2011), table 10.1.
    """

    fun: Function
    c: Any

    is_convex, is_smooth, is_separable = (inherited(f"is_{x}") for x in ("convex", "smooth", "separable"))
    subspace = inherited("subspace")
    strong_convexity, lipschitz = inherited("strong_convexity"), inherited("lipschitz")

    def __post_init__(self) -> None:
        require_function(self.fun, "Tilt")

    @property
    def as_quadratic(self) -> Any:
        """The same function as a quadratic, if f is one."""
        f = self.fun.as_quadratic
        return None if f is None else dataclasses.replace(f, q=f.q + _spread(self.c, f))

    def hessian(self, x: Any) -> Any:
        """That of f."""
        return self.fun.hessian(x)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, c: Any) -> jax.Array:
            return jnp.sum((_like(c, x, "prox.Tilt(c=...)").conj() * x).real)

        return self.fun(x) + add_up(leafwise(leaf, x, self.c))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step)

        def leaf(x: jax.Array, c: Any) -> jax.Array:
            return x - fit(step, x, "prox.Tilt.prox(step=...)") * _like(c, x, "prox.Tilt(c=...)")

        return lambda x: inner(leafwise(leaf, x, self.c))


@data
class Regularize(Function):
    """A function plus a multiple of half the squared distance to a point: strongly convex.

    Formula: ``g(x) = f(x) + rho / 2 * sum(abs(x - a)**2)``;
    ``prox(x, s) = f.prox((x + s * rho * a) / (1 + s * rho), s / (1 + s * rho))``.

    Args:
        fun: f.
        rho: one number >= 0.
        center: a: one number, an array that broadcasts to the shape of x, or a pytree of those with
            the structure of x.

    Kinks:
        Those of the prox of f.

    The prox of a sum f + h at x with step s is the minimiser of f and Regularize(h, 1 / s, x)
    together: a splitting finds it, and the implicit rule differentiates it (``nsi.layers.Sum``).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Regularize(prox.L1(1.0), 1.0).prox(jnp.array([3.0, -0.2]), 1.0).tolist()
        [1.0, 0.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.2.
    """

    fun: Function
    rho: Any
    center: Any = 0.0

    is_convex, is_smooth, is_separable = (inherited(f"is_{x}") for x in ("convex", "smooth", "separable"))
    subspace = inherited("subspace")
    strong_convexity = property(lambda self: self.fun.strong_convexity + extreme(jnp.min, self.rho))

    def __post_init__(self) -> None:
        require_function(self.fun, "Regularize")
        require("nonnegative", self.rho, "prox.Regularize", "rho", "A negative square is concave.")

    @property
    def lipschitz(self) -> Any:
        """That of f plus rho."""
        lipschitz = self.fun.lipschitz
        return None if lipschitz is None else lipschitz + extreme(jnp.max, self.rho)

    @property
    def as_quadratic(self) -> Any:
        """The same function as a quadratic, if f is one."""
        f = self.fun.as_quadratic
        if f is None:
            return None
        P = f.P + self.rho * jnp.eye(len(f.P)) if jnp.ndim(f.P) == 2 else f.P + self.rho
        return dataclasses.replace(f, P=P, q=f.q - _spread(self.rho * jnp.asarray(self.center), f))

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, center: Any) -> jax.Array:
            away = x - _like(center, x, "prox.Regularize(center=...)")
            return fit(self.rho, x, "prox.Regularize(rho=...)") / 2 * jnp.sum((away.conj() * away).real)

        return self.fun(x) + add_up(leafwise(leaf, x, self.center))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step / (1 + step * self.rho))

        def leaf(x: jax.Array, center: Any) -> jax.Array:
            pull = fit(step, x, "prox.Regularize.prox(step=...)") * fit(self.rho, x, "prox.Regularize(rho=...)")
            return (x + pull * _like(center, x, "prox.Regularize(center=...)")) / (1 + pull)

        return lambda x: inner(leafwise(leaf, x, self.center))
