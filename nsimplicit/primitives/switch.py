"""The one nonsmooth primitive: two smooth branches that agree where they meet.

``switch_p`` has six operands, all of one shape (``weight`` may also be a scalar):

    left, right    real; the kink is where they are equal
    above, below   the branch where left > right, and the branch where left < right
    weight         the selection: what ``above`` weighs at the kink, the rest goes to ``below``
    value          the result, computed beforehand, so that it is JAX's own bit for bit

The primitive *is* ``value``: it lowers to nothing, and XLA drops the other operands from a forward
pass. They are there to be read: by the derivative rule below, and by whoever reads the jaxpr.
Comparing ``left`` and ``right``, rather than the sign of ``left - right``, keeps -0.0, does not
flush small differences into false ties, and lets infinities be equal.

The rule is built from selects, hence linear in the tangents, transposable, and differentiable again:

    value' = above'                      where left > right, or at the kink when weight = 1
             below'                      where left < right, or at the kink when weight = 0
             s·above' + (1-s)·below'     at the kink otherwise
             see ``at_nan``              where left or right is nan

Folding the pure selections into the branches is not only cheaper: ``0·above'`` would be nan where
``above'`` is infinite, as for ``switch(x, sqrt(x), 0)`` at 0.

Three static parameters: ``name`` is the operation, for reports and mappings. ``at_nan`` is the rule
the operation has in JAX: ``"above"``, ``"below"``, ``"zero"``, or ``"nan"`` (a nan is neither kink
nor branch, so the generic ``switch`` propagates it). ``explicit`` tells a weight the user asked for
from a default, which a surrounding program may replace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src import core as _core
from jax._src.interpreters.partial_eval import DynamicJaxprTrace
from jax.core import Tracer
from jax.interpreters import ad, batching, mlir

from nsimplicit import selections
from nsimplicit._errors import InputError, message

__all__ = ["switch"]

switch_p = _core.Primitive("switch")
Zero: Any = ad.Zero  # untyped in JAX


def compiled(*static: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for eager calls; inside a program that is being traced, trace it in place.

    An eager call then costs one dispatch. A nested ``jit`` would hide from the surrounding program
    that a weight is a known number, and its cached jaxpr names the source line of its first caller.
    """

    def wrap(fun: Callable[..., Any]) -> Callable[..., Any]:
        jitted = jax.jit(fun, static_argnames=static)

        @functools.wraps(fun)
        def call(*args: Any, **kwargs: Any) -> Any:
            traces = _core.unsafe_get_trace_stack(_core.trace_ctx.trace)
            return (fun if any(isinstance(t, DynamicJaxprTrace) for t in traces) else jitted)(*args, **kwargs)

        return call

    return wrap


def bind(*operands: Any, name: str, explicit: bool, at_nan: str = "nan") -> jax.Array:
    """Bind ``switch_p``, giving every operand the shape, sharding and varying axes of ``value``.

    Operands are cast as well: ``above`` and ``below`` to the dtype of ``value``, ``weight`` to its
    real dtype, ``right`` to the dtype of ``left``. A scalar weight stays one.
    """
    left, right, above, below, weight, value = operands
    value = lax.stop_gradient(jnp.asarray(value))
    left = jnp.asarray(left)
    right = _cast(right, left.dtype)
    above, below = (_cast(x, value.dtype) for x in (above, below))
    left, right, above, below = (spread(x, value) for x in (left, right, above, below))
    weight = _cast(weight, jnp.finfo(value.dtype).dtype)
    if np.ndim(weight):
        selections.fits(weight, value.shape, name)
        weight = spread(weight, value)
    joined = _core.auto_insert_reshard(left, right, above, below, weight, value)
    return switch_p.bind(*joined, name=name, explicit=explicit, at_nan=at_nan)


def _cast(x: Any, dtype: Any) -> Any:
    """Cast; a Python or NumPy scalar stays a NumPy one, so that a jaxpr keeps it as a literal."""
    known = np.ndim(x) == 0 and not isinstance(x, jax.Array)
    return np.asarray(x, dtype)[()] if known else lax.convert_element_type(x, dtype)


