"""Kinks, read off equations as switches and orderings: this package's own, and JAX's with JAX's selection.

A reader says of one primitive which switch, or which ordering, it is: the operands, and the weight
that makes the derivative JAX's own. An operation made of several kinks is rewritten as a function of
simpler ones. Nothing here evaluates a derivative; ``switch`` and ``ordering`` do. To make a replay
see one more operation of JAX's, write a reader and add it to ``READERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import record
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.kink import Ordering, Switch
from nsimplicit.calculus.liveness import is_float

Outputs = Callable[[], list[Any]]


@record
class Reading:
    """What an equation turned out to be.

    Args:
        operation: its name, as in a selection preset.
        is_ordering: whether its kinks are ties of an ordering.
        parts: from the values of the operands, and a function that evaluates the equation, to one switch,
            ordering or plain array for each output.
        shape: from the output of a part to that of the equation.
        rewritten: instead of parts, the operation as a function of simpler kinks.
    """

    operation: str
    is_ordering: bool = False
    parts: Callable[[list[Any], Outputs], list[Any]] = lambda values, outs: outs()
    shape: Callable[[Any], Any] = lambda out: out
    rewritten: Callable[..., Any] | None = None


def read(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """What kink an equation is; None if it is none."""
    reader = READERS.get(eqn.primitive.name)
    return reader(eqn, cells, place) if reader and any(is_float(v) for v in eqn.outvars) else None


def _own_switch(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        fields = dict(zip(("left", "right", "above", "below", "weight", "value"), values, strict=True))
        return [Switch(**fields, **eqn.params, place=place, flipped=eqn.invars[2] is eqn.invars[1])]

    return Reading(eqn.params["name"], parts=parts) if any(c.live for c in cells[:4]) else None


def _own_ordering(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        key, payload, value, *permutation = values
        options = {"permutation": tuple(permutation), "place": place, **eqn.params}
        return [Ordering(key=key, payload=payload, value=value, **options)]

    return Reading(eqn.params["name"], True, parts) if cells[0].live else None


def maximum(x: Any, y: Any, value: Any, **named: Any) -> Switch:
    """``lax.max``: shared equally at a tie."""
    return Switch(left=x, right=y, above=x, below=y, weight=0.5, value=value, at_nan="zero", explicit=False, **named)


def minimum(x: Any, y: Any, value: Any, **named: Any) -> Switch:
    """``lax.min``: shared equally at a tie."""
    return Switch(left=y, right=x, above=x, below=y, weight=0.5, value=value, at_nan="zero", explicit=False, **named)


def absolute(x: Any, value: Any, **named: Any) -> Switch:
    """``lax.abs`` of a real array: +1 at 0."""
    return Switch(left=x, right=0, above=x, below=-x, weight=1.0, value=value, at_nan="below", explicit=False, **named)


def _elementwise(operation: str, switch: Callable[..., Switch]) -> Callable[..., Reading | None]:
    def reader(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
        if jnp.iscomplexobj(cells[0].value):
            return None
        return Reading(operation, parts=lambda values, outs: [switch(*values, *outs(), name=operation, place=place)])

    return reader


def _where(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """``where(left op right, x, y)``; a tie takes what the comparison says of equal numbers."""
    test = cells[0].test
    if test is None or len(cells) != 3:
        return None
    upward = test.op in ("gt", "ge")

    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        (_, on_false, on_true), (value,) = values, outs()
        left, right = (jnp.broadcast_to(x, jnp.shape(value)) for x in (test.left, test.right))
        named = {"name": "where", "place": place, "value": value, "explicit": False}
        above, below = (on_true, on_false) if upward else (on_false, on_true)
        weight, at_nan = float(test.op in ("ge", "lt")), "below" if upward else "above"  # nan compares false
        return [Switch(left=left, right=right, above=above, below=below, weight=weight, at_nan=at_nan, **named)]

    return Reading("where", parts=parts)


def _reduction(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """``reduce_max`` and ``reduce_min``: shared equally by all that tie."""
    axes, operation = eqn.params["axes"], eqn.primitive.name.removeprefix("reduce_")

    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        (operand,), (value,) = values, outs()
        rest = [i for i in range(operand.ndim) if i not in axes]
        key = operand.transpose(*rest, *axes).reshape(*(operand.shape[i] for i in rest), -1)
        named = {"name": operation, "place": place, "explicit": False, "permutation": ()}
        where: dict[str, Any] = dict(axis=key.ndim - 1, tie="mean", descending=operation == "max", start=0, stop=1)
        return [Ordering(key=key, payload=key, value=value[..., None], **where, **named)]

    return Reading(operation, True, parts, shape=lambda out: out[..., 0])


def _sort(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """``lax.sort``: ascending, stable; one ordering for each output."""
    if eqn.params["num_keys"] != 1 or not cells[0].live:
        return None

    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        named = {"name": "sort", "place": place, "explicit": False, "permutation": ()}
        axis, key = eqn.params["dimension"], values[0]
        where: dict[str, Any] = dict(axis=axis, tie="first", descending=False, start=0, stop=key.shape[axis])
        return [
            Ordering(key=key, payload=payload, value=out, **where, **named) if is_float(v) else out
            for payload, out, v in zip(values, outs(), eqn.outvars, strict=True)
        ]

    return Reading("sort", True, parts)


def _top_k(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    def parts(values: list[Any], outs: Outputs) -> list[Any]:
        (operand,), (value, index) = values, outs()
        axis = eqn.params.get("axis", operand.ndim - 1)
        named = {"name": "top_k", "place": place, "explicit": False, "permutation": (index,)}
        where: dict[str, Any] = dict(axis=axis, tie="first", descending=True, start=0, stop=value.shape[axis])
        return [Ordering(key=operand, payload=operand, value=value, **where, **named), index]

    return Reading("top_k", True, parts)


def _clamp(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """``lax.clamp``: two switches, which take the bound at a tie."""

    def rewritten(low: Any, x: Any, high: Any) -> jax.Array:
        inner = lax.max(*lax.stop_gradient((jnp.broadcast_to(low, x.shape), x)))
        value = lax.min(inner, lax.stop_gradient(jnp.broadcast_to(high, x.shape)))
        named: dict[str, Any] = dict(name="clamp", place=place, weight=0.0, at_nan="zero", explicit=False)
        x = Switch(left=x, right=low, above=x, below=low, value=inner, **named).bind()
        return Switch(left=high, right=x, above=x, below=high, value=value, **named).bind()

    return Reading("clamp", rewritten=rewritten)


def _cumulative(operation: str, value: Callable[..., Any], switch: Callable[..., Switch]) -> Callable[..., Reading]:
    """``cummax`` and ``cummin``: the scan over pairs by which JAX differentiates them."""

    def reader(eqn: Any, cells: list[Cell], place: str) -> Reading:
        def combine(x: Any, y: Any) -> jax.Array:
            return switch(x, y, value(*lax.stop_gradient((x, y))), name=operation, place=place).bind()

        along = {"reverse": eqn.params["reverse"], "axis": eqn.params["axis"]}
        return Reading(operation, rewritten=lambda x: lax.associative_scan(combine, x, **along))

    return reader


def _pool(eqn: Any, cells: list[Cell], place: str) -> Reading | None:
    """``reduce_window_max`` without dilation."""
    if set(eqn.params["base_dilation"]) | set(eqn.params["window_dilation"]) != {1}:
        return None
    sizes = [eqn.params[k] for k in ("window_dimensions", "window_strides", "padding")]
    return Reading("max_pool", True, rewritten=lambda x: primitives.max_pool(x[..., None], *sizes)[..., 0])


READERS: dict[str, Callable[[Any, list[Cell], str], Reading | None]] = {
    "switch": _own_switch,
    "ordering": _own_ordering,
    "max": _elementwise("maximum", maximum),
    "min": _elementwise("minimum", minimum),
    "abs": _elementwise("abs", absolute),
    "select_n": _where,
    "reduce_max": _reduction,
    "reduce_min": _reduction,
    "sort": _sort,
    "top_k": _top_k,
    "clamp": _clamp,
    "cummax": _cumulative("cummax", lax.max, maximum),
    "cummin": _cumulative("cummin", lax.min, minimum),
    "reduce_window_max": _pool,
}
MENTIONED = frozenset(READERS.keys() - {"select_n"})
