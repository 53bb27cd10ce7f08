"""The sparse group norm: few groups of entries, and few entries in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, as_float
from nsimplicit.prox.groups import GroupL2
from nsimplicit.prox.norms import L1


@data
class L1PlusGroupL2(Function):
    """The l1 norm plus a weighted sum of Euclidean norms of groups: sparse between groups and within.

    Formula: ``g(x) = sum(l1 * abs(x)) + sum(w[k] * norm(x[group[k]]) for k)``; the prox is that of
    :class:`L1` with weight l1, then that of :class:`GroupL2`.

    Args:
        l1: weight >= 0 of the l1 norm: one number, or an array that broadcasts to the shape of x.
        weights: w >= 0 of the groups, as in :class:`GroupL2`.
        groups: disjoint groups of positions in a vector x, as in :class:`GroupL2`. Static.
        axis: without ``groups``, each vector along this axis of x is a group. Static.
        selection: what an entry or a group exactly at its threshold does: the weight in [0, 1] on
            the branch that keeps it, or a name. Static.

    Kinks:
        Those of the two proxes: abs(x) = s l1, and norm(soft_threshold(x, s l1)[group]) = s w;
        default 0. Elsewhere a group at zero is smooth, whatever the other groups do.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> g = prox.L1PlusGroupL2(1.0, 1.0, [[0, 1], [2, 3]])
        >>> g.prox(jnp.array([4.0, 5.0, 1.5, 0.5]), 1.0).round(4).tolist()
        [2.4, 3.2, 0.0, 0.0]

    References:
        Simon, Friedman, Hastie, Tibshirani, A sparse-group lasso (2013), section 3.
    """

    l1: Any
    weights: Any
    groups: tuple[tuple[int, ...], ...] | Sequence[Sequence[int]] | None = static(None, kw_only=False)
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        _, parts = self._parts()
        object.__setattr__(self, "groups", parts.groups)  # hashable: the groups are static

    def _parts(self) -> tuple[L1, GroupL2]:
        """The two norms; they check the parameters."""
        options = {"selection": self.selection}
        return L1(self.l1, **options), GroupL2(self.weights, self.groups, axis=self.axis, **options)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = as_float(x)
        entries, groups = self._parts()
        return entries(x) + groups(x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        entries, groups = (part.prepare(step) for part in self._parts())
        return lambda x: groups(entries(as_float(x)))
