"""The tangent system of a contraction, solved as a fixed point by the solvers that find fixed points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import config, record
from nsimplicit._tree import Space, add, blank, subtract
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Vector,
    default_tolerance,
    quotient,
)


class MapSolver(Protocol):
    """What is asked of a solver: one of :mod:`nsimplicit.solvers` that follows a map."""

    contracts: ClassVar[bool]

    def iterate(self, problem: Any, z: Vector, space: Space, *, tol: Any, max_steps: Any) -> Any:
        """Step until ``‖T(z) - z‖ <= tol·(unit + ‖z‖)`` in every lane."""
        ...


@record
class PlainMap:
    """A map T in the place of an equation, for solvers to iterate; T(x) - x is small against ``unit + ‖x‖``."""

    map: Callable[[Vector], Vector]
    unit: jax.Array | float = 1.0


@config
class FixedPointAdjoint(LinearSolver):
    """x = (I - M) x + b, iterated: for I - M the derivative of a contraction, or its transpose.

    What deep equilibrium models do in their backward pass. It takes as many products as the forward
    pass takes steps, about; Krylov solvers take fewer, at more memory and more work a product. With ``Picard()`` it
    keeps nothing but x, the least memory of all.

    Args:
        solver: an iteration of :mod:`nsimplicit.solvers`: ``Picard()``, ``Anderson()``, ``Nesterov()``.
        rtol: stop when ‖M x - b‖ <= rtol·(‖b‖ + ‖x‖); default eps^(3/4) of the dtype.
        max_steps: at most this many products.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> adjoint = nsi.linear_solvers.FixedPointAdjoint(nsi.solvers.Anderson())
        >>> derivative = nsi.derivatives.Implicit(linear_solver=adjoint)
        >>> def z(t):
        ...     return nsi.fixed_point(lambda z, t: jnp.cos(z) * t, 1.0, t, derivative=derivative).value
        >>> round(float(jax.grad(z)(1.0)), 4)
        0.4416
    """

    solver: MapSolver
    rtol: float | None = None
    max_steps: int = 2000

    def __post_init__(self) -> None:
        """Refuse Newton's method."""
        if not self.solver.contracts:
            raise InputError(
                message(
                    f"linear_solvers.FixedPointAdjoint({type(self.solver).__name__}())",
                    f"{type(self.solver).__name__} follows no map.",
                    "The tangent system is iterated as x = (I - M) x + b.",
                    "nsi.linear_solvers.FixedPointAdjoint(nsi.solvers.Anderson())",
                    "nsi.linear_solvers.Dense(), one Newton step",
                )
            )

    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b."""
        space = operator.space
        scale = space.norm(b)
        start = b if guess is None else guess
        affine = PlainMap(lambda x: add(subtract(x, operator.matvec(x)), b), scale)
        tol = default_tolerance(b, self.rtol)
        most = jnp.where(scale == 0, 0, self.max_steps)
        outcome = self.solver.iterate(affine, start, space, tol=tol, max_steps=most)
        x = outcome.z
        norm = quotient(scale, space.norm(x))  # of M, from below, where M x = b
        return LinearSolution(x, outcome.num_steps, norm, blank(norm))
