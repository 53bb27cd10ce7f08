"""Guards: each derivative is checked where it is computed, per lane, without a host callback.

A guard looks at a linear solve M x = b and says in which lanes its answer is not to be trusted;
``on_failure`` says what those lanes get instead:

    "nan"            nan (default): a wrong number never looks like a right one
    "drop"           zero: the lane contributes nothing to shared gradients, and is counted
    "least_squares"  the minimum-norm least-squares solution
    "ignore"         the answer as it is
    "raise", "warn"  nan, and a host callback that raises or warns; not exportable
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit.implicit.guard import Evidence, Guard
from nsimplicit.implicit.kink_system import verdict
from nsimplicit.implicit.traced import Traced
from nsimplicit.implicit.unresolved import newton_step, num_unresolved
from nsimplicit.linear_solvers.operator import LinearSolver, Vector, accepted_error, coarsest_eps

__all__ = ["AllSelections", "Conditioned", "Guard", "Identified", "Off", "Solved"]


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
            6.4e-5 in float32; or ten times the ``rtol`` the linear solver was given, where that is more.
        on_failure: one of ``nan drop least_squares ignore raise warn``.
    """

    rtol: float | None = None
    on_failure: str = "nan"

    def failed(self, evidence: Evidence) -> jax.Array:
        """Backward error above ``rtol``, or a known condition number above 0.1/eps."""
        return _unsure(evidence, self.rtol)


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


@config
class AllSelections(Guard):
    """The theorem's hypothesis itself: every selection of the active kinks gives an invertible system.

    A derivative taken with one selection can look sound where another selection is singular: ``clip``
    at a tie, where JAX takes one half. The test is that of :func:`nsimplicit.certify`, made of JAX
    operations: under jit, vmap and scan, for each lane.

    Args:
        max_kinks: the nearest so many kinks are looked at; default 8 with a direct linear solver, else 4.
            Where more are active the lane is undecided.
        on_undecided: ``"pass"`` lets an undecided lane through, ``"fail"`` does not.
        tolerance: a kink is active where its operands differ by at most this times the largest
            operand, dimensionless; default the square root of the dtype's eps.
        rtol: as in :class:`Solved`, which is checked as well.
        on_failure: one of ``nan drop least_squares ignore raise warn``.

    Cost:
        As many tangent solves as ``max_kinks``, with the factors of the derivative's own where it has some.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> def slope(guard):
        ...     T = lambda z, t: jnp.clip(z + t, 0.0, 1.0)  # where t = 0, every z between 0 and 1 is a solution
        ...     derivative = nsi.derivatives.Implicit(guard=guard)
        ...     return float(jax.grad(lambda t: nsi.fixed_point(T, 1.0, t, derivative=derivative).value)(0.0))
        >>> slope(nsi.guards.Solved()), slope(nsi.guards.AllSelections())
        (1.0, nan)
    """

    max_kinks: int | None = None
    on_undecided: str = "pass"
    tolerance: float | None = None
    rtol: float | None = None
    on_failure: str = "nan"

    def __post_init__(self) -> None:
        """Refuse words that are not one of the lists."""
        super().__post_init__()
        if self.on_undecided not in ("pass", "fail"):
            raise InputError(
                message(
                    f"guards.AllSelections(on_undecided={self.on_undecided!r})",
                    f"{self.on_undecided!r} is not one of pass, fail.",
                    "It says what a lane gets where the test could not decide.",
                    "on_undecided='pass'",
                )
            )

    def inspect(
        self, traced: Traced, consts: Any, z: Vector, solver: LinearSolver, again: Callable[[Vector], Vector] | None
    ) -> tuple[Any, Any]:
        """The code of the certificate at z, and how many kinks are active."""
        _refuse_lanes(traced, "AllSelections")
        most = (4 if again is None else 8) if self.max_kinks is None else self.max_kinks
        near = coarsest_eps(z) ** 0.5 if self.tolerance is None else self.tolerance
        return verdict(traced, consts, z, solver, most, near, again)

    def failed(self, evidence: Evidence) -> jax.Array:
        """Unsolved, singular for some selection, or undecided if that is to fail."""
        least = 0 if self.on_undecided == "pass" else 1
        return _unsure(evidence, self.rtol) | (evidence.code < least)


@config
class Identified(Guard):
    """The active set is that of the exact solution: no kink may lie between z and it.

    A loosely solved Lasso has a wrong support, hence a derivative that is wrong by any factor, of a
    tangent system that is solved perfectly. A kink fails its lane where a Newton step from z, taken
    ten times as far, crosses it; a kink that stays at zero along the step does not.

    Args:
        rtol: as in :class:`Solved`, which is checked as well.
        on_failure: one of ``nan drop least_squares ignore raise warn``.

    Cost:
        One more tangent solve, with the factors of the derivative's own where it has some, and two
        evaluations of the equation.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> def slope(steps):
        ...     T = lambda z, t: jnp.maximum(0.5 * z + t, 0.0)  # z = 2 t where t > 0, else 0
        ...     exact = nsi.derivatives.Implicit(guard=nsi.guards.Identified())
        ...     solve = lambda t: nsi.fixed_point(T, 1.0, t, derivative=exact, max_steps=steps).value
        ...     return float(jax.grad(solve)(-1e-3))
        >>> slope(3), slope(100)
        (nan, 0.0)
    """

    rtol: float | None = None
    on_failure: str = "nan"

    def inspect(
        self, traced: Traced, consts: Any, z: Vector, solver: LinearSolver, again: Callable[[Vector], Vector] | None
    ) -> tuple[Any, Any]:
        """-1 where a kink is unresolved, and how many are."""
        _refuse_lanes(traced, "Identified")
        step = newton_step(traced, consts, z, solver, again)
        count = num_unresolved(traced, consts, z, step, 0.0)
        return jnp.where(count > 0, -1, 1), count

    def failed(self, evidence: Evidence) -> jax.Array:
        """Unsolved, or a kink between z and the solution."""
        return _unsure(evidence, self.rtol) | (evidence.code < 0)


def _refuse_lanes(traced: Traced, guard: str) -> None:
    """An error where kinks cannot be told apart: those of several lanes, or on several devices."""
    if traced.space.batch_axis is not None or traced.space.axis_name:
        raise InputError(
            message(
                f"guards.{guard}()",
                f"the solve has batch_axis={traced.space.batch_axis}, axis_name={traced.space.axis_name}.",
                "The kinks of one lane cannot be told from those of another, or are on several devices.",
                "jax.vmap over the lanes, without batch_axis",
                "guards.Solved(), and nsi.certify for one lane",
            )
        )


def _unsolved(evidence: Evidence, rtol: float | None) -> jax.Array:
    limit = accepted_error(evidence.eps, evidence.rtol) if rtol is None else rtol
    return ~(evidence.backward_error <= limit)  # nan fails


def _unsure(evidence: Evidence, rtol: float | None) -> jax.Array:
    """Unsolved, or known to be too ill conditioned for its dtype."""
    return _unsolved(evidence, rtol) | (evidence.condition * evidence.eps > 0.1)
