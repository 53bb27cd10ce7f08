"""Decide whether the implicit function theorem applies at a solution: every selection, not only the one taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, promote
from nsimplicit.calculus.injection import Kinked, Survey
from nsimplicit.calculus.normal_form import expand_at
from nsimplicit.calculus.program import trace
from nsimplicit.certificates.certificate import Certificate, certificate
from nsimplicit.certificates.decision import decide, witness
from nsimplicit.certificates.verdict import judge
from nsimplicit.implicit.equation import Problem, formulate
from nsimplicit.implicit.kink_system import KinkSystem, by_products, kink_system, obstacles
from nsimplicit.implicit.rule import trace_equation
from nsimplicit.linear_solvers.krylov import GMRES
from nsimplicit.linear_solvers.operator import General, LinearSolver, Operator
from nsimplicit.linear_solvers.short_recurrences import BiCGStab
from nsimplicit.primitives.coupled import COUPLED

DENSE_SIZE = 2048
LEAST_SQUARES_SIZE = 512


def certify(
    problem: Problem | Callable[..., Any], *, max_kinks: int = 16, tolerance: float | None = None
) -> Callable[..., Certificate]:
    """Decide the hypothesis of the nonsmooth implicit function theorem at a solution.

    The theorem needs *every* element of the conservative Jacobian of the equation in its solution to be
    invertible. For a program made of switches that is decidable: with Q the matrix of how the active
    kinks feed back into each other, it holds if and only if the derivative with every kink below is
    invertible and I - Q is a P-matrix. Cheap tests come first; at most ``max_kinks`` kinks are enumerated.

    Args:
        problem: a decorated solver, called as it is: ``certify(solver)(init, *args)``; a splitting:
            ``certify(T)(z)``; or an optimality function: ``certify(F)(solution, *args)``.
        max_kinks: up to this number of kinks all 2^k principal minors are looked at; at most 24.
        tolerance: a kink is active where its operands differ by at most this times the largest
            operand. Default: by how much a Newton step to the equation's own solution may move them.

    Returns:
        A function returning a :class:`Certificate`; it needs concrete arguments. Inside jit use
        ``guards.AllSelections``.

    Raises:
        InputError: called with traced values, or the equation does not fit the solution.

    Cost:
        Up to 2048 unknowns one dense factorisation; beyond, as many tangent solves as active kinks.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> F = lambda z, w: jnp.array([jnp.abs(z[0]) + z[1], 2 * z[0] + jnp.abs(z[1])]) - w
        >>> found = nsi.certify(F)(jnp.zeros(2), jnp.zeros(2))
        >>> found.verdict, round(float(found.sigma_min), 4)
        ('regular', 0.382)

    References:
        Bolte, Le, Pauwels, Silveti-Falls, Nonsmooth implicit differentiation for machine learning and
        optimization (2021), whose open question this answers for programs made of switches.
    """

    def look(*args: Any, **kwargs: Any) -> Certificate:
        z, equation = formulate(problem, args, kwargs)
        where = f"certify({getattr(problem, '__name__', type(problem).__name__)})"
        if any(isinstance(x, Tracer) for x in jax.tree.leaves((z, args, kwargs))):
            found = "an argument is traced (inside jit, vmap or grad)."
            meaning = "How many kinks are active decides the shape of the computation."
            tries = "call it outside jit", "guard=nsi.guards.AllSelections() inside a derivative"
            raise InputError(message(f"{where}(...)", found, meaning, *tries))
        z = promote(jax.tree.map(jnp.asarray, z))
        traced, vector, _ = trace_equation(equation, z, Space(), where)
        flat, unravel = Space().ravel(vector)

        def residual(v: jax.Array) -> jax.Array:
            z = unravel(v)
            return Space().ravel(traced.equation.residual(z, traced.end(traced.consts, z)))[0]

        eps = float(jnp.finfo(flat.dtype).eps)
        kinked = Kinked(trace(residual, flat), tolerance=eps**0.5, live_consts=False)
        survey = jax.jit(kinked.survey)(kinked.program.consts, [flat])
        active, reach = _active(kinked, survey, flat, tolerance, eps)
        blocked = _blocked(kinked, survey, active, eps**0.5)
        if not _is_finite(kinked, flat):
            reason = "the solution or its residual is nan or infinite"
            return certificate(0, flat.size, 0, "none", reason=reason, tolerance=reach)
        index = np.flatnonzero(active)
        least, method = (isinstance(problem, Problem) and problem.guarantee(z)) or (0.0, "")
        if least > 1e3 * eps:
            names = tuple(map(kinked.name, index.tolist()))
            shown: dict[str, Any] = dict(names=names, tolerance=reach, sigma_min=least, bound="lower bound", clarke=1)
            return certificate(1, flat.size, len(index), method, margin=least, **shown)
        if blocked:
            names = tuple(map(kinked.name, index.tolist()))
            return certificate(0, flat.size, len(index), "none", reason=blocked, names=names, tolerance=reach)
        if flat.size > DENSE_SIZE:
            return _matrix_free(kinked, flat, index, max_kinks, eps, reach)
        form = expand_at(kinked, flat, index)
        groups, signs = _same_arguments(kinked, flat, np.array(form.positions, int))
        options: dict[str, Any] = dict(max_kinks=max_kinks, eps=eps, tolerance=reach, groups=groups, signs=signs)
        return judge(form, is_symmetry=lambda kernel: _is_symmetry(kinked, flat, kernel, eps), **options)

    return look


def _is_symmetry(kinked: Kinked, flat: jax.Array, kernel: np.ndarray, eps: float) -> bool:
    """Whether the equation stays solved far along its kernel: a shift, or, along the solution itself, a scaling."""
    size = float(jnp.linalg.norm(flat))
    for v in kernel.T:
        along = abs(float(jnp.vdot(flat, v))) >= (1 - 1e-6) * size > 0
        moved = [0.1 * flat, 10 * flat] if along else [flat + t * (1 + 10 * size) * v for t in (-1, 1)]
        if any(not _solves(kinked, jnp.asarray(z, flat.dtype), eps) for z in moved):
            return False
    return True


def _is_finite(kinked: Kinked, flat: jax.Array) -> bool:
    value = kinked.program(kinked.program.consts, flat)
    return bool(jnp.all(jnp.isfinite(flat)) & jnp.all(jnp.isfinite(value)))


def _solves(kinked: Kinked, z: jax.Array, eps: float) -> bool:
    value = kinked.program(kinked.program.consts, z)
    return bool(jnp.linalg.norm(value) <= 1e3 * eps * (1 + jnp.linalg.norm(z)))


def _same_arguments(kinked: Kinked, flat: jax.Array, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kinks that compare the same numbers, up to sign, also at points nearby: a number for each, and the sign."""
    rng = np.random.default_rng(0)
    k, size = len(index), 1 + float(jnp.linalg.norm(flat)) / max(flat.size, 1) ** 0.5
    active, zero = np.ones(k, bool), jnp.zeros(k, flat.dtype)
    at = jax.jit(lambda v: kinked.open(kinked.program.consts, [v], index, active, zero)[2])
    moves = jnp.asarray(0.1 * size * rng.normal(size=(4, flat.size)), flat.dtype)
    values = np.array([at(flat + d) for d in moves]).T
    groups, signs = np.arange(k), np.ones(k, int)
    for i in range(k):
        close = 64 * float(jnp.finfo(flat.dtype).eps) * np.max(np.abs(values[i]), initial=1e-300)
        for j in range(i) if np.any(values[i]) else ():
            for sign in (1, -1):
                if groups[i] == i and np.max(np.abs(values[i] - sign * values[j])) <= close:
                    groups[i], signs[i] = groups[j], sign * signs[j]
    return np.unique(groups, return_inverse=True)[1], signs


