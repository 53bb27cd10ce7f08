"""Statistics of the backward pass without callbacks: they are the cotangent of an array argument.

``tap = nsi.tap()`` is passed to the call; its *gradient* is the :class:`Report` of the linear
solve that the reverse pass made. It works wherever a gradient does: jit, vmap, scan, checkpoint.

The tangent system is extended by coordinates nothing reads: identity rows whose right-hand side
is the tap's tangent. In reverse mode their cotangent is zero, and the transposed solve writes the
record there instead. So the record must be finite, and its own derivatives mean nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import DerivativeError, message
from nsimplicit._records import data
from nsimplicit._tree import partition, promote

HUGE = 1e30  # what stands for inf and nan in a record: float32, and sums of lanes stay finite


@data
class Report:
    """What one backward pass did; all arrays float32, so that a gradient can carry them.

    Shared by several solves (one tap over the lanes of a ``vmap``) every number is a sum.

    Args:
        num_solves: linear solves with a nonzero right-hand side.
        num_steps: products those solves made.
        num_failures: solves whose guard failed.
        residual: backward error of the solve, ‖r‖ / (‖M‖‖x‖ + ‖b‖), dimensionless.
        condition: estimate of the condition number of M, from below; 0 where nothing is known.
        forward_residual: ‖F(z)‖ / (1 + ‖z‖) at the solution, dimensionless.
        num_kinks: active kinks, where the guard looks at them (``guards.AllSelections``).
        adjoint: the solution of the adjoint system, to be passed in next time; or None.
    """

    num_solves: jax.Array
    num_steps: jax.Array
    num_failures: jax.Array
    residual: jax.Array
    condition: jax.Array
    forward_residual: jax.Array
    num_kinks: jax.Array
    adjoint: Any = None

    @property
    def failed(self) -> jax.Array:
        """Whether any solve failed its guard; per lane when the tap was."""
        return self.num_failures > 0

    def raise_if_failed(self) -> None:
        """Raise :class:`DerivativeError` naming the lanes that failed; needs concrete values."""
        bad = np.flatnonzero(np.atleast_1d(np.asarray(self.failed)))
        if bad.size:
            raise DerivativeError(
                message(
                    "Report.raise_if_failed()",
                    f"{bad.size} of {np.size(self.failed)} reported solves failed their guard "
                    f"(lanes {bad[:8].tolist()}{' ...' if bad.size > 8 else ''}), "
                    f"largest backward error {_word(self.residual)}, condition {_word(self.condition)}.",
                    "The tangent system is singular or too ill conditioned there: no derivative was given.",
                    "nsi.diagnose(problem)(...) at that lane",
                    "guard=nsi.guards.Solved(on_failure='drop') to leave such lanes out",
                )
            )


def tap(like: Any = None, *, lanes: int | None = None) -> Report:
    """A probe for the backward pass: pass it to the call, read its gradient.

    Args:
        like: a solution z; with it the report also carries the adjoint, which warm-starts the next
            backward pass when passed in as the tap (iterative linear solvers only).
        lanes: number of lanes of a ``batch_axis`` solve that should be reported one by one.

    Returns:
        A :class:`Report` of zeros. Inside ``shard_map`` it is one tap for all devices, and what it
        reports is summed over them; ``jax.lax.pcast(tap, axis_name, to="varying")`` makes it one each.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> def loss(theta, tap):
        ...     return nsi.fixed_point(lambda z, t: 0.5 * jnp.cos(z) + t, 0.0, theta, tap=tap).value
        >>> gradient, report = jax.grad(loss, argnums=(0, 1))(1.0, nsi.tap())
        >>> int(report.num_solves), int(report.num_failures)
        (1, 0)
    """
    zero = jnp.zeros(() if lanes is None else (lanes,), jnp.float32)
    blank = None if like is None else jax.tree.map(jnp.zeros_like, partition(promote(like))[0])
    return Report(zero, zero, zero, zero, zero, zero, zero, blank)


def _word(numbers: jax.Array) -> str:
    largest = np.max(np.asarray(numbers))
    return f"{largest:.1e}" if largest < HUGE else "not finite"


def record(like: Report, **numbers: jax.Array) -> Report:
    """The numbers in the shapes of ``like``: per lane where it has lanes, summed where it has none."""

    def fit(x: jax.Array, ref: jax.Array) -> jax.Array:
        x = jnp.nan_to_num(jnp.asarray(x, jnp.float32), nan=HUGE, posinf=HUGE, neginf=-HUGE)
        return x if jnp.shape(x) == jnp.shape(ref) else jnp.sum(x).reshape(jnp.shape(ref))

    fields = {f.name: getattr(like, f.name) for f in dataclasses.fields(like) if f.name != "adjoint"}
    return Report(**{name: fit(numbers[name], ref) for name, ref in fields.items()}, adjoint=None)
