"""Norms that make single entries exactly zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, extreme, fit, leafwise, modulus, real, require

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


@data
class L1(Function):
    """The l1 norm, weighted: the prox sets small entries to zero.

    Formula: ``g(x) = sum(w * abs(x))``; ``prox(x, s) = sign(x) * max(abs(x) - s * w, 0)``.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of
            those with the structure of x. Entries of x may be complex.
        selection: what an entry exactly at the threshold does: the weight in [0, 1] on the branch
            that keeps it, or a name. Static.

    Kinks:
        abs(x) = s w, where the derivative is in [0, 1] (complex x: between 0 and the projection on
        the direction of x); default 0. Where w = 0 there is no kink: the prox is the identity.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L1(1.0).prox(jnp.array([3.0, -0.2, -2.0]), 0.5).tolist()
        [2.5, 0.0, -1.5]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.5.2.
    """

    weight: Any
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.L1", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x, w: fit(w, x, "prox.L1(weight=...)") * modulus(x), x, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            threshold = fit(step, x, "prox.L1.prox(step=...)") * fit(weight, x, "prox.L1(weight=...)")
            return primitives.soft_threshold(x, threshold, selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight)


@data
class ElasticNet(Function):
    """The l1 norm plus half the squared l2 norm: sparse, and strongly convex.

    Formula: ``g(x) = sum(l1 * abs(x) + l2 / 2 * abs(x)**2)``;
    ``prox(x, s) = sign(x) * max(abs(x) - s * l1, 0) / (1 + s * l2)``.

    Args:
        l1: weight >= 0 of the norm: one number, an array that broadcasts to the shape of x, or a
            pytree of those with the structure of x.
        l2: weight >= 0 of the square, likewise.
        selection: what an entry exactly at the threshold does, as in :class:`L1`. Static.

    Kinks:
        abs(x) = s l1, where the derivative is in [0, 1/(1 + s l2)]; default 0. None where l1 = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.ElasticNet(1.0, 2.0).prox(jnp.array([3.0, -0.2]), 0.5).tolist()
        [1.25, 0.0]

    References:
        Zou, Hastie, Regularization and variable selection via the elastic net (2005).
    """

    l1: Any
    l2: Any
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.l1, "prox.ElasticNet", "l1", CONCAVE)
        require("nonnegative", self.l2, "prox.ElasticNet", "l2", CONCAVE)

    @property
    def strong_convexity(self) -> jax.Array:
        """The smallest weight of the square."""
        return extreme(jnp.min, self.l2)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, l1: Any, l2: Any) -> jax.Array:
            l1, l2 = fit(l1, x, "prox.ElasticNet(l1=...)"), fit(l2, x, "prox.ElasticNet(l2=...)")
            return l1 * modulus(x) + l2 / 2 * (jnp.conj(x) * x).real

        return add_up(leafwise(leaf, x, self.l1, self.l2))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, l1: Any, l2: Any) -> jax.Array:
            s = fit(step, x, "prox.ElasticNet.prox(step=...)")
            l1, l2 = fit(l1, x, "prox.ElasticNet(l1=...)"), fit(l2, x, "prox.ElasticNet(l2=...)")
            return primitives.soft_threshold(x, s * l1, selection=self.selection) / (1 + s * l2)

        return lambda x: leafwise(leaf, x, self.l1, self.l2)


@data
class NonnegativeL1(Function):
    """The l1 norm of nonnegative vectors, weighted: sparse, and no entry is negative.

    Formula: ``g(x) = sum(w * x)`` where all ``x >= 0``; ``prox(x, s) = max(x - s * w, 0)``.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of
            those with the structure of x.
        selection: what an entry exactly at the threshold does: the weight in [0, 1] on the branch
            that keeps it, or a name. Static.

    Kinks:
        x = s w, where the derivative is in [0, 1]; default 0, also where w = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.NonnegativeL1(1.0).prox(jnp.array([3.0, 0.2, -2.0]), 0.5).tolist()
        [2.5, 0.0, 0.0]
    """

    weight: Any
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        meaning = "No norm has a negative weight; Linear and Nonnegative have no such limit."
        require("nonnegative", self.weight, "prox.NonnegativeL1", "weight", meaning)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x; inf unless all entries are nonnegative."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            x = real(x, "prox.NonnegativeL1")
            return jnp.where(x >= 0, fit(weight, x, "prox.NonnegativeL1(weight=...)") * x, jnp.inf)

        return add_up(leafwise(leaf, x, self.weight))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any) -> jax.Array:
            x = real(x, "prox.NonnegativeL1")
            threshold = fit(step, x, "prox.NonnegativeL1.prox(step=...)")
            threshold = threshold * fit(weight, x, "prox.NonnegativeL1(weight=...)")
            return primitives.relu(x - threshold, selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight)
