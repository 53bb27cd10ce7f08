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
from nsimplicit._tree import Space, cast_like, promote
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit, with_solve
from nsimplicit.implicit.arguments import check_fit, equation_arguments
from nsimplicit.implicit.equation import Equation, FixedPoint, Problem, Root
from nsimplicit.implicit.known_root import root_jvp as root_jvp
from nsimplicit.implicit.known_root import root_vjp as root_vjp
from nsimplicit.implicit.process import opaque
from nsimplicit.implicit.tap import Report
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.splittings.base import Prepared, Splitting


def custom_root(
    optimality_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Callable[..., Any] | None = None,
    *,
    derivative: Derivative = Implicit(),
    init_argnum: int | None = 0,
    axis_name: str | tuple[str, ...] = (),
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
        axis_name: mesh axes over which one solution is split inside ``shard_map``.

    Returns:
        A decorator. What it returns is called like the solver and has ``.equation`` and
        ``.reporting(tap)``. The derivative with respect to the starting point is zero.

    Raises:
        InputError: the residual is not square, the solution has no floating-point leaf, or the
            equation cannot be called with the solver's arguments.

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
    derivative = with_solve(derivative, solve, "custom_root")
    return lambda solver: ImplicitFunction(
        solver, optimality_fun, Root, has_aux, reference_signature, derivative, init_argnum, axis_name
    )


def custom_fixed_point(
    fixed_point_fun: Callable[..., Any],
    has_aux: bool = False,
    solve: Callable[..., Any] | None = None,
    reference_signature: Callable[..., Any] | None = None,
    *,
    derivative: Derivative = Implicit(),
    init_argnum: int | None = 0,
    axis_name: str | tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], ImplicitFunction]:
    """Decorate ``solver(init, *args, **kwargs) -> z`` where z = T(z, args, kwargs).

    Formula: (I - dT/dz) dz = (dT/dtheta) dtheta at the solution.

    Args:
        fixed_point_fun: T; returns a state like z. Or a class of :mod:`nsimplicit.splittings`, where the
            solver is called with ``(init, *fields)``: its structure is then known to linear solvers.
        has_aux: as in :func:`custom_root`.
        solve: as in :func:`custom_root`; called with I - dT/dz.
        reference_signature: as in :func:`custom_root`.
        derivative: as in :func:`custom_root`; also ``OneStep``, ``Truncated``, ``Neumann``.
        init_argnum: as in :func:`custom_root`.
        axis_name: as in :func:`custom_root`.

    Returns:
        A decorator.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> @nsi.custom_fixed_point(lambda x, a: (x + a / x) / 2, init_argnum=None)
        ... def square_root(a):
        ...     return jnp.sqrt(jax.lax.stop_gradient(a))
        >>> float(jax.grad(square_root)(4.0))
        0.25
    """
    derivative = with_solve(derivative, solve, "custom_fixed_point")
    return lambda solver: ImplicitFunction(
        solver, fixed_point_fun, FixedPoint, has_aux, reference_signature, derivative, init_argnum, axis_name
    )