def spread(x: Any, like: jax.Array) -> jax.Array:
    """Broadcast to the shape and sharding of ``like``."""
    if isinstance(x, jax.Array) and x.shape == like.shape:
        return x
    sharding = jax.typeof(like).sharding
    explicit = not sharding.mesh.empty and sharding.mesh._any_axis_explicit
    return jnp.broadcast_to(x, like.shape, out_sharding=sharding if explicit else None)


switch_p.def_impl(lambda *operands, **params: operands[-1])
mlir.register_lowering(switch_p, lambda ctx, *operands, **params: [operands[-1]])


@switch_p.def_abstract_eval
def _abstract_eval(left: Any, right: Any, above: Any, below: Any, weight: Any, value: Any, **params: Any) -> Any:
    _core.standard_vma_rule("switch", left, right, above, below, weight, value)
    shapes = {x.shape for x in (left, right, above, below, value)}
    assert shapes == {value.shape} and weight.shape in ((), value.shape), (params, shapes, weight.shape)
    assert left.dtype == right.dtype and above.dtype == below.dtype == value.dtype, params
    assert params["at_nan"] in ("above", "below", "zero", "nan"), params
    return value


def _batch(lane: Any, operands: Any, dims: Any, **params: Any) -> tuple[Any, int | None]:
    if all(dim is None for dim in dims):  # nothing is mapped: a primal under vmap of a jvp stays unbatched
        return switch_p.bind(*operands, **params), None
    one_for_all = dims[4] is None and np.ndim(operands[4]) == 0
    *rest, weight, value = (
        x if i == 4 and one_for_all else batching.bdim_at_front(x, dim, lane.size, lane.explicit_mesh_axis)
        for i, (x, dim) in enumerate(zip(operands, dims, strict=True))
    )
    if 0 < np.ndim(weight) < np.ndim(value):  # a scalar for each lane
        weight = spread(lax.expand_dims(weight, range(1, np.ndim(value))), value)
    return switch_p.bind(*rest, weight, value, **params), 0


batching.fancy_primitive_batchers[switch_p] = _batch


def _jvp(primals: Any, tangents: Any, *, at_nan: str, **params: Any) -> tuple[Any, Any]:
    out = switch_p.bind(*primals, at_nan=at_nan, **params)
    left, right, _, _, weight, _ = primals
    above, below = tangents[2:4]
    known = None if np.ndim(weight) or isinstance(weight, Tracer) else float(weight)
    if type(above) is not Zero and type(below) is not Zero and known in (0.0, 1.0) and at_nan in ("above", "below"):
        return out, lax.select(_takes(left, right, weight, known, at_nan), above, below)
    other = {"above": "below", "below": "above"}.get(at_nan, at_nan)
    sides = (
        (above, left, right, weight, known, at_nan),
        (below, right, left, 1 - weight, None if known is None else 1 - known, other),
    )
    parts = [_part(*side) for side in sides if type(side[0]) is not Zero]
    return out, sum(parts[1:], parts[0]) if parts else Zero(jax.typeof(out).to_tangent_aval())


ad.primitive_jvps[switch_p] = _jvp


def _part(tangent: Any, ours: Any, theirs: Any, weight: Any, known: float | None, at_nan: str) -> Any:
    """What one branch adds to the tangent, written for the branch above.

    A factor inside a mask, and both of this branch only: what the two branches shared would be a
    kernel of its own after XLA.
    """
    at_neither = {"nan": np.nan, "zero": 0}.get(at_nan)  # times the tangent, as in JAX: 0·nan is nan
    if known not in (0.0, 1.0) or at_neither is not None:
        one = lax.full_like(tangent, 1, jnp.finfo(tangent.dtype).dtype)
        # Finite in the other branch: a transposed select hands zeros down here, and 0·nan is nan.
        rest = one if at_neither is None else lax.select(lax.gt(ours, theirs), one, at_neither * one)
        tangent = tangent * lax.select(lax.le(ours, theirs), lax.stop_gradient(weight) * one, rest)
    return lax.select(_takes(ours, theirs, weight, known, at_nan), tangent, lax.full_like(tangent, 0))