def _active(
    kinked: Kinked, survey: Survey, flat: jax.Array, tolerance: float | None, eps: float
) -> tuple[np.ndarray, float]:
    """Which kinks are active, and the largest distance within which one counted."""
    distance, scale = np.asarray(survey.distance), np.asarray(survey.scale)
    reach = (eps**0.5 if tolerance is None else tolerance) * scale
    if tolerance is None and kinked.num_kinks:
        reach = np.asarray(jax.jit(lambda v: _uncertainty(kinked, v, eps))(flat)) + 8 * eps * scale
    active = distance <= reach
    return active, float(np.max(reach, where=np.isfinite(distance), initial=0))


def _uncertainty(kinked: Kinked, flat: jax.Array, eps: float) -> jax.Array:
    """How far the distance of each kink may be off: its slope times the distance to the true solution."""
    consts = kinked.program.consts

    def distances(v: jax.Array) -> jax.Array:
        return kinked.survey(consts, [v]).distance

    def residual(v: jax.Array) -> jax.Array:
        return kinked.program(consts, v)

    value, push = jax.linearize(residual, flat)
    if flat.size > DENSE_SIZE:
        # A few digits of the distance are enough.
        step = BiCGStab(rtol=1e-3).solve(Operator(push, General(), Space()), value).value
        moved = jnp.abs(jax.jvp(distances, (flat,), (step,))[1])
        return 10 * jnp.where(jnp.isfinite(moved), moved, 0)
    eye = jnp.eye(flat.size, dtype=flat.dtype)
    matrix = jax.vmap(push, out_axes=1)(eye)
    solve = (lambda a, b: jnp.linalg.lstsq(a, b)[0]) if flat.size <= LEAST_SQUARES_SIZE else jnp.linalg.solve
    step = jnp.nan_to_num(solve(matrix, value))
    slopes = jax.vmap(lambda v: jax.jvp(distances, (flat,), (v,))[1], out_axes=1)(eye)
    slopes = jnp.linalg.norm(jnp.where(jnp.isfinite(slopes), slopes, 0), axis=1)
    return 2 * slopes * (jnp.linalg.norm(step) + eps * jnp.linalg.norm(flat))


