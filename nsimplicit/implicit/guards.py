"""Guards: each derivative is checked where it is computed, per lane, without a host callback.

A guard looks at a linear solve M x = b and says in which lanes its answer is not to be trusted;
``on_failure`` says what those lanes get instead:

    "nan"            nan (default): a wrong number never looks like a right one
    "drop"           zero: the lane contributes nothing to shared gradients, and is counted
    "least_squares"  the minimum-norm least-squares solution
    "ignore"         the answer as it is
    "raise", "warn"  nan, and a host callback that raises or warns; not exportable

A zero right-hand side has the exact answer zero and passes: a lane that is masked out of the loss
never hurts. The matrix may depend on traced values; it must not be touched by the JVP rule itself,
which has to stay linear, so guards act inside the solve and transposed-solve callbacks.
"""

from __future__ import annotations

import abc
import dataclasses
import warnings

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit._records import config
from nsimplicit._tree import subtract
from nsimplicit.linear_solvers.lsqr import lsqr
from nsimplicit.linear_solvers.operator import LinearSolution, Operator, Vector, coarsest_eps, quotient

__all__ = ["Conditioned", "Guard", "Off", "Solved"]

ON_FAILURE = ("nan", "drop", "least_squares", "ignore", "raise", "warn")


@config
class Evidence:
    """What a guard judges by; one entry per lane.

    Args:
        backward_error: ‖r‖ / (‖M‖‖x‖ + ‖b‖).
        condition: estimate of the condition number from below, nan if unknown.
        eps: unit roundoff of the dtype the products were evaluated in.
    """

    backward_error: jax.Array
    condition: jax.Array
    eps: float


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


@config
class Off(Guard):
    """No check: the answer of the linear solver, whatever it is."""

    on_failure: str = dataclasses.field(default="ignore", init=False)

    def failed(self, evidence: Evidence) -> jax.Array:
        """Never."""
        return jnp.zeros_like(evidence.backward_error, bool)


@config
class Solved(Guard):
    """The linear solve reached its equation, as measured by the backward error.

    Where the solver has factors at hand (``Dense``) the condition number is checked too, as
    :class:`Conditioned` does: a small residual alone says little about a nearly singular matrix.

    Args:
        rtol: largest backward error accepted, relative; default 10·eps^(3/4): 1.8e-11 in float64,
            6.4e-5 in float32.
        on_failure: one of ``nan drop least_squares ignore raise warn``.
    """

    rtol: float | None = None
    on_failure: str = "nan"

    def failed(self, evidence: Evidence) -> jax.Array:
        """Backward error above ``rtol``, or a known condition number above 0.1/eps."""
        return _unsolved(evidence, self.rtol) | (evidence.condition * evidence.eps > 0.1)


@config
class Conditioned(Guard):
    """The linear solve reached its equation, and the equation is well enough conditioned.

    The error of a derivative is about condition × eps: at 1e7 in float32 a residual of 2e-7 leaves
    an error of 4e-2. An unknown condition number fails. Krylov solvers know theirs only from below.

    Args:
        maximum: largest condition number accepted, dimensionless; default 0.1/eps.
        rtol: as in :class:`Solved`.
        on_failure: one of ``nan drop least_squares ignore raise warn``.
    """

    maximum: float | None = None
    rtol: float | None = None
    on_failure: str = "nan"

    def failed(self, evidence: Evidence) -> jax.Array:
        """Unsolved, or a condition number above ``maximum`` or unknown."""
        limit = 0.1 / evidence.eps if self.maximum is None else self.maximum
        return _unsolved(evidence, self.rtol) | ~(evidence.condition <= limit)


def _unsolved(evidence: Evidence, rtol: float | None) -> jax.Array:
    limit = 10 * evidence.eps**0.75 if rtol is None else rtol
    return ~(evidence.backward_error <= limit)  # nan fails


@config
class Checked:
    """A guarded answer and what was found; one entry per lane."""

    value: Vector
    failed: jax.Array
    solved: jax.Array
    evidence: Evidence


def check(guard: Guard, operator: Operator, b: Vector, solution: LinearSolution) -> Checked:
    """Apply the guard to a solve: ``value`` is what the derivative will use."""
    space, x = operator.space, solution.value
    product = operator.matvec(x)
    size, scale = space.norm(x), space.norm(b)
    norm = jnp.maximum(solution.norm, quotient(space.norm(product), size))
    error = quotient(space.norm(subtract(b, product)), norm * size + scale)
    evidence = Evidence(error, solution.condition, coarsest_eps(b))
    trivial = scale == 0
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
