"""The simplex: nonnegative entries with a given sum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, fit, real, require
from nsimplicit.prox.threshold import positive_part


@data
class Simplex(Set):
    """Nonnegative vectors with a given sum.

    Formula: ``project(x) = max(x - tau, 0)``, tau the root of ``sum(max(x - tau, 0)) = total``.

    Args:
        total: the sum, > 0: one number, or one for each vector in x.
        axis: the axis of x along which the sum is taken. Static.
        selection: whether an entry exactly at tau counts as support: its weight in [0, 1], or
            ``"above"`` (it does), ``"below"`` (it does not). Static.

    Kinks:
        x = tau; default 0. With weights q = 1 above tau, 0 below, s at it, the Jacobian is
        ``diag(q) - outer(q, q) / sum(q)``: symmetric, eigenvalues in [0, 1], and for s in {0, 1}
        a limit of Jacobians at nearby points. Entries within a few rounding errors of tau are at it.

    Cost:
        O(n log n): one sort.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Simplex().project(jnp.array([1.0, 0.5, -3.0])).tolist()
        [0.75, 0.25, 0.0]

    References:
        Held, Wolfe, Crowder, Validation of subgradient optimization (1974).
    """

    total: Any = 1.0
    axis: int = static(-1)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("positive", self.total, "prox.Simplex", "total", "Only 0 has nonnegative entries with sum 0.")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the simplex, up to rounding in the sum; inf elsewhere."""
        x = jnp.moveaxis(real(x, "prox.Simplex"), self.axis, -1)
        total = fit(self.total, x[..., 0], "prox.Simplex(total=...)")
        gap = jnp.sum(x, axis=-1) / total - 1
        slack = 2 * x.shape[-1] * jnp.finfo(x.dtype).eps
        inside = jnp.all(x >= 0) & jnp.all((-slack <= gap) & (gap <= slack))
        return jnp.where(inside, 0, jnp.asarray(jnp.inf, x.dtype))

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the simplex."""
        x = jnp.moveaxis(real(x, "prox.Simplex"), self.axis, -1)
        total = fit(self.total, x[..., 0], "prox.Simplex(total=...)")[..., None]
        return jnp.moveaxis(positive_part(x, total, self.selection), -1, self.axis)
