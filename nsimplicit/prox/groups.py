"""Norms that make whole vectors, or groups of entries, exactly zero."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, as_float, fit, require

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


def shrink_factor(length: jax.Array, threshold: jax.Array, selection: Any) -> jax.Array:
    """(1 - threshold/length)+, the kink being length = threshold; no kink where the threshold is 0.

    There (1 - 0/0)+ stands for the identity: with threshold 0 the prox leaves every x alone.
    """
    above = 1 - threshold / jnp.where(length > 0, length, 1)  # a nan in a branch not taken would reach the derivative
    excess = jnp.where(threshold > 0, length - threshold, 1)
    return primitives.switch(excess, above, jnp.zeros_like(above), selection=selection)


@data
class L2(Function):
    """The Euclidean norm (not squared) of all of x: the prox shrinks x, or sets all of it to zero.

    Formula: ``g(x) = w * norm(x)``; ``prox(x, s) = max(1 - s * w / norm(x), 0) * x``.

    Args:
        weight: w >= 0, one number.
        selection: what x on the sphere norm(x) = s w does: the weight in [0, 1] on the branch
            that keeps x, or a name. Static.

    Kinks:
        norm(x) = s w, where the Jacobian is between 0 and the projection on the direction of x;
        default 0. At x = 0 the prox is smooth: the Jacobian is 0 (w = 0: the identity).

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.L2(1.0).prox(jnp.array([3.0, 4.0]), 1.0).tolist()
        [2.4, 3.2]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.5.1.
    """

    weight: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.L2", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = as_float(x)
        return self.weight * primitives.norm(x.reshape(-1))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            threshold = fit(step * self.weight, jnp.zeros((), x.dtype), "prox.L2(weight=...)")
            return shrink_factor(primitives.norm(x.reshape(-1)), threshold, self.selection) * x

        return prox


@data
class GroupL2(Function):
    """A weighted sum of Euclidean norms of groups of entries: each group is kept or set to zero.

    Formula: ``g(x) = sum(w[k] * norm(x[group[k]]) for k)``;
    ``prox(x, s)[group[k]] = max(1 - s * w[k] / norm(x[group[k]]), 0) * x[group[k]]``.

    Args:
        weights: w >= 0: one number, or one for each group: shape (number of groups,), or, with
            ``axis``, the shape of x without that axis.
        groups: disjoint groups of positions in a vector x, as a sequence of sequences of ints;
            positions in no group are free. Static.
        axis: without ``groups``, each vector along this axis of x is a group. Static.
        selection: what a group exactly at its threshold does: the weight in [0, 1] on the branch
            that keeps it, or a name. Static.

    Kinks:
        norm(x[group]) = s w, where the Jacobian of the group is between 0 and the projection on
        the direction of x[group]; default 0. A group at zero is smooth, with Jacobian 0 (w = 0: the
        identity), whatever the other groups do.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.GroupL2(1.0, [[0, 1], [2]]).prox(jnp.array([3.0, 4.0, 0.5]), 1.0).tolist()
        [2.4, 3.2, 0.0]

    References:
        Yuan, Lin, Model selection and estimation in regression with grouped variables (2006).
    """

    weights: Any
    groups: tuple[tuple[int, ...], ...] | Sequence[Sequence[int]] | None = static(None, kw_only=False)
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weights, "prox.GroupL2", "weights", CONCAVE)
        if self.groups is None:
            return
        groups = tuple(tuple(int(i) for i in group) for group in self.groups)
        object.__setattr__(self, "groups", groups)  # hashable: the groups are static
        members = [i for group in groups for i in group]
        if (
            len(set(members)) < len(members)
            or min(members, default=0) < 0
            or jnp.shape(self.weights)
            not in (
                (),
                (len(groups),),
            )
        ):
            raise InputError(
                message(
                    "prox.GroupL2(weights, groups)",
                    f"{len(groups)} groups with {len(members)} positions, {len(set(members))} of them different, the "
                    f"smallest {min(members, default=0)}; weights of shape {jnp.shape(self.weights)}.",
                    "Groups are disjoint sets of positions >= 0, with one weight for all or one for each.",
                    "groups=[[0, 1], [2, 3]] with weights of shape (2,)",
                    "axis=-1 for groups that are the rows of a matrix",
                )
            )

    def _lengths(self, x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """The norm of each group, and the map from one number per group to one per entry."""
        if self.groups is None:
            return primitives.norm(x, axis=self.axis), functools.partial(jnp.expand_dims, axis=self.axis)
        index, member, label = _layout(self.groups, x.shape)
        lengths = primitives.norm(jnp.where(member, x[index], 0), axis=1)
        return lengths, lambda factor: jnp.concatenate([factor, jnp.ones((1,), factor.dtype)])[label]

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        lengths, _ = self._lengths(as_float(x))
        return jnp.sum(fit(self.weights, lengths, "prox.GroupL2(weights=...)") * lengths)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            x = as_float(x)
            lengths, spread = self._lengths(x)
            threshold = fit(step, lengths, "prox.GroupL2.prox(step=...)")
            threshold = threshold * fit(self.weights, lengths, "prox.GroupL2(weights=...)")
            return spread(shrink_factor(lengths, threshold, self.selection)) * x

        return prox


@functools.lru_cache(maxsize=32)
def _layout(groups: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions padded to a rectangle, which of them count, and the group of each position (last: none)."""
    if len(shape) != 1 or max((i for group in groups for i in group), default=0) >= shape[0]:
        raise InputError(
            message(
                "prox.GroupL2(weights, groups)",
                f"x has shape {shape}, and the largest position is {max(i for group in groups for i in group)}.",
                "Groups number the entries of a vector.",
                "x.ravel()",
            )
        )
    size = np.array([len(group) for group in groups])
    member = np.arange(max(size, default=0)) < size[:, None]
    index = np.zeros(member.shape, int)
    index[member] = [i for group in groups for i in group]
    label = np.full(shape, len(groups))
    label[index[member]] = np.repeat(np.arange(len(groups)), size)
    return index, member, label
