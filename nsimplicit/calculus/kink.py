"""What a replay finds: switches and orderings, as data, and what a treatment of them is."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from nsimplicit._records import config, record
from nsimplicit.calculus.layer import Layer
from nsimplicit.primitives.ordering import bind as bind_ordering
from nsimplicit.primitives.switch import bind as bind_switch


@record
class Switch:
    """One switch met in a program; the fields are the operands and parameters of ``switch_p``.

    Args:
        name: the operation, as in a preset: ``"relu"``, ``"maximum"``, ``"where"`` ...
        place: source line, ``"model.py:12"``.
        flipped: the branch above is taken where the user's u is negative (an upper bound).
    """

    name: str
    place: str
    left: Any
    right: Any
    above: Any
    below: Any
    weight: Any
    value: Any
    at_nan: str
    explicit: bool
    flipped: bool = False

    def bind(self, **changes: Any) -> jax.Array:
        """The switch itself, with some fields changed."""
        k = dataclasses.replace(self, **changes)
        operands = (k.left, k.right, k.above, k.below, k.weight, k.value)
        return bind_switch(*operands, name=k.name, explicit=k.explicit, at_nan=k.at_nan)


@record
class Ordering:
    """One sort-like operation met in a program; the fields are those of ``ordering_p``."""

    name: str
    place: str
    key: Any
    payload: Any
    value: Any
    permutation: tuple[Any, ...]
    axis: int
    tie: str
    descending: bool
    start: int
    stop: int
    explicit: bool

    def bind(self, **changes: Any) -> jax.Array:
        """The ordering itself, with some fields changed."""
        k = dataclasses.replace(self, **changes)
        params: dict[str, Any] = dict(axis=k.axis, tie=k.tie, descending=k.descending, start=k.start, stop=k.stop)
        operands = (k.key, k.payload, k.value, *k.permutation)
        return bind_ordering(*operands, name=k.name, explicit=k.explicit, **params)


class Treatment(abc.ABC):
    """What a replay does with each kink.

    A treatment that ``records`` is given one feed per kink and returns one record per kink: arrays
    (or trees of them), which a loop stacks. A loop of unknown length cannot stack, so there such a
    treatment leaves kinks as they are.
    """

    records: bool = False
    sees_coupled: bool = False
    """Whether it is shown kinks that share their weights; others are told of them and leave them alone."""
    sees_layers: bool = False
    """Whether, though it records, it looks into implicit layers; who does not record always does."""
    is_static: bool = False
    """Whether it holds no arrays, is hashable and compared by value: compiled subprograms are then kept."""

    @abc.abstractmethod
    def wants(self, name: str, is_ordering: bool) -> bool:
        """Whether a kink of this name is treated; otherwise its equation stays as it is."""

    @abc.abstractmethod
    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        """The output of a switch, and the record."""

    @abc.abstractmethod
    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        """The output of an ordering, and the record."""

    def layer(self, replay: Any, layer: Layer, operands: Sequence[Any], feeds: Any) -> tuple[list[Any], list[Any]]:
        """The outputs of an implicit layer, and records of the kinks of its chain, or none; if it ``sees_layers``."""
        return list(operands[: layer.num_outputs]), []

    def absent(self, record: Any) -> Any:
        """The record of a kink in a branch that is not taken, from its shapes."""
        return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), record)


class Scout(Treatment):
    """Only asks where the kinks are that another treatment wants."""

    def __init__(self, treatment: Treatment) -> None:
        self.treatment, self.records = treatment, treatment.records
        self.sees_coupled, self.sees_layers = treatment.sees_coupled, treatment.sees_layers

    def wants(self, name: str, is_ordering: bool) -> bool:
        """As the treatment it scouts for."""
        return self.treatment.wants(name, is_ordering)

    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        """The value."""
        return kink.value, None

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        """The value."""
        return kink.value, None


@config
class Site:
    """Where a kink was met: its operation, source line, the shape of its entries, loops around it first.

    ``axis`` is the one an ordering sorts along, ``None`` for a switch.
    """

    name: str
    place: str
    shape: tuple[int, ...]
    axis: int | None = None

    @property
    def is_ordering(self) -> bool:
        """Whether this is an ordering rather than a switch."""
        return self.axis is not None

    def repeated(self, length: int) -> Site:
        """The same site in a loop."""
        axis = None if self.axis is None else self.axis + 1
        return dataclasses.replace(self, shape=(length, *self.shape), axis=axis)


@config
class Opaque:
    """What a replay left as it is, and why; ``has_rule``: its derivative is one it defines itself."""

    name: str
    place: str
    reason: str
    has_rule: bool = False
