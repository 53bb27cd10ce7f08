"""The kinks of JAX's own operations, read as switches and orderings with JAX's selection.

Each entry says of one JAX primitive which switch, or which ordering, it is: the operands, and the
weight that makes the derivative JAX's own. An operation made of several kinks is rewritten as a
function of simpler ones. Nothing here evaluates a derivative; ``switch`` and ``ordering`` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import primitives
from nsimplicit.calculus.cell import Comparison
from nsimplicit.calculus.kink import Ordering, Switch

# Piecewise linear operations: a custom rule around these alone is a kink, around anything else a smooth function.
PIECEWISE = frozenset("max min abs select_n gt ge lt le".split())
SHAPES = frozenset("broadcast_in_dim convert_element_type copy pvary pcast".split())
MENTIONED = frozenset("switch ordering max min abs clamp reduce_max reduce_min sort top_k cummax cummin".split())


def maximum(operands: Sequence[Any], value: Any, **where: Any) -> Switch:
    """``lax.max``: shared equally at a tie."""
    x, y = operands
    return Switch(left=x, right=y, above=x, below=y, weight=0.5, value=value, at_nan="zero", explicit=False, **where)


def minimum(operands: Sequence[Any], value: Any, **where: Any) -> Switch:
    """``lax.min``: shared equally at a tie."""
    x, y = operands
    return Switch(left=y, right=x, above=x, below=y, weight=0.5, value=value, at_nan="zero", explicit=False, **where)


def absolute(operands: Sequence[Any], value: Any, **where: Any) -> Switch:
    """``lax.abs`` of a real array: +1 at 0."""
    (x,) = operands
    return Switch(left=x, right=0, above=x, below=-x, weight=1.0, value=value, at_nan="below", explicit=False, **where)


def where_sign(test: Comparison, on_false: Any, on_true: Any, value: Any, **where: Any) -> Switch:
    """``where(left op right, on_true, on_false)``; a tie takes what the comparison says of equal numbers."""
    upward = test.op in ("gt", "ge")
    above, below = (on_true, on_false) if upward else (on_false, on_true)
    left, right = (jnp.broadcast_to(x, jnp.shape(value)) for x in (test.left, test.right))
    return Switch(
        left=left,
        right=right,
        above=above,
        below=below,
        weight=1.0 if test.op in ("ge", "lt") else 0.0,
        value=value,
        at_nan="below" if upward else "above",  # a comparison with nan is false
        explicit=False,
        **where,
    )


ELEMENTWISE: dict[str, tuple[str, Callable[..., Switch]]] = {
    "max": ("maximum", maximum),
    "min": ("minimum", minimum),
    "abs": ("abs", absolute),
}


def reduction(operand: Any, axes: tuple[int, ...], value: Any, descending: bool, **where: Any) -> tuple[Ordering, Any]:
    """``reduce_max`` or ``reduce_min``: shared equally by all that tie; and what shapes its output."""
    rest = [i for i in range(operand.ndim) if i not in axes]
    key = operand.transpose(*rest, *axes).reshape(*(operand.shape[i] for i in rest), -1)
    ordering = Ordering(
        key=key,
        payload=key,
        value=value[..., None],
        permutation=(),
        axis=key.ndim - 1,
        tie="mean",
        descending=descending,
        start=0,
        stop=1,
        explicit=False,
        **where,
    )
    return ordering, lambda out: out[..., 0]


def sort(key: Any, payload: Any, value: Any, axis: int, **where: Any) -> Ordering:
    """One output of ``lax.sort``: ascending, stable."""
    params: dict[str, Any] = dict(axis=axis, tie="first", descending=False, start=0, stop=key.shape[axis])
    return Ordering(key=key, payload=payload, value=value, permutation=(), explicit=False, **params, **where)


def top_k(operand: Any, value: Any, index: Any, axis: int, **where: Any) -> Ordering:
    """The values of ``lax.top_k``."""
    params: dict[str, Any] = dict(axis=axis, tie="first", descending=True, start=0, stop=value.shape[axis])
    return Ordering(key=operand, payload=operand, value=value, permutation=(index,), explicit=False, **params, **where)


def rewrite(name: str, params: dict[str, Any]) -> tuple[str, Callable[..., Any]] | None:
    """An operation made of several kinks: its name here, and the same as a function of simpler ones."""
    if name == "clamp":

        def clamp(low: Any, x: Any, high: Any) -> jax.Array:
            inner = lax.max(*lax.stop_gradient((jnp.broadcast_to(low, x.shape), x)))
            value = lax.min(inner, lax.stop_gradient(jnp.broadcast_to(high, x.shape)))
            options: dict[str, Any] = dict(name="clamp", place="", weight=0.0, at_nan="zero", explicit=False)
            x = Switch(left=x, right=low, above=x, below=low, value=inner, **options).bind()
            return Switch(left=high, right=x, above=x, below=high, value=value, **options).bind()

        return "clamp", clamp
    if name in ("cummax", "cummin"):
        value, read = (lax.max, maximum) if name == "cummax" else (lax.min, minimum)

        def combine(x: Any, y: Any) -> jax.Array:
            return read((x, y), value(*lax.stop_gradient((x, y))), name=name, place="").bind()

        return name, lambda x: lax.associative_scan(combine, x, reverse=params["reverse"], axis=params["axis"])
    if name == "reduce_window_max" and set(params["base_dilation"]) | set(params["window_dilation"]) == {1}:
        window, strides, padding = (params[k] for k in ("window_dimensions", "window_strides", "padding"))
        return "max_pool", lambda x: primitives.max_pool(x[..., None], window, strides, padding)[..., 0]
    return None


def rule(eqn: Any) -> tuple[str, Callable[..., Any]] | None:
    """The kink that a custom derivative rule is wrapped around: ``jax.nn.relu`` or ``jax.nn.relu6``.

    The rule has to be JAX's as well: a straight-through estimator has the same values.
    """
    steps = list(_flat(eqn.params["call_jaxpr"]))
    if len(eqn.invars) != 1 or any(name not in PIECEWISE for name, _ in steps):
        return None
    found = [(name, numbers) for name, numbers in steps if name in ELEMENTWISE]
    for name, kinks in (("relu", [("max", (0.0,))]), ("relu6", [("max", (0.0,)), ("min", (6.0,))])):
        if found == kinks and _derivative(eqn, _itself(eqn)) == _derivative(eqn, getattr(jax.nn, name)):
            return name, getattr(primitives, name)
    return None


def _itself(eqn: Any) -> Callable[[Any], Any]:
    return lambda x: eqn.primitive.bind(x, **eqn.primitive.get_bind_params(eqn.params))[0]


def _derivative(eqn: Any, fun: Callable[[Any], Any]) -> list[Any]:
    """What the derivative of a function computes at the argument of an equation."""
    aval = eqn.invars[0].aval
    return list(_flat(jax.make_jaxpr(lambda x, t: jax.jvp(fun, (x,), (t,)))(aval, aval)))


def mentions_kinks(jaxpr: Any) -> bool:
    """Whether a kink of JAX's or of this package's stands in a jaxpr; whatever is no jaxpr has none."""
    if isinstance(jaxpr, tuple | list):
        return any(map(mentions_kinks, jaxpr))
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return hasattr(jaxpr, "eqns") and any(
        eqn.primitive.name in MENTIONED or any(map(mentions_kinks, eqn.params.values())) for eqn in jaxpr.eqns
    )


def _flat(jaxpr: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The operations of a jaxpr but for those on shapes, each with the numbers written in it."""
    known: dict[Any, Any] = {}
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = eqn.primitive.name
        if name in ("jit", "pjit"):
            yield from _flat(eqn.params["jaxpr"])
            continue
        found = (v.val if hasattr(v, "val") else known.get(v) for v in eqn.invars)
        numbers = tuple(x for x in found if x is not None and np.ndim(x) == 0)
        if name not in SHAPES:
            yield name, numbers
        elif numbers:
            known[eqn.outvars[0]] = numbers[0]
