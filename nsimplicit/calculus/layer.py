"""The mark of an implicit layer: an identity by which a replay finds the equation inside a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax._src.core import Primitive
from jax.interpreters import batching, mlir

layer_p = Primitive("implicit_layer")
layer_p.multiple_results = True
layer_p.def_impl(lambda *operands, num_outputs, rebuild: operands[:num_outputs])
layer_p.def_abstract_eval(lambda *operands, num_outputs, rebuild: operands[:num_outputs])
mlir.register_lowering(layer_p, lambda ctx, *operands, num_outputs, rebuild: operands[:num_outputs])


def mark_layer(z: Any, rest: Any, rebuild: Callable[..., Any]) -> Any:
    """``z`` itself, marked as the solution of an equation that a replay can rewrite.

    ``rebuild(transform, z, rest)`` attaches the equation to ``z`` anew, each of its programs replaced
    by ``transform(program, consts)``.
    """
    leaves, treedef = jax.tree.flatten(z)
    others, otherdef = jax.tree.flatten(rest)

    def flat(transform: Any, *operands: Any) -> list[Any]:
        z, rest = operands[: len(leaves)], operands[len(leaves) :]
        return jax.tree.leaves(rebuild(transform, treedef.unflatten(z), otherdef.unflatten(rest)))

    return treedef.unflatten(layer_p.bind(*leaves, *others, num_outputs=len(leaves), rebuild=flat))


def _batch_layer(lane: Any, operands: Any, dims: Any, *, num_outputs: int, rebuild: Any) -> Any:
    if all(d is None for d in dims):
        return layer_p.bind(*operands, num_outputs=num_outputs, rebuild=rebuild), [None] * num_outputs
    fronted = [
        batching.bdim_at_front(x, d, lane.size, lane.explicit_mesh_axis) for x, d in zip(operands, dims, strict=True)
    ]

    def each(transform: Any, *operands: Any) -> Any:
        return jax.vmap(lambda *xs: rebuild(transform, *xs), axis_size=lane.size)(*operands)

    return layer_p.bind(*fronted, num_outputs=num_outputs, rebuild=each), [0] * num_outputs


batching.fancy_primitive_batchers[layer_p] = _batch_layer
