"""A program with its kinks laid out in one vector: how near each is, and what each lets through.

Every analysis starts here. ``survey`` says for each kink how far its switch is from zero. ``open``
evaluates the program with some kinks opened: each takes its branch below plus an injection y, zero in
value, and reports the difference of its branches. Differentiating that one function in the state and
in y gives the switch normal form; it is made of JAX operations only, so it may be jitted, mapped and
linearised, inside a guard as on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nsimplicit.calculus.along import is_near
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.expand import expand
from nsimplicit.calculus.kink import Ordering, Site, Switch, Treatment
from nsimplicit.calculus.liveness import is_float
from nsimplicit.calculus.program import Program
from nsimplicit.calculus.replay import Replay


class Survey(NamedTuple):
    """What is known of every kink of a program, one entry per kink.

    Args:
        distance: |left - right|, in the units of the operands; inf where there is no kink.
        scale: the largest operand of the switch's array.
        gap: |above - below| relative to the larger of the two arrays: a jump if not small at the kink.
        crowd: per ordering, the relative distance of keys whose tie would make a block too large.
    """

    distance: jax.Array
    scale: jax.Array
    gap: jax.Array
    crowd: jax.Array


class _Every(Treatment):
    records = sees_coupled = True

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def wants(self, name: str, is_ordering: bool) -> bool:
        """Every kink."""
        return True

    def near(self, left: Any, right: Any) -> Any:
        """Whether two keys of an ordering tie."""
        return is_near(left, right, self.tolerance)


class _Measure(_Every):
    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        found = _measure(kink.left, kink.right, kink.above, kink.below, True)
        return kink.bind(), ([found], jnp.full((), jnp.inf, found[0].dtype))

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        found, scale, size = [], _largest(kink.key), _largest(kink.payload)

        def exchange(layer: int, left: Any, right: Any, above: Any, below: Any, applies: Any) -> Any:
            found.append(_measure(left, right, above, below, applies, scale, size))
            return below

        _, crowd = expand(kink, self.near, exchange)
        return kink.bind(), (found, jnp.min(crowd, initial=jnp.inf) / jnp.where(scale > 0, scale, 1))

    def absent(self, record: Any) -> Any:
        return jax.tree.map(lambda x: jnp.full(x.shape, jnp.inf, x.dtype), record)


class _Open(_Every):
    def __init__(self, tolerance: float, below: bool) -> None:
        super().__init__(tolerance)
        self.below = below

    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        (inject,), (active,) = feed
        value = kink.value
        left, right, above, below = (
            jnp.broadcast_to(x, value.shape) for x in (kink.left, kink.right, kink.above, kink.below)
        )
        taken = jnp.where(left > right, 1, jnp.where(left < right, 0, kink.weight))
        taken = jnp.where(active & (not self.below), taken, 0).astype(left.dtype)
        out = kink.bind(above=jnp.where(active, below, above), below=below) if self.below else kink.bind()
        record = (*_differences(left, right, above, below, active), taken)
        return out + jnp.where(active, inject, 0).astype(value.dtype), [record]

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        records = []

        def exchange(layer: int, left: Any, right: Any, above: Any, below: Any, applies: Any) -> Any:
            inject, active = feed[0][layer], feed[1][layer] & applies
            records.append((*_differences(left, right, above, below, active), jnp.zeros_like(left)))
            return below + jnp.where(active, inject, 0).astype(below.dtype)

        return expand(kink, self.near, exchange)[0], records


def _measure(
    left: Any, right: Any, above: Any, below: Any, applies: Any, scale: Any = 0, size: Any = 0
) -> tuple[Any, Any, Any]:
    """A row of :class:`Survey` but for the crowd; operands and branches are at least ``scale`` and ``size`` large."""
    left, right, above, below = jnp.broadcast_arrays(left, right, above, below)
    distance = jnp.where(applies & jnp.isfinite(left - right), jnp.abs(left - right), jnp.inf)
    scale = jnp.maximum(jnp.maximum(_largest(left), _largest(right)), scale)
    size = jnp.maximum(jnp.maximum(_largest(above), _largest(below)), size)
    gap = jnp.abs(above - below) / jnp.where(size > 0, size, 1)
    return distance, jnp.broadcast_to(scale, distance.shape), gap


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0), initial=0)


def _differences(left: Any, right: Any, above: Any, below: Any, active: Any) -> tuple[Any, Any]:
    return jnp.where(active, above - below, 0), jnp.where(active, left - right, 0)


class Kinked:
    """A program and the layout of its kinks.

    Args:
        program: the program.
        tolerance: keys of an ordering closer than this times the largest of them count as tied.
        live_consts: whether derivatives flow in from what the program closed over.
    """

    def __init__(self, program: Program, *, tolerance: float, live_consts: bool = True) -> None:
        self.program, self.tolerance, self.live_consts = program, tolerance, live_consts
        consts, args = ([v.aval for v in group] for group in (program.jaxpr.constvars, program.jaxpr.invars))
        self._sites: Any = None
        records = jax.eval_shape(lambda c, a: self._run(_Measure(tolerance), c, a)[1], consts, args)
        self.sites, self.opaque = self._sites
        self.shapes = [[x[0].shape for x in found] for found, _ in records]
        self.sizes = [sum(math.prod(shape) for shape in group) for group in self.shapes]
        self.num_kinks = sum(self.sizes)

    def _run(self, treatment: Treatment, consts: Any, args: Any, feeds: Any = None) -> tuple[list[Any], list[Any]]:
        jaxpr, replay = self.program.jaxpr, Replay(treatment, feeds)
        captured = [Cell(c, self.live_consts and is_float(v)) for c, v in zip(consts, jaxpr.constvars, strict=True)]
        cells = [Cell(x, is_float(v)) for x, v in zip(args, jaxpr.invars, strict=True)]
        outs = replay.run(jaxpr, captured, cells)
        self._sites = replay.sites, replay.opaque
        return [c.value for c in outs], replay.records

    def survey(self, consts: Sequence[Any], args: Sequence[Any]) -> Survey:
        """How near each kink is."""
        _, records = self._run(_Measure(self.tolerance), consts, args)
        columns = zip(*(x for found, _ in records for x in found), strict=True)
        distance, scale, gap = columns if self.num_kinks else ([], [], [])  # a sort of one entry has a site, no kink
        return Survey(_join(distance), _join(scale), _join(gap), _join([crowd for _, crowd in records]))

    @property
    def has_orderings(self) -> bool:
        """Whether some kinks are sorts or maxima: what they take at a tie is no selection of their exchanges."""
        return any(site.is_ordering for site in self.sites)

    def open(
        self, consts: Sequence[Any], args: Sequence[Any], index: Any, active: Any, y: Any, *, below: bool = True
    ) -> tuple[list[Any], jax.Array, jax.Array, jax.Array]:
        """The outputs, with some kinks opened.

        Args:
            consts: what the program closed over.
            args: its arguments, leaves.
            index: int array (k,), positions of kinks in the layout.
            active: bool array (k,); a kink that is not stays as it is, and reports zero.
            y: array (k,) of zeros: the injections.
            below: whether an opened kink takes its branch below; otherwise it does as it always does.

        Returns:
            The outputs; for each opened kink above - below, left - right, and the selection it has without
            its injection: 0 if ``below``.
        """
        treatment = _Open(self.tolerance, below)
        inject = jnp.zeros(self.num_kinks, y.dtype).at[index].set(y)
        opened = jnp.zeros(self.num_kinks, bool).at[index].set(active)
        feeds = list(zip(self._split(inject), self._split(opened), strict=True))
        outs, records = self._run(treatment, consts, args, feeds)
        if not self.num_kinks:
            return outs, y, y, y
        columns = zip(*(x for found in records for x in found), strict=True)
        difference, argument, taken = (_join(column)[index].astype(y.dtype) for column in columns)
        return outs, difference, argument, taken

    def name(self, position: int) -> str:
        """What the kink at a position of the layout is, and where."""
        site, entry, size = self._site(position)
        return f"{site.name} at {site.place}" + (f", entry {entry}" if size > 1 else "")

    def operation(self, position: int) -> str:
        """The name of the operation of the kink at a position of the layout."""
        return self._site(position)[0].name

    def _site(self, position: int) -> tuple[Site, int, int]:
        for site, size in zip(self.sites, self.sizes, strict=True):
            if position < size:
                return site, position, size
            position -= size
        raise IndexError(position)

    def _split(self, flat: jax.Array) -> list[list[jax.Array]]:
        parts, at = [], 0
        for group in self.shapes:
            parts.append([])
            for shape in group:
                size = math.prod(shape)
                parts[-1].append(flat[at : at + size].reshape(shape))
                at += size
        return parts


def _join(parts: Sequence[Any]) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in parts]) if parts else jnp.zeros(0)
