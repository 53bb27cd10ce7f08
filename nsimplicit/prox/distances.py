"""Distances to a set: penalties for constraints that may be violated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit._tree import add, subtract
from nsimplicit.prox.base import Function, Set, as_float, fit, require
from nsimplicit.prox.groups import shrink_factor
from nsimplicit.prox.rules import times

CONCAVE = "A negative weight rewards the distance, and then there is no prox."


def _require_set(region: Any, name: str) -> None:
    if not isinstance(region, Set):
        found = f"set is a {type(region).__name__}."
        tries = "prox.Box(lo, hi)", "prox.MoreauEnvelope(fun, mu) for a function that is no indicator"
        raise InputError(message(f"prox.{name}(set, weight)", found, "It must be a set of nsimplicit.prox.", *tries))


def _residual(region: Set, x: Any) -> tuple[Any, Any, jax.Array]:
    """The projection p of x, x - p, and a zero in the dtype of x."""
    x = jax.tree.map(as_float, x)
    p = region.project(x)
    first = jax.tree.leaves(x)[0]
    return p, subtract(x, p), jnp.zeros((), jnp.finfo(first.dtype).dtype)


def _entries(tree: Any) -> jax.Array:
    """All entries of all leaves as one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@data
class DistanceTo(Function):
    """The Euclidean distance to a set, weighted: the prox takes a step towards the set, or lands in it.

    Formula: ``g(x) = w * norm(x - p)``; ``prox(x, s) = p + max(1 - s * w / norm(x - p), 0) * (x - p)``
    with p = set.project(x).

    Args:
        set: a set of this package.
        weight: w >= 0, one number.
        selection: what x at the distance s w exactly does: the weight in [0, 1] on the branch that
            stays out of the set, or a name. Static.

    Kinks:
        norm(x - p) = s w, where the Jacobian is between that of the projection and the same plus
        the projection on the direction of x - p; default the former. Outside the set also the
        kinks of the projection.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> g = prox.DistanceTo(prox.Nonnegative())
        >>> g.prox(jnp.array([-3.0, -4.0]), 2.5).tolist()
        [-1.5, -2.0]

    References:
        Combettes, Pesquet, Proximal splitting methods in signal processing (2011), table 10.1.
    """

    set: Any
    weight: Any = 1.0
    selection: Any = static(None)

    is_convex = property(lambda self: self.set.is_convex)

    def __post_init__(self) -> None:
        _require_set(self.set, "DistanceTo")
        require("nonnegative", self.weight, "prox.DistanceTo", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        _, away, zero = _residual(self.set, x)
        return fit(self.weight, zero, "prox.DistanceTo(weight=...)") * primitives.norm(_entries(away))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> Any:
            p, away, zero = _residual(self.set, x)
            threshold = fit(self.weight, zero, "prox.DistanceTo(weight=...)")
            threshold *= fit(step, zero, "prox.DistanceTo.prox(step=...)")
            return add(p, times(shrink_factor(primitives.norm(_entries(away)), threshold, self.selection), away))

        return prox


@data
class SquaredDistanceTo(Function):
    """Half the squared distance to a convex set, weighted: smooth.

    Formula: ``g(x) = w / 2 * norm(x - p)**2``; ``prox(x, s) = (x + s * w * p) / (1 + s * w)`` with
    p = set.project(x).

    Args:
        set: a set of this package.
        weight: w >= 0, one number.

    Kinks:
        Those of the projection.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SquaredDistanceTo(prox.Nonnegative()).prox(jnp.array([-3.0, 4.0]), 1.0).tolist()
        [-1.5, 4.0]

    References:
        Combettes, Pesquet, Proximal splitting methods in signal processing (2011), table 10.1.
    """

    set: Any
    weight: Any = 1.0

    is_convex = is_smooth = property(lambda self: self.set.is_convex)
    is_separable = property(lambda self: self.set.is_separable)

    def __post_init__(self) -> None:
        _require_set(self.set, "SquaredDistanceTo")
        require("nonnegative", self.weight, "prox.SquaredDistanceTo", "weight", CONCAVE)

    @property
    def lipschitz(self) -> Any:
        """The weight."""
        return self.weight

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        _, away, zero = _residual(self.set, x)
        away = _entries(away)
        return fit(self.weight, zero, "prox.SquaredDistanceTo(weight=...)") / 2 * jnp.sum((away.conj() * away).real)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, p: jax.Array) -> jax.Array:
            weight = fit(self.weight, x, "prox.SquaredDistanceTo(weight=...)")
            t = fit(step, x, "prox.SquaredDistanceTo.prox(step=...)") * weight
            return (x + t * p) / (1 + t)

        def prox(x: Any) -> Any:
            x = jax.tree.map(as_float, x)
            return jax.tree.map(leaf, x, self.set.project(x))

        return prox
