"""Programs inside programs: how a replay goes through each of JAX's control structures.

Each handler evaluates one equation whose parameters hold jaxprs. It asks a scout what is inside;
an equation without kinks is bound as it was.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from nsimplicit.calculus import rules
from nsimplicit.calculus.cell import Cell, pack, unpack
from nsimplicit.calculus.kink import Treatment
from nsimplicit.calculus.layer import rewrite, scout
from nsimplicit.calculus.liveness import carried, is_float, loop_sizes, opened
from nsimplicit.calculus.program import Program


def _jit(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    jaxpr = eqn.params["jaxpr"]
    inside = replay.scout(jaxpr, cells, flags=flags)
    if not inside.sites:
        return _unchanged(replay, eqn, cells, inside)
    if replay.treatment.records:
        return replay.run(jaxpr, None, cells, flags)
    arrays, kinds = pack(cells)
    fun = _jitted if replay.treatment.is_static else _jitted.__wrapped__
    outs = fun(type(replay), jaxpr, kinds, tuple(flags), replay.treatment, eqn.params.get("name", "jit"))(arrays)
    _adopt(replay, inside)
    return unpack(outs, inside.outs)


@functools.lru_cache(maxsize=1024)
def _jitted(
    replay: Any, jaxpr: Any, kinds: Any, flags: tuple[bool, ...], treatment: Treatment, name: str
) -> Callable[..., Any]:
    def fun(arrays: Any) -> Any:
        return pack(replay(treatment).run(jaxpr, None, unpack(arrays, kinds), flags))[0]

    fun.__name__ = name
    return jax.jit(fun)


def _scan(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    params = eqn.params
    jaxpr, (first, count) = params["jaxpr"], loop_sizes(params)
    live = [c.live for c in cells]
    live[first : first + count] = carried(jaxpr, live, first, count)
    needed = [True] * count + flags[count:]
    body_cells = [Cell(v.aval, flag) for v, flag in zip(opened(jaxpr)[0].invars, live, strict=True)]
    inside = replay.scout(jaxpr, body_cells, flags=needed)
    if not inside.sites:
        return _unchanged(replay, eqn, cells, inside)
    values = [c.value for c in cells]

    def body(carry: Any, slices: Any) -> Any:
        xs, feeds = slices
        child = replay.child(feeds)
        operands = [*values[:first], *carry, *xs]
        outs = [c.value for c in child.run(jaxpr, None, list(map(Cell, operands, live)), needed)]
        return outs[:count], (outs[count:], child.records)

    slices = (values[first + count :], replay.take(len(inside.sites)))
    options = {k: params[k] for k in ("length", "reverse", "unroll")}
    carry, (ys, records) = lax.scan(body, values[first : first + count], slices, **options)
    _adopt(replay, inside, records, params["length"])
    return [Cell(x, flag) for x, (flag, _) in zip([*carry, *ys], inside.outs, strict=True)]


def _while(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    params = eqn.params
    first, second = params["cond_nconsts"], params["body_nconsts"]
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    live = [c.live for c in cells[first:]]
    live[second:] = carried(body, live, second, len(live) - second)
    invars = opened(body)[0].invars
    inside = replay.scout(body, [Cell(v.aval, flag) for v, flag in zip(invars, live, strict=True)])
    if inside.sites and replay.treatment.records:
        replay.note(eqn, "a loop of unknown length: use scan, or fori_loop with static bounds")
        return replay.keep(eqn, cells)
    if not inside.sites:
        return _unchanged(replay, eqn, cells, inside)
    values = [c.value for c in cells]
    ahead, fixed, init = values[:first], values[first : first + second], values[first + second :]

    def more(carry: Any) -> Any:
        return replay.child().run(test, None, list(map(Cell, [*ahead, *carry])))[0].value

    def step(carry: Any) -> Any:
        return [c.value for c in replay.child().run(body, None, list(map(Cell, [*fixed, *carry], live)))]

    _adopt(replay, inside)
    return list(map(Cell, lax.while_loop(more, step, init), live[second:]))


def _cond(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    index, *rest = cells
    branches = eqn.params["branches"]
    insides = [replay.scout(branch, rest, flags=flags) for branch in branches]
    if index.test is not None and any(is_float(v) for v in eqn.outvars):
        replay.note(eqn, "it branches on a comparison; each branch is looked at by itself")
    if not any(inside.sites for inside in insides):
        for inside in insides:
            replay.opaque += inside.opaque
        return replay.keep(eqn, cells)
    arrays, kinds = pack(rest)
    feeds = [replay.take(len(inside.sites)) for inside in insides]

    def evaluate(branch: Any) -> Callable[..., Any]:
        def run(arrays: Any, feeds: Any) -> Any:
            child = replay.child(feeds)
            outs = child.run(branch, None, unpack(arrays, kinds), flags)
            return [c.value for c in outs], child.records

        return run

    runs = [evaluate(branch) for branch in branches]
    shapes = [jax.eval_shape(run, arrays, own)[1] for run, own in zip(runs, feeds, strict=True)]

    def pick(i: int) -> Callable[..., Any]:
        def run(arrays: Any, feeds: Any) -> Any:
            outs, own = runs[i](arrays, feeds[i])
            return outs, [own if j == i else replay.treatment.absent(shape) for j, shape in enumerate(shapes)]

        return run

    outs, records = lax.switch(index.value, [pick(i) for i in range(len(branches))], arrays, feeds)
    for inside, own in zip(insides, records, strict=True):
        _adopt(replay, inside, own)
    live = [any(flag for flag, _ in column) for column in zip(*(i.outs for i in insides), strict=True)]
    return list(map(Cell, outs, live))


def _remat(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    jaxpr, params = eqn.params["jaxpr"], eqn.params
    inside = replay.scout(jaxpr, cells, flags=flags)
    if not inside.sites:
        return _unchanged(replay, eqn, cells, inside)
    arrays, kinds = pack(cells)

    def run(arrays: Any, feeds: Any) -> Any:
        child = replay.child(feeds)
        return pack(child.run(jaxpr, None, unpack(arrays, kinds), flags))[0], child.records

    rerun = jax.checkpoint(run, prevent_cse=params["prevent_cse"], policy=params["policy"])
    outs, records = rerun(arrays, replay.take(len(inside.sites)))
    _adopt(replay, inside, records)
    return unpack(outs, inside.outs)


def _shard_map(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    jaxpr, params = eqn.params["jaxpr"], eqn.params
    live = [c.live for c in cells]
    if not any(live):
        return replay.keep(eqn, cells)
    if replay.treatment.records:
        if rules.mentions_kinks(jaxpr):
            replay.note(eqn, "its arrays are split over devices: look at the function inside")
        return replay.keep(eqn, cells)
    inside = replay.child()

    def run(*values: Any) -> Any:
        nonlocal inside
        inside = replay.child()
        return [c.value for c in inside.run(jaxpr, None, list(map(Cell, values, live)), flags)]

    options = {k: params[k] for k in ("mesh", "in_specs", "check_vma")}
    mapped = jax.shard_map(run, out_specs=list(params["out_specs"]), axis_names=params["newly_manual_axes"], **options)
    values = [c.value for c in cells]
    jax.eval_shape(mapped, *values)  # a scout would have to know the mesh
    if not inside.sites:
        return _unchanged(replay, eqn, cells, inside)
    outs = mapped(*values)
    _adopt(replay, inside)
    return [Cell(x, is_float(v)) for x, v in zip(outs, eqn.outvars, strict=True)]


def _custom_jvp(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    body = eqn.params["call_jaxpr"]
    if any(inner.primitive.name == "implicit_layer" for inner in opened(body)[0].eqns):
        if replay.treatment.sees_layers or not replay.treatment.records:
            return replay.run(body, None, cells)
        replay.note(eqn, "an implicit layer: look at its equation by itself")
        return replay.keep(eqn, cells)
    if rules.is_transparent(eqn):
        return replay.run(body, None, cells, flags)
    if (found := rules.rule(eqn)) is not None:
        wanted = replay.treatment.wants(found[0], False)
        return replay.rewritten(eqn, cells, found[1]) if wanted else replay.keep(eqn, cells)
    replay.note_inside(eqn)
    return replay.keep(eqn, cells)


def _layer(replay: Any, eqn: Any, cells: list[Cell], flags: list[bool]) -> list[Cell]:
    layer, operands = eqn.params["layer"], [c.value for c in cells]

    def transform(program: Program, consts: Sequence[Any]) -> Program:
        inside = scout(replay, program)
        _adopt(replay, inside)
        return rewrite(replay.child(), program, consts) if inside.sites else dataclasses.replace(program, consts=consts)

    if not replay.treatment.records:
        outs = layer.in_each_lane(functools.partial(layer.rebuild, transform))(*operands)
        return [Cell(x, True) for x in outs]
    insides = [scout(replay, program) for program, _ in layer.chain(*operands)]
    sites = [site for inside in insides for site in inside.sites]
    if any(site.is_ordering for site in sites):
        replay.note(eqn, "the equation of an implicit layer, and it sorts")
        sites = []
    if not sites:
        return replay.keep(eqn, cells)
    outs, records = replay.treatment.layer(replay, layer, operands, replay.take(len(sites)))
    for size in reversed(layer.lanes):
        sites = [site.repeated(size) for site in sites]
    replay.sites += sites
    replay.records += records or [None] * len(sites)
    for inside in insides:
        replay.opaque += inside.opaque
    return [Cell(x, True) for x in outs]


def _unchanged(replay: Any, eqn: Any, cells: list[Cell], inside: Any) -> list[Cell]:
    replay.opaque += inside.opaque
    return replay.keep(eqn, cells)


def _adopt(replay: Any, inside: Any, records: Any = None, length: int | None = None) -> None:
    replay.sites += inside.sites if length is None else [s.repeated(length) for s in inside.sites]
    replay.records += [None] * len(inside.sites) if records is None else records
    replay.opaque += inside.opaque


HIGHER: dict[str, Callable[[Any, Any, list[Cell], list[bool]], list[Cell]]] = {
    "jit": _jit,
    "pjit": _jit,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "remat2": _remat,
    "checkpoint": _remat,
    "shard_map": _shard_map,
    "custom_jvp_call": _custom_jvp,
    "implicit_layer": _layer,
}
