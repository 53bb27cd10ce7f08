"""The companion of ``switch`` for sort-like operations: order statistics, linear in a payload.

``ordering_p`` has three operands, ``key``, ``payload`` (one shape) and ``value``, and is the entries
``start`` to ``stop`` of the payload sorted by the key along one axis. Like ``switch_p`` it *is*
``value``, computed beforehand by JAX's own operation; the key and the payload are there to be read.
The key only orders: the derivative is the same selection of entries applied to the payload's tangent.

``tie`` says what happens inside a block of equal keys:

    first   earlier positions come first, in ascending as in descending order (a stable sort)
    last    later positions come first
    mean    every place of the block is the average of the block

The other parameters: ``axis``, ``descending``, ``start``, ``stop``; ``name`` and ``explicit`` as in
``switch_p``. Equal means equal as numbers: -0.0 ties with 0.0; nans come last in ascending order, and tie.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import core as _core
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from numpy.lib.array_utils import normalize_axis_index

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.primitives.switch import compiled, spread

__all__ = ["ordering"]

EXTREMES = ("max", "min", "max_pool")

ordering_p = Primitive("ordering")


def bind(
    key: Any,
    payload: Any,
    value: Any,
    *,
    axis: int,
    tie: str,
    descending: bool,
    start: int,
    stop: int,
    name: str,
    explicit: bool,
) -> jax.Array:
    """Bind ``ordering_p``; nothing is broadcast, but varying mesh axes are joined."""
    operands = _core.auto_insert_reshard(key, payload, lax.stop_gradient(value))
    params = dict(tie=tie, descending=descending, start=start, stop=stop, name=name, explicit=explicit)
    return ordering_p.bind(*operands, axis=axis % key.ndim, **params)


@ordering_p.def_impl
def _impl(key: Any, payload: Any, value: Any, **params: Any) -> Any:
    del key, payload, params
    return value


@ordering_p.def_abstract_eval
def _abstract_eval(key: Any, payload: Any, value: Any, *, axis: int, start: int, stop: int, **params: Any) -> Any:
    _core.standard_vma_rule("ordering", key, payload, value)
    expected = (*key.shape[:axis], stop - start, *key.shape[axis + 1 :])
    assert key.shape == payload.shape and payload.dtype == value.dtype, (params, key, payload, value)
    assert value.shape == expected, (params, value, expected)
    return value


def _lower(ctx: Any, key: Any, payload: Any, value: Any, **params: Any) -> list[Any]:
    del ctx, key, payload, params
    return [value]


mlir.register_lowering(ordering_p, _lower)


def _batch(lane: Any, operands: Any, dims: Any, *, axis: int, **params: Any) -> tuple[Any, int | None]:
    if all(dim is None for dim in dims):  # nothing is mapped: a primal under vmap of a jvp stays unbatched
        return ordering_p.bind(*operands, axis=axis, **params), None
    operands = [
        batching.bdim_at_front(x, d, lane.size, lane.explicit_mesh_axis) for x, d in zip(operands, dims, strict=True)
    ]
    return ordering_p.bind(*_core.auto_insert_reshard(*operands), axis=axis + 1, **params), 0


batching.fancy_primitive_batchers[ordering_p] = _batch


def _jvp(primals: Any, tangents: Any, *, explicit: bool, **params: Any) -> tuple[Any, Any]:
    out = ordering_p.bind(*primals, explicit=explicit, **params)
    payload_dot = tangents[1]
    if type(payload_dot) is ad.Zero:
        return out, ad.Zero.from_primal_value(out)
    return out, arrange(lax.stop_gradient(primals[0]), payload_dot, **params)


ad.primitive_jvps[ordering_p] = _jvp


def arrange(
    key: Any, payload: Any, *, axis: int, tie: str, descending: bool, start: int, stop: int, name: str
) -> jax.Array:
    """The linear map itself, in operations JAX can transpose."""
    if tie == "mean":
        if name in EXTREMES:
            return _mean_of_extremes(key, payload, axis, descending)
        return _block_means(key, payload, axis, descending, start, stop)
    index = _positions(key, axis, tie, descending, start, stop, name)
    return _take(payload, index, axis)


def _positions(key: Any, axis: int, tie: str, descending: bool, start: int, stop: int, name: str) -> jax.Array:
    """Where the order statistics sit along the axis."""
    size = key.shape[axis]
    if name in EXTREMES:
        arg = lax.argmax if descending else lax.argmin
        at = arg(key if tie == "first" else lax.rev(key, (axis,)), axis, jnp.int32)
        return lax.expand_dims(at if tie == "first" else size - 1 - at, (axis,))
    if name == "top_k" and tie == "first":
        # The very call that made the value: XLA merges the two.
        return jnp.moveaxis(lax.top_k(jnp.moveaxis(key, axis, -1), stop)[1], -1, axis)
    if (tie == "first") != descending:
        index = sort_with_positions(key, axis)[1]
    else:
        index = size - 1 - sort_with_positions(lax.rev(key, (axis,)), axis)[1]
    index = lax.rev(index, (axis,)) if descending else index
    return lax.slice_in_dim(index, start, stop, axis=axis)


def sort_with_positions(key: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Stable ascending sort with the positions it takes entries from.

    Functions that compute a value by sorting call this as well, so that XLA merges the sort of the
    value with the sort of the derivative, and drops the positions where nobody asks for them.
    """
    size = key.shape[axis]
    positions = lax.iota(jnp.int32, size).reshape([size if i == axis else 1 for i in range(key.ndim)])
    positions = _core.auto_insert_reshard(key, spread(positions, key))[1]
    return tuple(lax.sort((key, positions), dimension=axis, is_stable=True, num_keys=1))


