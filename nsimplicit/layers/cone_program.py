"""Cone programs: solved, and differentiated in all their data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit._tree import Space
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.implicit.equation import Root
from nsimplicit.implicit.process import opaque
from nsimplicit.implicit.tap import Report
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.layers.cone_conditions import State, conditions, split
from nsimplicit.layers.cone_data import WHERE, ConeProgram, read
from nsimplicit.layers.cone_host import HostSolver, solve_on_host
from nsimplicit.layers.cone_solve import Found, Scales, check, scaled, scales, solve, unscaled
from nsimplicit.layers.layer import layer, shown, tolerance
from nsimplicit.layers.qp_interior import INFEASIBLE, SOLVED, UNBOUNDED

MAX_STEPS = 20_000


@data
class ConeSolution:
    """The answer of :func:`cone_program`; under ``vmap`` one entry per lane.

    Args:
        value: the solution x, ``(n,)``; nan where there is none.
        dual: the multipliers y of the rows, ``(m,)``, in the dual cones: P x + c + Aᵀy = 0.
        slack: s = b - A x, ``(m,)``, in the cones, orthogonal to y.
        status: 1 solved; 0 not solved within ``max_steps``, value is the best iterate; -1 infeasible; -2 unbounded;
            -3 the data are not finite or P is not positive semidefinite. Where it is not 1 derivatives fail the guard.
        infeasible: where the status is -1 the y in the dual cones with bᵀy = -1 and Aᵀy = 0, which proves it; else nan.
        unbounded: where it is -2 the x with cᵀx = -1, P x = 0 and -A x in the cones; else nan.
        num_steps: steps of splitting and of Newton's method.
        residual: by how much the optimality conditions are missed, relative.
    """

    value: jax.Array
    dual: jax.Array
    slack: jax.Array
    status: jax.Array
    infeasible: jax.Array
    unbounded: jax.Array
    num_steps: jax.Array
    residual: jax.Array

    @property
    def converged(self) -> jax.Array:
        """Whether the status is 1."""
        return self.status == SOLVED


def _formulate(
    A: Any,
    b: Any,
    c: Any,
    cones: Any,
    *,
    P: Any = None,
    solver: str | HostSolver | None = None,
    tol: float | None = None,
    max_steps: int = MAX_STEPS,
    **_: Any,
) -> tuple[State, Root]:
    program = read(A, b, c, cones, P)
    hat, _, found = _search(program, solver, tolerance(program.c.dtype, tol), max_steps)
    return _reached(found), conditions(hat)


@layer(_formulate)
def cone_program(
    A: Any,
    b: Any,
    c: Any,
    cones: Any,
    *,
    P: Any = None,
    solver: str | HostSolver | None = None,
    derivative: Derivative = Implicit(),
    tol: float | None = None,
    max_steps: int = MAX_STEPS,
    tap: Report | None = None,
) -> ConeSolution:
    """A convex cone program, differentiable in all its data: both modes, every order.

    Formula: ``value`` is the x that minimises ½ xᵀP x + cᵀx subject to A x + s = b, s in a product of cones.

    One program; ``jax.vmap`` makes it many. All arrays are dense, float32 or float64, in the units of the data.

    Args:
        A: ``(m, n)``.
        b: ``(m,)``.
        c: ``(n,)``.
        cones: which rows are in which cone, in order. Pairs of an object of :mod:`nsimplicit.prox` and its number of
            rows, ``[(prox.ZeroCone(), 2), (prox.SecondOrderCone(), 3)]``; or sizes as SCS and diffcp take them,
            ``{"z": 2, "l": 4, "q": [3], "s": [2], "ep": 1, "ed": 1, "p": [0.3, -0.5]}``, rows in this order.
            Cones: zero, free, nonnegative, second-order and rotated, positive semidefinite, exponential and
            power cones and their duals; the last two take any multiple of three rows. A matrix of order n is its lower
            triangle column by column, n (n + 1)/2 rows, entries off the diagonal times sqrt(2).
        P: ``(n, n)``, positive semidefinite; what is not symmetric in it is not seen. None: zero.
        solver: None: the solver in JAX. ``"scs"``, ``"clarabel"``: theirs, on the host, where installed. Or a
            function ``(A, b, c, P, cones) -> (x, y, s)`` of NumPy arrays, rows and cones in the form of SCS; nan in x
            and s: y proves infeasibility; nan in y: x proves unboundedness. Its answer is checked, and improved
            by Newton's method, before anything is said of it.
        derivative: how the solution is differentiated: ``Implicit(linear_solver, guard)``.
        tol: largest residual of a solution, relative; default √eps/2: 7.5e-9 in float64, 1.7e-4 in float32. Where
            Newton's method gets hold the residual is at rounding, whatever the tolerance. Static.
        max_steps: largest number of steps. Static.
        tap: :func:`nsimplicit.tap`, the probe of the backward pass.

    Returns:
        A :class:`ConeSolution`; its ``status`` says in each lane whether it is one.

    Raises:
        InputError: shapes that do not fit, rows that no cone has, a cone that is not known; outside of jit also data
            that are not finite, a P that is not convex.

    Kinks:
        Those of the projection on the cones at t = s - y, where a constraint is weakly active; each cone has its
        ``selection``, the weight on "not active": ``(prox.Nonnegative(selection="inside"), 4)``; what a weight between
        0 and 1 names is between the two derivatives, and depends on the units of s and y. Default as in
        :mod:`nsimplicit.prox`: 1/2 for ``Nonnegative``, 0 (active) for the others, 1 for the dual exponential and power
        cones. A t that is eps^(3/4) from a kink of entries, lengths or eigenvalues is at it. Whether every selection
        has a derivative is what ``nsi.certify(nsi.layers.cone_program)(A, b, c, cones)`` decides.

    Cost:
        A step is a product with a cached factor of n numbers, one with A and Aᵀ, and a projection; a step of Newton's
        method a factorisation of n + m numbers, and so is the derivative. Memory (n + m)².

    Where multipliers or solutions are not unique the tangent system is singular, and the guard fails: nan.
    ``Implicit(guard=nsi.guards.Solved(on_failure="least_squares"))`` gives the least-squares answer instead.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> A, b = -jnp.eye(3)[:, :2], jnp.array([0.0, 0.0, 0.0]).at[0].set(2.0)  # s = (2 + x0, x1, 0)
        >>> found = nsi.layers.cone_program(A, b, jnp.array([1.0, 0.0]), {"q": [3]})
        >>> int(found.status), found.value.round(6).tolist()
        (1, [-2.0, 0.0])

    References:
        A. Agrawal et al., Differentiating through a cone program, J. Appl. Numer. Optim. 1 (2019); B. O'Donoghue,
        Operator splitting for a homogeneous embedding of the linear complementarity problem, SIAM J. Optim. 31 (2021).
    """
    program = read(A, b, c, cones, P)
    return _solution(program, tap, solver, derivative, tolerance(program.c.dtype, tol), max_steps)


def _find(program: ConeProgram, solver: Any, tol: float, max_steps: int) -> tuple[ConeProgram, Scales, Found]:
    """The scaled program, whose derivative is that of the data; its scales, constants; and its solution."""
    with jax.default_matmul_precision("highest"):
        by = scales(program)
        hat = scaled(program, by)
        fixed, by = lax.stop_gradient((hat, by))
        if solver is None:
            return hat, by, solve(fixed, tol, max_steps)
        return hat, by, check(fixed, by, solve_on_host(solver, lax.stop_gradient(program)), tol)


def _reached(found: Found) -> State:
    """The state, nan where it is no solution: every guard fails what is not finite."""
    return jax.tree.map(lambda v: jnp.where(found.status == SOLVED, v, jnp.nan), found.z)


def _differentiable(
    program: ConeProgram, tap: Report | None, solver: Any, derivative: Derivative, tol: float, max_steps: int
) -> ConeSolution:
    hat, by, found = _find(program, solver, tol, max_steps)
    z = _reached(found)
    traced, vector, combine = trace_equation(conditions(hat), z, Space(), WHERE)
    z = combine(derivative.solve(opaque(traced, traced, vector, WHERE, tap)).z)
    with jax.default_matmul_precision("highest"):
        lost = found.status < 0
        values = unscaled(by, *(jnp.where(lost, jnp.nan, v) for v in lax.stop_gradient(split(hat, found.z))))
        x, y, s = jax.tree.map(shown, unscaled(by, *split(hat, z)), values)
        ray_x, ray_y, _ = unscaled(by, found.x, found.y, found.y)
        ray_x, ray_y = lax.stop_gradient((ray_x / -(program.c @ ray_x), ray_y / -(program.b @ ray_y)))
    return ConeSolution(
        x,
        y,
        s,
        found.status,
        jnp.where(found.status == INFEASIBLE, ray_y, jnp.nan),
        jnp.where(found.status == UNBOUNDED, ray_x, jnp.nan),
        found.num_steps,
        found.residual,
    )


_search = jax.jit(_find, static_argnums=(1, 2, 3))
_solution = jax.jit(_differentiable, static_argnums=(2, 3, 4, 5))
