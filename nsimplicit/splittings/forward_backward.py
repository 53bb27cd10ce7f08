"""Forward-backward splitting, the proximal gradient method."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.implicit.equation import ProxStep
from nsimplicit.prox.base import Function
from nsimplicit.splittings.base import Prepared, Splitting, gradient_step, step_hessian
from nsimplicit.splittings.steps import step_for


@data
class ForwardBackward(Splitting):
    """T(z) = prox_{step·g}(z - step·grad f(z)) for min f + g, f smooth. Here z is x itself.

    With f mu-strongly convex with L-Lipschitz gradient and 0 < step < 2/L, T contracts with factor
    max(|1 - step·mu|, |1 - step·L|), at best (L - mu)/(L + mu) with step = 2/(mu + L).

    Args:
        f: smooth function (``is_smooth``), e.g. ``prox.LeastSquares(A, b)`` or ``prox.smooth(fun)``.
        g: function with a prox.
        step: positive; ``None``: 1/L where f knows its L, else found by backtracking from 1 at the
            starting point. Either way it is a constant for derivatives, which do not depend on it.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> T = nsi.splittings.ForwardBackward(
        ...     nsi.prox.LeastSquares(jnp.eye(2), jnp.array([3.0, 0.5])), nsi.prox.L1(1.0)
        ... )
        >>> nsi.fixed_point(T, jnp.zeros(2)).value.tolist()
        [2.0, 0.0]
    """

    f: Function
    g: Function
    step: Any = None

    def prepare(self, z: Any) -> Prepared:
        """The gradient step and the prox, kept apart for structured linear solvers."""
        if not self.f.is_smooth:
            raise InputError(
                message(
                    "splittings.ForwardBackward(f=...)",
                    f"f is {type(self.f).__name__}, which has no gradient.",
                    "Forward-backward takes a gradient step on f and a prox step on g.",
                    "ForwardBackward(g, f): exchange the two",
                    "DouglasRachford(f, g, step), which takes the prox of both",
                )
            )
        step = step_for(self.f, self.step, z)
        backward = self.g.prepare(step)
        forward = gradient_step(self.f, step)
        hessian = step_hessian(self.f, self.g, step, z)
        return Prepared(ProxStep((forward, backward), hessian), lambda z: z)

    def contraction(self, z: Any) -> float | None:
        """The factor max(|1 - step·mu|, |1 - step·L|)/(1 + step·mu_g), where f knows its L and both are convex."""
        if self.f.lipschitz is None or not (self.f.is_convex and self.g.is_convex):
            return None
        step = step_for(self.f, self.step, z)
        ends = (abs(float(1 - step * jnp.asarray(bound))) for bound in (self.f.strong_convexity, self.f.lipschitz))
        return max(ends) / float(1 + step * jnp.asarray(self.g.strong_convexity))
