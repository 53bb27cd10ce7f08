"""Trace a function once, then evaluate it as often as needed.

The implicit rule, its guards and its reports all look at the same equation. They share one
:class:`Program`: tracing a user's function twice costs compile time, and can give two answers when
the function is not pure. Everything the function closes over (tracers of an outer ``grad`` or
``vmap`` included) becomes an explicit constant, so a rule can differentiate with respect to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import core, lax

from nsimplicit._records import record

COLLECTIVES = frozenset(
    "psum psum2 psum_invariant pmax pmin all_gather all_gather_invariant all_to_all "
    "ppermute pbroadcast reduce_scatter psum_scatter".split()
)


@record
class Program:
    """A traced function: its jaxpr, what it closed over, the tree it returns."""

    jaxpr: Any
    consts: tuple[Any, ...]
    out_tree: Any

    def __call__(self, consts: Sequence[Any], *args: Any) -> Any:
        """Evaluate at ``args`` with ``consts`` in the place of the captured constants."""
        out = core.eval_jaxpr(self.jaxpr, consts, *jax.tree.leaves(args))
        return self.out_tree.unflatten(out)

    def precise(self) -> Program:
        """The same program, its matrix products and convolutions at full precision unless they ask for another."""
        return Program(_precise(self.jaxpr), self.consts, self.out_tree)

    def varying(self) -> frozenset[str]:
        """The mesh axes over which a result differs between devices inside ``shard_map``."""
        return varying(*(v.aval for v in self.jaxpr.outvars))

    def collective_axes(self) -> frozenset[str]:
        """The mesh axes over which the program communicates."""
        names: set[str] = set()
        for eqn in _equations(self.jaxpr):
            if eqn.primitive.name in COLLECTIVES:
                axes = eqn.params.get("axes", eqn.params.get("axis_name", ()))
                names.update(a for a in (axes if isinstance(axes, tuple | list) else (axes,)) if isinstance(a, str))
        return frozenset(names)


def trace(fun: Callable[..., Any], *args: Any) -> Program:
    """Trace ``fun`` at ``args`` (arrays or shapes); runs its Python code exactly once."""
    closed, out = jax.make_jaxpr(fun, return_shape=True)(*args)
    return Program(closed.jaxpr, tuple(closed.consts), jax.tree.structure(out))


def shapes(tree: Any) -> Any:
    """The tree with arrays replaced by what tracing needs of them."""
    return jax.tree.map(jax.typeof, tree)


def checks_replication(axis_name: str) -> bool:
    """Whether the surrounding ``shard_map`` tracks which values vary over ``axis_name``."""
    return bool(varying(lax.axis_index(axis_name)))


def varying(*arrays: Any) -> frozenset[str]:
    """The mesh axes over which any of the arrays (or their types) differs between devices inside ``shard_map``."""
    types: list[Any] = [x if isinstance(x, core.AbstractValue) else jax.typeof(x) for x in arrays]
    return frozenset().union(*(getattr(t.manual_axis_type, "varying", ()) for t in types))


def vary(tree: Any, axes: frozenset[str]) -> Any:
    """The tree, each leaf of it typed as varying over ``axes`` at least; transposes to a sum."""

    def cast(x: Any) -> Any:
        extra = axes - varying(x)
        return lax.pcast(x, tuple(sorted(extra)), to="varying") if extra else x

    return jax.tree.map(cast, tree)


def _precise(jaxpr: Any) -> Any:
    def change(eqn: Any) -> Any:
        params = {name: _precise_param(value) for name, value in eqn.params.items()}
        if eqn.primitive.name in ("dot_general", "conv_general_dilated") and params["precision"] is None:
            params["precision"] = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
        return eqn.replace(params=params)

    inner = getattr(jaxpr, "jaxpr", jaxpr)
    if inner is not jaxpr:  # closed; JAX 0.12 has one class for both
        return jaxpr.replace(jaxpr=_precise(inner))
    return jaxpr.replace(eqns=[change(eqn) for eqn in jaxpr.eqns])


def _precise_param(value: Any) -> Any:
    if type(value) in (tuple, list):
        return type(value)(map(_precise_param, value))
    return _precise(value) if hasattr(getattr(value, "jaxpr", value), "eqns") else value


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for param in eqn.params.values():
            for sub in param if isinstance(param, tuple | list) else (param,):
                inner = getattr(sub, "jaxpr", sub)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)
