"""What a replay carries along with each value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nsimplicit._records import record

NEGATED = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}


@record
class Comparison:
    """Where a boolean array came from: ``left op right`` for real arrays, broadcast alike."""

    left: Any
    right: Any
    op: str

    def through(self, move: Callable[[Any], Any]) -> Comparison:
        """The same comparison after moving entries around."""
        return Comparison(move(self.left), move(self.right), self.op)

    def negated(self) -> Comparison:
        """The opposite comparison (where neither operand is nan)."""
        return Comparison(self.left, self.right, NEGATED[self.op])


@record
class Cell:
    """A value, whether a derivative flows into it, and, for a boolean, the comparison it came from."""

    value: Any
    live: bool = False
    test: Comparison | None = None


def pack(cells: Sequence[Cell]) -> tuple[list[Any], tuple[Any, ...]]:
    """The arrays in some cells, and what is static about them."""
    arrays = [(c.value, None if c.test is None else (c.test.left, c.test.right)) for c in cells]
    return arrays, tuple((c.live, None if c.test is None else c.test.op) for c in cells)


def unpack(arrays: Sequence[Any], kinds: Sequence[Any]) -> list[Cell]:
    """The cells that :func:`pack` took apart."""
    cells = []
    for (value, test), (live, op) in zip(arrays, kinds, strict=True):
        cells.append(Cell(value, live, None if op is None else Comparison(*test, op=op)))
    return cells