def _take(x: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    """``jnp.take_along_axis`` without its pass over the indices to wrap negative ones."""
    batch = tuple(i for i in range(x.ndim) if i != axis)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )
    return lax.gather(x, index[..., None], numbers, (1,) * x.ndim, mode="promise_in_bounds")


def _mean_of_extremes(key: Any, payload: Any, axis: int, descending: bool) -> jax.Array:
    """JAX's rule for max and min: equal shares; 0/0 where the extreme is nan."""
    extreme = jnp.expand_dims((jnp.max if descending else jnp.min)(key, axis), axis)
    hits = lax.convert_element_type(lax.eq(key, jnp.broadcast_to(extreme, key.shape)), payload.dtype)
    total = lax.reduce_sum(payload * hits, (axis,)) / lax.reduce_sum(hits, (axis,))
    return lax.expand_dims(total, (axis,))


def _block_means(key: Any, payload: Any, axis: int, descending: bool, start: int, stop: int) -> jax.Array:
    """Sort the payload by the key, then replace every entry by the mean of its block of equal keys."""
    size = key.shape[axis]
    if size == 0:
        return payload
    ordered, index = sort_with_positions(key, axis)
    payload = _take(payload, index, axis)
    ordered, payload = (jnp.moveaxis(x, axis, -1) for x in (ordered, payload))
    before, after = ordered[..., :-1], ordered[..., 1:]
    starts = (before != after) & ~(jnp.isnan(before) & jnp.isnan(after))
    block = jnp.cumsum(jnp.pad(starts, [(0, 0)] * (key.ndim - 1) + [(1, 0)]), -1, dtype=jnp.int32)

    def means(values: jax.Array, block: jax.Array) -> jax.Array:
        def total(x: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(x, block, size, indices_are_sorted=True)[block]

        return total(values) / total(jnp.ones_like(values))

    for _ in range(key.ndim - 1):
        means = jax.vmap(means)
    result = means(payload, block)
    result = lax.rev(result, (result.ndim - 1,)) if descending else result
    return jnp.moveaxis(result[..., start:stop], -1, axis)


def ordering(
    key: Any,
    payload: Any,
    *,
    tie: str,
    axis: int = -1,
    descending: bool = False,
    start: int = 0,
    stop: int | None = None,
) -> jax.Array:
    """Order statistics of a payload sorted by a key, linear in the payload.

    Formula:
        ordering(key, payload) = payload[p][start:stop] for a permutation p that sorts the key

    Args:
        key: real array; it only orders, and has derivative zero.
        payload: array; the two broadcast.
        tie: ``"first"``, ``"last"``, or ``"mean"``: in a block of equal keys, earlier positions
            first, later positions first, or the average of the block in every place.
        axis: the axis to sort along.
        descending: whether the largest key comes first.
        start: the first place to return, 0 for the smallest key (largest when descending).
        stop: the place after the last to return; ``None`` for all.

    Returns:
        Array of the payload's dtype with ``stop - start`` entries along the axis.

    Raises:
        InputError: a tie that is not one of the three, or a complex key.

    Kinks:
        u = (difference of any two keys). The set at ties contains one permutation of the payload
        for each order of each block of equal keys, and their averages. No default.

    Cost:
        O(n log n), also with ``start`` and ``stop``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.primitives import ordering
        >>> ordering(jnp.array([2.0, 1.0, 2.0]), jnp.array([10.0, 20.0, 30.0]), tie="mean").tolist()
        [20.0, 20.0, 20.0]
    """
    tie = selections.tie(tie, "first", "ordering")
    if jnp.iscomplexobj(key):
        raise InputError(
            message(
                "ordering(key=...)",
                f"the key has dtype {jnp.result_type(key)}.",
                "Complex numbers have no order to sort by.",
                "pass a real key, such as jnp.abs(key)",
            )
        )
    return _ordering(key, payload, tie, axis, descending, start, stop)


@compiled("tie", "axis", "descending", "start", "stop")
def _ordering(key: Any, payload: Any, tie: str, axis: int, descending: bool, start: int, stop: int | None) -> jax.Array:
    key, payload = jnp.broadcast_arrays(key, payload)
    axis = normalize_axis_index(axis, key.ndim)
    start, stop, _ = slice(start, stop).indices(key.shape[axis])
    params = dict(axis=axis, tie=tie, descending=descending, start=start, stop=stop, name="ordering")
    value = arrange(*lax.stop_gradient((key, payload)), **params)
    if not jnp.issubdtype(payload.dtype, jnp.inexact):
        return value
    return bind(key, payload, value, explicit=True, **params)
