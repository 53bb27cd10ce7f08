"""Modes of differentiation side by side: value, error, time and memory of each."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit._records import config
from nsimplicit._tree import is_float
from nsimplicit.derivatives import Derivative, Implicit, Neumann, OneStep, Piggyback, Unrolled

MODES = (Implicit(), Unrolled(100), Unrolled(100, checkpoint=True), Piggyback(), OneStep(), Neumann(20))


@config
class Comparison:
    """What :func:`compare` measured; printed, it is a table.

    Args:
        rows: one dictionary per derivative: ``name``; ``refused``, the reason where there is no
            derivative, else ""; ``mode``, "reverse" or "forward"; ``value`` and ``derivative``, NumPy
            arrays; ``error``, relative to the reference (absolute where that is 0); ``warm_ms`` and
            ``spread_ms``, median and interquartile range; ``compile_ms``, tracing included;
            ``temporary_mb``, in 10^6 bytes, nan where XLA does not tell.
    """

    rows: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        """The table."""
        cells = [[show(row) for show in _COLUMNS.values()] for row in self.rows if not row["refused"]]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
        lines = [list(_COLUMNS), ["-" * width for width in widths], *cells]
        refusals = [f"{row['name']}  refused: {row['refused']}" for row in self.rows if row["refused"]]
        return "\n".join([*("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines), *refusals])


def compare(
    fun: Callable[..., Any],
    *args: Any,
    derivatives: Sequence[Derivative] | Mapping[str, Derivative] = MODES,
    reference: Any = None,
    argnums: int | tuple[int, ...] = 0,
    repeats: int = 11,
) -> Comparison:
    """The derivative of one function in several modes: value, error, time, memory.

    Each mode is one compiled program that gives value and derivative: in reverse where the mode can,
    else forward. The memory is XLA's own account of the program's temporaries.

    Args:
        fun: ``fun(*args, derivative=d)``, a number or an array.
        *args: pytrees of arrays.
        derivatives: the modes; a mapping names them.
        reference: the true derivative, a pytree like ``jax.jacrev(fun, argnums)(*args)``. ``None``:
            the implicit one, in float64 even where JAX runs in float32, as far as ``fun`` follows its
            arguments there (an array that it makes in float32 by name stays float32).
        argnums: which arguments are differentiated.
        repeats: timed calls after the first, at least 2.

    Returns:
        A :class:`Comparison`. A mode that refuses is a row that says why.

    Raises:
        InputError: an integer argument to differentiate; a reference of another size.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> def solve(t, derivative):
        ...     return nsi.fixed_point(lambda z: jnp.cos(z) * t, jnp.ones_like(t), derivative=derivative).value
        >>> table = nsi.compare(solve, 1.0, derivatives=[nsi.derivatives.Implicit(), nsi.derivatives.OneStep()])
        >>> [(row["name"], round(row["error"], 2)) for row in table.rows]
        [('Implicit()', 0.0), ('OneStep()', 0.67)]
    """
    named = derivatives if isinstance(derivatives, Mapping) else {_name(d): d for d in derivatives}
    moving = [args[i] for i in ((argnums,) if isinstance(argnums, int) else argnums)]
    if not all(is_float(x) for x in jax.tree.leaves(moving)):
        dtypes = [str(jnp.result_type(x)) for x in jax.tree.leaves(moving)]
        raise InputError(
            message(
                f"compare(argnums={argnums})",
                f"the leaves to differentiate are of type {', '.join(dtypes)}.",
                "Only floating-point numbers can move.",
                "1.0 instead of 1",
                "argnums=..., the arguments to differentiate",
            )
        )
    if reference is None:
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: jnp.asarray(x, float) if is_float(x) else x, args)
            program, _ = _compile(fun, Implicit(), argnums, wide)
            _, reference = jax.device_get(program(*wide))
    return Comparison(tuple(_measure(name, d, fun, args, argnums, reference, repeats) for name, d in named.items()))


def _measure(name, derivative, fun, args, argnums, reference, repeats) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        program, mode = _compile(fun, derivative, argnums, args)
    except DerivativeError as refusal:
        return {"name": name, "refused": str(refusal)}
    compile_ms = 1e3 * (time.perf_counter() - began)
    value, slope = jax.device_get(program(*args))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(program(*args))
        times.append(1e3 * (time.perf_counter() - began))
    low, middle, high = map(float, np.percentile(times, (25, 50, 75)))
    memory = program.memory_analysis()
    return {
        "name": name,
        "refused": "",
        "mode": mode,
        "value": value,
        "derivative": slope,
        "error": _error(slope, reference),
        "warm_ms": middle,
        "spread_ms": high - low,
        "compile_ms": compile_ms,
        "temporary_mb": math.nan if memory is None else memory.temp_size_in_bytes / 1e6,
    }


def _compile(fun, derivative, argnums, args) -> tuple[Any, str]:
    """The program of value and derivative, and its mode: reverse, unless the derivative refuses."""

    def twice(*args: Any) -> tuple[Any, Any]:
        value = fun(*args, derivative=derivative)
        return value, value

    def program(transform: Callable[..., Any]) -> Any:
        both = transform(twice, argnums, has_aux=True)
        return jax.jit(lambda *args: both(*args)[::-1]).lower(*args).compile()

    # A Jacobian of one row or column would be a batch of one, and be timed as such.
    one_row = jax.eval_shape(twice, *args)[0].shape == ()
    one_column = isinstance(argnums, int) and _is_number(args[argnums])
    try:
        return program(jax.grad if one_row else jax.jacrev), "reverse"
    except DerivativeError as refusal:
        try:
            return program(_slope if one_column else jax.jacfwd), "forward"
        except DerivativeError:
            raise refusal from None


def _is_number(x: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(x)) and jnp.shape(x) == ()


def _slope(fun: Callable[..., Any], argnum: int, has_aux: bool) -> Callable[..., Any]:
    """``jax.jacfwd`` for one number as the argument: a single tangent."""
    assert has_aux

    def run(*args: Any) -> tuple[Any, Any]:
        def moved(x: jax.Array) -> Any:
            filled = list(args)
            filled[argnum] = x
            return fun(*filled)

        x = jnp.asarray(args[argnum])
        _, slope, value = jax.jvp(moved, (x,), (jnp.ones_like(x),), has_aux=True)
        return slope, value

    return run


def _error(found: Any, reference: Any) -> float:
    got, want = ([np.ravel(np.asarray(x, complex)) for x in jax.tree.leaves(tree)] for tree in (found, reference))
    sizes = [[x.size for x in leaves] for leaves in (got, want)]
    if sizes[0] != sizes[1]:
        raise InputError(
            message(
                "compare(reference=...)",
                f"the derivative has leaves of {sizes[0]} numbers, the reference of {sizes[1]}.",
                "They are compared leaf by leaf.",
                "a reference like jax.jacrev(fun, argnums)(*args)",
            )
        )
    scale = np.linalg.norm(np.concatenate(want))
    return float(np.linalg.norm(np.concatenate(got) - np.concatenate(want)) / (scale if scale > 0 else 1))


def _name(derivative: Derivative) -> str:
    """The derivative as a user would write it, without the defaults."""
    fields = dataclasses.fields(derivative) if dataclasses.is_dataclass(derivative) else ()
    changed = [f"{f.name}={v!r}" for f in fields if (v := getattr(derivative, f.name)) != f.default]
    return f"{type(derivative).__name__}({', '.join(changed)})"


def _value(row: Mapping[str, Any]) -> str:
    size = np.linalg.norm(np.ravel(row["value"]))
    return f"{row['value']:.6g}" if np.ndim(row["value"]) == 0 else f"norm {size:.6g}"


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "derivative": lambda row: row["name"],
    "mode": lambda row: row["mode"],
    "value": _value,
    "error": lambda row: f"{row['error']:.1e}",
    "warm ms": lambda row: f"{row['warm_ms']:.3g} ± {row['spread_ms']:.1g}",
    "compile ms": lambda row: f"{row['compile_ms']:.0f}",
    "temporary MB": lambda row: f"{row['temporary_mb']:.3g}",
}
