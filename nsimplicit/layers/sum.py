"""The prox of a sum of two functions, found by Douglas-Rachford splitting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from nsimplicit._records import data, static
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.fixed_point import fixed_point
from nsimplicit.prox.base import Function, require_function
from nsimplicit.prox.tilts import Regularize
from nsimplicit.solvers.base import Solver
from nsimplicit.solvers.picard import Picard
from nsimplicit.splittings.douglas_rachford import DouglasRachford


@data
class Sum(Function):
    """The sum of two functions, with a prox that a splitting finds and the implicit rule differentiates.

    Formula: ``g(x) = first(x) + second(x)``; ``prox(x, s)`` is the fixed point of Douglas-Rachford
    splitting for ``first(u) + |u - x|^2 / (2 s)`` and ``second(u)``. The prox of a sum of two sets is
    the projection on their intersection.

    Args:
        first: a function with a prox.
        second: a function with a prox; the answer has its structure (exact zeros of an L1, say).
        tol: as in :func:`nsimplicit.fixed_point`, as are the next three. Static.
        max_steps: at most this many steps. Static.
        solver: the iteration. Static.
        derivative: how the prox is differentiated. Static.

    Kinks:
        Those of the two proxes at the fixed point, with the selections of the two objects.

    Cost:
        A prox of each a step. Where many are needed inside another solver, a splitting with three
        terms (``DavisYin``) is cheaper.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> both = nsi.layers.Sum(nsi.prox.L1(1.0), nsi.prox.Simplex(1.0))
        >>> [round(float(x), 3) for x in both.prox(jnp.array([1.0, 0.6, -2.0]), 0.5)]
        [0.7, 0.3, 0.0]

    References:
        Combettes, Iterative construction of the resolvent of a sum of maximal monotone operators (2009).
    """

    first: Function
    second: Function
    tol: float | None = static(None)
    max_steps: int = static(5000)
    solver: Solver = static(Picard())
    derivative: Derivative = static(Implicit())

    is_convex = property(lambda self: self.first.is_convex and self.second.is_convex)
    is_separable = property(lambda self: self.first.is_separable and self.second.is_separable)
    strong_convexity = property(lambda self: self.first.strong_convexity + self.second.strong_convexity)

    def __post_init__(self) -> None:
        require_function(self.first, "Sum")
        require_function(self.second, "Sum")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.first(x) + self.second(x)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> Any:
            T = DouglasRachford(Regularize(self.first, 1 / step, x), self.second, step)
            options = {"solver": self.solver, "derivative": self.derivative, "max_steps": self.max_steps}
            return fixed_point(T, x, tol=self.tol, **options).value

        return prox

    def subspace(self, x: Any) -> Any:
        """The projection on the subspace of both."""
        return self.first.subspace(self.second.subspace(x))
