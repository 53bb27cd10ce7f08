"""A report on the kinks of a program at a point: which, where, and how near."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit.calculus.injection import Kinked
from nsimplicit.calculus.kink import Opaque
from nsimplicit.calculus.program import trace


@config
class KinkRow:
    """One kink operation of a program.

    Args:
        operation: its name, as in a selection preset.
        place: source line.
        shape: the shape of its entries, loops around it first.
        size: how many switches it holds.
        num_active: how many of them are within the tolerance of their kink.
        num_jumps: how many active ones have branches that do not agree.
        distance: the smallest ``abs(left - right)``, in the units of the operands.
        relative: the same relative to the largest operand.
    """

    operation: str
    place: str
    shape: tuple[int, ...]
    size: int
    num_active: int
    num_jumps: int
    distance: float
    relative: float


@config
class KinkReport:
    """What :func:`kinks` found; prints as a table, nearest kinks first.

    Args:
        rows: one :class:`KinkRow` for each kink operation.
        opaque: what was left as it is, and why.
        tolerance: relative distance within which a kink counts as active.
        num_crowded: orderings in which more than six keys tie.
    """

    rows: tuple[KinkRow, ...]
    opaque: tuple[Opaque, ...]
    tolerance: float
    num_crowded: int

    @property
    def num_active(self) -> int:
        """The number of active switches."""
        return sum(row.num_active for row in self.rows)

    @property
    def num_jumps(self) -> int:
        """The number of active switches whose branches do not agree."""
        return sum(row.num_jumps for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        plain = {"tolerance": self.tolerance, "num_active": self.num_active, "num_jumps": self.num_jumps}
        rows = [{name: getattr(row, name) for name in KinkRow.__dataclass_fields__} for row in self.rows]
        return plain | {"rows": rows, "opaque": [vars(x) for x in self.opaque]}

    def __str__(self) -> str:
        """A table."""
        lines = [self._summary()]
        if self.rows:
            cells = [_HEADER, *map(_cells, self.rows)]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines += [f"  kept as it is: {x.name} at {x.place}: {x.reason}" for x in self.opaque]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(_html_row(_cells(row), "td") for row in self.rows)
        kept = "".join(f"<li>{html.escape(f'{x.name} at {x.place}: {x.reason}')}</li>" for x in self.opaque)
        kept = f"<p>kept as it is</p><ul>{kept}</ul>" if kept else ""
        return f"<p>{html.escape(self._summary())}</p><table>{_html_row(_HEADER, 'th')}{rows}</table>{kept}"

    def _summary(self) -> str:
        if not self.rows:
            return "no kinks"
        size = sum(row.size for row in self.rows)
        text = f"{self.num_active} of {size} switches within {self.tolerance:.0e} of a kink"
        text += f", {self.num_jumps} of them jumps" if self.num_jumps else ""
        return text + (f"; more than six keys tie in {self.num_crowded} orderings" if self.num_crowded else "")


_HEADER = ("operation", "where", "shape", "active", "nearest", "relative")


def _cells(row: KinkRow) -> tuple[str, ...]:
    active = f"{row.num_active}" + (f" ({row.num_jumps} jumps)" if row.num_jumps else "")
    shape = "x".join(map(str, row.shape)) or "scalar"
    return row.operation, row.place, shape, active, f"{row.distance:.1e}", f"{row.relative:.1e}"


def _html_row(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def kinks(fun: Callable[..., Any], *, tolerance: float | None = None) -> Callable[..., KinkReport]:
    """Which kinks a program has at a point, and how near it is to each.

    Args:
        fun: function of pytrees of arrays.
        tolerance: a kink is active where its operands differ by at most this times the largest
            operand; default the square root of the dtype's eps. Dimensionless.

    Returns:
        A function of the same arguments, called with concrete values, returning a :class:`KinkReport`.

    Raises:
        InputError: called with traced values.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> report = nsi.kinks(lambda x: nsi.relu(x) + jnp.abs(x - 1))(jnp.array([0.0, 2.0]))
        >>> [(row.operation, row.num_active, row.distance) for row in report.rows]
        [('relu', 1, 0.0), ('abs', 0, 1.0)]
    """

    def at(*args: Any) -> KinkReport:
        vector, unravel = ravel_pytree([x for x in jax.tree.leaves(args) if _is_float(x)])
        if isinstance(vector, Tracer):
            found = "the point is traced (inside jit, vmap or grad)."
            meaning = "A report is text about numbers, which are not known yet."
            raise InputError(message("kinks(fun)(x)", found, meaning, "call it outside jit, on concrete values"))
        near = float(np.sqrt(jnp.finfo(vector.dtype).eps)) if tolerance is None else tolerance

        def flat(vector: jax.Array) -> Any:
            floats = iter(unravel(vector))
            return fun(*jax.tree.map(lambda x: next(floats) if _is_float(x) else x, args))

        program = trace(flat, vector)
        kinked = Kinked(program, tolerance=near)
        survey = jax.tree.map(np.asarray, jax.jit(kinked.survey)(program.consts, [vector]))
        relative = survey.distance / np.where(survey.scale > 0, survey.scale, 1)
        active = survey.distance <= near * survey.scale
        jumps = active & (survey.gap > 100 * near)
        rows, at = [], 0
        for site, size in zip(kinked.sites, kinked.sizes, strict=True):
            own = slice(at, at + size)
            at += size
            if not size:
                continue
            counts = int(active[own].sum()), int(jumps[own].sum())
            nearest = float(survey.distance[own].min()), float(relative[own].min())
            rows.append(KinkRow(site.name, site.place, site.shape, size, *counts, *nearest))
        rows.sort(key=lambda row: row.relative)
        return KinkReport(tuple(rows), tuple(kinked.opaque), near, int((survey.crowd <= near).sum()))

    return at


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
