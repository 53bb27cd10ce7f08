"""What a splitting is: a problem written as a fixed-point equation for a governing iterate."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit.implicit.equation import Equation, Map, Problem
from nsimplicit.prox.base import Function
from nsimplicit.prox.hessian import ScaledHessian


@config
class Prepared:
    """A splitting ready to iterate.

    Args:
        equation: T(z) = z, which is iterated.
        solution: the map z -> x.
        optimality: an equation with the same solutions z, which is differentiated; ``None``: the same.
    """

    equation: Equation
    solution: Callable[[Any], Any]
    optimality: Equation | None = None

    @property
    def rule(self) -> Equation:
        """The equation that is differentiated."""
        return self.equation if self.optimality is None else self.optimality


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
        """z itself and the equation that is differentiated."""
        return z, self.prepare(z).rule

    def solution(self, z: Any) -> Any:
        """The solution x that a fixed point z stands for."""
        return self.prepare(z).solution(z)


def gradient_step(f: Function, step: Any) -> Map:
    """x -> x - step·grad f(x), on the subspace f lives on."""
    return lambda x: jax.tree.map(lambda x, d: x - jnp.asarray(step, x.dtype) * d, f.subspace(x), f.gradient(x))


def step_hessian(f: Function, g: Function, step: Any, z: Any, point: Map | None = None) -> Map | None:
    """z -> step·H, the Hessian of f where direct solvers can use it: f has one by blocks, g is separable.

    Args:
        f: the smooth function.
        g: the function with the prox.
        step: the step.
        z: a state.
        point: z -> where the Hessian is taken; z itself if left out.
    """
    leaves = jax.tree.leaves(z)
    is_vector = len(leaves) == 1 and jnp.ndim(leaves[0]) == 1 and not jnp.iscomplexobj(leaves[0])
    f, step = lax.stop_gradient((f, step))
    if not (g.is_separable and is_vector) or f.hessian(z) is None:
        return None
    return lambda z: ScaledHessian(step, f.hessian(z if point is None else point(z)))
