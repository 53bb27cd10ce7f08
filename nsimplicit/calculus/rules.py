"""Custom derivative rules: which are a kink under another name, and which hide one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from nsimplicit import primitives
from nsimplicit.calculus.liveness import opened
from nsimplicit.calculus.recognise import MENTIONED

# Piecewise linear operations: a custom rule around these alone is a kink, around anything else a smooth function.
PIECEWISE = frozenset("max min abs select_n gt ge lt le".split())
F = TypeVar("F", bound=Callable[..., Any])

TRANSPARENT = "its_rule_is_its_derivative"
SHAPES = frozenset("broadcast_in_dim convert_element_type copy pvary pcast".split())


def rule(eqn: Any) -> tuple[str, Callable[..., Any]] | None:
    """The kink that a custom derivative rule is wrapped around: ``jax.nn.relu`` or ``jax.nn.relu6``.

    The rule has to be JAX's as well: a straight-through estimator has the same values.
    """
    steps = list(_flat(eqn.params["call_jaxpr"]))
    if len(eqn.invars) != 1 or any(name not in PIECEWISE for name, _ in steps):
        return None
    found = [(name, numbers) for name, numbers in steps if name in ("max", "min", "abs")]
    for name, kinks in (("relu", [("max", (0.0,))]), ("relu6", [("max", (0.0,)), ("min", (6.0,))])):
        if found == kinks and _derivative(eqn, _itself(eqn)) == _derivative(eqn, getattr(jax.nn, name)):
            return name, getattr(primitives, name)
    return None


def _itself(eqn: Any) -> Callable[[Any], Any]:
    return lambda x: eqn.primitive.bind(x, **eqn.primitive.get_bind_params(eqn.params))[0]


def _derivative(eqn: Any, fun: Callable[[Any], Any]) -> list[Any]:
    """What the derivative of a function computes at the argument of an equation."""
    aval = eqn.invars[0].aval
    return list(_flat(jax.make_jaxpr(lambda x, t: jax.jvp(fun, (x,), (t,)))(aval, aval)))


def transparent(fun: F) -> F:
    """``fun``, to be given a custom rule that is its own derivative written otherwise: a replay looks inside."""

    def body(*args: Any) -> Any:
        return fun(*args)

    body.__name__ = TRANSPARENT
    return jax.jit(body)  # pyright: ignore[reportReturnType]


def is_transparent(eqn: Any) -> bool:
    """Whether the function of a custom rule was made by :func:`transparent`."""
    names = [inner.params.get("name") for inner in opened(eqn.params["call_jaxpr"])[0].eqns]
    return names == [TRANSPARENT]


def mentions_kinks(jaxpr: Any) -> bool:
    """Whether a kink of JAX's or of this package's stands in a jaxpr; whatever is no jaxpr has none."""
    if isinstance(jaxpr, tuple | list):
        return any(map(mentions_kinks, jaxpr))
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return hasattr(jaxpr, "eqns") and any(
        eqn.primitive.name in MENTIONED or any(map(mentions_kinks, eqn.params.values())) for eqn in jaxpr.eqns
    )


def _flat(jaxpr: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The operations of a jaxpr but for those on shapes, each with the numbers written in it."""
    known: dict[Any, Any] = {}
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = eqn.primitive.name
        if name in ("jit", "pjit"):
            yield from _flat(eqn.params["jaxpr"])
            continue
        found = (v.val if hasattr(v, "val") else known.get(v) for v in eqn.invars)
        numbers = tuple(x for x in found if x is not None and np.ndim(x) == 0)
        if name not in SHAPES:
            yield name, numbers
        elif numbers:
            known[eqn.outvars[0]] = numbers[0]
