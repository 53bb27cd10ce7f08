"""What a guard is: a test on a linear solve, and what the derivative gets where it fails.

The matrix may depend on traced values; it must not be touched by the JVP rule itself, which has to
stay linear, so guards act inside the solve and transposed-solve callbacks. A zero right-hand side
has the exact answer zero and passes: a lane that is masked out of the loss never hurts.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit._records import config
from nsimplicit.implicit.traced import Traced
from nsimplicit.linear_solvers.lsqr import lsqr
from nsimplicit.linear_solvers.operator import (
    LinearSolution,
    LinearSolver,
    Operator,
    Vector,
    backward_error,
    coarsest_eps,
    condition_number,
)

ON_FAILURE = ("nan", "drop", "least_squares", "ignore", "raise", "warn")


@config
class Evidence:
    """What a guard judges by; one entry per lane.

    Args:
        backward_error: ‖r‖ / (‖M‖‖x‖ + ‖b‖).
        condition: estimate of the condition number from below, nan if unknown.
        eps: unit roundoff of the dtype the products were evaluated in.
        code: what a guard that looks at every selection found: 1 regular, 0 undecided, -1 singular;
            1 where no guard looked.
        rtol: the tolerance the linear solver was told to stop at; ``None``: its default.
    """

    backward_error: jax.Array
    condition: jax.Array
    eps: float
    code: Any = 1
    rtol: float | None = None


class Guard(abc.ABC):
    """A test on a linear solve and what to do where it fails."""

    on_failure: str

    def __post_init__(self) -> None:
        """Refuse an ``on_failure`` that is not one of the list."""
        if self.on_failure not in ON_FAILURE:
            raise InputError(
                message(
                    f"guards.{type(self).__name__}(on_failure={self.on_failure!r})",
                    f"{self.on_failure!r} is not one of {', '.join(ON_FAILURE)}.",
                    "It says what a lane gets whose derivative failed its check.",
                    "on_failure='nan'",
                )
            )

    @abc.abstractmethod
    def failed(self, evidence: Evidence) -> jax.Array:
        """True in the lanes whose answer is not to be trusted."""

    def inspect(
        self, traced: Traced, consts: Any, z: Vector, solver: LinearSolver, again: Callable[[Vector], Vector] | None
    ) -> tuple[Any, Any]:
        """A look at the equation itself: the code of :class:`Evidence`, and the number of active kinks.

        ``again`` solves M x = v with the factors of the derivative's own solve, where there are any.
        """
        return 1, 0


@config
class Checked:
    """A guarded answer and what was found; one entry per lane."""

    value: Vector
    failed: jax.Array
    solved: jax.Array
    evidence: Evidence


def check(
    guard: Guard,
    operator: Operator,
    b: Vector,
    solution: LinearSolution,
    *,
    code: Any = 1,
    rtol: float | None = None,
) -> Checked:
    """Apply the guard to a solve: ``value`` is what the derivative will use."""
    space, x = operator.space, solution.value
    error, condition = backward_error(operator, b, solution), condition_number(space, b, solution)
    evidence = Evidence(error, condition, coarsest_eps(b), code, rtol)
    trivial = space.norm(b) == 0
    failed = guard.failed(evidence) & ~trivial
    x = space.where(trivial, jax.tree.map(jnp.zeros_like, x), x)
    return Checked(_handle(guard, operator, b, x, failed), failed, ~trivial, evidence)


def _handle(guard: Guard, operator: Operator, b: Vector, x: Vector, failed: jax.Array) -> Vector:
    space, policy = operator.space, guard.on_failure
    if policy == "ignore":
        return x
    if policy == "drop":
        return space.where(failed, jax.tree.map(jnp.zeros_like, x), x)
    if policy == "least_squares":
        transpose = jax.linear_transpose(operator.matvec, b)

        def fallback() -> Vector:
            return lsqr(operator.matvec, lambda v: transpose(v)[0], space, b)

        return space.where(failed, lax.cond(jnp.any(failed), fallback, lambda: x), x)
    if policy in ("raise", "warn"):
        jax.debug.callback(_complain, jnp.any(failed), kind=policy)
    return space.where(failed, jax.tree.map(lambda v: jnp.full_like(v, jnp.nan), x), x)


def _complain(failed: jax.Array, kind: str) -> None:
    if not failed:
        return
    text = message(
        f"guards(on_failure={kind!r})",
        "the tangent system of an implicit derivative failed its guard.",
        "It is singular or too ill conditioned: the implicit function theorem gives no derivative here.",
        "nsi.diagnose(problem)(...)",
        "pass tap=nsi.tap() to learn the residual and the lane",
    )
    if kind == "raise":
        raise DerivativeError(text)
    warnings.warn(text, RuntimeWarning, stacklevel=2)
