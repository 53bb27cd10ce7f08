"""Checks of a function with a prox, or of a set, for the packages that define their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from nsimplicit.prox.base import Function, Set, require_function
from nsimplicit.testing import prox_laws as laws
from nsimplicit.testing.case import Case, itself
from nsimplicit.testing.precision import require_64


def check_prox(
    g: Function,
    points: Sequence[Any],
    *,
    step: float = 0.5,
    kinks: Sequence[tuple[Any, list[np.ndarray]]] = (),
    value: Callable[[Any], Any] | None = None,
    prox: Callable[[Any, float], Any] | None = None,
    space: Callable[[Any], Any] = itself,
) -> None:
    """Raise unless a function obeys the laws of a prox at these points.

    The prox minimises; it is firmly nonexpansive, with the constants the object states; the conjugate
    of the conjugate has the same prox; its Jacobian is symmetric with spectrum in [0, 1] for every
    selection, the same in both modes, and the difference quotient in point, step and every array leaf;
    around a kink its limits are the vertices given, and selections give these or mixtures of them; a
    gradient is the difference of values, as steep as the constants state; jit and vmap change nothing;
    float32 and bfloat16 stay near. Where g is not convex: only what still holds.

    Args:
        g: the object; its array leaves are its parameters. A field ``selection``, where it has one, is tried.
        points: where the prox is smooth, in float64 (``jax.config.update("jax_enable_x64", True)``).
        step: of the prox.
        kinks: pairs of a point and the vertices of the Clarke Jacobian of the prox there.
        value: ``value(x)`` by other means.
        prox: ``prox(x, step)`` by other means; derivatives are not compared with it but with ``g.prox``.
        space: the projection on the space where g lives, e.g. symmetric matrices.

    Raises:
        AssertionError: a law fails; the message names it.
        InputError: 64-bit numbers are off, or g is not a function with a prox.

    Example:
        >>> import jax, numpy as np, nsimplicit as nsi
        >>> with jax.enable_x64(True):
        ...     nsi.testing.check_prox(nsi.prox.L1(0.7), [np.array([0.9, -1.7, 0.1])])
    """
    require_function(g, "check_prox")
    require_64("check_prox")
    case = _case(g, points, step, kinks, value, prox, space)
    smooth = (laws.ascends,) if g.is_smooth and g.is_convex else ()
    for law in (*laws.FOR_ALL, *(laws.FOR_CONVEX if g.is_convex else ()), *smooth):
        law(case)


def check_projection(
    constraint: Set,
    points: Sequence[Any],
    *,
    kinks: Sequence[tuple[Any, list[np.ndarray]]] = (),
    project: Callable[[Any], Any] | None = None,
    space: Callable[[Any], Any] = itself,
) -> None:
    """Raise unless a set and its projection obey the laws: those of :func:`check_prox`, and two more.

    The projection is in the set, and is its own projection, whatever the step.

    Args:
        constraint: the set.
        points: as in :func:`check_prox`.
        kinks: as in :func:`check_prox`.
        project: the projection by other means.
        space: as in :func:`check_prox`.

    Raises:
        AssertionError: a law fails; the message names it.

    Example:
        >>> import jax, numpy as np, nsimplicit as nsi
        >>> with jax.enable_x64(True):
        ...     nsi.testing.check_projection(nsi.prox.Box(-1.0, 1.0), [np.array([2.0, 0.3])])
    """
    other = None if project is None else lambda x, step: project(x)
    check_prox(constraint, points, kinks=kinks, prox=other, space=space)
    laws.projects(_case(constraint, points, 0.5, kinks, None, other, space))


def _case(g: Function, points: Any, step: float, kinks: Any, value: Any, prox: Any, space: Any) -> Case:
    """The object as a function of its array leaves and its selection."""
    leaves, tree = jax.tree.flatten(g)
    selects = dataclasses.is_dataclass(g) and "selection" in {field.name for field in dataclasses.fields(g)}

    def make(*params: Any, selection: Any = None) -> Function:
        made: Any = tree.unflatten(params)
        return made if selection is None else dataclasses.replace(made, selection=selection)

    return Case(
        type(g).__name__,
        make,
        value and (lambda x, *params: value(x)),
        prox and (lambda x, step, *params: prox(x, step)),
        tuple(points),
        tuple(leaves),
        tuple(kinks),
        step,
        selects,
        space,
        own_differences=True,
    )
