"""What each library makes of a fixed point x = T(x, theta, data) that is already known: only its derivative is timed.

Every call has the arguments ``(theta, data, x, v)`` and returns the gradient in theta of <v, x(theta)>. The solver
inside returns the x it was handed, so nothing but the rule runs.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

import nsimplicit as nsi
from benchmarks.race import DEFAULT, OURS, Entrant, absent, at_equal_error

TOLERANCES = tuple(10.0**-k for k in range(2, 13))
STATIC_TOLERANCES = (1e-5, 1e-7, 1e-8, 1e-9, 1e-10)  # where each is compiled anew


def tolerances(target: float) -> tuple[float, ...]:
    """What linear solvers are tried with to get an error of ``target``; in float32 nothing below 1e-7 is reached."""
    return tuple(t for t in TOLERANCES if t > (1e-7 if target > 1e-6 else 0.0))


UNTUNED = "jaxopt, default as it comes"
TUNED = "nsimplicit, ProxCG at equal error"
Map = Callable[[Any, Any, Any], Any]
Call = Callable[[Any, Any, Any, Any], Any]


def gradient(solve: Callable[[Any, Any, Any], Any]) -> Call:
    """The call of an entrant, from ``solve(theta, data, x) -> x`` as its library differentiates it."""
    return lambda theta, data, x, v: jax.grad(lambda theta: jnp.vdot(v, solve(theta, data, x)))(theta)


def decorated(T: Map, **options: Any) -> Call:
    """nsimplicit's decorator, which sees T as any function."""

    def solve(theta, data, x):
        return nsi.custom_fixed_point(T, init_argnum=None, **options)(lambda theta, data: x)(theta, data)

    return gradient(solve)


def known(T: nsi.splittings.Splitting, x: Any, derivative: Any, tap: Any = None) -> Any:
    """A solution x of a splitting with its derivative, attached to a solver that returns it as it came."""
    rule = nsi.custom_fixed_point(type(T), derivative=derivative)(lambda x, *fields: x)
    fields = [getattr(T, field.name) for field in dataclasses.fields(cast(Any, T))]
    return (rule if tap is None else rule.reporting(tap))(x, *fields)


def splitting(make: Callable[[Any, Any], Any], derivative: Any = nsi.derivatives.Implicit()) -> Call:
    """nsimplicit's decorator, told which splitting the solution belongs to."""
    return gradient(lambda theta, data, x: known(make(theta, data), x, derivative))


def steps(make: Callable[[Any, Any], Any], derivative: Any, args: tuple[Any, ...]) -> float | None:
    """The products ``splitting`` makes, by nsimplicit's own report; None where it fails, which its row will tell."""
    theta, data, x, v = args

    def loss(theta, tap):
        return jnp.vdot(v, known(make(theta, data), x, derivative, tap))

    try:
        return float(jax.jit(jax.grad(loss, argnums=(0, 1)))(theta, nsi.tap())[1].num_steps)
    except Exception:
        return None


def splitting_entrants(
    make: Callable[[Any, Any], Any],
    names: Sequence[str],
    instances: Sequence[tuple[Any, Any]],
    target: float,
    *,
    count: bool,
) -> list[Entrant]:
    """nsimplicit as it comes, with each of its linear solvers that exists and, where counted, ProxCG at equal error."""
    (args, error), *others = instances
    case: dict[str, Any] = {"args": args, "error": error, "others": others}

    def member(derivative, title, note=""):
        number = steps(make, derivative, args) if count else None
        return Entrant(title, splitting(make, derivative), products=number, note=note, **case)

    Implicit, menu = nsi.derivatives.Implicit, nsi.linear_solvers
    found = [member(Implicit(), OURS)]
    for name in names:
        if kind := getattr(menu, name, None):
            found.append(member(Implicit(kind()), f"{OURS}, {name}"))

    def loosened(tol):
        # The guard refuses what was not solved to the precision of the dtype, unless told that less is enough.
        return splitting(make, Implicit(menu.ProxCG(rtol=tol), guard=nsi.guards.Solved(rtol=10 * tol)))

    if not count:
        return found
    return [*found, at_equal_error(loosened, STATIC_TOLERANCES, **case, target=target, name=TUNED)]


def jaxopt_rule(T: Map, linear_solve: Callable[..., Any]) -> Call:
    from jaxopt import implicit_diff

    def solve(theta, data, x):
        rule = implicit_diff.custom_fixed_point(T, solve=linear_solve)
        return rule(lambda init, theta, data: x)(None, theta, data)

    return gradient(solve)


