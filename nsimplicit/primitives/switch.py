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
    live = [type(tangent) is not Zero for tangent in tangents[2:4]]
    if not any(live):
        return out, Zero(jax.typeof(out).to_tangent_aval())
    known = None if np.ndim(weight) or isinstance(weight, Tracer) else float(weight)
    is_above, is_below = _branches(left, right, weight, known, at_nan)
    rest = zero = lax.full_like(tangents[2] if live[0] else tangents[3], 0)
    above, below = (tangent if is_live else zero for tangent, is_live in zip(tangents[2:4], live, strict=True))
    if at_nan in ("above", "below") and known in (0.0, 1.0):  # no third case: reverse mode keeps one mask
        return out, lax.select(is_above, above, below)
    weight = lax.stop_gradient(weight)
    shares = [weight, 1 - weight]
    if at_nan in ("zero", "nan"):
        # Zero on the branches: a transposed select hands zeros down here, and 0·nan is nan.
        off = jnp.where(is_above | is_below, 0, 0 if at_nan == "zero" else np.nan).astype(weight.dtype)
        shares = [jnp.where(lax.eq(left, right), share, off) for share in shares]
    for share, tangent in zip(shares, (above, below), strict=True):
        if tangent is not zero:
            rest = share * tangent if rest is zero else rest + share * tangent
    return out, lax.select(is_above, above, lax.select(is_below, below, rest))


ad.primitive_jvps[switch_p] = _jvp


def _branches(left: Any, right: Any, weight: Any, known: float | None, at_nan: str) -> tuple[Any, Any]:
    """Where the tangent is that of ``above`` alone, and where it is that of ``below`` alone.

    A weight known to be 0 or 1 moves the kink into a comparison, and the rule becomes the one JAX
    writes by hand: the derivative of relu is ``select(x > 0, x', 0)``.
    """
    if known is None:
        kink = lax.eq(left, right)
        is_above = lax.gt(left, right) | (kink & (weight == 1))
        is_below = lax.lt(left, right) | (kink & (weight == 0))
        nan = ~(lax.le(left, right) | lax.gt(left, right))
        return is_above | nan if at_nan == "above" else is_above, is_below | nan if at_nan == "below" else is_below
    above, not_above = (lax.ge, lax.lt) if known == 1 else (lax.gt, lax.le)
    below, not_below = (lax.le, lax.gt) if known == 0 else (lax.lt, lax.ge)
    return (
        ~not_above(left, right) if at_nan == "above" else above(left, right),
        ~not_below(left, right) if at_nan == "below" else below(left, right),
    )


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
    return _switch(u, above, below, weight, value, selection is not None)


@compiled("explicit")
def _switch(u: Any, above: Any, below: Any, weight: Any, value: Any, explicit: bool) -> jax.Array:
    u = jnp.asarray(u)
    if value is None:
        sign, *branches = lax.stop_gradient((u, above, below))
        value = jnp.where(sign > 0, *branches)
        if jnp.issubdtype(u.dtype, jnp.inexact) and jnp.issubdtype(value.dtype, jnp.inexact):
            value = jnp.where(jnp.isnan(sign), jnp.nan, value)
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    return bind(u, 0, above, below, weight, value, name="switch", explicit=explicit)
