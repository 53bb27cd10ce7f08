"""Numbers of nonzero entries: penalised, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, Set, add_up, as_float, fit, leafwise, real, require


def modulus_sign(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """abs(x) and the sign of x, 1 at 0, as a constant: for functions whose kinks are elsewhere."""
    sign = jnp.where(lax.stop_gradient(x) < 0, -1, 1).astype(x.dtype)
    return x * sign, sign


@data
class L0(Function):
    """The number of nonzero entries, weighted. Not convex: its prox jumps.

    A derivative of this prox holds the set of kept entries fixed. At a jump there is no derivative,
    the minimum may be one of several, and no theorem behind an implicit derivative applies:
    :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: ``g(x) = sum(w * (x != 0))``; ``prox(x, s) = x * (abs(x) > sqrt(2 * s * w))``.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.
        selection: what an entry exactly at the jump, which becomes 0, has for a derivative: a
            weight in [0, 1] on that of the branch that keeps it, or a name. Static.

    Kinks:
        abs(x) = sqrt(2 s w): a jump from 0 to x, with both values minimal. None where w = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L0(1.0).prox(jnp.array([3.0, -0.9, -2.0]), 0.5).tolist()
        [3.0, 0.0, -2.0]

    References:
        Blumensath, Davies, Iterative thresholding for sparse approximations (2008), section 2.
    """

    weight: Any
    selection: Any = static(None)

    is_convex = False
    is_separable = True

    def __post_init__(self) -> None:
        meaning = "A reward for nonzero entries is unbounded: there is no prox."
        require("nonnegative", self.weight, "prox.L0", "weight", meaning)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x, w: jnp.where(x != 0, fit(w, x, "prox.L0(weight=...)"), 0), x, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            x = real(x, "prox.L0")
            squared = 2 * fit(step, x, "prox.L0.prox(step=...)") * fit(weight, x, "prox.L0(weight=...)")
            some = lax.stop_gradient(squared) > 0
            threshold = jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1)), -1)
            return primitives.switch(modulus_sign(x)[0] - threshold, x, jnp.zeros_like(x), selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight)


@data
class L0Ball(Set):
    """Vectors with at most k nonzero entries. Not convex: its projection jumps.

    A derivative of this projection holds the set of kept entries fixed. At a jump there is no
    derivative, the projection may be one of several, and no theorem behind an implicit derivative
    applies: :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: ``project(x)`` keeps the k entries of largest modulus, the first of those that tie.

    Args:
        k: how many, at least 1. Static.
        axis: the axis of x along which entries are counted. Static.
        selection: what an entry that ties for the last place has for a derivative: a weight in
            [0, 1] on that of being kept, or a name; default its own branch. Static.

    Kinks:
        Where the k-th and the next modulus are equal: a jump, unless they are 0.

    Cost:
        O(n log n): one sort.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L0Ball(2).project(jnp.array([3.0, -0.9, -2.0])).tolist()
        [3.0, 0.0, -2.0]

    References:
        Blumensath, Davies, Iterative hard thresholding for compressed sensing (2009), section 2.
    """

    k: int = static(kw_only=False)
    axis: int = static(-1)
    selection: Any = static(None)

    is_convex = False

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            found, meaning = f"k is {self.k!r}.", "It is how many entries may be nonzero: an int, at least 1."
            raise InputError(message("prox.L0Ball(k)", found, meaning, "prox.L0Ball(1)", "prox.ZeroCone() for none"))

    def __call__(self, x: Any) -> jax.Array:
        """0 with at most k nonzero entries in each vector, inf otherwise."""
        x = as_float(x)
        inside = jnp.all(jnp.sum(x != 0, axis=self.axis) <= self.k)
        return jnp.where(inside, 0, jnp.asarray(jnp.inf, jnp.finfo(x.dtype).dtype))

    def project(self, x: Any) -> jax.Array:
        """A nearest vector with at most k nonzero entries."""
        x = jnp.moveaxis(real(x, "prox.L0Ball"), self.axis, -1)
        n = x.shape[-1]
        if self.k >= n:
            return jnp.moveaxis(x, -1, self.axis)
        size, _ = modulus_sign(x)
        order = jnp.argsort(-lax.stop_gradient(size), axis=-1, stable=True)
        rank = jnp.argsort(order, axis=-1)
        last, following = (jnp.take_along_axis(size, order[..., i : i + 1], axis=-1) for i in (self.k - 1, self.k))
        kept = rank < self.k
        selection = kept.astype(x.dtype) if self.selection is None else self.selection
        value = jnp.where(kept, x, 0)
        # Half way between the two, where an entry would change sides if they exchanged their places.
        kept_entries = primitives.switch(
            size - (last + following) / 2, x, jnp.zeros_like(x), selection=selection, value=value
        )
        return jnp.moveaxis(kept_entries, -1, self.axis)
