"""The branch entered along a direction: a limiting Jacobian of the function, however it is coded.

Lexicographic differentiation (Khan, Barton 2013) in forward mode. At a kink the sign of the switch's
own tangent says which branch a small step along the direction enters. Each direction is one forward
pass, which follows the branches it enters as it goes and records the signs; kinks that a direction
does not decide are left to the next one, and in the end to one fixed generic direction, which
decides every kink that some direction does. The derivative is then taken with those branches.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.kink import Opaque, Ordering, Switch, Treatment
from nsimplicit.calculus.layer import Layer
from nsimplicit.calculus.program import Program
from nsimplicit.calculus.replay import Replay
from nsimplicit.calculus.solution_along import follow, with_branches
from nsimplicit.selections import Along


class _Visit(Treatment):
    """What a pass and the final evaluation share: which kinks, and where they tie."""

    records = True
    sees_layers = True

    def __init__(self, override: bool, tolerance: float) -> None:
        self.override, self.tolerance = override, tolerance

    def wants(self, name: str, is_ordering: bool) -> bool:
        """Every kink."""
        return True

    def tie(self, kink: Switch) -> jax.Array:
        """Where the switch is at its kink, and no selection was given by name."""
        if kink.explicit and not self.override:
            return jnp.zeros(jnp.shape(kink.value), bool)
        left, right = jnp.broadcast_arrays(kink.left, kink.right)
        return is_near(left, right, self.tolerance)


class Pass(_Visit):
    """Follow a direction. Fed what is decided so far; records what the direction's tangents decide."""

    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        """The branch that is entered."""
        tie = self.tie(kink)
        decided = jnp.zeros(jnp.shape(kink.value), jnp.int8) if feed is None else feed
        u = jnp.where(tie, kink.left - kink.right, 0)
        return _enter(kink.bind(), u, kink.above, kink.below, tie, decided), u

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        """The order that is entered."""
        if kink.explicit and not self.override:
            return kink.bind(), kink.key
        rank = jnp.zeros(kink.key.shape, jnp.int32) if feed is None else feed

        places = (kink.axis, kink.descending, kink.start, kink.stop)
        return _arrange(places, kink.value, kink.key, kink.payload, rank), kink.key

    def layer(self, replay: Replay, layer: Layer, operands: Sequence[Any], feeds: Any) -> tuple[Any, Any]:
        """The solution, which moves as its own kinks let it."""
        entering = functools.partial(Replay, Entered(self.override, self.tolerance), parent=replay)
        return layer.in_each_lane(functools.partial(follow, replay.child, entering, layer))(operands, feeds)


class Entered(_Visit):
    """Differentiate with the branches that were decided."""

    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        """The switch, with the weight of the branch entered; the default where nothing was decided."""
        tie = self.tie(kink)
        weight = jnp.where(tie & (feed != 0), feed > 0, kink.weight)
        left, right = jnp.broadcast_arrays(kink.left, kink.right)
        return kink.bind(left=jnp.where(tie, right, left), right=right, weight=weight, explicit=True), None

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        """The ordering, ties broken by the order entered."""
        if kink.explicit and not self.override:
            return kink.bind(), None
        order = _ranks(kink.axis, lax.stop_gradient(kink.key), feed)
        return kink.bind(key=order.astype(float), permutation=(), tie="first", explicit=True), None

    def layer(self, replay: Replay, layer: Layer, operands: Sequence[Any], feeds: Any) -> tuple[Any, Any]:
        """The solution, differentiated with the branches that were decided."""
        return layer.in_each_lane(functools.partial(with_branches, replay.child, layer))(operands, feeds), []


@jax.custom_jvp
def _enter(ordinary: Any, u: Any, above: Any, below: Any, tie: Any, decided: Any) -> Any:
    return ordinary


@_enter.defjvp
def _enter_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    ordinary, u, _, _, tie, decided = primals
    ordinary_dot, u_dot, above_dot, below_dot = tangents[:4]
    sign = jnp.where(decided != 0, decided, jnp.sign(u_dot))
    entered = jnp.where(sign > 0, above_dot, jnp.where(sign < 0, below_dot, ordinary_dot))
    return ordinary, jnp.where(tie, entered, ordinary_dot)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _arrange(places: Any, value: Any, key: Any, payload: Any, rank: Any) -> Any:
    return value


