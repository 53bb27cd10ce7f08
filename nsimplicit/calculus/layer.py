"""The mark of an implicit layer: an identity by which a replay finds the equation inside a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src.core import Primitive
from jax.interpreters import batching, mlir

from nsimplicit._records import config
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.program import Program, trace

Transform = Callable[[Program, Sequence[Any]], Program]


@config
class Layer:
    """An equation and its solution, as functions of the operands of the mark.

    Args:
        num_outputs: so many operands come first: the leaves of the solution.
        rebuild: ``(transform, *operands) -> leaves``: attaches the equation anew, each of its programs replaced by
            ``transform(program, consts)``. The programs of the chain come first.
        chain: ``(*operands) -> [(program, consts), ...]``: the maps of the equation, first to last.
        lanes: the sizes of the axes that ``vmap`` has put in front of the operands; the functions are those of one
            lane.
    """

    num_outputs: int
    rebuild: Callable[..., list[Any]]
    chain: Callable[..., list[tuple[Program, Sequence[Any]]]]
    lanes: tuple[int, ...] = ()

    def in_each_lane(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """A function of one lane, for all of them."""
        for size in reversed(self.lanes):
            fun = jax.vmap(fun, axis_size=size)
        return fun


def scout(replay: Any, program: Program) -> Any:
    """What a replay finds in a program of an equation."""
    jaxpr = program.jaxpr
    state, consts = ([Cell(v.aval, True) for v in group] for group in (jaxpr.invars, jaxpr.constvars))
    return replay.scout(jaxpr, state, consts)


def rewrite(replay: Any, program: Program, consts: Sequence[Any]) -> Program:
    """The program as a replay evaluates it, a derivative flowing into its constants and its arguments."""

    def run(*state: Any) -> Any:
        captured, arguments = ([Cell(x, True) for x in group] for group in (consts, state))
        return program.out_tree.unflatten([c.value for c in replay.run(program.jaxpr, captured, arguments)])

    return trace(run, *(v.aval for v in program.jaxpr.invars))


layer_p = Primitive("implicit_layer")
layer_p.multiple_results = True
layer_p.def_impl(lambda *operands, layer: operands[: layer.num_outputs])
layer_p.def_abstract_eval(lambda *operands, layer: operands[: layer.num_outputs])
mlir.register_lowering(layer_p, lambda ctx, *operands, layer: operands[: layer.num_outputs])


def mark_layer(
    z: Any,
    rest: Any,
    rebuild: Callable[[Transform, Any, Any], Any],
    chain: Callable[[Any], list[tuple[Program, Sequence[Any]]]],
) -> Any:
    """``z`` itself, marked as the solution of an equation that a replay can rewrite: see :class:`Layer`."""
    leaves, treedef = jax.tree.flatten(z)
    others, otherdef = jax.tree.flatten(rest)

    def parts(operands: Sequence[Any]) -> tuple[Any, Any]:
        return treedef.unflatten(operands[: len(leaves)]), otherdef.unflatten(operands[len(leaves) :])

    layer = Layer(
        len(leaves),
        lambda transform, *operands: jax.tree.leaves(rebuild(transform, *parts(operands))),
        lambda *operands: chain(parts(operands)[1]),
    )
    return treedef.unflatten(layer_p.bind(*leaves, *others, layer=layer))


def _batch_layer(lane: Any, operands: Any, dims: Any, *, layer: Layer) -> Any:
    if all(d is None for d in dims):
        return layer_p.bind(*operands, layer=layer), [None] * layer.num_outputs
    fronted = [
        batching.bdim_at_front(x, d, lane.size, lane.explicit_mesh_axis) for x, d in zip(operands, dims, strict=True)
    ]
    wide = dataclasses.replace(layer, lanes=(lane.size, *layer.lanes))
    return layer_p.bind(*fronted, layer=wide), [0] * layer.num_outputs


batching.fancy_primitive_batchers[layer_p] = _batch_layer