def _takes(ours: Any, theirs: Any, weight: Any, known: float | None, at_nan: str) -> Any:
    """Where a branch has a part in the derivative: not where it would be multiplied by zero.

    A weight known to be 0 or 1 moves the kink into a comparison, and the rule becomes the one JAX
    writes by hand: the derivative of relu is ``select(x > 0, x', 0)``.
    """
    with_nan = at_nan != "below"
    over = ~lax.le(ours, theirs) if with_nan else lax.gt(ours, theirs)
    if known is None:
        return over | (lax.eq(ours, theirs) & (weight > 0))
    return over if known == 0 else ~lax.lt(ours, theirs) if with_nan else lax.ge(ours, theirs)


def switch(u: Any, above: Any, below: Any, *, selection: Any = None, value: Any = None) -> jax.Array:
    """Two smooth branches that agree where u = 0.

    Formula:
        switch(u, above, below) = above where u > 0, below where u <= 0, nan where u is nan; where
        u = 0 the two are equal, and the derivative is s·above' + (1-s)·below'.

    Args:
        u: real array; its sign picks the branch.
        above: array, the branch where u > 0.
        below: array, the branch where u < 0. All three broadcast; the result has the promoted dtype
            of the branches. Both branches should be finite everywhere, also where they are not used.
        selection: the weight s in [0, 1] on ``above`` at the kink, a number or an array; or
            ``"above"`` (1), ``"below"`` (0), ``"mean"`` (0.5). A traced weight is clipped to [0, 1].
        value: the result, if you have it already; it is not differentiated.

    Returns:
        An array of the common shape. Integer branches have no derivative: a plain ``where``.

    Raises:
        InputError: a branch that is a function or a list, a complex u, a selection that does not fit.

    Kinks:
        Where u = 0. The set: {s·above' + (1-s)·below', 0 ≤ s ≤ 1}. Default s = 0, the derivative
        JAX gives to ``where(u > 0, above, below)``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import switch
        >>> positive_part = lambda x: switch(x, x, 0.0, selection=0.25)
        >>> float(jax.grad(positive_part)(0.0))
        0.25
    """
    for what, branch in (("above", above), ("below", below)):
        if callable(branch) or isinstance(branch, list | tuple):
            raise InputError(
                message(
                    "switch(u, above, below)",
                    f"`{what}` is a {type(branch).__name__}, not an array.",
                    "This switch takes the values of its two branches: did you mean jax.lax.switch?",
                    "jax.lax.switch(index, branches, *operands), to run one of several functions",
                    "switch(u, above(x), below(x)), for a kink where u = 0",
                )
            )
    if jnp.iscomplexobj(u):
        found = f"u has dtype {jnp.result_type(u)}."
        meaning = "The branch is picked by the sign of u, and complex numbers have none."
        raise InputError(message("switch(u, above, below)", found, meaning, "pass a real u, such as jnp.real(u)"))
    weight = selections.weight(selection, 0.0, "switch")
    return switch_as(u, above, below, weight, value, selection is not None, "switch")


@compiled("explicit", "name")
def switch_as(u: Any, above: Any, below: Any, weight: Any, value: Any, explicit: bool, name: str) -> jax.Array:
    u = jnp.asarray(u)
    if value is None:
        sign, *branches = lax.stop_gradient((u, above, below))
        value = jnp.where(sign > 0, *branches)
        if jnp.issubdtype(u.dtype, jnp.inexact) and jnp.issubdtype(value.dtype, jnp.inexact):
            value = jnp.where(jnp.isnan(sign), jnp.nan, value)
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    return bind(u, 0, above, below, weight, value, name=name, explicit=explicit)