@dataclasses.dataclass(eq=False, repr=False)
class ImplicitFunction(Problem):
    """A solver with the derivative of its equation; called like the solver.

    Attributes:
        equation: the optimality function, or the fixed-point map.
        form: which of the two it is.
    """

    solver: Callable[..., Any]
    equation: Callable[..., Any]
    form: Callable[..., Equation]
    has_aux: bool
    reference_signature: Callable[..., Any] | None
    derivative: Derivative
    init_argnum: int | None
    axis_name: str | tuple[str, ...]
    tap: Report | None = None

    def __post_init__(self) -> None:
        """Look like the solver: its name, its docstring, its signature."""
        functools.update_wrapper(self, self.solver, updated=())
        decorator = "custom_root" if self.form is Root else "custom_fixed_point"
        self._where = f"{decorator}({_name(self.equation)})({_name(self.solver)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Solve; the derivative is attached."""
        z, rest, container = self._run(args, kwargs)
        z = self._differentiate(z, *self._theta(args, kwargs))
        if not self.has_aux:
            return z
        rest = jax.tree.map(_cut, rest)
        return container(z, *rest) if hasattr(container, "_fields") else container([z, *rest])

    def formulate(self, *args: Any, **kwargs: Any) -> tuple[Any, Equation]:
        """Solve, without derivative; the solution and its equation."""
        z = self._run(args, kwargs)[0]
        return z, self._prepare(z, *self._theta(args, kwargs)).rule

    def reporting(self, tap: Report) -> ImplicitFunction:
        """The same function, whose backward pass writes its report into the gradient of ``tap``."""
        return dataclasses.replace(self, tap=tap)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: the solver is bound, and the equation too where its first argument is self."""
        if instance is None:
            return self
        first = next(iter(inspect.signature(self.equation).parameters), None)
        equation = functools.partial(self.equation, instance) if first == "self" else self.equation
        # An instance may be a pytree with traced leaves: the solver is not differentiated in them.
        solver = functools.partial(self.solver, jax.tree.map(_cut, instance))
        return dataclasses.replace(self, solver=solver, equation=equation)

    def _run(self, args: tuple, kwargs: dict) -> tuple[Any, tuple, type]:
        """The solution, what else the solver returned, and the type of the container of both."""
        args, kwargs = jax.tree.map(_cut, (args, kwargs))
        out = self.solver(*args, **kwargs)
        z, rest = out, ()
        if self.has_aux:
            if not isinstance(out, tuple | list) or not out:
                raise InputError(
                    message(
                        self._where,
                        f"has_aux=True, and the solver returned {type(out).__name__}.",
                        "With has_aux the solver returns a tuple or list whose first entry is the solution.",
                        "return solution, aux",
                    )
                )
            z, rest = out[0], tuple(out[1:])
        return jax.tree.map(self._array, z), rest, type(out)

    def _array(self, x: Any) -> jax.Array:
        """A leaf of the solution as an array, without the derivative of the solver's own steps."""
        try:
            return jax.lax.stop_gradient(jnp.asarray(x))
        except (TypeError, ValueError) as error:
            raise InputError(
                message(
                    self._where,
                    f"the solution has a leaf of type {type(x).__name__}, which is no array.",
                    "A solution is an array or a tree of arrays.",
                    "return the array itself, e.g. result.x",
                    "has_aux=True, and return (solution, result)",
                )
            ) from error

    def _theta(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """What the equation gets beside the solution."""
        named = self.reference_signature or self.solver
        return equation_arguments(named, self.equation, self.init_argnum, args, kwargs)

    def _prepare(self, z: Any, rest: tuple, named: dict) -> Prepared:
        if isinstance(self.equation, type) and issubclass(self.equation, Splitting):
            return self.equation(*rest, **named).prepare(z)
        check_fit(self.equation, z, rest, named, self._where)
        return Prepared(self.form((lambda z: self.equation(z, *rest, **named),)), lambda z: z)

    def _differentiate(self, z: Any, rest: tuple, named: dict) -> Any:
        wide, (rest, named) = promote(z), promote((rest, named))
        prepared = self._prepare(wide, rest, named)
        space = Space(axis_name=(self.axis_name,) if isinstance(self.axis_name, str) else tuple(self.axis_name))
        traced, vector, combine = trace_equation(prepared.equation, wide, space, self._where)
        same = prepared.optimality is None
        rule = traced if same else trace_equation(prepared.rule, wide, space, self._where)[0]
        process = opaque(traced, rule, vector, self._where, self.tap)
        return cast_like(combine(self.derivative.solve(process).z), z)


def _cut(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if isinstance(x, jax.Array) else x


def _name(fun: Any) -> str:
    return _name(fun.func) if isinstance(fun, functools.partial) else getattr(fun, "__name__", type(fun).__name__)
