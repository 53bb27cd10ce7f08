"""How the active kinks of an equation feed back into each other: the matrix Q, by k tangent solves.

With M0 the derivative of the equation where every active kink takes its branch below, G what each kink
adds to the residual, C and E what the unknowns and earlier kinks do to each kink,

    Q = E - C M0^-1 G,     det M(s) = det M0 · det(I - diag(s) Q)   for every selection s.

The certificate on the host and the guard inside a derivative both start from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit._tree import Space, negative, subtract
from nsimplicit.calculus.injection import Kinked, Survey
from nsimplicit.calculus.program import trace
from nsimplicit.certificates.p_matrix import p_test
from nsimplicit.implicit.equation import Equation
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.dense import invert
from nsimplicit.linear_solvers.operator import (
    General,
    LinearSolver,
    Operator,
    accepted_error,
    condition_number,
    quotient,
)
from nsimplicit.primitives.coupled import COUPLED

NO_SWITCH = frozenset({"norm", COUPLED})
"""Kinks that are no segment of their own: the norm at 0 has a ball of derivatives; some share their weights."""


@data
class KinkSystem:
    """The active kinks of an equation at its solution.

    Args:
        q: array (k, k).
        error: bound on the error of q, entry by entry.
        solved: bool, M0 is invertible as far as the solves tell.
        singular: bool, M0 is singular to rounding; known only from another base.
    """

    q: jax.Array
    error: jax.Array
    solved: jax.Array
    singular: jax.Array


def lay_out(traced: Traced, consts: Any, z: Any, tolerance: float) -> Kinked:
    """The kinks of an equation's residual as a function of the leaves of ``z``; no user code runs again."""
    leaves, treedef = jax.tree.flatten(z)

    def residual(*leaves: Any) -> Any:
        z = treedef.unflatten(leaves)
        return jax.tree.leaves(traced.equation.residual(z, traced.end(consts, z)))

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
    solve: Callable[[Operator, Any], tuple[Any, jax.Array]],
    space: Space,
    *,
    below: bool = True,
) -> KinkSystem:
    """Q of the kinks at ``index``, and whether the base could be solved with.

    Args:
        kinked: from :func:`lay_out`.
        consts: what its program closed over.
        z: the solution.
        index: int array (k,), positions of kinks.
        active: bool array (k,).
        solve: (operator, gains (k, ...)) to the solutions (k, ...) and a condition number of the operator.
        space: the inner product of z.
        below: whether the base is M0. Otherwise it is the derivative as it is taken, M(t) say, and
            Q = R (I + diag(t) R)^-1 with R = E - C M(t)^-1 G.

    Cost:
        k solves, 2 k derivatives of the residual.
    """
    leaves, treedef = jax.tree.flatten(z)
    zero = jnp.zeros(index.shape, jnp.result_type(*leaves))
    eye = jnp.eye(index.size, dtype=zero.dtype)

    def opened(z: Any, y: jax.Array) -> Any:
        outs, difference, _, taken = kinked.open(consts, jax.tree.leaves(z), index, active, y, below=below)
        return (treedef.unflatten(outs), difference), taken

    _, push, taken = jax.linearize(opened, z, zero, has_aux=True)
    still = jax.tree.map(jnp.zeros_like, z)
    operator = Operator(lambda v: push(v, zero)[0], General(), space)
    gain, coupling = jax.vmap(lambda direction: push(still, direction))(eye)
    through, condition = solve(operator, gain)
    eps = jnp.finfo(zero.dtype).eps

    def column(gain: Any, through: Any) -> Any:
        product, into = push(through, zero)
        error = quotient(space.norm(subtract(gain, product)), space.norm(product) + space.norm(gain))
        # A relative error of the solve; the row norms of C are not known, what they gave here is.
        bound = condition * (error + 8 * eps) * (jnp.max(jnp.abs(into), initial=0) + eps)
        fine = (space.norm(gain) == 0) | ((error <= accepted_error(eps)) & (condition * eps < 0.1))
        return into, bound, fine

    into, bounds, fine = jax.vmap(column)(gain, through)
    q, bound, turn = (coupling - into).T, jnp.max(bounds, initial=0), jnp.ones((), zero.dtype)
    if not below:
        inverse = invert(eye + taken[:, None] * q)
        q, turn = q @ inverse, index.size * jnp.max(jnp.abs(inverse), initial=0)
        bound = bound * turn * (1 + index.size * jnp.max(jnp.abs(q), initial=0))
    singular = (~(turn * eps < 0.1) & jnp.all(fine)) | (condition * eps >= 0.1)
    return KinkSystem(q, jnp.full(q.shape, bound), jnp.all(fine) & ~singular, singular)