@_arrange.defjvp
def _arrange_rule(places: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    value, key, _, rank = primals
    axis, descending, start, stop = places
    order = _ranks(axis, key, rank, tangents[1])
    index = jnp.argsort(order, axis, stable=True, descending=descending)
    index = lax.slice_in_dim(index, start, stop, axis=axis)
    return value, jnp.take_along_axis(tangents[2], index, axis)


def _ranks(axis: int, *keys: Any) -> jax.Array:
    """The place of each entry in the lexicographic order of the keys; equal entries share one."""
    keys = tuple(jnp.moveaxis(k, axis, -1) for k in keys)
    positions = jnp.broadcast_to(jnp.arange(keys[0].shape[-1], dtype=jnp.int32), keys[0].shape)
    *ordered, permutation = lax.sort((*keys, positions), dimension=-1, is_stable=True, num_keys=len(keys))
    new = jnp.stack([jnp.diff(k) != 0 for k in ordered]).any(0)
    rank = jnp.cumsum(jnp.pad(new, [(0, 0)] * (new.ndim - 1) + [(1, 0)]), -1, dtype=jnp.int32)
    back = jnp.argsort(permutation, -1)
    return jnp.moveaxis(jnp.take_along_axis(rank, back, -1), -1, axis)


def is_near(left: jax.Array, right: jax.Array, tolerance: Any) -> jax.Array:
    """Whether operands differ by at most ``tolerance`` times their scale, the largest entry of either."""
    scale = jnp.maximum(jnp.max(jnp.abs(left), initial=0), jnp.max(jnp.abs(right), initial=0))
    return jnp.abs(left - right) <= tolerance * jnp.where(jnp.isfinite(scale), scale, 0)


def decide(program: Program, consts: Sequence[Cell], cells: Sequence[Cell], along: Along, visit: Pass) -> list[Any]:
    """For each kink, what the directions decide: a sign for a switch, a rank for an ordering."""
    consts, cells = ([Cell(lax.stop_gradient(c.value), c.live) for c in group] for group in (consts, cells))
    moving = [i for i, c in enumerate(cells) if c.live]
    primals = [cells[i].value for i in moving]

    def pass_through(decided: Any) -> Any:
        def records(*values: Any) -> Any:
            filled = dict(zip(moving, values, strict=True))
            replay = Replay(visit, decided)
            replay.run(program.jaxpr, consts, [Cell(filled.get(i, c.value), c.live) for i, c in enumerate(cells)])
            sites.append(replay.sites)
            kept.extend(replay.opaque)
            return replay.records

        return records

    sites: list[Any] = []
    kept: list[Opaque] = []
    shapes = jax.eval_shape(pass_through(None), *primals)
    _tell(kept)
    orderings = [site.is_ordering for site in sites[-1]]
    decided = [jnp.zeros(x.shape, jnp.int32 if o else jnp.int8) for x, o in zip(shapes, orderings, strict=True)]
    for direction in _directions(along, primals):
        _, dots = jax.jvp(pass_through(decided), primals, direction)
        axes = [site.axis for site in sites[-1]]
        decided = [
            _ranks(axis, d, dot) if o else jnp.where(d == 0, jnp.nan_to_num(jnp.sign(dot)), d).astype(jnp.int8)
            for d, dot, o, axis in zip(decided, dots, orderings, axes, strict=True)
        ]
    return decided


def _tell(kept: Sequence[Opaque]) -> None:
    """Warn of kinks that keep the selection they have; a rule of one's own is no kink."""
    dark = [x for x in kept if not x.has_rule and x.name != "cond"]  # the branches of cond were looked at
    if dark:
        found = f"{dark[0].name} at {dark[0].place} was not looked into: {dark[0].reason}."
        meaning = "Kinks inside keep the selection they have, so the derivative may belong to the program only."
        tries = "wrap the equation instead of its solver: fixed_point(with_selection(T, Along(...)), ...)"
        warnings.warn(message("with_selection(fun, Along(...))", found, meaning, tries), UserWarning, stacklevel=3)


def _directions(along: Along, primals: Sequence[Any]) -> Any:
    for tangents in (along.tangents, *along.more):
        leaves = [t for t in jax.tree.leaves(tangents) if t is not None]
        leaves = [t for t in leaves if jnp.issubdtype(jnp.result_type(t), jnp.inexact)]
        if [jnp.shape(t) for t in leaves] != [jnp.shape(x) for x in primals]:
            shapes = [[jnp.shape(x) for x in group] for group in (leaves, primals)]
            found = f"the tangents have shapes {shapes[0]}, the arguments {shapes[1]}."
            meaning = "A direction has one entry for each entry of the floating-point arguments, as in jax.jvp."
            raise InputError(message("Along(tangents)", found, meaning, "Along((d,)) for a function of one argument"))
        yield [lax.stop_gradient(jnp.asarray(t, x.dtype)) for t, x in zip(leaves, primals, strict=True)]
    rng = np.random.default_rng(20130301)  # one generic direction, the same in every call
    yield [jnp.asarray(rng.normal(size=jnp.shape(x)), x.dtype) for x in primals]
