"""Elementwise kinks: JAX's functions, with one more argument."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.primitives.switch import bind, compiled

__all__ = ["clip", "hard_tanh", "leaky_relu", "maximum", "minimum", "relu", "relu6", "soft_threshold"]


def _is_real(*xs: Any) -> bool:
    """Whether the result of an operation on these is a real float, the only kind with kinks."""
    return jnp.issubdtype(jnp.result_type(*xs), jnp.floating)


def relu(x: Any, *, selection: Any = None) -> jax.Array:
    """relu."""
    weight = selections.weight(selection, 0.0, "relu")
    return _relu(x, weight) if _is_real(x) else jax.nn.relu(x)


@compiled()
def _relu(x: Any, weight: Any) -> jax.Array:
    return bind(x, 0, x, 0, weight, jnp.maximum(lax.stop_gradient(x), 0), name="relu", at_nan="below")


def abs(x: Any, /, *, selection: Any = None) -> jax.Array:
    """abs."""
    weight = selections.weight(selection, 1.0, "abs")
    return _abs(x, weight) if _is_real(x) else jnp.abs(x)


@compiled()
def _abs(x: Any, weight: Any) -> jax.Array:
    x = jnp.asarray(x)
    return bind(x, 0, x, -x, weight, lax.abs(lax.stop_gradient(x)), name="abs", at_nan="below")


def maximum(x: Any, y: Any, /, *, selection: Any = None) -> jax.Array:
    """maximum."""
    weight = selections.weight(selection, 0.5, "maximum")
    return _maximum(x, y, weight, "maximum") if _is_real(x, y) else jnp.maximum(x, y)


@compiled("name")
def _maximum(x: Any, y: Any, weight: Any, name: str) -> jax.Array:
    value = jnp.maximum(*lax.stop_gradient((x, y)))
    x, y = (jnp.asarray(z, value.dtype) for z in (x, y))
    return bind(x, y, x, y, weight, value, name=name, at_nan="zero")


def minimum(x: Any, y: Any, /, *, selection: Any = None) -> jax.Array:
    """minimum."""
    weight = selections.weight(selection, 0.5, "minimum")
    return _minimum(x, y, weight, "minimum") if _is_real(x, y) else jnp.minimum(x, y)


@compiled("name")
def _minimum(x: Any, y: Any, weight: Any, name: str) -> jax.Array:
    value = jnp.minimum(*lax.stop_gradient((x, y)))
    x, y = (jnp.asarray(z, value.dtype) for z in (x, y))
    return bind(y, x, x, y, weight, value, name=name, at_nan="zero")


def clip(x: Any, /, min: Any = None, max: Any = None, *, selection: Any = None) -> jax.Array:
    """clip."""
    lower, upper = selections.pair(selection, 0.5, "clip")
    if not _is_real(*(z for z in (x, min, max) if z is not None)):
        return jnp.clip(x, min, max)
    return _clip(x, min, max, lower, upper)


@compiled()
def _clip(x: Any, min: Any, max: Any, lower: Any, upper: Any) -> jax.Array:
    x = jnp.asarray(x)
    if min is not None:
        x = _lower(x, min, jnp.maximum(*lax.stop_gradient((min, x))), lower, "clip", "zero")
    if max is not None:
        x = _upper(x, max, jnp.minimum(*lax.stop_gradient((max, x))), upper, "clip", "zero")
    return x


def _lower(x: Any, bound: Any, value: jax.Array, weight: Any, name: str, at_nan: str) -> jax.Array:
    """The switch at a lower bound: x above it, the bound below."""
    x, bound = (jnp.asarray(z, value.dtype) for z in (x, bound))
    return bind(x, bound, x, bound, weight, value, name=name, at_nan=at_nan)


def _upper(x: Any, bound: Any, value: jax.Array, weight: Any, name: str, at_nan: str) -> jax.Array:
    """The switch at an upper bound, with x as the branch above, so that a weight is on x at both."""
    x, bound = (jnp.asarray(z, value.dtype) for z in (x, bound))
    return bind(bound, x, x, bound, weight, value, name=name, at_nan=at_nan)


def leaky_relu(x: Any, negative_slope: Any = 1e-2, *, selection: Any = None) -> jax.Array:
    """leaky_relu."""
    weight = selections.weight(selection, 1.0, "leaky_relu")
    return (
        _leaky_relu(x, negative_slope, weight) if _is_real(x, negative_slope) else jax.nn.leaky_relu(x, negative_slope)
    )


@compiled()
def _leaky_relu(x: Any, negative_slope: Any, weight: Any) -> jax.Array:
    value = jax.nn.leaky_relu(*lax.stop_gradient((x, negative_slope)))
    x = jnp.asarray(x)
    return bind(x, 0, x, negative_slope * x, weight, value, name="leaky_relu", at_nan="below")


def relu6(x: Any, *, selection: Any = None) -> jax.Array:
    """relu6."""
    lower, upper = selections.pair(selection, 0.0, "relu6")
    return _relu6(x, lower, upper) if _is_real(x) else jax.nn.relu6(x)


@compiled()
def _relu6(x: Any, lower: Any, upper: Any) -> jax.Array:
    x = _lower(x, 0, jnp.maximum(lax.stop_gradient(x), 0), lower, "relu6", "below")
    return _upper(x, 6, jnp.minimum(lax.stop_gradient(x), 6), upper, "relu6", "below")


def hard_tanh(x: Any, *, selection: Any = None) -> jax.Array:
    """hard_tanh."""
    lower, upper = selections.pair(selection, 1.0, "hard_tanh")
    return _hard_tanh(x, lower, upper) if _is_real(x) else jax.nn.hard_tanh(x)


@compiled()
def _hard_tanh(x: Any, lower: Any, upper: Any) -> jax.Array:
    plain = lax.stop_gradient(jnp.asarray(x))
    x = _lower(x, -1, jnp.where(plain < -1, -1, plain), lower, "hard_tanh", "above")
    return _upper(x, 1, jax.nn.hard_tanh(plain), upper, "hard_tanh", "above")


def soft_threshold(x: Any, threshold: Any, *, selection: Any = None) -> jax.Array:
    """soft_threshold."""
    weight = selections.weight(selection, 0.0, "soft_threshold")
    return _soft_threshold(x, threshold, weight)


@compiled()
def _soft_threshold(x: Any, threshold: Any, weight: Any) -> jax.Array:
    dtype = jnp.result_type(x, threshold, 0.0)
    x = jnp.asarray(x, dtype)
    threshold = jnp.asarray(threshold, np.finfo(dtype).dtype)
    x, threshold = jnp.broadcast_arrays(x, threshold)
    if jnp.iscomplexobj(x):
        modulus = lax.abs(lax.select(x != 0, x, lax.full_like(x, 1)))
        above = x - (threshold / modulus) * x
        left = lax.abs(x)
    else:
        sign = lax.sign(lax.stop_gradient(x))
        above = x - threshold * sign
        left = x * sign
    right = jnp.where(threshold > 0, threshold, -1)
    nan = jnp.isnan(x) | jnp.isnan(threshold)
    value = jnp.where(left > right, above, jnp.where(nan, jnp.nan, 0))
    return bind(left, right, above, 0, weight, value, name="soft_threshold", at_nan="nan")
