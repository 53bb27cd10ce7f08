"""Folded concave penalties: sparse, without shrinking what is large. Not convex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, fit, leafwise, real, require
from nsimplicit.prox.cardinality import modulus_sign

CONCAVE = "A negative weight rewards size, and then there is no prox."


def _below(a: jax.Array, b: Any) -> jax.Array:
    """a < b as a constant: which of two formulas holds is no kink."""
    return lax.stop_gradient(a) < lax.stop_gradient(b)


@data
class CappedL1(Function):
    """The l1 norm, capped: beyond the cap an entry costs no more. Not convex: its prox jumps.

    A derivative of this prox holds the pieces fixed. At a jump there is no derivative, the minimum
    may be one of several, and no theorem behind an implicit derivative applies:
    :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: ``g(x) = sum(w * min(abs(x), c))``; prox(x, s) is x where abs(x) > c + s w / 2 (if
    s w <= 2 c, otherwise where abs(x) > sqrt(2 s w c)), and elsewhere the soft threshold at s w.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.
        cap: c > 0, likewise.
        selection: what an entry exactly at a kink or a jump does: the weight in [0, 1] on the
            branch of the larger abs(x), or a name. Static.

    Kinks:
        abs(x) = s w, where the derivative is in [0, 1]; default 0. A jump where the two pieces of
        the formula meet.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.CappedL1(1.0, 2.0).prox(jnp.array([3.0, -2.0, 0.5]), 1.0).tolist()
        [3.0, -1.0, 0.0]

    References:
        Zhang, Analysis of multi-stage convex relaxation for sparse regularization (2010).
    """

    weight: Any
    cap: Any
    selection: Any = static(None)

    is_convex = False
    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.CappedL1", "weight", CONCAVE)
        require("positive", self.cap, "prox.CappedL1", "cap", "With the cap at 0 nothing costs anything.")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, weight: Any, cap: Any) -> jax.Array:
            x = real(x, "prox.CappedL1")
            weight, cap = fit(weight, x, "prox.CappedL1(weight=...)"), fit(cap, x, "prox.CappedL1(cap=...)")
            return weight * primitives.minimum(primitives.abs(x), cap)

        return add_up(leafwise(leaf, x, self.weight, self.cap))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any, cap: Any) -> jax.Array:
            x = real(x, "prox.CappedL1")
            t = fit(step, x, "prox.CappedL1.prox(step=...)") * fit(weight, x, "prox.CappedL1(weight=...)")
            cap = fit(cap, x, "prox.CappedL1(cap=...)")
            far = _below(2 * cap, t)
            jump = jnp.where(far, jnp.sqrt(jnp.where(far, 2 * t * cap, 1)), cap + t / 2)
            near = primitives.soft_threshold(x, t, selection=self.selection)
            return primitives.switch(modulus_sign(x)[0] - jump, x, near, selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight, self.cap)


@data
class MCP(Function):
    """The minimax concave penalty. Not convex: its prox jumps if the step is not below gamma.

    A derivative of this prox holds the pieces fixed. At a jump there is no derivative, the minimum
    may be one of several, and no theorem behind an implicit derivative applies:
    :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: ``g(x) = sum(w * abs(x) - x**2 / (2 * gamma))`` where abs(x) <= gamma w, and
    ``gamma * w**2 / 2`` for an entry beyond; for s < gamma, prox(x, s) is
    max(abs(x) - s w, 0) / (1 - s / gamma) with the sign of x up to abs(x) = gamma w, and x beyond;
    otherwise it is x where abs(x) > w sqrt(s gamma), and 0 elsewhere.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.
        gamma: > 0, the inverse of the concavity, likewise; infinity gives the l1 norm.
        selection: what an entry exactly at a kink or a jump does: the weight in [0, 1] on the
            branch of the larger abs(x), or a name. Static.

    Kinks:
        For s < gamma: abs(x) = s w, with derivatives in [0, 1 / (1 - s / gamma)], and
        abs(x) = gamma w, in [1, 1 / (1 - s / gamma)]; default the smaller abs(x). Otherwise a jump.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.MCP(1.0, 2.0).prox(jnp.array([3.0, -1.5, 0.5]), 1.0).tolist()
        [3.0, -1.0, 0.0]

    References:
        Zhang, Nearly unbiased variable selection under minimax concave penalty (2010).
    """

    weight: Any
    gamma: Any = 3.0
    selection: Any = static(None)

    is_convex = False
    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.MCP", "weight", CONCAVE)
        require("positive", self.gamma, "prox.MCP", "gamma", "It is an inverse curvature.")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, weight: Any, gamma: Any) -> jax.Array:
            x = real(x, "prox.MCP")
            weight, gamma = fit(weight, x, "prox.MCP(weight=...)"), fit(gamma, x, "prox.MCP(gamma=...)")
            size = primitives.minimum(primitives.abs(x), gamma * weight)
            return size * (weight - size / (2 * gamma))

        return add_up(leafwise(leaf, x, self.weight, self.gamma))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any, gamma: Any) -> jax.Array:
            x = real(x, "prox.MCP")
            s = jnp.broadcast_to(fit(step, x, "prox.MCP.prox(step=...)"), x.shape)
            weight, gamma = fit(weight, x, "prox.MCP(weight=...)"), fit(gamma, x, "prox.MCP(gamma=...)")
            smooth = _below(s, gamma)
            slope = 1 / jnp.where(smooth, 1 - s / gamma, 1)
            # Where the middle piece is concave the outer two meet at the first threshold, and there is no second.
            first = jnp.where(smooth, s * weight, weight * jnp.sqrt(jnp.where(smooth, 1, s * gamma)))
            second = jnp.where(smooth, gamma * weight, jnp.inf)
            first, second = (jnp.where(lax.stop_gradient(weight) > 0, t, -1) for t in (first, second))
            size, sign = modulus_sign(x)
            middle = jnp.where(smooth, slope * (x - sign * s * weight), x)
            near = primitives.switch(size - first, middle, jnp.zeros_like(x), selection=self.selection)
            return primitives.switch(size - second, x, near, selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight, self.gamma)


@data
class SCAD(Function):
    """The smoothly clipped absolute deviation. Not convex: its prox jumps if the step is not below a - 1.

    A derivative of this prox holds the pieces fixed. At a jump there is no derivative, the minimum
    may be one of several, and no theorem behind an implicit derivative applies:
    :func:`nsimplicit.kinks` counts jumps, and certificates there answer *undecided*.

    Formula: the even function with g(0) = 0 and slope w up to abs(x) = w, then
    max(a w - abs(x), 0) / (a - 1), for each entry; for s < a - 1, prox(x, s) is the soft threshold
    at s w up to abs(x) = (1 + s) w, then ((a - 1) x - s a w sign(x)) / (a - 1 - s) up to
    abs(x) = a w, and x beyond.

    Args:
        weight: w >= 0: one number, an array that broadcasts to the shape of x, or a pytree of those
            with the structure of x.
        a: > 1, likewise: where the slope has come down to 0, in multiples of w.
        selection: what an entry exactly at a kink or a jump does: the weight in [0, 1] on the
            branch of the larger abs(x), or a name. Static.

    Kinks:
        For s < a - 1 where the pieces meet, with derivatives between 0, 1, (a - 1) / (a - 1 - s)
        and 1; default the smaller abs(x). Otherwise abs(x) = s w, and a jump at
        abs(x) = (a + 1 + s) w / 2 (for s > a + 1 at w sqrt(s (a + 1))).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SCAD(1.0, 4.0).prox(jnp.array([5.0, -3.0, 1.5]), 1.0).tolist()
        [5.0, -2.5, 0.5]

    References:
        Fan, Li, Variable selection via nonconcave penalized likelihood and its oracle properties (2001).
    """

    weight: Any
    a: Any = 3.7
    selection: Any = static(None)

    is_convex = False
    is_separable = True

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.SCAD", "weight", CONCAVE)
        above_one = jax.tree.map(lambda a: a - 1, self.a)
        require("positive", above_one, "prox.SCAD", "a - 1", "The slope needs room to come down from w to 0.")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, weight: Any, a: Any) -> jax.Array:
            x = real(x, "prox.SCAD")
            weight, a = fit(weight, x, "prox.SCAD(weight=...)"), fit(a, x, "prox.SCAD(a=...)")
            size = primitives.minimum(primitives.abs(x), a * weight)
            bend = primitives.relu(size - weight)
            return weight * size - bend * bend / (2 * (a - 1))

        return add_up(leafwise(leaf, x, self.weight, self.a))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array, weight: Any, a: Any) -> jax.Array:
            x = real(x, "prox.SCAD")
            s = jnp.broadcast_to(fit(step, x, "prox.SCAD.prox(step=...)"), x.shape)
            weight, a = fit(weight, x, "prox.SCAD(weight=...)"), fit(a, x, "prox.SCAD(a=...)")
            smooth, far = _below(s, a - 1), _below(a + 1, s)
            size, sign = modulus_sign(x)
            middle = ((a - 1) * x - s * a * weight * sign) / jnp.where(smooth, a - 1 - s, 1)
            jump = weight * jnp.where(far, jnp.sqrt(jnp.where(far, s * (a + 1), 1)), (a + 1 + s) / 2)
            # Where the middle piece is concave it is never taken.
            second = jnp.where(smooth, (1 + s) * weight, jnp.inf)
            third = jnp.where(lax.stop_gradient(weight) > 0, jnp.where(smooth, a * weight, jump), -1)
            near = primitives.soft_threshold(x, s * weight, selection=self.selection)
            near = primitives.switch(size - second, jnp.where(smooth, middle, x), near, selection=self.selection)
            return primitives.switch(size - third, x, near, selection=self.selection)

        return lambda x: leafwise(leaf, x, self.weight, self.a)
