"""One solve, as the derivative modes see it: run it, step it, differentiate its equation.

Derivative modes and solvers know nothing of each other. A :class:`Process` is what a mode needs of
a solve, whoever makes it: the package's own loop, or a user's opaque solver, which can only run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nsimplicit._records import config, data
from nsimplicit._tree import Space, cast_like, promote
from nsimplicit.implicit.rule import attach
from nsimplicit.implicit.tap import Report
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.operator import Operator, Vector

Consts = tuple[tuple[Any, ...], ...]


@config
class Bound:
    """A traced equation at given constants: what a solver iterates.

    A residual is small where it is small against ``unit + ‖z‖``.
    """

    traced: Traced
    consts: Consts
    unit: ClassVar[float] = 1.0

    def map(self, z: Vector) -> Vector:
        """T(z)."""
        return self.traced.end(self.consts, z)

    def residual(self, z: Vector) -> Vector:
        """T(z) - z, or F(z)."""
        return self.traced.equation.residual(z, self.map(z))

    def linearise(self, z: Vector) -> tuple[Vector, Operator]:
        """The residual and the operator M of the equation at z."""
        return self.traced.linearise(self.consts, z)


@data
class Outcome:
    """Where a solve ended; one number per lane."""

    z: Vector
    residual: jax.Array
    num_steps: jax.Array
    converged: jax.Array
    aux: Any = None


@config
class Iteration:
    """The steps of a solve, for a mode that makes its own loop; closes over no array.

    Args:
        init: ``(consts, z) -> state``.
        step: ``(consts, state) -> state``.
        freeze: ``(active, new, old) -> state``: new in the active lanes.
        space: the inner product of the iterates.
    """

    init: Callable[[Consts, Vector], Any]
    step: Callable[[Consts, Any], Any]
    freeze: Callable[[jax.Array, Any, Any], Any]
    space: Space


@config
class Process:
    """A solve that has not run yet.

    Args:
        traced: the equation, traced at the state.
        rule: the same with 16-bit leaves promoted; the same object where there are none.
        run: the solve at given constants, to be called on constants without derivative.
        tail: ``(consts, z, damping) -> z``: one differentiable step of the method, or ``None``.
        advance: the iteration itself; ``None`` for a solver that cannot be looked into.
        start: the vector the iteration starts from.
        contracts: whether the iteration is that of a map meant to contract (Newton's is not).
        tap: probe of the backward pass.
        tol: stopping tolerance, relative.
        max_steps: largest number of steps.
        where: the call, for error messages.
    """

    traced: Traced
    rule: Traced
    run: Callable[[Consts], Outcome]
    where: str
    tail: Callable[[Consts, Vector, float], Vector] | None = None
    advance: Iteration | None = None
    start: Vector = None
    contracts: bool = True
    tap: Report | None = None
    tol: Any = None
    max_steps: Any = None

    def solve(self) -> Outcome:
        """The plain solve: no derivative flows through it."""
        consts = jax.lax.stop_gradient(self.traced.consts)
        return jax.lax.stop_gradient(self.run(consts))

    def attach(self, z: Vector, **options: Any) -> Vector:
        """``z`` with the derivative of the equation; 16-bit leaves are solved for in float32."""
        return cast_like(attach(self.rule, promote(z), tap=self.tap, **options), z)


def opaque(traced: Traced, rule: Traced, z: Vector, where: str, tap: Report | None) -> Process:
    """The process of a solver that cannot be looked into and has already run, to ``z``."""

    def run(consts: Consts) -> Outcome:
        del consts
        zero = jnp.zeros(())
        return Outcome(z, zero, zero, zero == 0)

    def tail(consts: Consts, z: Vector, damping: float) -> Vector:
        return jax.tree.map(lambda x, y: x + damping * (y - x), z, Bound(traced, consts).map(z))

    is_root = traced.equation.is_root
    return Process(traced, rule, run, where, tail=None if is_root else tail, contracts=not is_root, tap=tap)
