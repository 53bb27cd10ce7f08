"""First-order approximations from the solution: the last steps, or a truncated Neumann series."""

from __future__ import annotations

import dataclasses

from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import config
from nsimplicit._tree import add, subtract
from nsimplicit.derivatives.base import Derivative, along, first_order, refuse
from nsimplicit.implicit.process import Bound, Outcome, Process


def _positive(k: int, where: str) -> None:
    if not isinstance(k, int) or k < 1:
        raise InputError(message(f"{where}(k={k!r})", "k must be a positive Python int.", "It is a number of steps."))


@config
class Truncated(Derivative):
    """Differentiates the last k steps only: k further (damped) steps from the solution.

    The error against the implicit derivative is of order ρ^k for a contraction of factor ρ; with a
    superlinear method (Newton) one step is asymptotically exact. First order only.

    Args:
        k: number of differentiated steps; memory grows with it.
        damping: each step is z + damping·(T(z) - z), in (0, 1].

    References: J. Bolte, E. Pauwels, S. Vaiter, One-step differentiation of iterative algorithms,
    NeurIPS 2023; damped steps: Z. Geng et al., On training implicit models, NeurIPS 2021.
    """

    k: int
    damping: float = 1.0

    def __post_init__(self) -> None:
        """Refuse k < 1 and a damping outside (0, 1]."""
        _positive(self.k, "derivatives.Truncated")
        if not 0 < self.damping <= 1:
            found = f"damping is {self.damping}, and must be in (0, 1]."
            meaning = "At 0 no step is taken; above 1 the steps overshoot."
            raise InputError(message(f"derivatives.Truncated(damping={self.damping})", found, meaning, "damping=1.0"))

    def solve(self, process: Process) -> Outcome:
        """Run, then take k steps that are differentiated."""
        return _last_steps(process, self.k, self.damping, "derivatives.Truncated(...)")


@config
class OneStep(Derivative):
    """Jacobian-free differentiation, ``Truncated(1)``: the derivative of the last step alone."""

    def solve(self, process: Process) -> Outcome:
        """As ``Truncated(1)``."""
        return _last_steps(process, 1, 1.0, "derivatives.OneStep()")


def _last_steps(process: Process, k: int, damping: float, where: str) -> Outcome:
    tail = process.tail
    if tail is None:
        raise refuse(where, process, "the equation F(z) = 0 gives no step to differentiate.", _IMPLICIT)
    outcome = process.solve()

    def last(consts, z):
        return lax.scan(lambda z, _: (tail(consts, z, damping), None), z, None, length=k)[0]

    def tangent(consts, z, live, dots):
        return along(consts, live, lambda c: last(c, z), dots)

    z = first_order(where, process.traced.consts, outcome.z, last, tangent)
    return dataclasses.replace(outcome, z=z)


@config
class Neumann(Derivative):
    """The first k terms of (I - A)⁻¹ B = B + A B + A² B + ... at the solution; memory flat in k.

    Args:
        k: number of terms, k - 1 products with A = dT/dz. First order only.
    """

    k: int

    def __post_init__(self) -> None:
        """Refuse k < 1."""
        _positive(self.k, "derivatives.Neumann")

    def solve(self, process: Process) -> Outcome:
        """Run, attach the series."""
        if not process.contracts:
            raise refuse(
                "derivatives.Neumann(...)",
                process,
                "the series needs the map of a contraction, and this is Newton's method or a root.",
                "derivative=nsi.derivatives.OneStep(), exact for Newton",
                _IMPLICIT,
            )
        outcome = process.solve()
        traced = process.traced

        def series(consts, z, live, dots):
            b = along(consts, live, lambda c: Bound(traced, c).map(z), dots)
            _, operator = traced.linearise(consts, z)

            def term(v, _):  # A v + b, where the operator is I - A
                return add(b, subtract(v, operator.matvec(v))), None

            return lax.scan(term, b, None, length=self.k - 1)[0]

        z = first_order("derivatives.Neumann(...)", traced.consts, outcome.z, lambda _, z: z, series)
        return dataclasses.replace(outcome, z=z)


_IMPLICIT = "derivative=nsi.derivatives.Implicit()"
