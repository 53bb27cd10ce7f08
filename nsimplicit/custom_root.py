"""Give a foreign solver the derivative of the equation it solves.

Drop-in for ``jaxopt.implicit_diff``: same names, same positional order, plus forward mode, every
order, closures, guards and reports. The solver may be opaque: it is never looked into.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, is_float, promote
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.implicit.equation import Equation, FixedPoint, Problem, Root
from nsimplicit.implicit.process import Bound, Consts, Outcome, Process
from nsimplicit.implicit.rule import trace_equation
from nsimplicit.implicit.tap import Report
from nsimplicit.linear_solvers.custom import Custom


def custom_root(
    optimality_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Callable[..., Any] | None = None,
    *,
    derivative: Derivative = Implicit(),
    init_argnum: int | None = 0,
) -> Callable[[Callable[..., Any]], ImplicitFunction]:
    """Decorate ``solver(init, *args, **kwargs) -> z`` where F(z, args, kwargs) = 0.

    Formula: (dF/dz) dz = -(dF/dtheta) dtheta at the solution, theta being all other arguments and
    whatever F closes over.

    Args:
        optimality_fun: F, with as many outputs as z has numbers. Its first argument is the
            solution, the others are the solver's.
        has_aux: the solver returns ``(z, aux, ...)``; the container is kept, aux has zero derivative.
        solve: ``solve(matvec, b)``, shorthand for a linear solver; called with dF/dz and, in
            reverse mode, with its transpose.
        reference_signature: a function whose signature names the arguments; default the solver's.
        derivative: how the solution is differentiated.
        init_argnum: position of the starting point, which F does not get; ``None``: there is none.

    Returns:
        A decorator. What it returns is called like the solver and has ``.equation`` and
        ``.reporting(tap)``. The derivative with respect to the starting point is zero.

    Raises:
        InputError: the residual is not square, or the solution has no floating-point leaf.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> @nsi.custom_root(lambda x, a: x**2 - a)
        ... def babylonian(x, a):
        ...     return jax.lax.fori_loop(0, 30, lambda _, x: (x + a / x) / 2, x)
        >>> float(jax.grad(babylonian, argnums=1)(1.0, 4.0))
        0.25

    References:
        M. Blondel et al., Efficient and modular implicit differentiation, NeurIPS 2022;
        J. Bolte et al., Nonsmooth implicit differentiation, NeurIPS 2021, Theorem 2.
    """
    if solve is not None:
        derivative = dataclasses.replace(derivative, linear_solver=Custom(solve))  # pyright: ignore
    return lambda solver: ImplicitFunction(
        solver, optimality_fun, Root, has_aux, reference_signature, derivative, init_argnum, None
    )


def custom_fixed_point(
    fixed_point_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Callable[..., Any] | None = None,
    *,
    derivative: Derivative = Implicit(),
    init_argnum: int | None = 0,
) -> Callable[[Callable[..., Any]], ImplicitFunction]:
    """Decorate ``solver(init, *args, **kwargs) -> z`` where z = T(z, args, kwargs).

    Formula: (I - dT/dz) dz = (dT/dtheta) dtheta at the solution.

    Args:
        fixed_point_fun: T; returns a state like z.
        has_aux: as in :func:`custom_root`.
        solve: as in :func:`custom_root`; called with I - dT/dz.
        reference_signature: as in :func:`custom_root`.
        derivative: as in :func:`custom_root`; also ``OneStep``, ``Truncated``, ``Neumann``.
        init_argnum: as in :func:`custom_root`.

    Returns:
        A decorator, as :func:`custom_root`.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> @nsi.custom_fixed_point(lambda x, a: (x + a / x) / 2, init_argnum=None)
        ... def square_root(a):
        ...     return jnp.sqrt(jax.lax.stop_gradient(a))
        >>> float(jax.grad(square_root)(4.0))
        0.25
    """
    if solve is not None:
        derivative = dataclasses.replace(derivative, linear_solver=Custom(solve))  # pyright: ignore
    return lambda solver: ImplicitFunction(
        solver, fixed_point_fun, FixedPoint, has_aux, reference_signature, derivative, init_argnum, None
    )


class ImplicitFunction(Problem):
    """A solver with the derivative of its equation; called like the solver.

    Attributes:
        equation: the optimality function, or the fixed-point map.
    """

    def __init__(self, solver, equation, form, has_aux, reference, derivative, init_argnum, tap) -> None:
        """Keep the solver and what it solves; made by the decorators."""
        functools.update_wrapper(self, solver)
        self.solver = solver
        self.equation = equation
        self._form: Callable[..., Equation] = form
        self._has_aux = has_aux
        self._reference = reference
        self.derivative = derivative
        self._init_argnum = init_argnum
        self._tap = tap
        self._where = (
            "custom_root" if form is Root else "custom_fixed_point"
        ) + f"({_name(equation)})({_name(solver)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Solve; the derivative is attached."""
        z, rest, theta, container = self._run(args, kwargs)
        z = self._differentiate(z, theta)
        rest = jax.tree.map(_cut, rest)
        if not self._has_aux:
            return z
        return container(z, *rest) if hasattr(container, "_fields") else container([z, *rest])

    def formulate(self, *args: Any, **kwargs: Any) -> tuple[Any, Equation]:
        """Solve, without derivative; the solution and its equation."""
        z, _, (rest, named), _ = self._run(args, kwargs)
        return z, self._form((lambda z: self.equation(z, *rest, **named),))

    def _run(self, args: tuple, kwargs: dict) -> tuple[Any, tuple, tuple, type]:
        """The solution, what else was returned, the equation's arguments, the container's type."""
        given, theta, _ = self._arguments(args, kwargs)
        out = self.solver(*jax.tree.map(_cut, given[0]), **jax.tree.map(_cut, given[1]))
        z, rest = (out[0], tuple(out[1:])) if self._has_aux else (out, ())
        return jax.tree.map(lambda x: jax.lax.stop_gradient(jnp.asarray(x)), z), rest, theta, type(out)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: the solver is bound, and the equation too where its first argument is self."""
        if instance is None:
            return self
        first = next(iter(inspect.signature(self.equation).parameters), None)
        equation = functools.partial(self.equation, instance) if first == "self" else self.equation
        return self._copy(solver=functools.partial(self.solver, instance), equation=equation)

    def reporting(self, tap: Report) -> ImplicitFunction:
        """The same function, whose backward pass writes its report into the gradient of ``tap``."""
        return self._copy(tap=tap)

    def _copy(self, **changes: Any) -> ImplicitFunction:
        made = {
            "solver": self.solver,
            "equation": self.equation,
            "form": self._form,
            "has_aux": self._has_aux,
            "reference": self._reference,
            "derivative": self.derivative,
            "init_argnum": self._init_argnum,
            "tap": self._tap,
        }
        return ImplicitFunction(**(made | changes))

    def _arguments(self, args: tuple, kwargs: dict) -> tuple[tuple, tuple, Any]:
        """What the solver is called with, and what the equation gets beside z.

        Arguments the caller gave go to both, in the form they were given. Defaults of the solver
        go to the equation only where it has a parameter of that name and no default of its own.
        """
        signature = inspect.signature(self._reference or self.solver)
        skip = self._init_argnum
        positional = list(args)
        named = dict(kwargs)
        if skip is not None:
            if len(positional) > skip:
                del positional[skip]
            else:
                names = list(signature.parameters)
                named.pop(names[skip] if skip < len(names) else "", None)
        accepts = inspect.signature(self.equation).parameters
        bound = signature.bind_partial(*args, **kwargs)
        for name, parameter in signature.parameters.items():
            wanted = name in accepts and accepts[name].default is inspect.Parameter.empty
            if name not in bound.arguments and parameter.default is not inspect.Parameter.empty and wanted:
                named[name] = parameter.default
        return (args, kwargs), (tuple(positional), named), None

    def _differentiate(self, z: Any, theta: tuple[tuple, dict]) -> Any:
        rest, named = theta
        wide, (rest, named) = promote(z), promote((rest, named))
        form = self._form((lambda z: self.equation(z, *rest, **named),))
        try:
            traced, vector, combine = trace_equation(form, wide, Space(), self._where)
        except TypeError as error:
            raise _mismatch(self, rest, named, error) from error

        def run(consts: Consts) -> Outcome:
            del consts
            zero = jnp.zeros(())
            return Outcome(vector, zero, zero, zero == 0)

        def tail(consts: Consts, z: Any, damping: float) -> Any:
            return jax.tree.map(lambda x, y: x + damping * (y - x), z, Bound(traced, consts).map(z))

        process = Process(
            traced=traced,
            rule=traced,
            run=run,
            where=self._where,
            tail=None if form.is_root else tail,
            contracts=not form.is_root,
            tap=self._tap,
        )
        solved = combine(self.derivative.solve(process).z)
        return jax.tree.map(lambda new, old: new.astype(old.dtype) if is_float(old) else old, solved, z)


def _cut(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if hasattr(x, "dtype") or isinstance(x, float | complex) else x


def _name(fun: Any) -> str:
    return getattr(fun, "__name__", type(fun).__name__)


def _mismatch(fit: ImplicitFunction, rest: tuple, named: dict, error: TypeError) -> Exception:
    if "argument" not in str(error):
        return error
    return InputError(
        message(
            fit._where,
            f"the equation could not be called with the solution, {len(rest)} positional arguments and the "
            f"keywords {sorted(named)}: {error}.",
            "The equation gets the arguments of the solver, with the solution in the place of the starting point.",
            "give both functions the same parameters",
            "init_argnum=None if the solver takes no starting point",
        )
    )


def root_jvp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    tangents: tuple[Any, ...],
    solve: Callable[..., Any] | None = None,
) -> Any:
    """The derivative of the root of F(., args) along tangents of args, from a known root.

    Args:
        optimality_fun: F(sol, args).
        sol: a root.
        args: the other arguments of F.
        tangents: one tangent per argument, like ``args``.
        solve: ``solve(matvec, b)``; default the package's choice.

    Returns:
        The tangent of the root, like ``sol``.

    Example:
        >>> import nsimplicit as nsi
        >>> float(nsi.root_jvp(lambda x, a: x**2 - a, 2.0, (4.0,), (1.0,)))
        0.25
    """
    args, tangents = jax.tree.map(jnp.asarray, (tuple(args), tuple(tangents)))
    return jax.jvp(_known(optimality_fun, sol, solve), args, tangents)[1]


def root_vjp(
    optimality_fun: Callable[..., Any],
    sol: Any,
    args: tuple[Any, ...],
    cotangent: Any,
    solve: Callable[..., Any] | None = None,
) -> tuple[Any, ...]:
    """The cotangents of args for a cotangent of the root of F(., args).

    Args:
        optimality_fun: F(sol, args).
        sol: a root.
        args: the other arguments of F.
        cotangent: like ``sol``.
        solve: ``solve(matvec, b)``; default the package's choice.

    Returns:
        One cotangent per argument.

    Example:
        >>> import nsimplicit as nsi
        >>> [float(v) for v in nsi.root_vjp(lambda x, a: x**2 - a, 2.0, (4.0,), 1.0)]
        [0.25]
    """
    out, pull = jax.vjp(_known(optimality_fun, sol, solve), *args)
    return pull(jax.tree.map(lambda c, o: jnp.asarray(c, o.dtype), cotangent, out))


def _known(optimality_fun: Callable[..., Any], sol: Any, solve: Callable[..., Any] | None) -> Callable[..., Any]:
    return custom_root(optimality_fun, solve=solve, init_argnum=None)(lambda *args: sol)