def _blocked(kinked: Kinked, survey: Survey, active: np.ndarray, near: float) -> str:
    """What no selection of switches describes, in words; empty where nothing is in the way."""
    for i in np.flatnonzero(np.asarray(obstacles(kinked, survey, jnp.asarray(active), near))):
        name = kinked.name(int(i))
        if kinked.operation(int(i)) == "norm":
            return f"{name} is at 0, where its derivatives fill a ball"
        if kinked.operation(int(i)) == COUPLED:
            return f"{name} shares its weight with other kinks: no selection of switches describes it"
        return f"{name} jumps here: the equation is discontinuous"
    if np.any(np.asarray(survey.crowd) <= near):
        return "more than six equal keys meet in a sort or a maximum"
    dark = [x for x in kinked.opaque if not x.has_rule]
    return f"{dark[0].name} at {dark[0].place} was not looked into: {dark[0].reason}" if dark else ""


def _matrix_free(
    kinked: Kinked, flat: jax.Array, index: np.ndarray, max_kinks: int, eps: float, reach: float
) -> Certificate:
    names = tuple(map(kinked.name, index.tolist()))
    shown: dict[str, Any] = dict(names=names, tolerance=reach)
    every = jnp.ones(len(index), bool)
    reason = "the system with every kink below could not be solved with to full accuracy"
    for solver in (BiCGStab(), GMRES()):  # the first keeps few vectors, the second knows a condition number

        def system(flat: jax.Array, solver: LinearSolver = solver) -> KinkSystem:
            solve = by_products(solver)
            return kink_system(kinked, kinked.program.consts, flat, jnp.asarray(index), every, solve, Space())

        found = jax.jit(system)(flat)
        if not found.solved:
            continue
        q = np.asarray(found.q, np.float64)
        decision = decide(q, np.asarray(found.error, np.float64), max_kinks=max_kinks)
        at = witness(decision.subset, q, 64 * len(index) * eps**0.75)
        reason, method = decision.reason, f"{decision.method}, by tangent solves"
        if decision.code == 1:
            shown |= {"margin": decision.margin, "clarke": int(not _coupled(kinked, flat, index))}
            return certificate(1, flat.size, len(index), method, **shown)
        if at is not None:
            return certificate(-1, flat.size, len(index), method, witness=at, sigma_min=0.0, bound="exact", **shown)
    return certificate(0, flat.size, len(index), "none", reason=reason or "no singular selection was found", **shown)


def _coupled(kinked: Kinked, flat: jax.Array, index: np.ndarray) -> bool:
    """Whether a kink moves another: if none does, the derivatives of all selections are a convex set."""
    active, zero = jnp.ones(len(index), bool), jnp.zeros(len(index), flat.dtype)
    coupling = jax.jacfwd(lambda y: kinked.open(kinked.program.consts, [flat], index, active, y)[1])
    return bool(jnp.any(jax.jit(coupling)(zero)))
