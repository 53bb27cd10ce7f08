"""Which values of a program a derivative flows through: the others carry no kinks.

A value is *live* when it is floating point and depends on a live input through operations that have
a derivative, and *wanted* when an output depends on it in that way. ``stop_gradient``, comparisons,
rounding, integers and random bits end a derivative: the maximum that softmax subtracts is not wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

FLAT = frozenset("stop_gradient sign floor ceil round is_finite nextafter random_bits argmax argmin".split())
MOVES = frozenset("broadcast_in_dim reshape squeeze expand_dims transpose slice copy".split())
COMPARED = MOVES | frozenset("gt ge lt le not convert_element_type jit pjit".split())  # what a `where` looks through


def opened(jaxpr: Any) -> tuple[Any, tuple[Any, ...]]:
    """A jaxpr, closed or not, and the constants that go with it."""
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ()))


def is_float(variable: Any) -> bool:
    """Whether a variable can carry a derivative."""
    return hasattr(variable.aval, "dtype") and jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def loop_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a ``scan`` are constants and how many are carried (JAX 0.12 keeps them as trees)."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts.vals), len(carry.vals)


def live(jaxpr: Any, flags: Sequence[bool]) -> list[bool]:
    """Which outputs of a jaxpr are live, given which inputs are."""
    jaxpr, _ = opened(jaxpr)
    alive = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for eqn in jaxpr.eqns:
        into = [not hasattr(v, "val") and v in alive for v in eqn.invars]
        if any(into):
            alive |= {v for v, flag in zip(eqn.outvars, outputs(eqn, into), strict=True) if flag}
    return [not hasattr(v, "val") and v in alive for v in jaxpr.outvars]


def outputs(eqn: Any, flags: Sequence[bool]) -> list[bool]:
    """Which outputs of one equation are live, given which inputs are."""
    name, params = eqn.primitive.name, eqn.params
    if name in FLAT or not any(flags):
        return [False] * len(eqn.outvars)
    if name in ("jit", "pjit", "remat2", "checkpoint", "shard_map"):
        found = live(params["jaxpr"], flags)
    elif name == "cond":
        found = [any(column) for column in zip(*(live(b, flags[1:]) for b in params["branches"]), strict=True)]
    elif name == "scan":
        first, count = loop_sizes(params)
        carry = carried(params["jaxpr"], list(flags), first, count)
        found = live(params["jaxpr"], [*flags[:first], *carry, *flags[first + count :]])
    elif name == "while":
        first = params["cond_nconsts"]
        rest = list(flags[first:])
        found = carried(params["body_jaxpr"], rest, params["body_nconsts"], len(rest) - params["body_nconsts"])
    else:
        found = [True] * len(eqn.outvars)
    return [flag and is_float(v) for flag, v in zip(found, eqn.outvars, strict=True)]


def carried(body: Any, flags: list[bool], first: int, count: int) -> list[bool]:
    """Which carried values of a loop are live after any number of steps."""
    flags = list(flags)
    while True:
        after = live(body, flags)[:count]
        joined = [a or b for a, b in zip(flags[first : first + count], after, strict=True)]
        if joined == flags[first : first + count]:
            return joined
        flags[first : first + count] = joined


def wanted(jaxpr: Any, flags: Sequence[bool]) -> set[Any]:
    """The variables of a jaxpr that some of its outputs, those flagged, depend on differentiably."""
    found = {v for v, flag in zip(jaxpr.outvars, flags, strict=True) if flag and not hasattr(v, "val")}
    for eqn in reversed(jaxpr.eqns):
        name = eqn.primitive.name
        if name not in FLAT and any(v in found and (is_float(v) or name in COMPARED) for v in eqn.outvars):
            found |= {v for v in eqn.invars if not hasattr(v, "val")}
    return found
