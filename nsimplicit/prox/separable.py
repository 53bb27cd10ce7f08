"""Sums of functions that share no variable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Function, extreme, require_function


@data
class SeparableSum(Function):
    """A sum of functions of separate variables: one function for each part of a pytree.

    Formula: ``g(x) = sum(f(x[k]) for k, f in functions.items())``;
    ``prox(x, s) = {k: f.prox(x[k], s) for k, f in functions.items()}``.

    Args:
        functions: pytree of functions (dict, list, tuple ...). x has the same structure, or a
            deeper one: what takes the place of a function is its variable.

    Kinks:
        Those of each part.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> g = prox.SeparableSum({"slope": prox.L1(1.0), "intercept": prox.Zero()})
        >>> g.prox({"slope": jnp.array([3.0]), "intercept": jnp.array([0.5])}, 1.0)
        {'intercept': Array([0.5], dtype=float32), 'slope': Array([2.], dtype=float32)}

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.1.
    """

    functions: Any

    is_convex = property(lambda self: all(f.is_convex for f in self._parts()[0]))
    is_smooth = property(lambda self: all(f.is_smooth for f in self._parts()[0]))
    strong_convexity = property(lambda self: extreme(jnp.min, [f.strong_convexity for f in self._parts()[0]]))

    @property
    def lipschitz(self) -> Any:
        """The largest of the parts, if all are known."""
        constants = [f.lipschitz for f in self._parts()[0]]
        return None if any(c is None for c in constants) else extreme(jnp.max, constants)

    def __post_init__(self) -> None:
        parts, _ = self._parts()
        for fun in parts or [None]:
            require_function(fun, "SeparableSum")

    def _parts(self) -> tuple[list[Function], Any]:
        return jax.tree.flatten(self.functions, is_leaf=lambda f: isinstance(f, Function))

    def _split(self, x: Any) -> tuple[list[tuple[Function, Any]], Any]:
        functions, tree = self._parts()
        try:
            variables = tree.flatten_up_to(x)
        except ValueError as error:
            raise InputError(
                message(
                    "prox.SeparableSum(functions)(x)",
                    f"x has structure {jax.tree.structure(x)}, the functions {tree}.",
                    "Each function needs its variable in the same place.",
                    "x with the keys and order of the functions",
                )
            ) from error
        return list(zip(functions, variables, strict=True)), tree

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return functools.reduce(jnp.add, [f(part) for f, part in self._split(x)[0]])

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        functions, tree = self._parts()
        inner = tree.unflatten([f.prepare(step) for f in functions])

        def prox(x: Any) -> Any:
            pairs, tree = self._split(x)
            return tree.unflatten([f(part) for f, (_, part) in zip(tree.flatten_up_to(inner), pairs, strict=True)])

        return prox
