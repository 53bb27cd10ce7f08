"""Quadratic programs: solved, and differentiated in all their data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import Space
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.implicit.guards import Guard, Solved
from nsimplicit.implicit.process import opaque
from nsimplicit.implicit.tap import Report
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.layers.layer import layer, shown, tolerance
from nsimplicit.layers.qp_active_set import peak
from nsimplicit.layers.qp_conditions import Conditions, State, conditions, steps_for
from nsimplicit.layers.qp_interior import SOLVED
from nsimplicit.layers.qp_program import Program, read
from nsimplicit.layers.qp_solve import solve
from nsimplicit.layers.qp_tangent import Condensed

MAX_STEPS = 60
NAMES = {"active": 1.0, "inactive": 0.0}


@data
class QPSolution:
    """The answer of :func:`qp`; under ``vmap`` one entry per lane.

    Args:
        value: the solution x, ``(n,)``; nan where there is none.
        eq: multipliers of A x = b, ``(m,)``, of either sign.
        ineq: multipliers of G x <= h, ``(k,)``, not negative.
        bounds: multipliers of the bounds, ``(n,)``: positive where x is held down by hi, negative where it is held
            up by lo. P x + q + Aᵀeq + Gᵀineq + bounds = 0.
        status: 1 solved; 0 not solved within ``max_steps``, value is the last iterate; -1 infeasible; -2 unbounded;
            -3 the data are not finite or P is not positive semidefinite. Where it is not 1 derivatives fail the guard.
        num_steps: factorisations that were made.
        residual: by how much the optimality conditions are missed, relative.
    """

    value: jax.Array
    eq: jax.Array
    ineq: jax.Array
    bounds: jax.Array
    status: jax.Array
    num_steps: jax.Array
    residual: jax.Array

    @property
    def converged(self) -> jax.Array:
        """Whether the status is 1."""
        return self.status == SOLVED


def _formulate(
    P: Any,
    q: Any,
    *,
    eq: Any = None,
    ineq: Any = None,
    bounds: Any = None,
    selection: Any = None,
    tol: float | None = None,
    max_steps: int = MAX_STEPS,
    **_: Any,
) -> tuple[State, Conditions]:
    program = read(P, q, eq, ineq, bounds)
    z = _solve(program, tolerance(program.q.dtype, tol), max_steps)[0]
    return z, _equation(program, z, _weight(selection))


@layer(_formulate)
def qp(
    P: Any,
    q: Any,
    *,
    eq: tuple[Any, Any] | None = None,
    ineq: tuple[Any, Any] | None = None,
    bounds: tuple[Any, Any] | None = None,
    selection: Any = None,
    guard: Guard = Solved(),
    tol: float | None = None,
    max_steps: int = MAX_STEPS,
    tap: Report | None = None,
) -> QPSolution:
    """A convex quadratic program, differentiable in all its data: both modes, every order.

    Formula: ``value`` is the x that minimises ½ xᵀP x + qᵀx subject to A x = b, G x <= h, lo <= x <= hi.

    One program; ``jax.vmap`` makes it many. All arrays are dense, float32 or float64, in the units of the data. Each
    of the matrices may be a function ``v -> M v``; it is applied to the unit vectors, all at once, and what it closes
    over is differentiated.

    Args:
        P: ``(n, n)``, positive semidefinite; what is not symmetric in it is not seen. Zero: a linear program.
        q: ``(n,)``.
        eq: ``(A, b)`` of shapes ``(m, n)`` and ``(m,)``; or None.
        ineq: ``(G, h)`` of shapes ``(k, n)`` and ``(k,)``; a row with h = inf is not there. Or None.
        bounds: ``(lo, hi)``, each a number, ``(n,)`` or None; infinite entries are not there. Or None.
        selection: the weight on "the constraint is active" where one is weakly active: a number in [0, 1],
            ``"active"`` (1), ``"inactive"`` (0) or ``"mean"`` (0.5). ``None``: 0, or what a surrounding
            ``with_selection`` says of ``relu``.
        guard: checks each tangent solve. Where the program has no derivative the default gives nan.
        tol: largest residual of a solution, relative; default √eps/2: 7.5e-9 in float64, 1.7e-4 in float32. Where
            the active constraints were found the residual is at rounding, whatever the tolerance. Static.
        max_steps: largest number of factorisations of the interior-point method. Static.
        tap: :func:`nsimplicit.tap`, the probe of the backward pass.

    Returns:
        A :class:`QPSolution`; its ``status`` says in each lane whether it is one.

    Raises:
        InputError: shapes that do not fit; outside of jit also nan, a misplaced infinity, a P that is not convex.

    Kinks:
        Where a constraint is weakly active: it holds with equality, and its multiplier is zero (both to eps^(3/4)). The
        derivative is then that of the program with the constraint held (1), dropped (0), or in between. Every
        selection has a derivative if and only if the active constraints are independent and P is positive definite
        where those with positive multipliers hold (LICQ and the strong second-order condition): what
        ``nsi.certify(nsi.layers.qp)(P, q, ...)`` decides. The set is then that of a piecewise affine solution.
        ``nsi.with_selection(lambda q: nsi.layers.qp(P, q, ...).value, nsi.Along((d,)))`` holds the constraints that
        stay active when q moves along d: its derivative along d is the one-sided derivative.

    Cost:
        Per step a matrix (m + k) n² and its Cholesky factor n³/3, n² memory; the derivative is one more step.

    Where the active constraints are dependent the multipliers are not unique, those of least norm are given to the
    derivative, and the guard fails where no derivative exists: for a right-hand side that moves dependent constraints
    apart, or a cotangent of multipliers that are not unique.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> P, q = jnp.eye(2), jnp.array([-2.0, 1.0])
        >>> nsi.layers.qp(P, q, bounds=(0.0, None)).value.tolist()
        [2.0, 0.0]
        >>> jax.jacobian(lambda q: nsi.layers.qp(P, q, bounds=(0.0, None)).value)(q).tolist()
        [[-1.0, 0.0], [0.0, 0.0]]
        >>> int(nsi.layers.qp(P, q, ineq=(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([0.0, -1.0]))).status)
        -1

    References:
        B. Amos, J. Z. Kolter, OptNet: differentiable optimization as a layer in neural networks, ICML 2017.
        S. M. Robinson, Strongly regular generalized equations, Math. Oper. Res. 5 (1980), Theorem 4.1.
    """
    program = read(P, q, eq, ineq, bounds)
    return _solution(program, _weight(selection), tap, guard, tolerance(program.q.dtype, tol), max_steps)


def _weight(selection: Any) -> Any:
    """A number for a name; ``None`` stays, so that a surrounding selection is seen."""
    if not isinstance(selection, str) or selection == "mean":
        return None if selection is None else selections.weight(selection, 0.0, "relu")
    if selection not in NAMES:
        raise InputError(
            message(
                f"layers.qp(selection={selection!r})",
                f"{selection!r} is not one of active, inactive, mean.",
                "It says how much a weakly active constraint counts as active.",
                "a number in [0, 1]",
            )
        )
    return NAMES[selection]


def _equation(program: Program, z: State, weight: Any) -> Conditions:
    """The equation at a solution; how far from zero a kink counts as a tie is measured there."""
    (x, _, m), steps = z, steps_for(program)
    tau = jnp.finfo(x.dtype).eps ** 0.75
    G = lax.stop_gradient(program.G)
    reach = steps[2] * jnp.sqrt(jnp.sum(G * G, 1)) * (1 + peak(x))
    return conditions(program, steps, (tau * (1 + peak(x)), tau * (reach + peak(m))), weight)


def _differentiable(
    program: Program, weight: Any, tap: Report | None, guard: Guard, tol: float, max_steps: int
) -> QPSolution:
    found, status, count, error = solve(program, tol, max_steps)
    # Every guard fails a solution that is not finite, and so one that was not reached.
    z = jax.tree.map(lambda v: jnp.where(status == SOLVED, v, jnp.nan), found)
    traced, vector, combine = trace_equation(_equation(program, z, weight), z, Space(), "layers.qp")
    z = combine(Implicit(Condensed(), guard).solve(opaque(traced, traced, vector, "layers.qp", tap)).z)
    x, y, m = jax.tree.map(shown, z, found)
    bounds = -(program.P @ x + program.q + program.A.T @ y + program.G.T @ m)
    return QPSolution(x, y, m, bounds, status, count, error)


_solve = jax.jit(solve, static_argnums=(1, 2))
_solution = jax.jit(_differentiable, static_argnums=(3, 4, 5))
