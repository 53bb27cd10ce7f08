"""jaxopt's projections ``projection_*(x, hyperparams)``, by the sets of :mod:`nsimplicit.prox`.

They are called as there and have the same values, and the same derivatives at kinks, but where jaxopt's
were nan. The two in relative entropy are :func:`nsimplicit.layers.sinkhorn`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from nsimplicit._errors import InputError, message
from nsimplicit.compat.jaxopt._table import REQUIRED, function
from nsimplicit.derivatives import Implicit
from nsimplicit.implicit.guards import Solved
from nsimplicit.layers.sinkhorn import sinkhorn
from nsimplicit.prox import (
    AffineSet,
    Birkhoff,
    Box,
    BoxSection,
    Halfspace,
    Hyperplane,
    L1Ball,
    L1Sphere,
    L2Ball,
    L2Sphere,
    LInfBall,
    Nonnegative,
    Polyhedron,
    Set,
    Simplex,
    SparseSimplex,
    TransportPolytope,
)
from nsimplicit.prox.base import concrete

__all__ = [
    "kl_projection_birkhoff",
    "kl_projection_transport",
    "projection_affine_set",
    "projection_birkhoff",
    "projection_box",
    "projection_box_section",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_polyhedron",
    "projection_simplex",
    "projection_sparse_simplex",
    "projection_transport",
]


def _leafwise(make: Callable[..., Set]) -> Callable[..., Any]:
    return lambda x, hyperparams: make(hyperparams).project(x)


def _whole(make: Callable[..., Set]) -> Callable[..., Any]:
    """A projection of all of x at once; ``x`` and a normal like it may be trees."""

    def body(x: Any, hyperparams: Any) -> Any:
        if jax.tree_util.treedef_is_leaf(jax.tree.structure(x)):
            return make(hyperparams).project(x)
        flat, unravel = ravel_pytree(x)
        if isinstance(hyperparams, tuple):
            hyperparams = (ravel_pytree(hyperparams[0])[0], *hyperparams[1:])
        return unravel(make(hyperparams).project(flat))

    return body


def _radius(cls: Callable[..., Set]) -> Callable[..., Set]:
    return lambda radius: cls(1.0 if radius is None else radius)


_l1_ball = functools.partial(L1Ball, selection="inside")
_l2_ball = functools.partial(L2Ball, selection="inside")


def _shifted(x: Any, value: Any) -> Any:
    """The projection on a simplex does not see a shift, and numbers near zero have more digits."""
    x = jnp.asarray(x)
    return Simplex(1.0 if value is None else value).project(x - lax.stop_gradient(jnp.max(x)))


def _sparse_simplex(x: Any, max_nz: int, approximate: bool, value: Any) -> Any:
    del approximate
    return SparseSimplex(max_nz, 1.0 if value is None else value).project(x)


def _without_empty_rows(matrix: Any, bound: Any, holds: Callable[[Any], Any]) -> tuple[Any, Any]:
    """jaxopt lets a row of zeros pass that says nothing."""
    rows, bounds = concrete(matrix), concrete(bound)
    if rows is None or bounds is None:
        return matrix, bound
    keep = np.any(rows, axis=1) | ~holds(bounds)
    return (matrix, bound) if np.all(keep) else (rows[keep], bounds[keep])


def _polyhedron(x: Any, hyperparams: Any, check_feasible: bool) -> Any:
    A, b, G, h = hyperparams
    if A is not None:
        A, b = _without_empty_rows(A, b, lambda b: b == 0)
    if G is not None:
        G, h = _without_empty_rows(G, h, lambda h: h >= 0)
    p = Polyhedron(A, b, G, h).project(x)
    if check_feasible and (numbers := concrete(p)) is not None and np.any(np.isnan(numbers)) and np.all(np.isfinite(x)):
        found, meaning = "no x satisfies A @ x = b and G @ x <= h.", "There is nothing to project on."
        tries = "the equations and the bounds one by one", "check_feasible=False, for nan"
        raise InputError(message("projection_polyhedron(x, (A, b, G, h))", found, meaning, *tries))
    return p


projection_non_negative = function(
    "projection_non_negative",
    "Nearest point with x >= 0.",
    _leafwise(lambda _: Nonnegative(selection="outside")),
    hyperparams=None,
)
projection_box = function(
    "projection_box",
    "Nearest point with lo <= x <= hi; ``hyperparams = (lo, hi)``.",
    _leafwise(lambda bounds: Box(*bounds)),
    hyperparams=REQUIRED,
)
projection_hypercube = function(
    "projection_hypercube", "Nearest point with 0 <= x <= unit.", _leafwise(lambda unit: Box(0.0, unit)), unit=1.0
)
projection_simplex = function("projection_simplex", "Nearest x >= 0 with sum(x) = value.", _shifted, value=1.0)
projection_sparse_simplex = function(
    "projection_sparse_simplex",
    "Nearest x >= 0 with sum(x) = value and at most max_nz entries; ``use_approx_max_nz`` is ignored: always exact.",
    _sparse_simplex,
    max_nz=REQUIRED,
    use_approx_max_nz=False,
    value=1.0,
)
projection_l1_sphere = function(
    "projection_l1_sphere", "Nearest point with sum(abs(x)) = value.", _leafwise(_radius(L1Sphere)), value=1.0
)
projection_l1_ball = function(
    "projection_l1_ball", "Nearest point with sum(abs(x)) <= max_value.", _leafwise(_radius(_l1_ball)), max_value=1.0
)
projection_l2_sphere = function(
    "projection_l2_sphere", "Nearest point with norm(x) = value.", _whole(_radius(L2Sphere)), value=1.0
)
projection_l2_ball = function(
    "projection_l2_ball", "Nearest point with norm(x) <= max_value.", _whole(_radius(_l2_ball)), max_value=1.0
)
projection_linf_ball = function(
    "projection_linf_ball", "Nearest point with abs(x) <= max_value.", _leafwise(_radius(LInfBall)), max_value=1.0
)
projection_box_section = function(
    "projection_box_section",
    "Nearest point with lo <= x <= hi and sum(w * x) = c; ``hyperparams = (lo, hi, w, c)``, always checked.",
    lambda x, hyperparams, check_feasible: BoxSection(*hyperparams).project(x),
    hyperparams=REQUIRED,
    check_feasible=False,
)
projection_hyperplane = function(
    "projection_hyperplane",
    "Nearest point with sum(a * x) = b; ``hyperparams = (a, b)``.",
    _whole(lambda normal: Hyperplane(*normal)),
    hyperparams=REQUIRED,
)
projection_halfspace = function(
    "projection_halfspace",
    "Nearest point with sum(a * x) <= b; ``hyperparams = (a, b)``.",
    _whole(lambda normal: Halfspace(*normal)),
    hyperparams=REQUIRED,
)
projection_affine_set = function(
    "projection_affine_set",
    "Nearest point with A @ x = b; ``hyperparams = (A, b)``.",
    _leafwise(lambda system: AffineSet(*system)),
    hyperparams=REQUIRED,
)
projection_polyhedron = function(
    "projection_polyhedron",
    "Nearest point with A @ x = b and G @ x <= h; ``hyperparams = (A, b, G, h)``; of an empty set nan inside ``jit``.",
    _polyhedron,
    hyperparams=REQUIRED,
    check_feasible=True,
)


def projection_transport(sim_matrix: Any, marginals: Any, make_solver: Any = None, use_semi_dual: bool = True) -> Any:
    """Nearest nonnegative matrix with given sums of rows and columns; ``marginals = (a, b)``, always exact."""
    del make_solver, use_semi_dual
    return TransportPolytope(*marginals).project(sim_matrix)


def projection_birkhoff(sim_matrix: Any, make_solver: Any = None, use_semi_dual: bool = True) -> Any:
    """Nearest doubly stochastic matrix, always exact."""
    del make_solver, use_semi_dual
    return Birkhoff().project(sim_matrix)


def kl_projection_transport(
    sim_matrix: Any, marginals: Any, make_solver: Any = None, use_semi_dual: bool = True
) -> Any:
    """Matrix with given sums of rows and columns that is nearest to ``exp(sim_matrix)`` in relative entropy.

    By Sinkhorn's iteration, to rounding; ``marginals = (a, b)``.
    """
    del make_solver, use_semi_dual
    a, b = marginals
    derivative = Implicit(guard=Solved(on_failure="least_squares"))
    return sinkhorn(a, b, -jnp.asarray(sim_matrix), 1.0, derivative=derivative).plan


def kl_projection_birkhoff(sim_matrix: Any, make_solver: Any = None, use_semi_dual: bool = True) -> Any:
    """Doubly stochastic matrix that is nearest to ``exp(sim_matrix)`` in relative entropy."""
    ones = (jnp.ones_like(sim_matrix, shape=(n,)) for n in jnp.shape(sim_matrix))
    return kl_projection_transport(sim_matrix, tuple(ones), make_solver, use_semi_dual)
