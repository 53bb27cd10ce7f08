"""The largest entry, and half its square: the prox lowers the largest entries to one common height."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.prox.base import Function, as_float, fit, modulus, require
from nsimplicit.prox.boundary import change, snap
from nsimplicit.prox.threshold import direction, drift, find

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


def _largest(x: Any, weight: Any, where: str) -> tuple[jax.Array, jax.Array]:
    """The largest modulus, and the weight."""
    largest = primitives.max(modulus(as_float(x)).reshape(-1))
    return largest, fit(weight, largest, f"{where}(weight=...)")


def _lowered(x: jax.Array, total: jax.Array, slope: Any, selection: Any) -> jax.Array:
    """A vector with its moduli cut off at tau >= 0, where they exceed tau by total + slope * tau together."""
    y = modulus(x)
    # At tau = 0 an entry that is zero is not one of the largest: it has no sign to be given.
    excess, tau = find(jnp.where(y > 0, y, -1), total[None], slope)
    unit = direction(x)

    def cut(height: jax.Array) -> jax.Array:
        return coupled_switch(-excess, jnp.zeros_like(height), height, selection=selection)

    down = tau + drift(cut, y, tau, total[None], slope)
    out = coupled_switch(-excess, x, unit * down, selection=selection, value=jnp.where(excess > 0, unit * tau, x))
    # Nothing to take off, and the largest entries are at the kink: without a kink this is x, less what is to come.
    top = jnp.where(excess >= 0, unit, 0)
    share = (change(total) + tau * change(slope)) / jnp.sum(jnp.where(y > 0, excess >= 0, 1))
    return jnp.where((total == 0) & (slope == 0), x - top * share, out)


@data
class LInf(Function):
    """The largest modulus of an entry of x: the prox lowers the largest entries to one height.

    Formula: ``g(x) = w * max(abs(x))``; ``prox(x, s) = sign(x) * min(abs(x), tau)``, tau the root of
    ``sum(max(abs(x) - tau, 0)) = s * w``; 0 where ``sum(abs(x)) <= s * w``.

    Args:
        weight: w >= 0, one number. Entries of x may be complex.
        selection: what an entry exactly at tau, and x exactly at ``sum(abs(x)) = s * w``, does: the
            weight in [0, 1] on the branch that keeps it, or a name. Static.

    Kinks:
        abs(x) = tau, where the entry is kept, or joins those that move together; sum(abs(x)) = s w,
        where all of x is kept, or set to zero; default 0, the second of each. Where w = 0 there is
        no kink: the prox is the identity.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.LInf(1.0).prox(jnp.array([3.0, -2.5, 1.0]), 1.0).tolist()
        [2.25, -2.25, 1.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.5.2.
    """

    weight: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.LInf", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        largest, weight = _largest(x, self.weight, "prox.LInf")
        return weight * largest

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            flat = x.reshape(-1)
            total = fit(step * self.weight, jnp.zeros((), x.dtype), "prox.LInf(weight=...)")
            over = lax.stop_gradient(jnp.sum(modulus(flat)) - total)
            kept = _lowered(flat, total, 0.0, self.selection)
            none = jnp.zeros_like(kept)
            margin = jnp.where(total > 0, snap(over, total), 1)
            value = jnp.where((over > 0) | (total == 0), kept, none)
            return primitives.switch(margin, kept, none, selection=self.selection, value=value).reshape(x.shape)

        return prox


@data
class SquaredLInf(Function):
    """Half the square of the largest modulus of an entry of x, weighted.

    Formula: ``g(x) = w / 2 * max(abs(x))**2``; ``prox(x, s) = sign(x) * min(abs(x), tau)``, tau the
    root of ``sum(max(abs(x) - tau, 0)) = s * w * tau``.

    Args:
        weight: w >= 0, one number. Entries of x may be complex.
        selection: what an entry exactly at tau does: the weight in [0, 1] on the branch that keeps
            it, or a name. Static.

    Kinks:
        abs(x) = tau; default 0, where the entry joins those that move together. At x = 0 each entry
        may become the largest: the Jacobian is the mean of these cases. None where w = 0.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SquaredLInf(2.0).prox(jnp.array([3.0, -1.0, 2.0]), 0.5).round(4).tolist()
        [1.6667, -1.0, 1.6667]
    """

    weight: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.SquaredLInf", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        largest, weight = _largest(x, self.weight, "prox.SquaredLInf")
        return weight / 2 * largest**2

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            flat = x.reshape(-1)
            slope = fit(step * self.weight, jnp.zeros((), x.dtype), "prox.SquaredLInf(weight=...)")
            out = _lowered(flat, jnp.zeros_like(slope), slope, self.selection)
            mean = flat * (1 - slope / (1 + slope) / flat.size)
            return jnp.where(jnp.all(flat == 0), mean, out).reshape(x.shape)

        return prox
