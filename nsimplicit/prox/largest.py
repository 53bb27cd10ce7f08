"""The largest entries: their sum, and the largest alone. The prox lowers some of them to one height."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, fit, real, require
from nsimplicit.prox.boundary import change, inside
from nsimplicit.prox.box_section import section

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


def _sum_largest(x: jax.Array, k: int, weight: Any, where: str) -> jax.Array:
    """w times the sum of the k largest entries; at ties its gradient is the mean over all choices of k."""
    largest = jnp.sum(primitives.top_k(x.reshape(-1), k, selection="mean")[0])
    return fit(weight, largest, f"{where}(weight=...)") * largest


def _lowered(x: jax.Array, k: int, total: jax.Array, selection: Any) -> jax.Array:
    """x less its projection on vectors between 0 and ``total`` with the sum k * total: Moreau's decomposition."""
    flat = x.reshape(-1)
    wide = flat.astype(jnp.result_type(x, jnp.float32))
    t = total.astype(wide.dtype)
    taken = section(wide, jnp.zeros_like(t)[None], t[None], jnp.ones_like(t)[None], k * t[None], selection)
    # Nothing is taken off: what is to come is shared by the largest.
    fixed = lax.stop_gradient(wide)
    kth = -jnp.sort(-fixed)[k - 1]
    tied = fixed == kth
    share = jnp.where(fixed > kth, 1, jnp.where(tied, (k - jnp.sum(fixed > kth)) / jnp.sum(tied), 0))
    return (wide - jnp.where(t == 0, share * change(t), taken)).astype(x.dtype).reshape(x.shape)


@data
class SumLargest(Function):
    """The sum of the k largest entries of x, weighted.

    Formula: ``g(x) = w * sum(sort(x)[-k:])``; ``prox(x, s) = x - clip(x - tau, 0, s * w)``, tau a root
    of ``sum(clip(x - tau, 0, s * w)) = s * w * k``.

    Args:
        k: how many entries, between 1 and the size of x. Static.
        weight: w >= 0, one number.
        selection: whether an entry exactly at tau or tau + s * w moves with those between them: its
            weight in [0, 1], or ``"inside"`` (1, it does) or ``"outside"`` (0, it does not). Static.

    Kinks:
        x = tau, where an entry is kept or joins those at one height, and x = tau + s w; default 0, it
        does not join. Where w = 0 there is none: the prox is the identity.

    Cost:
        O(n log n): a few sorts.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SumLargest(2).prox(jnp.array([3.0, 2.5, 0.75, 5.0]), 1.0).tolist()
        [2.25, 2.25, 0.75, 4.0]

    References:
        Wang, Lu, Projection onto the capped simplex (2015), for the conjugate.
        Wu, Ding, Sun, Toh, On the Moreau-Yosida regularization of the vector k-norm related
        functions (2014).
    """

    k: int = static(kw_only=False)
    weight: Any = 1.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            found = f"k is {self.k!r}."
            raise InputError(message("prox.SumLargest(k)", found, "It counts entries.", "k=1, the largest"))
        require("nonnegative", self.weight, "prox.SumLargest", "weight", CONCAVE)

    def _real(self, x: Any) -> jax.Array:
        x = real(x, "prox.SumLargest")
        if self.k > x.size:
            found = f"x has {x.size} entries."
            raise InputError(
                message(f"prox.SumLargest({self.k})(x)", found, "k is at most that.", f"k={x.size}, the sum")
            )
        return x

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return _sum_largest(self._real(x), self.k, self.weight, "prox.SumLargest")

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = self._real(x)
            total = fit(step * self.weight, jnp.zeros_like(x, shape=()), "prox.SumLargest(weight=...)")
            return _lowered(x, self.k, total, inside(self.selection, "prox.SumLargest"))

        return prox


@data
class Maximum(Function):
    """The largest entry of x, weighted: :class:`SumLargest` with k = 1.

    Formula: ``g(x) = w * max(x)``; ``prox(x, s) = minimum(x, tau)``, tau the root of
    ``sum(maximum(x - tau, 0)) = s * w``.

    Args:
        weight: w >= 0, one number.
        selection: whether an entry exactly at tau moves with those above: its weight in [0, 1], or
            ``"inside"`` (1, it does) or ``"outside"`` (0, it does not). Static.

    Kinks:
        x = tau, where an entry is kept or joins those at one height; default 0, it is kept. Where
        w = 0 there is none: the prox is the identity.

    Cost:
        O(n log n): a few sorts.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Maximum().prox(jnp.array([3.0, 2.5, 1.0]), 1.0).tolist()
        [2.25, 2.25, 1.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.4.1.
    """

    weight: Any = 1.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.Maximum", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return _sum_largest(real(x, "prox.Maximum"), 1, self.weight, "prox.Maximum")

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = real(x, "prox.Maximum")
            total = fit(step * self.weight, jnp.zeros_like(x, shape=()), "prox.Maximum(weight=...)")
            return _lowered(x, 1, total, inside(self.selection, "prox.Maximum"))

        return prox
