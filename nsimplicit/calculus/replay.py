"""Evaluate a jaxpr again, with a treatment of your choice for every kink it meets.

Kinks are this package's ``switch`` and ``ordering`` and JAX's own max, min, abs, clamp, sort, top_k,
cummax, pooling, and ``where(a > b, ...)``; :mod:`recognise` says which switch each of them is. They
are found through jit, scan, cond, remat, ``shard_map`` and ``while``, and inside implicit layers,
whose equations are replayed. A custom derivative rule is kept: opening softplus would find a maximum
that its rule has smoothed. Whatever is kept, and has a kink inside, is listed as opaque.

Only values a derivative flows into are looked at (:mod:`liveness`). A subprogram without kinks is
bound as it was.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import source_info_util

from nsimplicit.calculus import recognise
from nsimplicit.calculus.cell import NEGATED, Cell, Comparison, pack, unpack
from nsimplicit.calculus.kink import Opaque, Ordering, Scout, Site, Switch, Treatment
from nsimplicit.calculus.liveness import MOVES, is_float, opened, outputs, wanted
from nsimplicit.calculus.nested import HIGHER
from nsimplicit.calculus.program import trace
from nsimplicit.calculus.rules import mentions_kinks
from nsimplicit.primitives.coupled import COUPLED

PACKAGE = __file__.removesuffix("calculus/replay.py")


class Replay:
    """One evaluation: consumes ``feeds``, collects ``records``, one of each for every site, in order."""

    def __init__(self, treatment: Treatment, feeds: Sequence[Any] | None = None, parent: Replay | None = None) -> None:
        self.treatment = treatment
        self.place: str | None = None if parent is None else parent.place
        self.feeds = None if feeds is None else iter(feeds)
        self.records: list[Any] = []
        self.sites: list[Site] = []
        self.opaque: list[Opaque] = []
        self.outs: Any = None
        self.scouts: dict[Any, Any] = {} if parent is None else parent.scouts

    def run(
        self, jaxpr: Any, consts: Sequence[Any] | None, cells: Sequence[Cell], flags: Sequence[bool] | None = None
    ) -> list[Cell]:
        """Evaluate a jaxpr, with its own constants or with others; ``flags``: which outputs matter."""
        jaxpr, own = opened(jaxpr)
        needed = wanted(jaxpr, [True] * len(jaxpr.outvars) if flags is None else flags)
        constants = [c if isinstance(c, Cell) else Cell(c) for c in (own if consts is None else consts)]
        env: dict[Any, Cell] = dict(zip(jaxpr.constvars, constants, strict=True))
        env |= dict(zip(jaxpr.invars, cells, strict=True))

        def read(v: Any) -> Cell:
            return Cell(v.val) if hasattr(v, "val") else env[v]

        for eqn in jaxpr.eqns:
            stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
            with source_info_util.user_context(eqn.source_info.traceback, name_stack=stack), eqn.ctx.manager:
                outs = self._equation(eqn, [read(v) for v in eqn.invars], [v in needed for v in eqn.outvars])
                env |= dict(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
        name = eqn.primitive.name
        if not any(c.live or c.test for c in cells):
            return self.keep(eqn, cells)
        if name in NEGATED and all(is_float(v) for v in eqn.invars) and any(c.live for c in cells):
            out = self.keep(eqn, cells)[0].value
            left, right = (jnp.broadcast_to(c.value, jnp.shape(out)) for c in cells)  # a literal is a scalar
            return [Cell(out, False, Comparison(left, right, name))]
        if (test := cells[0].test) is not None and (name in MOVES or name in ("not", "convert_element_type")):
            move = functools.partial(_bind_one, eqn) if name in MOVES else lambda x: x
            moved = test.negated() if name == "not" else test.through(move)
            return [Cell(self.keep(eqn, cells)[0].value, False, moved)]
        if not any(flags):
            return [Cell(c.value) for c in self.keep(eqn, cells)]
        if (handler := HIGHER.get(name)) is not None:
            before, self.place = self.place, self.place or library_place(eqn)
            outs = handler(self, eqn, cells, flags)
            self.place = before
            return outs
        if (kink := self._kink(eqn, cells)) is not None:
            return kink
        if any(c.live for c in cells):
            self.note_inside(eqn)
        return self.keep(eqn, cells)

    def keep(self, eqn: Any, cells: Sequence[Cell]) -> list[Cell]:
        """The outputs of an equation bound as it was."""
        values = _bind(eqn, [c.value for c in cells])
        return [Cell(x, flag) for x, flag in zip(values, outputs(eqn, [c.live for c in cells]), strict=True)]

    # What nested programs need.

    def child(self, feeds: Sequence[Any] | None = None) -> Replay:
        """A replay of a subprogram."""
        return Replay(self.treatment, feeds, self)

    def take(self, count: int) -> list[Any] | None:
        """The feeds of the next sites."""
        return None if self.feeds is None else list(itertools.islice(self.feeds, count))

    def scout(
        self,
        jaxpr: Any,
        cells: Sequence[Cell],
        consts: Sequence[Cell] | None = None,
        flags: Sequence[bool] | None = None,
    ) -> Replay:
        """What a subprogram holds; found by tracing it, once for each jaxpr and kind of arguments."""
        arrays, kinds = pack([*cells, *(consts or ())])
        key = (jaxpr, kinds, self.place, None if flags is None else tuple(flags))
        if key not in self.scouts:
            replay = Replay(Scout(self.treatment), None, self)

            def look(arrays: Any) -> None:
                own = unpack(arrays, kinds)
                outs = replay.run(jaxpr, own[len(cells) :] if consts is not None else None, own[: len(cells)], flags)
                replay.outs = pack(outs)[1]

            jax.eval_shape(look, arrays)
            self.scouts[key] = replay
        return self.scouts[key]

    def note(self, eqn: Any, reason: str, has_rule: bool = False) -> None:
        """List an equation as opaque."""
        self.opaque.append(Opaque(eqn.primitive.name, self.place or place_of(eqn), reason, has_rule))

    def note_inside(self, eqn: Any) -> None:
        """List an equation as opaque if there is a kink somewhere inside."""
        if any(map(mentions_kinks, eqn.params.values())):
            self.note(eqn, "its derivative is its own rule, which is kept", has_rule=True)

    # Kinks.

    def _kink(self, eqn: Any, cells: list[Cell]) -> list[Cell] | None:
        found = recognise.read(eqn, cells, self.place or place_of(eqn))
        if found is None or not self.treatment.wants(found.operation, found.is_ordering):
            return None
        if found.operation == COUPLED and not self.treatment.sees_coupled:
            self.note(eqn, "its kinks share their weights, which selection=... of the object chooses")
            return None
        if found.rewritten is not None:
            return self.rewritten(eqn, cells, found.rewritten)
        values = [c.value for c in cells]
        parts = found.parts(values, lambda: _bind(eqn, values))
        return [Cell(found.shape(self._treat(x)), True) if isinstance(x, Switch | Ordering) else Cell(x) for x in parts]

    def _treat(self, kink: Switch | Ordering) -> Any:
        feed = None if self.feeds is None else next(self.feeds)
        if isinstance(kink, Switch):
            self.sites.append(Site(kink.name, kink.place, jnp.shape(kink.value)))
            out, record = self.treatment.switch(kink, feed)
        else:
            self.sites.append(Site(kink.name, kink.place, jnp.shape(kink.key), kink.axis))
            out, record = self.treatment.ordering(kink, feed)
        self.records.append(record)
        return out

    def rewritten(self, eqn: Any, cells: list[Cell], fun: Callable[..., Any]) -> list[Cell]:
        """The outputs of an equation, as those of a function that says the same in simpler kinks."""
        program = trace(fun, *(jax.typeof(c.value) for c in cells))
        before, self.place = self.place, self.place or place_of(eqn)
        outs = self.run(program.jaxpr, program.consts, cells)
        self.place = before
        return outs


def library_place(eqn: Any) -> str | None:
    """Where a jitted function of a library is called: inside, a cached trace names the line of its first caller."""
    debug_info = getattr(opened(eqn.params.get("jaxpr"))[0], "debug_info", None)
    file = getattr(debug_info, "func_filename", None)
    is_users = file is None or (source_info_util.is_user_filename(file) and not file.startswith(PACKAGE))
    return None if is_users else place_of(eqn)


def place_of(eqn: Any) -> str:
    """The line of user code an equation came from, ``"model.py:12"``."""
    for frame in source_info_util.user_frames(eqn.source_info.traceback):
        if not frame.file_name.startswith(PACKAGE):
            return f"{frame.file_name.rsplit('/', 1)[-1]}:{frame.start_line}"
    return "unknown"


def _bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def _bind_one(eqn: Any, *values: Any) -> Any:
    return _bind(eqn, values)[0]