def by_products(solver: LinearSolver) -> Callable[[Operator, Any], tuple[Any, jax.Array]]:
    """Solve for every gain by itself; a condition number that is not known counts as 1 / sqrt(eps)."""

    def solve(operator: Operator, gain: Any) -> tuple[Any, jax.Array]:
        def one(gain: Any) -> tuple[Any, jax.Array]:
            found = solver.solve(operator, gain)
            return found.value, condition_number(operator.space, gain, found)

        through, condition = jax.vmap(one)(gain)
        unknown = jnp.finfo(condition.dtype).eps ** -0.5
        return through, jnp.max(jnp.where(jnp.isnan(condition), unknown, condition), initial=1)

    return solve


def by_factors(equation: Equation, again: Callable[[Any], Any]) -> Callable[[Operator, Any], tuple[Any, jax.Array]]:
    """Solve for every gain by factors of the equation's M, whose accuracy the residuals tell."""

    def solve(operator: Operator, gain: Any) -> tuple[Any, jax.Array]:
        # M dz = rhs(G y) is the equation's convention, (dE/dz) dz = -G y what is asked for here.
        through = jax.vmap(lambda g: negative(again(equation.right_hand_side(g))))(gain)
        return through, jnp.full((), jnp.finfo(jax.tree.leaves(gain)[0].dtype).eps ** -0.5)

    return solve


def verdict(
    traced: Traced,
    consts: Any,
    z: Any,
    solver: LinearSolver,
    max_kinks: int,
    tolerance: float,
    again: Callable[[Any], Any] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The code of a certificate, and the number of active kinks: traceable, no host involved.

    Args:
        traced: the equation.
        consts: what its programs close over.
        z: the solution.
        solver: for the tangent solves.
        max_kinks: the nearest so many kinks are looked at; more active ones leave it undecided.
        tolerance: a kink is active within this, relative to the largest operand.
        again: solves with the M of the equation's derivative as it is taken, by factors at hand.

    Returns:
        Codes 1 regular, 0 undecided, -1 singular; the count.
    """
    consts, z = jax.lax.stop_gradient((consts, z))
    kinked = lay_out(traced, consts, z, tolerance)
    one, none = jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32)
    dark = any(not x.has_rule for x in kinked.opaque)
    if not kinked.num_kinks:
        return (none if dark else one), none
    captured, leaves = kinked.program.consts, jax.tree.leaves(z)
    survey = kinked.survey(captured, leaves)
    index, active, more = nearest(survey, max_kinks, tolerance)
    near = survey.distance <= tolerance * survey.scale
    blocked = jnp.any(obstacles(kinked, survey, near, tolerance)) | jnp.any(survey.crowd <= tolerance)
    if again is None or kinked.has_orderings:
        solve, below = by_products(solver), True
    else:
        solve, below = by_factors(traced.equation, again), False
    system = kink_system(kinked, captured, z, index, active, solve, traced.space, below=below)
    both = active[:, None] & active
    matrix = jnp.eye(index.size, dtype=system.q.dtype) - jnp.where(both, system.q, 0)
    found = p_test(matrix, jnp.where(both, system.error, 0))
    # A minor that is zero to rounding is as singular as a computed number can tell; a margin does not know of the 1 in
    # 1 - q.
    rounding, diagonal = 1e3 * jnp.finfo(matrix.dtype).eps, jnp.diagonal(matrix)
    zero = (found.margin <= rounding) | jnp.any(jnp.abs(diagonal) <= rounding * (1 + jnp.abs(1 - diagonal)))
    code = jnp.where((found.code == 0) & zero, -1, found.code)
    count = jnp.sum(near).astype(jnp.int32)
    value = kinked.program(captured, *leaves)
    lost = ~jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in (*leaves, *jax.tree.leaves(value))]))
    undecided = blocked | (more > 0) | ~system.solved | dark | lost
    code = jnp.where(undecided, jnp.where(system.singular & ~blocked, -1, 0), code).astype(jnp.int32)
    return jnp.where((count == 0) & (not dark) & ~lost, one, code), count
