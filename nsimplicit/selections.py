"""Selections: which derivative a program takes where it has more than one.

A scalar kink has two branches, and a selection is a weight s in [0, 1] on the branch called *above*
(each function says which that is): the derivative is ``s * above' + (1 - s) * below'``. Ties, as in
``max`` or ``sort``, are broken by a name. The norm takes a vector of the unit ball at 0.

A *preset* is a mapping from operation to selection. ``jax`` holds the defaults of this package,
which are JAX's own derivatives; ``torch`` holds what PyTorch's formulas return at the same points.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nsimplicit._errors import InputError, message

__all__ = ["Along", "jax", "torch"]

BRANCHES: Mapping[str, float] = types.MappingProxyType({"above": 1.0, "below": 0.0, "mean": 0.5})
"""Names for the weight on the branch above."""

BOUNDS: tuple[Mapping[str, float], Mapping[str, float]] = (
    types.MappingProxyType({"inside": 1.0, "outside": 0.0, "mean": 0.5, "above": 1.0, "below": 0.0}),
    types.MappingProxyType({"inside": 1.0, "outside": 0.0, "mean": 0.5, "above": 0.0, "below": 1.0}),
)
"""Names for the weight on x at a lower and at an upper bound; inside is x, outside the bound."""

TIES: tuple[str, ...] = ("first", "last", "mean")
"""Names for what a block of equal keys does."""

jax: Mapping[str, Any] = types.MappingProxyType(
    {
        "switch": 0.0,
        "relu": 0.0,
        "relu6": 0.0,
        "leaky_relu": 1.0,
        "hard_tanh": 1.0,
        "abs": 1.0,
        "maximum": 0.5,
        "minimum": 0.5,
        "clip": 0.5,
        "soft_threshold": 0.0,
        "max": "mean",
        "min": "mean",
        "sort": "jax",  # "first" when ascending, "last" when descending
        "top_k": "first",
        "median": "first",
        "max_pool": "first",
        "norm": "zero",
    }
)
"""The defaults: JAX's own derivatives at a kink (norm: zero, where JAX has nan)."""

torch: Mapping[str, Any] = types.MappingProxyType(
    {
        **jax,
        "leaky_relu": 0.0,
        "hard_tanh": 0.0,
        "abs": 0.5,
        "clip": "inside",
        "sort": "first",
    }
)
"""PyTorch's derivatives at a kink, from its derivative formulas."""


class Along:
    """The branches entered along a direction, for :func:`nsimplicit.with_selection`.

    A limiting Jacobian of the function itself, whatever program computes it: ties are broken by the
    next direction, and in the end by one fixed generic direction. Inside an implicit layer they are the
    branches its solution enters, so that the Jacobian times the direction is the one-sided derivative. Kinks
    inside while loops and ``shard_map``, and in an equation that sorts, keep the selection they have.

    Args:
        tangents: tuple of directions, one for each argument of the function, as in ``jax.jvp``.
        more: further directions, each like ``tangents``.

    Example:
        >>> import jax, nsimplicit as nsi
        >>> zero = lambda x: nsi.relu(-x) + x - nsi.relu(x)
        >>> float(jax.grad(zero)(0.0)), float(jax.grad(nsi.with_selection(zero, nsi.Along((1.0,))))(0.0))
        (1.0, 0.0)

    References:
        Khan, Barton, Evaluating an element of the Clarke generalized Jacobian (2013).
    """

    def __init__(self, tangents: tuple[Any, ...], *more: tuple[Any, ...]) -> None:
        self.tangents, self.more = tangents, more


def weight(selection: Any, default: float, where: str, names: Mapping[str, float] = BRANCHES) -> Any:
    """The weight on the branch above that a selection of a scalar kink stands for.

    Args:
        selection: ``None``, a name, or a number or array in [0, 1].
        default: the weight that ``None`` or ``"jax"`` means.
        where: the function asking, for the error.
        names: the legal names and their weights.

    Returns:
        A Python float, a NumPy array, or, for a traced selection, a tracer clipped to [0, 1].

    Raises:
        InputError: an unknown name, a weight outside [0, 1] or nan, or not a real number.
    """
    if selection is None:
        return default
    if isinstance(selection, str):
        legal = {"jax": default, **names}
        if selection in legal:
            return legal[selection]
    elif isinstance(selection, Tracer):
        if jnp.issubdtype(selection.dtype, jnp.floating):
            one = np.ones((), selection.dtype)
            return lax.clamp(0 * one, lax.stop_gradient(selection), one)
    else:
        number = _real(selection)
        if number is not None and np.all((number >= 0) & (number <= 1)):
            return float(number) if number.ndim == 0 else number
    raise InputError(
        message(
            f"{where}(selection={_shown(selection)})",
            "a scalar kink takes a weight in [0, 1] or one of " + ", ".join(map(repr, ["jax", *names])) + ".",
            "At the kink the derivative is s·above' + (1-s)·below'; outside [0, 1] that is no derivative at all.",
            f"selection={default:g}, the default, or leave it out",
            "selection=0.5, the middle of the two branches",
        )
    )


def fits(weight: Any, shape: tuple[int, ...], where: str) -> None:
    """Raise unless an array of weights broadcasts to the shape of the result."""
    try:
        if np.broadcast_shapes(weight.shape, shape) == shape:
            return
    except ValueError:
        pass
    raise InputError(
        message(
            f"{where}(selection=...)",
            f"the selection has shape {weight.shape}, the result has shape {shape}.",
            "An array of weights gives one to each entry of the result, so it must broadcast to its shape.",
            f"a selection of shape {shape}",
            "one number for all entries, such as selection=0.5",
        )
    )


def pair(selection: Any, default: float, where: str) -> tuple[Any, Any]:
    """The weights on x at a lower and at an upper bound; a pair sets them separately."""
    lower, upper = selection if isinstance(selection, tuple | list) and len(selection) == 2 else (selection, selection)
    return weight(lower, default, where, BOUNDS[0]), weight(upper, default, where, BOUNDS[1])


def tie(selection: Any, default: str, where: str, argument: str = "selection") -> str:
    """The name of a way to break ties.

    Args:
        selection: ``None``, ``"jax"`` or one of ``"first"``, ``"last"``, ``"mean"``.
        default: what ``None`` and ``"jax"`` mean.
        where: the function asking, for the error.
        argument: what it calls the selection.

    Returns:
        One of :data:`TIES`.

    Raises:
        InputError: anything else.
    """
    if selection is None:
        return default
    if isinstance(selection, str) and selection in ("jax", *TIES):
        return default if selection == "jax" else selection
    raise InputError(
        message(
            f"{where}({argument}={_shown(selection)})",
            "ties are broken by one of " + ", ".join(map(repr, ["jax", *TIES])) + ".",
            "Equal keys are ordered by position (first, last), or all of them share the derivative equally (mean).",
            f"{argument}={default!r}",
            f"{argument}='mean', the middle of all the ways to break the tie",
        )
    )


def _shown(selection: Any) -> str:
    return repr(selection) if isinstance(selection, str | bool | int | float | complex) else type(selection).__name__


def _real(selection: Any) -> np.ndarray | None:
    """A concrete selection as a NumPy array, or None where it is not made of real numbers."""
    try:
        number = np.asarray(selection)
    except (TypeError, ValueError):
        return None
    if number.dtype.name == "bfloat16":
        number = number.astype(np.float32)
    return number if number.dtype.kind in "fiu" else None
