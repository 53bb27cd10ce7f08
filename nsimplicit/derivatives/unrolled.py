"""Differentiation of the iterations themselves."""

from __future__ import annotations

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit.derivatives.base import Derivative, refuse
from nsimplicit.implicit.process import Outcome, Process


@config
class Unrolled(Derivative):
    """Runs exactly ``steps`` steps and differentiates them, in every mode and order.

    The derivative of the iterate, not of the limit: it converges to the limit's where the iteration
    contracts, but a kink met on the way, or momentum, can keep it from converging.

    Args:
        steps: static number of steps; ``tol`` and ``max_steps`` of the call play no part.
        checkpoint: memory √steps instead of steps, at twice the forward work.
    """

    steps: int
    checkpoint: bool = False

    def __post_init__(self) -> None:
        """Refuse a number of steps that is not a positive integer."""
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(
                message(
                    f"derivatives.Unrolled(steps={self.steps!r})",
                    "steps must be a positive Python int.",
                    "A reverse pass through a loop needs to know its length when traced.",
                    "Unrolled(steps=100)",
                    "Implicit(), which needs no static number of steps",
                )
            )

    def solve(self, process: Process) -> Outcome:
        """A differentiable scan."""
        if process.steps is None:
            raise refuse(
                "derivatives.Unrolled(...)",
                process,
                "the solver is opaque: its steps cannot be seen.",
                "derivative=nsi.derivatives.Implicit()",
                "nsi.fixed_point(T, ...), whose steps can be",
            )
        return process.steps(process.traced.consts, self.steps, self.checkpoint)
