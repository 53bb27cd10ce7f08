"""Order statistics: JAX's functions, with one more argument that says how ties are broken.

Values are JAX's bit for bit, and so are derivatives unless a selection says otherwise, nans
included. Integer, boolean and complex arguments go to JAX as they are.

``selection`` is one of three names. In a block of equal entries, ``"first"`` gives the derivative of
the earliest positions, ``"last"`` of the latest, ``"mean"`` to every place the average of the block.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nsimplicit import selections
from nsimplicit.primitives.ordering import bind, sort_with_positions
from nsimplicit.primitives.switch import compiled

__all__ = ["median", "sort", "top_k"]


def is_ordered(x: Any) -> bool:
    """Whether an argument is a real float: what can be ordered and differentiated."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def reduced_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, ndim)))


def one_axis(a: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, int]:
    """Bring several axes together into one; the reshape of neighbours costs nothing in XLA."""
    if len(axes) == 1:
        return a, axes[0]
    a = jnp.moveaxis(a, axes, range(-len(axes), 0))
    kept = a.shape[: a.ndim - len(axes)]
    return a.reshape(*kept, int(np.prod(a.shape[len(kept) :]))), len(kept)


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
    """Entries of an array in ascending order along an axis.

    Formula:
        sort(a) = a[p] for a permutation p with a[p[0]] <= a[p[1]] <= ...

    Args:
        a: array.
        axis: the axis to sort along; ``None`` flattens first.
        kind: must be ``None``.
        order: must be ``None``.
        stable: ignored, the sort is always stable.
        descending: whether the largest comes first.
        selection: ``"first"``, ``"last"`` or ``"mean"``: inside a block of equal entries, earlier
            positions first, later positions first, or the average of the block in every place.

    Returns:
        ``jnp.sort(a, axis, descending=descending)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (difference of any two entries). The set at ties contains a permutation matrix for each
        order of each block of equal entries, and their averages. Default: the permutation of
        ``jnp.sort``, ``"first"`` when ascending and ``"last"`` when descending.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.primitives import sort
        >>> jax.jacobian(lambda x: sort(x, selection="mean"))(jnp.array([1.0, 1.0])).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    tie = selections.tie(selection, "last" if descending else "first", "sort")
    if kind is not None or order is not None or not is_ordered(a):
        return jnp.sort(a, axis, kind=kind, order=order, stable=stable, descending=descending)
    return _sort(a, axis, tie, descending, selection is not None)


@compiled("axis", "tie", "descending", "explicit")
def _sort(a: Any, axis: int | None, tie: str, descending: bool, explicit: bool) -> jax.Array:
    a = jnp.asarray(a)
    a, axis = (a.ravel(), 0) if axis is None else (a, normalize_axis_index(axis, a.ndim))
    value, permutation = sort_with_positions(lax.stop_gradient(a), axis)
    value = lax.rev(value, (axis,)) if descending else value
    params: dict[str, Any] = dict(axis=axis, tie=tie, descending=descending, start=0, stop=a.shape[axis])
    return bind(a, a, value, permutation, name="sort", explicit=explicit, **params)


def top_k(
    operand: Any, k: int, *, axis: int = -1, is_stable: bool = True, selection: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The k largest entries along an axis, largest first, and their positions.

    Formula:
        top_k(a, k) = (a[p[:k]], p[:k]) for a permutation p with a[p[0]] >= a[p[1]] >= ...

    Args:
        operand: array.
        k: how many.
        axis: the axis to look along.
        is_stable: ignored, the order is always stable.
        selection: ``"first"``, ``"last"`` or ``"mean"`` of each block of equal entries.

    Returns:
        ``jax.lax.top_k(operand, k, axis=axis)``: values, and integer positions (not differentiated;
        always those of the earliest of equal entries).

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (difference of two of the k largest, or of one of them and any other). The set at ties
        contains the rows of a permutation matrix for each order of each block of equal entries, and
        their averages. Default ``"first"``, as in ``jax.lax.top_k``, to which 0.0 is larger than
        -0.0; ``"last"`` and ``"mean"`` take the two as equal.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.primitives import top_k
        >>> jax.jacobian(lambda x: top_k(x, 1, selection="mean")[0])(jnp.array([1.0, 2.0, 2.0])).tolist()
        [[0.0, 0.5, 0.5]]
    """
    del is_stable
    tie = selections.tie(selection, "first", "top_k")
    if not is_ordered(operand):
        return lax.top_k(operand, k, axis=axis)
    return _top_k(operand, k, axis, tie, selection is not None)


@compiled("k", "axis", "tie", "explicit")
def _top_k(operand: Any, k: int, axis: int, tie: str, explicit: bool) -> tuple[jax.Array, jax.Array]:
    operand = jnp.asarray(operand)
    value, index = lax.top_k(lax.stop_gradient(operand), k, axis=axis)
    params: dict[str, Any] = dict(axis=axis, tie=tie, descending=True, start=0, stop=k)
    return bind(operand, operand, value, index, name="top_k", explicit=explicit, **params), index


def median(
    a: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
    *,
    selection: Any = None,
) -> jax.Array:
    """Median of an array along some axes: the middle entry, or the mean of the middle two.

    Formula:
        median(a) = (s[(n-1)//2] + s[n//2]) / 2 with s = sort(a) and n its size

    Args:
        a: array.
        axis: the axis, or axes, to reduce; ``None`` for all.
        out: must be ``None``.
        overwrite_input: must be ``False``.
        keepdims: whether to keep the reduced axes, with size 1.
        selection: ``"first"``, ``"last"`` or ``"mean"`` of each block of equal entries.

    Returns:
        ``jnp.median(a, axis)``; nan where an entry is nan, with derivative 0.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = (middle entry) - (any other). The set at ties is that of the middle rows of
        :func:`sort`. Default ``"first"``, as in ``jnp.median`` before JAX 0.12, whose sort is no
        longer stable: there any entry of the tied block may be the one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.primitives import median
        >>> jax.grad(lambda x: median(x, selection="last"))(jnp.array([5.0, 5.0, 0.0, 9.0, 5.0])).tolist()
        [0.0, 1.0, 0.0, 0.0, 0.0]
    """
    tie = selections.tie(selection, "first", "median")
    if out is not None or overwrite_input or not np.size(a) or not is_ordered(a):
        return jnp.median(a, axis, out, overwrite_input, keepdims)
    return _median(a, axis, keepdims, tie, selection is not None)


@compiled("axis", "keepdims", "tie", "explicit")
def _median(a: Any, axis: Any, keepdims: bool, tie: str, explicit: bool) -> jax.Array:
    a = lax.convert_element_type(a, jnp.result_type(a))  # never weakly typed, as jnp.median
    axes = reduced_axes(axis, a.ndim)
    shape = [1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes]
    a, along = one_axis(a if axes else a[..., None], axes or (a.ndim,))
    a = jnp.where(jnp.any(jnp.isnan(a), along, keepdims=True), jnp.nan, a)
    size = a.shape[along]
    start, stop = (size - 1) // 2, size // 2 + 1
    value, permutation = sort_with_positions(lax.stop_gradient(a), along)
    value = lax.slice_in_dim(value, start, stop, axis=along)
    params: dict[str, Any] = dict(axis=along, tie=tie, descending=False, start=start, stop=stop)
    middle = bind(a, a, value, permutation, name="median", explicit=explicit, **params)
    low, high = (lax.index_in_dim(middle, i, along, keepdims=False) for i in (0, -1))
    return ((low + high) * 0.5).reshape(shape)
