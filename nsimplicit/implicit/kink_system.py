"""How the active kinks of an equation feed back into each other: the matrix Q, by k tangent solves.

With M0 the derivative of the equation where every active kink takes its branch below, G what each kink
adds to the residual, C and E what the unknowns and earlier kinks do to each kink,

    Q = E - C M0^-1 G,     det M(s) = det M0 · det(I - diag(s) Q)   for every selection s.

The certificate on the host and the guard inside a derivative both start from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit._tree import Space, subtract
from nsimplicit.calculus.injection import Kinked, Survey
from nsimplicit.calculus.program import trace
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.operator import General, LinearSolver, Operator, quotient

NO_SWITCH = frozenset({"norm"})
"""Kinks whose derivatives fill more than a segment: the norm at 0 has a ball of them."""


@data
class KinkSystem:
    """The active kinks of an equation at its solution.

    Args:
        q: array (k, k); rows and columns of kinks that are not active are zero.
        error: bound on the error of q, entry by entry.
        active: bool array (k,).
        clear: bool, nothing is in the way of a verdict: no active jump, no block of more than six ties,
            no kink that is not a switch, no more than k active kinks.
        solved: bool, M0 was invertible as far as its solves tell.
    """

    q: jax.Array
    error: jax.Array
    active: jax.Array
    clear: jax.Array
    solved: jax.Array


def lay_out(traced: Traced, z: Any, tolerance: float) -> Kinked:
    """The kinks of an equation's residual as a function of the leaves of ``z``; no user code runs again."""
    leaves, treedef = jax.tree.flatten(z)

    def residual(*leaves: Any) -> Any:
        z = treedef.unflatten(leaves)
        return jax.tree.leaves(traced.equation.residual(z, traced.end(traced.consts, z)))

    return Kinked(trace(residual, *leaves), tolerance=tolerance, live_consts=False)


def nearest(survey: Survey, most: int, tolerance: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The ``most`` kinks nearest to their switch: positions, which are active, how many more are."""
    score = _score(survey, tolerance)
    found, index = lax.top_k(-score, min(most, score.size))
    active = -found <= 1
    return index, active, jnp.sum(score <= 1) - jnp.sum(active)


def _score(survey: Survey, tolerance: float) -> jax.Array:
    """Distance in units of the tolerance; at most 1 where a kink is active."""
    reach = tolerance * survey.scale
    return jnp.where(survey.distance == 0, 0, survey.distance / jnp.where(reach > 0, reach, 1e-300))


def obstacles(kinked: Kinked, survey: Survey, active: jax.Array, tolerance: float) -> jax.Array:
    """Bool (N,): active kinks that are not switches between two branches that meet."""
    blind = [jnp.full(size, site.name in NO_SWITCH) for site, size in zip(kinked.sites, kinked.sizes, strict=True)]
    odd = jnp.concatenate(blind) if blind else jnp.zeros(0, bool)
    return active & (odd | ~(survey.gap <= 100 * tolerance))


def kink_system(
    kinked: Kinked,
    consts: Sequence[Any],
    z: Any,
    index: jax.Array,
    active: jax.Array,
    solver: LinearSolver,
    space: Space,
) -> KinkSystem:
    """Q of the kinks at ``index``, and whether M0 could be solved with.

    Args:
        kinked: from :func:`lay_out`.
        consts: what its program closed over.
        z: the solution.
        index: int array (k,), positions of kinks.
        active: bool array (k,).
        solver: solves with M0.
        space: the inner product of z.

    Cost: k + 1 solves at most, k + 1 derivatives of the residual.
    """
    leaves, treedef = jax.tree.flatten(z)
    dtype = jnp.result_type(*leaves)
    zero = jnp.zeros(index.shape, dtype)

    def opened(z: Any, y: jax.Array) -> Any:
        outs, difference, _ = kinked.open(consts, jax.tree.leaves(z), index, active, y)
        return treedef.unflatten(outs), difference

    _, push = jax.linearize(opened, z, zero)
    still = jax.tree.map(jnp.zeros_like, z)
    operator = Operator(lambda v: push(v, zero)[0], General(), space)

    def column(direction: jax.Array) -> Any:
        gain, coupling = push(still, direction)
        found = solver.solve(operator, gain)
        into = push(found.value, zero)[1]
        product = operator.matvec(found.value)
        size, scale = space.norm(found.value), space.norm(gain)
        norm = jnp.maximum(found.norm, quotient(space.norm(product), size))
        error = quotient(space.norm(subtract(gain, product)), norm * size + scale)
        condition = jnp.where(jnp.isnan(found.condition), 1 / jnp.finfo(dtype).eps ** 0.5, found.condition)
        bound = jnp.max(jnp.abs(into), initial=0) * condition * (error + 8 * jnp.finfo(dtype).eps)
        fine = (scale == 0) | ((error <= 10 * jnp.finfo(dtype).eps ** 0.75) & (condition * jnp.finfo(dtype).eps < 0.1))
        return coupling - into, jnp.full(index.shape, bound), fine

    columns, bounds, fine = jax.vmap(column)(jnp.eye(index.size, dtype=dtype))
    return KinkSystem(columns.T, bounds.T, active, jnp.array(True), jnp.all(fine))
