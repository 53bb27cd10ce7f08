"""Order statistics: JAX's functions, with one more argument that says how ties are broken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import selections
from nsimplicit.primitives.elementwise import maximum, minimum
from nsimplicit.primitives.ordering import bind, sort_with_positions
from nsimplicit.primitives.switch import compiled

__all__ = ["max_pool", "median", "top_k"]


def max(
    a: Any,
    axis: Any = None,
    out: None = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
    *,
    selection: Any = None,
) -> jax.Array:
    """max."""
    tie = selections.tie(selection, "mean", "max")
    return _extreme(a, initial, where, axis, keepdims, tie, "max")


def min(
    a: Any,
    axis: Any = None,
    out: None = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
    *,
    selection: Any = None,
) -> jax.Array:
    """min."""
    tie = selections.tie(selection, "mean", "min")
    return _extreme(a, initial, where, axis, keepdims, tie, "min")


@compiled("axis", "keepdims", "tie", "name")
def _extreme(a: Any, initial: Any, where: Any, axis: Any, keepdims: bool, tie: str, name: str) -> jax.Array:
    reduce = {"max": jnp.max, "min": jnp.min}[name]
    plain = reduce(lax.stop_gradient(a), axis, keepdims=keepdims, initial=initial, where=where)
    a = jnp.asarray(a)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        return plain
    axes = tuple(range(a.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(sorted(i % a.ndim for i in axes))
    if where is not None:
        a = jnp.where(where, a, -jnp.inf if name == "max" else jnp.inf)
    if axes:
        a, axis = _one_axis(a, axes)
        value = reduce(lax.stop_gradient(a), axis, keepdims=True)
        a = bind(a, a, value, axis=axis, tie=tie, descending=name == "max", start=0, stop=1, name=name)
    a = a.reshape(plain.shape)
    if initial is not None:
        a = (maximum if name == "max" else minimum)(jnp.asarray(initial, a.dtype), a)
    return a


def _one_axis(a: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, int]:
    """Bring several axes together into one."""
    if len(axes) == 1:
        return a, axes[0]
    a = jnp.moveaxis(a, axes, range(-len(axes), 0))
    a = a.reshape(*a.shape[: a.ndim - len(axes)], -1)
    return a, a.ndim - 1


def sort(
    a: Any,
    axis: int | None = -1,
    *,
    kind: None = None,
    order: None = None,
    stable: bool = True,
    descending: bool = False,
    selection: Any = None,
) -> jax.Array:
    """sort."""
    tie = selections.tie(selection, "last" if descending else "first", "sort")
    if not jnp.issubdtype(jnp.result_type(a), jnp.floating):
        return jnp.sort(a, axis, kind=kind, order=order, stable=stable, descending=descending)
    return _sort(a, axis, tie, descending)


@compiled("axis", "tie", "descending")
def _sort(a: Any, axis: int | None, tie: str, descending: bool) -> jax.Array:
    a = jnp.asarray(a)
    a, axis = (a.ravel(), 0) if axis is None else (a, axis % a.ndim)
    value = sort_with_positions(lax.stop_gradient(a), axis)[0]
    value = lax.rev(value, (axis,)) if descending else value
    return bind(a, a, value, axis=axis, tie=tie, descending=descending, start=0, stop=a.shape[axis], name="sort")


def top_k(operand: Any, k: int, *, axis: int = -1, selection: Any = None) -> tuple[jax.Array, jax.Array]:
    """top_k."""
    tie = selections.tie(selection, "first", "top_k")
    if not jnp.issubdtype(jnp.result_type(operand), jnp.floating):
        return lax.top_k(operand, k, axis=axis)
    return _top_k(operand, k, axis, tie)


@compiled("k", "axis", "tie")
def _top_k(operand: Any, k: int, axis: int, tie: str) -> tuple[jax.Array, jax.Array]:
    operand = jnp.asarray(operand)
    axis = axis % operand.ndim
    value, index = lax.top_k(lax.stop_gradient(operand), k, axis=axis)
    params = dict(axis=axis, tie=tie, descending=True, start=0, stop=k, name="top_k")
    return bind(operand, operand, value, **params), index


def median(
    a: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
    *,
    selection: Any = None,
) -> jax.Array:
    """median."""
    tie = selections.tie(selection, "first", "median")
    if out is not None or overwrite_input or not jnp.issubdtype(jnp.result_type(a), jnp.floating):
        return jnp.median(a, axis, out, overwrite_input, keepdims)
    return _median(a, axis, keepdims, tie)


@compiled("axis", "keepdims", "tie")
def _median(a: Any, axis: Any, keepdims: bool, tie: str) -> jax.Array:
    plain = jnp.median(lax.stop_gradient(a), axis, keepdims=keepdims)
    a = jnp.asarray(a)
    axes = tuple(range(a.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(sorted(i % a.ndim for i in axes))
    if not axes or a.size == 0:
        return plain
    a, axis = _one_axis(a, axes)
    a = jnp.where(jnp.any(jnp.isnan(a), axis, keepdims=True), jnp.nan, a)
    size = a.shape[axis]
    start, stop = (size - 1) // 2, size // 2 + 1
    value = lax.slice_in_dim(sort_with_positions(lax.stop_gradient(a), axis)[0], start, stop, axis=axis)
    middle = bind(a, a, value, axis=axis, tie=tie, descending=False, start=start, stop=stop, name="median")
    low, high = (lax.index_in_dim(middle, i, axis, keepdims=False) for i in (0, -1))
    return ((low + high) * 0.5).reshape(plain.shape)


def max_pool(
    inputs: Any, window_shape: Any, strides: Any = None, padding: Any = "VALID", *, selection: Any = None
) -> jax.Array:
    """max_pool."""
    tie = selections.tie(selection, "first", "max_pool")
    padding = padding if isinstance(padding, str) else tuple(map(tuple, padding))
    return _max_pool(inputs, tuple(window_shape), strides and tuple(strides), padding, tie)


@compiled("window", "strides", "padding", "tie")
def _max_pool(x: Any, window: tuple[int, ...], strides: Any, padding: Any, tie: str) -> jax.Array:
    x = jnp.asarray(x)
    batch = x.ndim - len(window) - 1
    window = (1,) * batch + window + (1,)
    strides = (1,) * batch + (strides or (1,) * (len(window) - batch - 1)) + (1,)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape, window, strides, padding)
    else:
        padding = ((0, 0),) * batch + padding + ((0, 0),)
    value = lax.reduce_window(lax.stop_gradient(x), -jnp.inf, lax.max, window, strides, padding)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return value
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    patches = [
        lax.slice(x, at, [i + (n - 1) * s + 1 for i, n, s in zip(at, value.shape, strides, strict=True)], strides)
        for at in np.ndindex(*window)
    ]
    patches = jnp.stack(patches, -1)
    value = bind(
        patches, patches, value[..., None], axis=-1, tie=tie, descending=True, start=0, stop=1, name="max_pool"
    )
    return value[..., 0]
