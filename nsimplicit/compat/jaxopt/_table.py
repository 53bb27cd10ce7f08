"""Functions with jaxopt's signatures from a table: one line for each name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from nsimplicit.prox import Function

REQUIRED = inspect.Parameter.empty


def function(name: str, says: str, body: Callable[..., Any], **parameters: Any) -> Callable[..., Any]:
    """A function ``name(x, **parameters)`` that calls ``body`` with all of them, in this order.

    Args:
        name: its name.
        says: its docstring.
        body: what it does.
        **parameters: the defaults, by the names that callers may use; ``REQUIRED`` for none.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter("x", kind)] + [inspect.Parameter(k, kind, default=v) for k, v in parameters.items()]
    signature = inspect.Signature(listed)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(*bound.arguments.values())

    call.__name__ = call.__qualname__ = name
    call.__doc__ = says
    vars(call)["__signature__"] = signature
    return call


def leafwise(make: Callable[..., Function]) -> Callable[..., Any]:
    """The body of a prox that works leaf by leaf: ``(x, hyperparams, scaling)``."""
    return lambda x, hyperparams, scaling: make(hyperparams).prepare(scaling)(x)


def whole(make: Callable[..., Function]) -> Callable[..., Any]:
    """The body of a prox of all of x at once, however many leaves it has."""

    def body(x: Any, hyperparams: Any, scaling: Any) -> Any:
        if jax.tree_util.treedef_is_leaf(jax.tree.structure(x)):
            return make(hyperparams).prepare(scaling)(x)
        flat, unravel = ravel_pytree(x)
        return unravel(make(hyperparams).prepare(scaling)(flat))

    return body
