"""jaxopt's proximal operators ``prox_*(x, hyperparams, scaling)``, by the objects of :mod:`nsimplicit.prox`.

They are called as there and have the same values, and the same derivatives at kinks, but where jaxopt's
were nan or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from nsimplicit.compat.jaxopt._table import function, leafwise, whole
from nsimplicit.prox import L1, L2, ElasticNet, Nonnegative, NonnegativeL1, Regularize, SquaredL2, Zero

__all__ = [
    "make_prox_from_projection",
    "prox_elastic_net",
    "prox_group_lasso",
    "prox_lasso",
    "prox_non_negative_lasso",
    "prox_non_negative_ridge",
    "prox_none",
    "prox_ridge",
]


def _or_one(weight: Any) -> Any:
    return 1.0 if weight is None else weight


def _elastic_net(hyperparams: Any) -> ElasticNet:
    """jaxopt multiplies both terms by the first number."""
    l1, ratio = (1.0, 1.0) if hyperparams is None else hyperparams
    return ElasticNet(l1, _times(l1, ratio))


def _times(a: Any, b: Any) -> Any:
    if jax.tree.structure(a) == jax.tree.structure(b):
        return jax.tree.map(lambda a, b: a * b, a, b)
    one, many = (a, b) if jax.tree_util.treedef_is_leaf(jax.tree.structure(a)) else (b, a)
    return jax.tree.map(lambda leaf: one * leaf, many)


prox_none = function(
    "prox_none",
    "The prox of 0: x itself.",
    leafwise(lambda _: Zero()),
    hyperparams=None,
    scaling=1.0,
)
prox_lasso = function(
    "prox_lasso",
    "The prox of ``l1reg * sum(abs(x))``; ``l1reg`` is a number or like x.",
    leafwise(lambda l1reg: L1(_or_one(l1reg))),
    l1reg=None,
    scaling=1.0,
)
prox_non_negative_lasso = function(
    "prox_non_negative_lasso",
    "The prox of ``l1reg * sum(x)`` on x >= 0.",
    leafwise(lambda l1reg: NonnegativeL1(_or_one(l1reg))),
    l1reg=None,
    scaling=1.0,
)
prox_elastic_net = function(
    "prox_elastic_net",
    "The prox of ``l1 * (sum(abs(x)) + ratio / 2 * sum(x**2))``; ``hyperparams = (l1, ratio)``.",
    leafwise(_elastic_net),
    hyperparams=None,
    scaling=1.0,
)
prox_group_lasso = function(
    "prox_group_lasso",
    "The prox of ``l2reg * norm(x)``, x being one group however many leaves it has.",
    whole(lambda l2reg: L2(_or_one(l2reg))),
    l2reg=1.0,
    scaling=1.0,
)
prox_ridge = function(
    "prox_ridge",
    "The prox of ``l2reg / 2 * sum(x**2)``.",
    leafwise(lambda l2reg: SquaredL2(_or_one(l2reg))),
    l2reg=1.0,
    scaling=1.0,
)
prox_non_negative_ridge = function(
    "prox_non_negative_ridge",
    "The prox of ``l2reg / 2 * sum(x**2)`` on x >= 0.",
    leafwise(lambda l2reg: Regularize(Nonnegative(selection="outside"), _or_one(l2reg))),
    l2reg=1.0,
    scaling=1.0,
)


def make_prox_from_projection(projection: Callable[..., Any]) -> Callable[..., Any]:
    """The prox ``(x, hyperparams=None, scaling=1.0)`` of a set, whatever the scaling: the projection."""

    def prox(x: Any, hyperparams: Any = None, scaling: Any = 1.0) -> Any:
        del scaling
        return projection(x, hyperparams)

    return prox
