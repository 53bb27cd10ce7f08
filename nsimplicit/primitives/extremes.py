"""Extremes: max, min and max-pooling, JAX's functions with one more argument that breaks ties.

Values and default derivatives are JAX's, as in :mod:`nsimplicit.primitives.order`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import selections
from nsimplicit.primitives import elementwise
from nsimplicit.primitives.order import is_ordered, one_axis, reduced_axes
from nsimplicit.primitives.ordering import bind
from nsimplicit.primitives.switch import compiled

__all__ = ["max_pool"]


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
    """Maximum of an array along some axes.

    Formula:
        max(a) = a[i] for any i with a[i] >= a[j] for all j

    Args:
        a: array.
        axis: the axis, or axes, to reduce; ``None`` for all.
        out: must be ``None``.
        keepdims: whether to keep the reduced axes, with size 1.
        initial: scalar the result is at least, by :func:`~nsimplicit.primitives.maximum`.
        where: mask of the entries that count; needs ``initial``.
        selection: ``"mean"``, ``"first"`` or ``"last"`` of the largest entries.

    Returns:
        ``jnp.max(a, axis)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (largest entry) - (any other). The set where k entries are largest: the convex hull of
        their k unit vectors. Default ``"mean"``, 1/k each, as in ``jnp.max``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit import primitives
        >>> x = jnp.array([2.0, 1.0, 2.0])
        >>> jax.grad(primitives.max)(x).tolist()
        [0.5, 0.0, 0.5]
        >>> jax.grad(lambda x: primitives.max(x, selection="last"))(x).tolist()
        [0.0, 0.0, 1.0]
    """
    tie = selections.tie(selection, "mean", "max")
    if out is not None or not is_ordered(a) or not _starts_well(initial, where):
        return jnp.max(a, axis, out, keepdims, initial, where)
    return _extreme(a, initial, where, axis, keepdims, tie, "max", selection is not None)


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
    """Minimum of an array along some axes.

    Formula:
        min(a) = a[i] for any i with a[i] <= a[j] for all j

    Args:
        a: array.
        axis: the axis, or axes, to reduce; ``None`` for all.
        out: must be ``None``.
        keepdims: whether to keep the reduced axes, with size 1.
        initial: scalar the result is at most, by :func:`~nsimplicit.primitives.minimum`.
        where: mask of the entries that count; needs ``initial``.
        selection: ``"mean"``, ``"first"`` or ``"last"`` of the smallest entries.

    Returns:
        ``jnp.min(a, axis)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (any other entry) - (smallest). The set where k entries are smallest: the convex hull of
        their k unit vectors. Default ``"mean"``, 1/k each, as in ``jnp.min``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit import primitives
        >>> jax.grad(primitives.min)(jnp.array([2.0, 1.0, 1.0])).tolist()
        [0.0, 0.5, 0.5]
    """
    tie = selections.tie(selection, "mean", "min")
    if out is not None or not is_ordered(a) or not _starts_well(initial, where):
        return jnp.min(a, axis, out, keepdims, initial, where)
    return _extreme(a, initial, where, axis, keepdims, tie, "min", selection is not None)


def _starts_well(initial: Any, where: Any) -> bool:
    """Whether JAX would accept these; its own function raises its own errors otherwise."""
    return where is None if initial is None else np.ndim(initial) == 0


@compiled("axis", "keepdims", "tie", "name", "explicit")
def _extreme(
    a: Any, initial: Any, where: Any, axis: Any, keepdims: bool, tie: str, name: str, explicit: bool
) -> jax.Array:
    a = jnp.asarray(a)
    reduce, worst = (jnp.max, -jnp.inf) if name == "max" else (jnp.min, jnp.inf)
    axes = reduced_axes(axis, a.ndim)
    shape = [1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes]
    if where is not None:
        a = jnp.where(where, a, worst)
    if not axes:
        a = reduce(a, ())
    elif initial is not None and not a.size:
        return reduce(a, axis, keepdims=keepdims, initial=initial)
    else:
        a, along = one_axis(a, axes)
        value = reduce(lax.stop_gradient(a), along, keepdims=True)
        params: dict[str, Any] = dict(axis=along, tie=tie, descending=name == "max", start=0, stop=1)
        a = bind(a, a, value, name=name, explicit=explicit, **params).reshape(shape)
    if initial is not None:
        combine = elementwise.maximum if name == "max" else elementwise.minimum
        a = combine(jnp.asarray(initial, a.dtype), a)
    return a


def max_pool(
    inputs: Any, window_shape: Any, strides: Any = None, padding: Any = "VALID", *, selection: Any = None
) -> jax.Array:
    """Largest entry of each window.

    Formula:
        max_pool(x)[b, i, c] = max over 0 <= j < window_shape of x[b, strides·i + j, c]

    Args:
        inputs: array of shape (batch..., spatial..., channels).
        window_shape: size of the window along each spatial axis.
        strides: steps between windows; ``None`` for 1.
        padding: ``"VALID"``, ``"SAME"``, or a (low, high) pair for each spatial axis; what is added
            is -inf.
        selection: ``"first"``, ``"last"`` (in row-major order) or ``"mean"`` of the largest entries.

    Returns:
        ``flax.linen.max_pool(inputs, window_shape, strides, padding)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (largest entry of a window) - (any other). The set where k entries are largest: the
        convex hull of their k unit vectors. Default ``"first"``, as in ``jax.lax.reduce_window``.

    Cost:
        The derivative makes one strided copy of the input for each place of the window.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.primitives import max_pool
        >>> image = jnp.ones((1, 2, 2, 1))
        >>> jax.grad(lambda x: max_pool(x, (2, 2), selection="mean").sum())(image).ravel().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    tie = selections.tie(selection, "first", "max_pool")
    padding = padding if isinstance(padding, str) else tuple(map(tuple, padding))
    strides = (1,) * len(window_shape) if strides is None else tuple(strides)
    return _max_pool(inputs, tuple(window_shape), strides, padding, tie, selection is not None)


@compiled("window", "strides", "padding", "tie", "explicit")
def _max_pool(
    x: Any, window: tuple[int, ...], strides: tuple[int, ...], padding: Any, tie: str, explicit: bool
) -> jax.Array:
    x = jnp.asarray(x)
    batch = (1,) * (x.ndim - len(window) - 1)
    window, strides = (*batch, *window, 1), (*batch, *strides, 1)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape, window, strides, padding)
    else:
        pads = [(0, 0)] * len(batch) + list(padding) + [(0, 0)]
    value = lax.reduce_window(lax.stop_gradient(x), -jnp.inf, lax.max, window, strides, pads)
    if not is_ordered(x):
        return value
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    ends = [(n - 1) * step + 1 for n, step in zip(value.shape, strides, strict=True)]
    places = [lax.slice(x, at, np.add(at, ends).tolist(), strides) for at in np.ndindex(*window)]
    entries = jnp.stack(places, -1)
    params: dict[str, Any] = dict(axis=-1, tie=tie, descending=True, start=0, stop=1)
    return bind(entries, entries, value[..., None], name="max_pool", explicit=explicit, **params)[..., 0]
