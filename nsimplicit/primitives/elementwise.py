"""Elementwise functions with kinks: JAX's own, with one more argument.

Values are JAX's bit for bit, and so are derivatives unless a selection says otherwise, nans
included. Integer and boolean arguments go to JAX as they are; so do complex ones, which have no
order and no kink of this kind.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.primitives.switch import bind, compiled

__all__ = ["leaky_relu", "maximum", "minimum", "relu"]


def has_kinks(name: str, selection: Any, *xs: Any) -> bool:
    """Whether the result is a real float, the only kind with kinks."""
    dtype = jnp.result_type(*(x for x in xs if x is not None))
    if jnp.issubdtype(dtype, jnp.complexfloating) and selection is not None:
        raise InputError(
            message(
                f"{name}(selection={selection!r})",
                f"the argument has dtype {dtype}.",
                "Complex numbers have no order, so there are no two branches to select from.",
                "take the real or the imaginary part first",
                "leave selection out, to get JAX's function unchanged",
            )
        )
    return jnp.issubdtype(dtype, jnp.floating)


def relu(x: Any, *, selection: Any = None) -> jax.Array:
    """Rectified linear unit.

    Formula:
        relu(x) = max(x, 0)

    Args:
        x: array.
        selection: weight in [0, 1] on x at the kink (number or array), ``"above"`` (1), ``"below"``
            (0) or ``"mean"`` (0.5). A traced weight is clipped.

    Returns:
        ``jax.nn.relu(x)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x. The set at u = 0: [0, 1]. Default 0, as in ``jax.nn.relu``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import relu
        >>> float(jax.grad(relu)(0.0)), float(jax.grad(lambda x: relu(x, selection=0.5))(0.0))
        (0.0, 0.5)
    """
    weight = selections.weight(selection, 0.0, "relu")
    return _relu(x, weight, selection is not None) if has_kinks("relu", selection, x) else jax.nn.relu(x)


@compiled("explicit")
def _relu(x: Any, weight: Any, explicit: bool) -> jax.Array:
    value = jnp.maximum(lax.stop_gradient(x), 0)
    return bind(x, 0, x, 0, weight, value, name="relu", explicit=explicit, at_nan="below")


def leaky_relu(x: Any, negative_slope: Any = 1e-2, *, selection: Any = None) -> jax.Array:
    """Leaky rectified linear unit.

    Formula:
        leaky_relu(x) = x where x >= 0, negative_slope·x where x < 0

    Args:
        x: array.
        negative_slope: array or number, the slope for x < 0; differentiated.
        selection: weight in [0, 1] on the branch x at the kink, ``"above"`` (1), ``"below"`` (0) or
            ``"mean"`` (0.5). A traced weight is clipped.

    Returns:
        ``jax.nn.leaky_relu(x, negative_slope)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x. The set at u = 0: [negative_slope, 1]. Default 1, as in ``jax.nn.leaky_relu``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import leaky_relu
        >>> round(float(jax.grad(lambda x: leaky_relu(x, selection="below"))(0.0)), 4)
        0.01
    """
    weight = selections.weight(selection, 1.0, "leaky_relu")
    if not has_kinks("leaky_relu", selection, x, negative_slope):
        return jax.nn.leaky_relu(x, negative_slope)
    return _leaky_relu(x, negative_slope, weight, selection is not None)


@compiled("explicit")
def _leaky_relu(x: Any, negative_slope: Any, weight: Any, explicit: bool) -> jax.Array:
    value = jax.nn.leaky_relu(*lax.stop_gradient((x, negative_slope)))
    x = jnp.asarray(x)
    below = negative_slope * x
    return bind(x, 0, x, below, weight, value, name="leaky_relu", explicit=explicit, at_nan="below")


def abs(x: Any, /, *, selection: Any = None) -> jax.Array:
    """Absolute value.

    Formula:
        abs(x) = max(x, -x)

    Args:
        x: array.
        selection: weight in [0, 1] on the branch x at the kink, ``"above"`` (1), ``"below"`` (0) or
            ``"mean"`` (0.5, derivative 0). A traced weight is clipped.

    Returns:
        ``jnp.abs(x)``.

    Raises:
        InputError: a selection that does not fit, or any selection for a complex x.

    Kinks:
        u = x. The set at u = 0: [-1, 1]. Default 1, as in ``jnp.abs``: derivative 1.

    Example:
        >>> import jax
        >>> from nsimplicit import primitives
        >>> float(jax.grad(lambda x: primitives.abs(x, selection="mean"))(0.0))
        0.0
    """
    weight = selections.weight(selection, 1.0, "abs")
    return _abs(x, weight, selection is not None) if has_kinks("abs", selection, x) else jnp.abs(x)


@compiled("explicit")
def _abs(x: Any, weight: Any, explicit: bool) -> jax.Array:
    x = jnp.asarray(x)
    value = lax.abs(lax.stop_gradient(x))
    return bind(x, 0, x, -x, weight, value, name="abs", explicit=explicit, at_nan="below")


def maximum(x: Any, y: Any, /, *, selection: Any = None) -> jax.Array:
    """Elementwise maximum of two arrays.

    Formula:
        maximum(x, y) = x where x > y, y where x < y

    Args:
        x: array.
        y: array; the two broadcast.
        selection: weight in [0, 1] on x at the kink, ``"above"`` (1: x), ``"below"`` (0: y) or
            ``"mean"`` (0.5). A traced weight is clipped.

    Returns:
        ``jnp.maximum(x, y)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x - y, compared, never subtracted. The set at u = 0: s·x' + (1-s)·y', 0 ≤ s ≤ 1.
        Default 0.5, as in ``jnp.maximum``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import maximum
        >>> [float(g) for g in jax.grad(lambda x, y: maximum(x, y, selection=0.25), (0, 1))(2.0, 2.0)]
        [0.25, 0.75]
    """
    weight = selections.weight(selection, 0.5, "maximum")
    if not has_kinks("maximum", selection, x, y):
        return jnp.maximum(x, y)
    return _maximum(x, y, weight, selection is not None)


@compiled("explicit")
def _maximum(x: Any, y: Any, weight: Any, explicit: bool) -> jax.Array:
    value = jnp.maximum(*lax.stop_gradient((x, y)))
    return at_lower(x, y, value, weight, name="maximum", explicit=explicit, at_nan="zero")


def minimum(x: Any, y: Any, /, *, selection: Any = None) -> jax.Array:
    """Elementwise minimum of two arrays.

    Formula:
        minimum(x, y) = x where x < y, y where x > y

    Args:
        x: array.
        y: array; the two broadcast.
        selection: weight in [0, 1] on x at the kink, ``"above"`` (1: x), ``"below"`` (0: y) or
            ``"mean"`` (0.5). A traced weight is clipped.

    Returns:
        ``jnp.minimum(x, y)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = y - x, compared, never subtracted. The set at u = 0: s·x' + (1-s)·y', 0 ≤ s ≤ 1.
        Default 0.5, as in ``jnp.minimum``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import minimum
        >>> [float(g) for g in jax.grad(lambda x, y: minimum(x, y, selection="above"), (0, 1))(2.0, 2.0)]
        [1.0, 0.0]
    """
    weight = selections.weight(selection, 0.5, "minimum")
    if not has_kinks("minimum", selection, x, y):
        return jnp.minimum(x, y)
    return _minimum(x, y, weight, selection is not None)


@compiled("explicit")
def _minimum(x: Any, y: Any, weight: Any, explicit: bool) -> jax.Array:
    value = jnp.minimum(*lax.stop_gradient((x, y)))
    return at_upper(x, y, value, weight, name="minimum", explicit=explicit, at_nan="zero")


def at_lower(x: Any, bound: Any, value: jax.Array, weight: Any, **params: Any) -> jax.Array:
    """The switch at a lower bound: x above it, the bound below."""
    x, bound = (jnp.asarray(z, value.dtype) for z in (x, bound))
    return bind(x, bound, x, bound, weight, value, **params)


def at_upper(x: Any, bound: Any, value: jax.Array, weight: Any, **params: Any) -> jax.Array:
    """The switch at an upper bound, with x as the branch above: a weight is on x at both bounds."""
    x, bound = (jnp.asarray(z, value.dtype) for z in (x, bound))
    return bind(bound, x, x, bound, weight, value, **params)
