"""Simplices: nonnegative entries with a given sum, which may be capped, or few."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, concrete, fit, indicator, real, require
from nsimplicit.prox.boundary import inside, snap
from nsimplicit.prox.box_section import along_last, section
from nsimplicit.prox.threshold import positive_part


@data
class Simplex(Set):
    """Nonnegative vectors with a given sum.

    Formula: ``project(x) = max(x - tau, 0)``, tau the root of ``sum(max(x - tau, 0)) = total``.

    Args:
        total: the sum, > 0: one number, or one for each vector in x.
        axis: the axis of x along which the sum is taken. Static.
        selection: whether an entry exactly at tau counts as support: its weight in [0, 1], or
            ``"above"`` (it does), ``"below"`` (it does not). Static.

    Kinks:
        x = tau; default 0. With weights q = 1 above tau, 0 below, s at it, the Jacobian is
        ``diag(q) - outer(q, q) / sum(q)``: symmetric, eigenvalues in [0, 1], and for s in {0, 1}
        a limit of Jacobians at nearby points. Entries within a few rounding errors of tau are at it.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Simplex().project(jnp.array([1.0, 0.5, -3.0])).tolist()
        [0.75, 0.25, 0.0]

    References:
        Held, Wolfe, Crowder, Validation of subgradient optimization (1974).
    """

    total: Any = 1.0
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.total, "prox.Simplex", "total", "Only 0 has nonnegative entries with sum 0.")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the simplex, up to rounding in the sum; inf elsewhere."""
        x, total = _rows(x, self.total, self.axis, "prox.Simplex")
        return _in_section(jnp.all(x >= 0), x, total)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the simplex."""
        x, total = _rows(x, self.total, self.axis, "prox.Simplex")
        return jnp.moveaxis(positive_part(x, total, self.selection), -1, self.axis)


def _rows(x: Any, total: Any, axis: int, where: str) -> tuple[jax.Array, jax.Array]:
    """x with its vectors along the last axis, and the total of each."""
    x = jnp.moveaxis(real(x, where), axis, -1)
    return x, fit(total, x[..., 0], f"{where}(total=...)")[..., None]


def _in_section(bounded: jax.Array, x: jax.Array, total: jax.Array) -> jax.Array:
    gap = jnp.sum(x, axis=-1, keepdims=True) / total - 1
    slack = 2 * x.shape[-1] * jnp.finfo(x.dtype).eps
    on = bounded & jnp.all((-slack <= gap) & (gap <= slack))
    return indicator(on, x)


@data
class CappedSimplex(Set):
    """Vectors with a given sum and entries between 0 and a cap.

    Formula: ``project(x) = clip(x - tau, 0, cap)``, tau a root of
    ``sum(clip(x - tau, 0, cap)) = total``.

    Args:
        total: the sum, > 0, at most that of the caps: one number, or one for each vector in x.
        cap: > 0: one number, or an array that broadcasts to the shape of x; ``inf`` for none.
        axis: the axis of x along which the sum is taken. Static.
        selection: what an entry exactly at 0 or at its cap does: the weight in [0, 1] on the branch
            where it moves with tau, ``"inside"`` (1) or ``"outside"`` (0). Static.

    Kinks:
        x - tau = 0 and x - tau = cap; default 0. With the weights q of the entries the Jacobian is
        ``diag(q) - outer(q, q) / sum(q)``, as for :class:`Simplex`, and 0 at a vertex, where no
        entry moves. There the total has two derivatives: this is the one for a larger total.

    Cost:
        O(n log n): a few sums in each of about 7 steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.CappedSimplex(2.0, 1.0).project(jnp.array([3.0, 0.5, 0.25, -3.0])).tolist()
        [1.0, 0.625, 0.375, 0.0]

    References:
        Wang, Lu, Projection onto the capped simplex (2015).
    """

    total: Any = 1.0
    cap: Any = 1.0
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.total, "prox.CappedSimplex", "total", "Only 0 has nonnegative entries with sum 0.")
        require("positive", self.cap, "prox.CappedSimplex", "cap", "An entry with cap 0 is 0: leave it out.")

    def _rows(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The vectors of x along the last axis, the total of each, and the caps."""
        rows, total = _rows(x, self.total, self.axis, "prox.CappedSimplex")
        cap = fit(self.cap, jnp.moveaxis(rows, -1, self.axis), "prox.CappedSimplex(cap=...)")
        self._check(jnp.shape(x))
        return rows, total, along_last(cap, self.axis, rows.ndim)

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raise where the caps are known to add up to less than the total."""
        total, cap = concrete(self.total), concrete(self.cap)
        if total is None or cap is None:
            return
        room = np.sum(np.broadcast_to(cap.astype(float), shape), axis=self.axis)
        if np.any(total.astype(float) > room * (1 + 1e-6)):
            found = f"total is {np.max(total):g}, and the caps of the entries add up to {np.min(room):g}."
            meaning = "No vector has so large a sum, and there is nothing to project on."
            raise InputError(message("prox.CappedSimplex(total, cap)", found, meaning, "a larger cap"))

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding in the sum; inf elsewhere."""
        rows, total, cap = self._rows(x)
        return _in_section(jnp.all((rows >= 0) & (rows <= cap)), rows, total)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the set."""
        x, total, cap = self._rows(x)
        selection = inside(self.selection, "prox.CappedSimplex")
        out = section(x, jnp.zeros_like(total), cap, jnp.ones_like(total), total, selection)
        return jnp.moveaxis(out, -1, self.axis)


@data
class SparseSimplex(Set):
    """Nonnegative vectors with a given sum and at most k entries that are not zero. Not convex.

    The projection is not unique where the k-th and the next largest entry of x are equal: it takes
    the first of them, and jumps there (``nsi.kinks`` counts the jump). Elsewhere it is the
    projection of the k largest entries on their simplex.

    Formula: ``project(x) = max(x - tau, 0)`` on the k largest entries, 0 elsewhere, tau the root of
    ``sum(max(x - tau, 0)) = total`` over those.

    Args:
        k: how many entries may be nonzero, >= 1. Static.
        total: the sum, > 0: one number, or one for each vector in x.
        axis: the axis of x along which the sum is taken. Static.
        selection: whether an entry exactly at tau counts as support, as in :class:`Simplex`. Static.

    Kinks:
        x = tau for one of the k largest entries, as in :class:`Simplex`.

    Cost:
        O(n log n): one sort, and sums.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SparseSimplex(2).project(jnp.array([0.5, 0.25, 0.25, 0.375])).tolist()
        [0.5625, 0.0, 0.0, 0.4375]

    References:
        Kyrillidis, Becker, Cevher, Koch, Sparse projections onto the simplex (2013), theorem 1.
    """

    k: int = static(kw_only=False)
    total: Any = 1.0
    axis: int = static(-1)
    selection: Any = static(None)

    is_convex = False

    def __post_init__(self) -> None:
        require("positive", self.k, "prox.SparseSimplex", "k", "Some entry must be nonzero, for their sum is.")
        require("positive", self.total, "prox.SparseSimplex", "total", "Only 0 has nonnegative entries with sum 0.")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding in the sum; inf elsewhere."""
        x, total = _rows(x, self.total, self.axis, "prox.SparseSimplex")
        few = jnp.sum(x != 0, axis=-1) <= self.k
        return _in_section(jnp.all(x >= 0) & jnp.all(few), x, total)

    def project(self, x: Any) -> jax.Array:
        """A nearest point of the set."""
        x, total = _rows(x, self.total, self.axis, "prox.SparseSimplex")
        if self.k >= x.shape[-1]:
            return jnp.moveaxis(positive_part(x, total, self.selection), -1, self.axis)
        y = lax.stop_gradient(x)
        ordered = -jnp.sort(-y, axis=-1)
        top, kth, after = ordered[..., :1], ordered[..., self.k - 1 : self.k], ordered[..., self.k : self.k + 1]
        tied = y == kth
        taken = jnp.cumsum(tied, axis=-1) <= self.k - jnp.sum(y > kth, axis=-1, keepdims=True)
        chosen = (y > kth) | (tied & taken)
        # An entry below the largest by more than the total is not in the support.
        out = positive_part(jnp.where(chosen, x, top - 2 * lax.stop_gradient(total)), total, self.selection)
        # Zero where it was not chosen anyway; the switch is there to be seen, at a jump.
        margin = snap(y - (kth + after) / 2, 0)
        out = primitives.switch(margin, out, 0 * out, selection=chosen.astype(x.dtype), value=out)
        return jnp.moveaxis(out, -1, self.axis)
