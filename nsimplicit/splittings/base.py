"""What a splitting is: a problem written as a fixed-point equation for a governing iterate."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

from nsimplicit._records import config
from nsimplicit.implicit.equation import Equation, Problem


@config
class Prepared:
    """A splitting ready to iterate: the equation of z, and the map z -> x."""

    equation: Equation
    solution: Callable[[Any], Any]


class Splitting(Problem):
    """A fixed-point map built from a problem. Data: a pytree whose leaves are the problem.

    A final class writes ``prepare``; calling the splitting applies the map once.
    """

    @abc.abstractmethod
    def prepare(self, z: Any) -> Prepared:
        """The equation and the solution map, with factorisations and steps computed once.

        Args:
            z: a state (used where a step must be found by trying).
        """

    def __call__(self, z: Any) -> Any:
        """T(z)."""
        for apply in self.prepare(z).equation.maps:
            z = apply(z)
        return z

    def formulate(self, z: Any) -> tuple[Any, Equation]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """z itself and its equation."""
        return z, self.prepare(z).equation

    def solution(self, z: Any) -> Any:
        """The solution x that a fixed point z stands for."""
        return self.prepare(z).solution(z)
