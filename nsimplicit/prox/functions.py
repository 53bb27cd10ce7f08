"""Your own functions: a smooth one from its value, any one from its value and its prox."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit._tree import cast_like
from nsimplicit.prox.base import Function, as_float


@data
class Smooth(Function):
    """What :func:`smooth` returns."""

    fun: Callable[..., Any] = static(kw_only=False)
    args: tuple[Any, ...] = ()
    lipschitz: Any = dataclasses.field(default=None, kw_only=True)
    is_convex: bool = static(False)

    is_smooth = True

    def __post_init__(self) -> None:
        _callable(self.fun, "prox.smooth(fun, *args)", "fun")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return jnp.asarray(self.fun(x, *self.args))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """Raise: a smooth function has a gradient here, and no prox."""
        raise InputError(
            message(
                "prox.smooth(...).prox(x, step)",
                "a function given by its value alone has no prox.",
                "Its prox is a minimisation that nothing is known about; what it has is a gradient.",
                "ForwardBackward(f, g), which uses the gradient of f",
                "prox.from_function(value, prox, *params) if you can write the prox",
                "prox.LeastSquares or prox.Quadratic if it is one of those",
            )
        )


def smooth(fun: Callable[..., Any], *args: Any, lipschitz: Any = None, is_convex: bool = False) -> Smooth:
    """A smooth function from its value: the gradient is ``jax.grad``, there is no prox.

    Args:
        fun: ``fun(x, *args)`` returns a real scalar. Static: functions compare by identity, so
            define it once, at module level, rather than as a new lambda in each call.
        *args: pytrees of arrays, differentiated like any argument.
        lipschitz: a Lipschitz constant of the gradient, if you know one.
        is_convex: whether you know it to be convex; contraction factors and certificates rely on it.

    Returns:
        A :class:`Smooth`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> def loss(x, target):
        ...     return jnp.sum(jnp.logaddexp(0.0, -target * x))
        >>> prox.smooth(loss, jnp.array([1.0, -1.0])).gradient(jnp.zeros(2)).tolist()
        [-0.5, 0.5]
    """
    return Smooth(fun, args, lipschitz=lipschitz, is_convex=is_convex)


@data
class FromFunction(Function):
    """What :func:`from_function` returns."""

    value: Callable[..., Any] = static(kw_only=False)
    proximal: Callable[..., Any] = static(kw_only=False)
    params: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        _callable(self.value, "prox.from_function(value, prox, *params)", "value")
        _callable(self.proximal, "prox.from_function(value, prox, *params)", "prox")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return jnp.asarray(self.value(x, *self.params))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> Any:
            x = jax.tree.map(as_float, x)
            out = self.proximal(x, step, *self.params)
            if jax.tree.structure(out) != jax.tree.structure(x) or jax.tree.map(jnp.shape, out) != jax.tree.map(
                jnp.shape, x
            ):
                raise InputError(
                    message(
                        "prox.from_function(value, prox, *params)",
                        f"prox returned {jax.tree.map(jnp.shape, out)} for an x of {jax.tree.map(jnp.shape, x)}.",
                        "A prox maps a point to a point of the same space.",
                        "prox(x, step, *params) that returns the tree and shapes of x",
                    )
                )
            return cast_like(out, x)  # a loop cannot change its dtype half way

        return prox


def from_function(value: Callable[..., Any], prox: Callable[..., Any], *params: Any) -> FromFunction:
    """A function from its value and its prox, both written by you.

    Write kinks with the primitives of this package (``nsi.relu``, ``nsi.soft_threshold``,
    ``nsi.switch`` ...): selections, kink reports and certificates then see them.

    Args:
        value: ``value(x, *params)`` returns a real scalar. Static, as in :func:`smooth`.
        prox: ``prox(x, step, *params)`` returns argmin_u value(u) + |u - x|^2 / (2 step). Static.
        *params: pytrees of arrays, differentiated like any argument.

    Returns:
        A :class:`FromFunction`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import primitives, prox
        >>> hinge = prox.from_function(
        ...     lambda x, w: jnp.sum(w * primitives.relu(x)),
        ...     lambda x, step, w: primitives.minimum(x, primitives.relu(x - step * w)),
        ...     jnp.array(2.0),
        ... )
        >>> hinge.prox(jnp.array([-1.0, 0.5, 3.0]), 1.0).tolist()
        [-1.0, 0.0, 1.0]
    """
    return FromFunction(value, prox, params)


def _callable(fun: Any, where: str, name: str) -> None:
    if not callable(fun):
        raise InputError(message(where, f"{name} is a {type(fun).__name__}.", "It must be a function of x."))
