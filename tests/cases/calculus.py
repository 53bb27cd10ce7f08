"""Functions of one number, coded with kinks at 0, and their sets of derivatives there."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

import nsimplicit as nsi

COVERED = frozenset(
    """calculus.NormalForm calculus.normal_form calculus.JacobianSet calculus.conservative_jacobian
    calculus.clarke_jacobian calculus.directional_derivative calculus.implicit_jacobian
    calculus.implicit_directional_derivative calculus.ImplicitDirection calculus.piggyback_jacobian
    calculus.Attractor calculus.excess""".split()
)


@dataclasses.dataclass(frozen=True)
class Function:
    """A program, the range of its own derivatives at 0, that of the function's, and its one-sided slopes."""

    fun: Callable[[jax.Array], jax.Array]
    program: tuple[float, float]
    clarke: tuple[float, float]
    right: float
    left: float  # the derivative along -1


FUNCTIONS = {
    "relu": Function(jax.nn.relu, (0, 1), (0, 1), 1, 0),
    "abs": Function(jnp.abs, (-1, 1), (-1, 1), 1, 1),
    "zero, as |x| - |x|": Function(lambda x: jnp.abs(x) - jnp.abs(x), (-2, 2), (0, 0), 0, 0),
    "zero, as relu(-x) + x - relu(x)": Function(lambda x: nsi.relu(-x) + x - nsi.relu(x), (-1, 1), (0, 0), 0, 0),
    "identity, as max - max": Function(lambda x: jnp.maximum(x, 0) - jnp.maximum(-x, 0), (0, 2), (1, 1), 1, -1),
    "inside where": Function(lambda x: jnp.where(x > 0, 3 * x, -x), (-1, 3), (-1, 3), 3, 1),
    "smooth": Function(jnp.sin, (1, 1), (1, 1), 1, -1),
    "nested": Function(lambda x: jnp.abs(jnp.abs(x) - 2 * nsi.relu(x)), (-3, 3), (-1, 1), 1, 1),
}


@dataclasses.dataclass(frozen=True)
class Solution:
    """An equation F(z, t) = 0 with solution 0 at t = 0, and how the solution moves to either side."""

    fun: Callable[..., jax.Array]
    right: float
    left: float

    @property
    def slopes(self) -> tuple[float, float]:
        return min(self.right, -self.left), max(self.right, -self.left)


SOLUTIONS = {
    "2 z + |z| = t": Solution(lambda z, t: 2 * z + jnp.abs(z) - t, 1 / 3, -1.0),
    "z = t - z/2 or t - z/4": Solution(lambda z, t: t - z / 4 - nsi.relu(z) / 4 - z, 2 / 3, -4 / 5),
    "the kink is in t": Solution(lambda z, t: 3 * z - nsi.relu(t), 1 / 3, 0.0),
}
