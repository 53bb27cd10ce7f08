"""Davis-Yin splitting: three functions, of which one is smooth.

Its contraction factor. For two points write z for their difference, x, u, w for those of prox_g(z), of the
prox of h, and of u - x, and C, B, A for those of grad f, of the subgradients of g and of h that the proxes
choose. Then z = x + s B, w = -s (A + B + C), and the difference of the next points has

    ‖z + r w‖² = ‖z‖² - r (2 - r)‖w‖² - 2 r s (<A, u> + <B, x> + <C, x> + <C, w>).

A is monotone. With f mu-strongly convex, L-smooth, <C, x> >= (mu L ‖x‖² + ‖C‖²)/(mu + L), and
<C, w> >= -‖C‖²/(mu + L) - (mu + L)‖w‖²/4. So where r <= 2 - s (mu + L)/2,

    ‖z + r w‖² <= ‖z‖² - 2 r (<s B, x> + s m ‖x‖²),   m = mu L/(mu + L).

x = D z and s B = (I - D) z with D symmetric, its eigenvalues d between 1/(1 + s L_g) and 1/(1 + s mu_g): the
bracket is at least the smallest d (1 - d) + s m d² times ‖z‖², and that is concave in d or increases.
The same holds for elements of the Jacobians in place of differences.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.implicit.equation import FixedPoint
from nsimplicit.prox.base import Function, require
from nsimplicit.splittings.base import Prepared, Splitting, gradient_step
from nsimplicit.splittings.steps import step_for


@data
class DavisYin(Splitting):
    """x = prox_{step·g}(z), u = prox_{step·h}(2x - z - step·grad f(x)), T(z) = z + relaxation·(u - x).

    For min f + g + h, f smooth. The governing iterate is z; the solution is x = prox_{step·g}(z). With
    h = 0 it is forward-backward splitting the other way round, with f = 0 Douglas-Rachford. With f
    convex with L-Lipschitz gradient it converges for step < 2/L and relaxation < 2 - step·L/2.

    Args:
        f: smooth function (``is_smooth``), e.g. ``prox.LeastSquares(A, b)`` or ``prox.smooth(fun)``.
        g: function with a prox; the solution has its structure (exact zeros of an L1, say).
        h: function with a prox.
        step: positive; ``None``: 1/L where f knows its L, else found by backtracking from 1 at the
            starting point. Either way it is a constant for derivatives, which do not depend on it.
        relaxation: in (0, 2 - step·L/2).

    Raises:
        InputError: f has no gradient; step or relaxation is not positive.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> f, g, h = nsi.prox.LeastSquares(jnp.eye(2), jnp.array([3.0, 0.5])), nsi.prox.L1(1.0), nsi.prox.Box(0.0, 1.5)
        >>> nsi.fixed_point(nsi.splittings.DavisYin(f, g, h), jnp.zeros(2)).value.tolist()
        [1.5, 0.0]

    References:
        Davis, Yin, A three-operator splitting scheme and its optimization applications (2017), algorithm 1.
    """

    f: Function
    g: Function
    h: Function
    step: Any = None
    relaxation: Any = 1.0

    def __post_init__(self) -> None:
        """Signs that can be seen."""
        require("positive", self.step, "splittings.DavisYin", "step", "It is the length of a gradient step.")
        require("positive", self.relaxation, "splittings.DavisYin", "relaxation", "It scales every step.")

    def prepare(self, z: Any) -> Prepared:
        """Both resolvents, factored once."""
        if not self.f.is_smooth:
            raise InputError(
                message(
                    "splittings.DavisYin(f=...)",
                    f"f is {type(self.f).__name__}, which has no gradient.",
                    "Davis-Yin takes a gradient step on f and prox steps on g and h.",
                    "DavisYin(f, g, h) with the smooth function first",
                    "DouglasRachford(f, g, step) for two functions with a prox",
                )
            )
        step = step_for(self.f, self.step, z)
        resolve_g, resolve_h = self.g.prepare(step), self.h.prepare(step)
        forward = gradient_step(self.f, step)

        def apply(z: Any) -> Any:
            x = resolve_g(z)
            u = resolve_h(jax.tree.map(lambda d, x, z: d + x - z, forward(x), x, z))
            return jax.tree.map(lambda z, u, x: z + jnp.asarray(self.relaxation, z.dtype) * (u - x), z, u, x)

        return Prepared(FixedPoint((apply,)), resolve_g)

    def contraction(self, z: Any) -> float | None:
        """The factor that is derived above: sqrt(1 - 2r·min d(1 - d) + step·m·d²), m = mu·L/(mu + L).

        d is 1/(1 + step·L_g) and 1/(1 + step·mu_g). None where f or g does not know its L, or where
        relaxation r > 2 - step·(mu + L)/2; 1 where neither curvature of f nor both ends of g help: a
        strongly convex f alone does not make this map contract (Davis and Yin, section D.6).
        """
        if self.f.lipschitz is None or self.g.lipschitz is None:
            return None
        if not (self.f.is_convex and self.g.is_convex and self.h.is_convex):
            return None
        step, r = step_for(self.f, self.step, z), float(self.relaxation)
        f, g = (
            [float(step * jnp.asarray(bound)) for bound in (fun.strong_convexity, fun.lipschitz)]
            for fun in (self.f, self.g)
        )
        if r > 2 - sum(f) / 2:
            return None
        m = f[0] * f[1] / (sum(f) or 1.0)
        gain = min(d * (1 - d) + m * d * d for d in (1 / (1 + bound) for bound in g))
        return math.sqrt(max(0.0, 1 - 2 * r * gain))
