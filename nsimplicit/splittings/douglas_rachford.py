"""Douglas-Rachford splitting, relaxed; relaxation 2 is Peaceman-Rachford."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data
from nsimplicit.implicit.equation import FixedPoint, Map, StepAfterProx
from nsimplicit.prox.base import Function
from nsimplicit.splittings.base import Prepared, Splitting, gradient_step, step_hessian


@data
class DouglasRachford(Splitting):
    """x = prox_{step·g}(y), z = prox_{step·f}(2x - y), T(y) = y + relaxation·(z - x), for min f + g.

    The governing iterate is y; the solution is x = prox_{step·g}(y). With f mu-strongly convex with
    L-Lipschitz gradient and relaxation 1 the factor is (1 + delta)/2,
    delta = max((1 - step·mu)/(1 + step·mu), (step·L - 1)/(step·L + 1)); best step 1/sqrt(mu·L).

    Args:
        f: function with a prox.
        g: function with a prox; the solution has its structure (exact zeros of an L1, say).
        step: positive.
        relaxation: in (0, 2); at 2 (Peaceman-Rachford) convergence needs f strongly convex and smooth.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> T = nsi.splittings.DouglasRachford(
        ...     nsi.prox.LeastSquares(jnp.eye(2), jnp.array([3.0, 0.5])), nsi.prox.L1(1.0), 1.0
        ... )
        >>> nsi.fixed_point(T, jnp.zeros(2)).value.tolist()
        [2.0, 0.0]
    """

    f: Function
    g: Function
    step: Any = 1.0
    relaxation: Any = 1.0

    def contraction(self, z: Any) -> float | None:
        """The factor |1 - r/2| + r·delta/2 for relaxation r, where f knows its L and both are convex.

        For r > 1 its distance to 1 is divided by r, the scale of the equation that is differentiated.
        """
        del z
        if self.f.lipschitz is None or not (self.f.is_convex and self.g.is_convex):
            return None
        low, high = (float(self.step * jnp.asarray(x)) for x in (self.f.strong_convexity, self.f.lipschitz))
        delta, half = max((1 - low) / (1 + low), (high - 1) / (high + 1)), float(self.relaxation) / 2
        factor = abs(1 - half) + half * delta
        return 1 - (1 - factor) / max(1.0, 2 * half)

    def prepare(self, z: Any) -> Prepared:
        """Both resolvents, factored once."""
        resolve_f, resolve_g = self.f.prepare(self.step), self.g.prepare(self.step)

        def apply(y: Any) -> Any:
            y = self.f.subspace(self.g.subspace(y))
            x = resolve_g(y)
            u = resolve_f(jax.tree.map(lambda a, b: 2 * a - b, x, y))
            return jax.tree.map(lambda y, u, x: y + jnp.asarray(self.relaxation, y.dtype) * (u - x), y, u, x)

        return Prepared(FixedPoint((apply,)), resolve_g, self._optimality(z, resolve_g))

    def _optimality(self, y: Any, resolve_g: Map) -> StepAfterProx | None:
        """y = x - step·grad f(x) with x = prox_{step·g}(y), where f has a gradient.

        T and this map have the same fixed points, and I - T' = relaxation·(I + step·H)⁻¹ (I - S D) with
        S = I - step·H: the tangent system is that of forward-backward splitting.
        """
        if not self.f.is_smooth:
            return None
        hessian = step_hessian(self.f, self.g, self.step, y, resolve_g)
        return StepAfterProx((resolve_g, gradient_step(self.f, self.step)), hessian)
