"""The companion of ``switch`` for sort-like operations: order statistics, linear in a payload.

``ordering_p`` has the operands ``key``, ``payload`` (one shape) and ``value``, and is the entries
``start`` to ``stop`` of the payload sorted by the key along one axis. Like ``switch_p`` it *is*
``value``, computed beforehand by JAX's own operation; the key and the payload are there to be read.
The key only orders: the derivative is the same selection of entries applied to the payload's tangent.

A fourth operand, optional, is what making the value found out as well: the permutation of the stable
ascending sort, or, from ``top_k``, the positions of the entries returned. Sorting once more in the
derivative rule would cost a second sort: XLA prunes each to what is read before it could merge them.

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
from jax.interpreters import ad, batching, mlir
from numpy.lib.array_utils import normalize_axis_index

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.primitives.switch import Zero, compiled, spread

__all__ = ["ordering"]

EXTREMES = ("max", "min", "max_pool")

ordering_p = _core.Primitive("ordering")


def bind(key: Any, payload: Any, value: Any, *permutation: Any, axis: int, **params: Any) -> jax.Array:
    """Bind ``ordering_p``; nothing is broadcast, but varying mesh axes are joined."""
    operands = _core.auto_insert_reshard(key, payload, lax.stop_gradient(value), *permutation)
    return ordering_p.bind(*operands, axis=axis % key.ndim, **params)


ordering_p.def_impl(lambda key, payload, value, *permutation, **params: value)
mlir.register_lowering(ordering_p, lambda ctx, key, payload, value, *permutation, **params: [value])


@ordering_p.def_abstract_eval
def _abstract_eval(key: Any, payload: Any, value: Any, *permutation: Any, axis: int, **params: Any) -> Any:
    _core.standard_vma_rule("ordering", key, payload, value, *permutation)
    expected = (*key.shape[:axis], params["stop"] - params["start"], *key.shape[axis + 1 :])
    assert payload.shape == key.shape and value.shape == expected, params
    assert all(p.shape in (key.shape, value.shape) for p in permutation), params
    assert payload.dtype == value.dtype, params
    return value


def _batch(lane: Any, operands: Any, dims: Any, *, axis: int, **params: Any) -> tuple[Any, int | None]:
    if all(dim is None for dim in dims):  # nothing is mapped: a primal under vmap of a jvp stays unbatched
        return ordering_p.bind(*operands, axis=axis, **params), None
    operands = [
        batching.bdim_at_front(x, d, lane.size, lane.explicit_mesh_axis) for x, d in zip(operands, dims, strict=True)
    ]
    return ordering_p.bind(*operands, axis=axis + 1, **params), 0


batching.fancy_primitive_batchers[ordering_p] = _batch


def _jvp(primals: Any, tangents: Any, *, explicit: bool, **params: Any) -> tuple[Any, Any]:
    out = ordering_p.bind(*primals, explicit=explicit, **params)
    key, _, _, *permutation = primals
    if type(tangents[1]) is Zero:
        return out, Zero(jax.typeof(out).to_tangent_aval())
    return out, arrange(lax.stop_gradient(key), tangents[1], *permutation, **params)


ad.primitive_jvps[ordering_p] = _jvp


def arrange(
    key: Any, payload: Any, *permutation: Any, axis: int, tie: str, descending: bool, start: int, stop: int, name: str
) -> jax.Array:
    """The linear map itself, in operations JAX can transpose."""
    size = key.shape[axis]
    if name in EXTREMES:
        if tie == "mean":
            return _mean_of_extremes(key, payload, axis, descending)
        arg = lax.argmax if descending else lax.argmin
        at = arg(key if tie == "first" else lax.rev(key, (axis,)), axis, jnp.int32)
        return _take(payload, lax.expand_dims(at if tie == "first" else size - 1 - at, (axis,)), axis)
    if name == "top_k" and permutation:
        if tie == "first":
            return _take(payload, permutation[0], axis)
        permutation = ()
    if tie != "mean" and (tie == "last") != descending:
        index = size - 1 - sort_with_positions(lax.rev(key, (axis,)), axis)[1]
    else:
        index = permutation[0] if permutation else sort_with_positions(key, axis)[1]
    if descending:
        index = lax.rev(index, (axis,))
    if tie == "mean":
        payload = _block_means(_take(key, index, axis), _take(payload, index, axis), axis)
        return lax.slice_in_dim(payload, start, stop, axis=axis)
    return _take(payload, lax.slice_in_dim(index, start, stop, axis=axis), axis)


def sort_with_positions(key: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Stable ascending sort, and the permutation that does it; XLA drops it where nobody reads it."""
    size = key.shape[axis]
    positions = lax.iota(jnp.int32, size).reshape([size if i == axis else 1 for i in range(key.ndim)])
    positions = _core.auto_insert_reshard(key, spread(positions, key))[1]
    ordered, permutation = lax.sort((key, positions), dimension=axis, is_stable=True, num_keys=1)
    return ordered, permutation


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


def _block_means(key: Any, payload: Any, axis: int) -> jax.Array:
    """Replace every entry by the mean of its block of equal keys; both come sorted by the key."""
    size = key.shape[axis]
    if size == 0:
        return payload
    key, payload = (jnp.moveaxis(x, axis, -1) for x in (key, payload))
    before, after = key[..., :-1], key[..., 1:]
    starts = (before != after) & ~(jnp.isnan(before) & jnp.isnan(after))
    block = jnp.cumsum(jnp.pad(starts, [(0, 0)] * (key.ndim - 1) + [(1, 0)]), -1, dtype=jnp.int32)

    def means(values: jax.Array, block: jax.Array) -> jax.Array:
        def total(x: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(x, block, size, indices_are_sorted=True)[block]

        return total(values) / total(jnp.ones_like(values))

    for _ in range(key.ndim - 1):
        means = jax.vmap(means)
    return jnp.moveaxis(means(payload, block), -1, axis)


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
    tie = selections.tie(tie, "first", "ordering", "tie")
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
    params: dict[str, Any] = dict(axis=axis, tie=tie, descending=descending, start=start, stop=stop, name="ordering")
    permutation = sort_with_positions(lax.stop_gradient(key), axis)[1]
    value = arrange(*lax.stop_gradient((key, payload)), permutation, **params)
    if not jnp.issubdtype(payload.dtype, jnp.inexact):
        return value
    return bind(key, payload, value, permutation, explicit=True, **params)
