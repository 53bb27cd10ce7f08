"""Solve T(z) = z or F(z) = 0 and differentiate the answer: the three axes put together."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import Space, partition, promote
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.implicit.equation import FixedPoint, Root
from nsimplicit.implicit.process import Bound, Consts, Iteration, Process
from nsimplicit.implicit.rule import trace_equation
from nsimplicit.implicit.tap import Report
from nsimplicit.linear_solvers.operator import coarsest_eps
from nsimplicit.solvers.base import Solver, freeze
from nsimplicit.solvers.newton import SemismoothNewton
from nsimplicit.solvers.picard import Picard
from nsimplicit.splittings.base import Prepared, Splitting


@data
class Solution:
    """The answer of a solve. With ``batch_axis`` (or under ``vmap``) one entry per lane.

    Args:
        value: the solution x: what a splitting reads off z, z itself for a plain map or root.
        z: the governing iterate, the variable whose fixed-point equation was solved.
        converged: whether ``residual <= tol``.
        num_steps: steps that were evaluated.
        residual: ‖T(z) - z‖ / (1 + ‖z‖), or ‖F(z)‖ / (1 + ‖z‖), at the last evaluated z.
    """

    value: Any
    z: Any
    converged: jax.Array
    num_steps: jax.Array
    residual: jax.Array


def fixed_point(
    T: Callable[..., Any] | Splitting,
    z0: Any,
    *args: Any,
    solver: Solver = Picard(),
    derivative: Derivative = Implicit(),
    tol: Any = None,
    max_steps: Any = 1000,
    batch_axis: int | None = None,
    axis_name: str | tuple[str, ...] = (),
    tap: Report | None = None,
) -> Solution:
    """The fixed point of a map, differentiable in everything the map depends on.

    Formula: ``Solution.z`` solves z = T(z, args).

    Args:
        T: ``T(z, *args) -> z``, or a splitting. A function that closes over nothing is compiled
            once and reused by eager calls; a closure is compiled by every eager call.
        z0: where to start, any pytree of floating arrays; its derivative is zero.
        *args: further arguments of T, any pytrees, differentiated.
        solver: the iteration.
        derivative: how the answer is differentiated.
        tol: stop when ‖T(z) - z‖ <= tol·(1 + ‖z‖), relative; default eps^(2/3) of the state's dtype:
            3.7e-11 in float64, 2.4e-5 in float32. May be traced.
        max_steps: largest number of steps. May be traced.
        batch_axis: axis of every leaf of the state along which independent lanes lie; T is called
            on the whole batch, each lane stops by its own test.
        axis_name: mesh axes over which one state is split inside ``shard_map``.
        tap: :func:`nsimplicit.tap`, the probe of the backward pass.

    Returns:
        A :class:`Solution`.

    Raises:
        InputError: T does not return a state like z0; T communicates over a mesh axis that is not
            in ``axis_name``.
        DerivativeError: a combination of solver and derivative that makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> round(float(jax.grad(lambda t: nsi.fixed_point(lambda z, t: jnp.cos(z) * t, 1.0, t).value)(1.0)), 4)
        0.4416
    """
    return _start(T, z0, args, solver, derivative, tol, max_steps, batch_axis, axis_name, tap, False)


def root(
    F: Callable[..., Any],
    z0: Any,
    *args: Any,
    solver: Solver = SemismoothNewton(),
    derivative: Derivative = Implicit(),
    tol: Any = None,
    max_steps: Any = 100,
    batch_axis: int | None = None,
    axis_name: str | tuple[str, ...] = (),
    tap: Report | None = None,
) -> Solution:
    """A root of F, differentiable in everything F depends on.

    Formula: ``Solution.z`` solves F(z, args) = 0.

    Args:
        F: ``F(z, *args) -> residual`` with as many numbers as z.
        z0: where to start; its derivative is zero.
        *args: further arguments of F, any pytrees, differentiated.
        solver: an iteration for roots, :class:`solvers.SemismoothNewton`.
        derivative: how the answer is differentiated.
        tol: stop when ‖F(z)‖ <= tol·(1 + ‖z‖); default eps^(2/3) of the state's dtype.
        max_steps: largest number of steps.
        batch_axis: as in :func:`fixed_point`.
        axis_name: as in :func:`fixed_point`.
        tap: as in :func:`fixed_point`.

    Returns:
        A :class:`Solution`.

    Raises:
        InputError: F is not square, or the solver needs a fixed-point map.

    Example:
        >>> import jax, nsimplicit as nsi
        >>> round(float(jax.grad(lambda a: nsi.root(lambda z, a: z**3 + z - a, 1.0, a).value)(2.0)), 4)
        0.25
    """
    if solver.contracts:
        raise InputError(
            message(
                f"root(solver={type(solver).__name__}())",
                f"{type(solver).__name__} iterates a fixed-point map, and F gives none.",
                "A root is found by Newton's method here.",
                "solver=nsi.solvers.SemismoothNewton()",
                "nsi.fixed_point(lambda z: z - step * F(z), z0) for a step you know",
            )
        )
    return _start(F, z0, args, solver, derivative, tol, max_steps, batch_axis, axis_name, tap, True)


def _start(T, z0, args, solver, derivative, tol, max_steps, batch_axis, axis_name, tap, is_root) -> Solution:
    axis_name = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    z0 = jax.tree.map(jnp.asarray, z0)
    space = Space(batch_axis, axis_name)
    where = "root" if is_root else "fixed_point"
    space.check(z0, where)
    if tol is None:
        tol = coarsest_eps(partition(z0)[0]) ** (2 / 3) if jax.tree.leaves(partition(z0)[0]) else 0.0
    options = (solver, derivative, space, is_root)
    if isinstance(T, Splitting):
        return _compiled_splitting(T, z0, args, tol, max_steps, tap, options)
    # Only a plain function that closes over nothing may be compiled once and kept: whatever else is
    # callable can change what it captured between two calls.
    if isinstance(T, types.FunctionType) and T.__closure__ is None and _arrays_only(args):
        return _compiled_function(T, z0, args, tol, max_steps, tap, options)
    return _solve(T, z0, args, tol, max_steps, tap, options)


def _arrays_only(args: Any) -> bool:
    return all(hasattr(x, "dtype") or isinstance(x, bool | int | float | complex) for x in jax.tree.leaves(args))


def _solve(T, z0, args, tol, max_steps, tap, options) -> Solution:
    solver, derivative, space, is_root = options
    where = "root" if is_root else "fixed_point"
    prepare = T.prepare if isinstance(T, Splitting) else None

    def ready(z: Any, args: Any) -> Prepared:
        if prepare is not None:
            return prepare(z)
        made = Root if is_root else FixedPoint
        return Prepared(made((lambda z: T(z, *args),)), lambda z: z)

    prepared = ready(z0, args)
    traced, vector, combine = trace_equation(prepared.equation, z0, space, where)
    low = coarsest_eps(vector) > jnp.finfo(jnp.float32).eps if jax.tree.leaves(vector) else False
    if low:
        rule, _, _ = trace_equation(ready(z0, promote(args)).rule, promote(z0), space, where)
    elif prepared.optimality is not None:
        rule, _, _ = trace_equation(prepared.rule, z0, space, where)
    else:
        rule = traced
    vector = jax.lax.stop_gradient(vector)

    def run(consts: Consts):
        return solver.iterate(Bound(traced, consts), vector, space, tol=tol, max_steps=max_steps)

    process = Process(
        traced=traced,
        rule=rule,
        run=run,
        where=where,
        tail=lambda consts, z, damping: solver.tail(Bound(traced, consts), z, damping),
        advance=Iteration(
            init=lambda consts, z: solver.init(Bound(traced, consts), z, space),
            step=lambda consts, state: solver.step(Bound(traced, consts), state, space),
            freeze=lambda on, new, old: freeze(space, on, new, old),
            space=space,
        ),
        start=vector,
        contracts=solver.contracts,
        tap=tap,
        tol=tol,
        max_steps=max_steps,
    )
    outcome = derivative.solve(process)
    z = combine(outcome.z)
    return Solution(prepared.solution(z), z, outcome.converged, outcome.num_steps, outcome.residual)


_compiled_splitting = jax.jit(_solve, static_argnums=(6,))
_compiled_function = jax.jit(_solve, static_argnums=(0, 6))