def optimistix_rule(T: Map, linear_solver: Any = None) -> Call:
    import optimistix

    solver = optimistix.FixedPointIteration(rtol=1e-6, atol=1e-6)
    adjoint = optimistix.ImplicitAdjoint() if linear_solver is None else optimistix.ImplicitAdjoint(linear_solver)

    def solve(theta, data, x):
        def fun(x, args):
            return T(x, *args)

        return optimistix.fixed_point(fun, solver, x, (theta, data), adjoint=adjoint, throw=False).value

    return gradient(solve)


def custom_root_rule(T: Map) -> Call:
    def tangent_solve(product, b):
        return jnp.linalg.solve(jax.jacobian(product)(b), b)

    def solve(theta, data, x):
        return jax.lax.custom_root(lambda x: T(x, theta, data) - x, x, lambda _, x: x, tangent_solve)

    return gradient(solve)


def products(make: Callable[[Callable[..., Any]], Call], solve: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """How often a rule multiplies, counted in a run of its own by a callback in the matrix product."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    def counted(matvec, b):
        def product(v):
            jax.debug.callback(tick)
            return matvec(v)

        return solve(product, b)

    jax.block_until_ready(jax.jit(make(counted))(*args))
    jax.effects_barrier()
    return count


def jaxopt_entrants(
    T: Map, instances: Sequence[tuple[Any, Any]], target: float, *, dense: bool, count: bool, restarts=(20, 50)
) -> list[Entrant]:
    """jaxopt's default as it comes, then each of its linear solvers at the loosest tolerance that meets the target.

    Its ``solve_cg`` is not here: the matrix is not symmetric.

    Args:
        T: the fixed-point map.
        instances: arguments of every call and the error of its answer.
        target: the error to be met.
        dense: whether solvers that build the matrix take part.
        count: whether to count products, which compiles once more.
        restarts: of GMRES.
    """
    (args, error), *others = instances
    case: dict[str, Any] = {"args": args, "error": error, "others": others}
    try:
        from jaxopt import linear_solve as menu
    except ImportError as missing:
        return [absent("jaxopt", missing)]
    make = functools.partial(jaxopt_rule, T)
    found = [Entrant(UNTUNED, make(menu.solve_normal_cg), note="tol=1e-5", **case)]
    families: dict[str, tuple[Any, int]] = {
        DEFAULT: (functools.partial(menu.solve_normal_cg, maxiter=2000), 2),
        "jaxopt, BiCGStab": (functools.partial(menu.solve_bicgstab, maxiter=2000), 1),
    }
    for k in restarts:
        families[f"jaxopt, GMRES({k})"] = functools.partial(menu.solve_gmres, restart=k, maxiter=2000 // k), 1
    for name, (solve, each) in families.items():
        # With a tolerance as an argument one compiled program serves the whole search.
        def member(tol, solve=solve):
            return make(functools.partial(solve, tol=tol))

        entrant = at_equal_error(member, tolerances(target), **case, target=target, name=name, traced=True)
        found.append(entrant)
        if count and entrant.note.startswith("at "):
            tol = float(entrant.note.removeprefix("at ").partition(":")[0])
            number = each * products(make, functools.partial(solve, tol=tol), args)
            found[-1] = dataclasses.replace(entrant, products=number)
    return found + [Entrant("jaxopt, LU", make(menu.solve_lu), **case)] * dense


def other_entrants(
    T: Map, instances: Sequence[tuple[Any, Any]], target: float, *, dense: bool, gmres: bool = True
) -> list[Entrant]:
    """optimistix with lineax, and JAX's own custom_root."""
    (args, error), *others = instances
    case: dict[str, Any] = {"args": args, "error": error, "others": others}
    found = [Entrant("lax.custom_root, LU", custom_root_rule(T), **case)] * dense
    try:
        import lineax
        import optimistix
    except ImportError as missing:
        return [*found, absent("optimistix", missing)]
    del optimistix
    if dense:
        found.append(Entrant("optimistix, default (lineax LU)", optimistix_rule(T), **case))

    def by_gmres(tol):
        solver = lineax.GMRES(rtol=tol, atol=tol, stagnation_iters=2000, max_steps=2000)
        return optimistix_rule(T, solver)

    name = "optimistix, lineax GMRES(20)"
    if gmres:
        found.append(at_equal_error(by_gmres, tolerances(target), **case, target=target, name=name, traced=True))

    def bicgstab(tol):
        return optimistix_rule(T, lineax.BiCGStab(rtol=tol, atol=tol, max_steps=2000))

    name = "optimistix, lineax BiCGStab"
    return [*found, at_equal_error(bicgstab, tolerances(target), **case, target=target, name=name, traced=True)]
