"""Functions and sets of matrices of any shape through their singular values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, Set, fit, indicator, matmul, real, require
from nsimplicit.prox.boundary import change, inside, snap
from nsimplicit.prox.singular_values import lowered
from nsimplicit.prox.spectral_function import decompose, dilated, matrix, positive_part, shifted

CONCAVE = "A negative weight makes the function concave, and then it has no prox."


@data
class NuclearNorm(Function):
    """The nuclear norm, the sum of the singular values, weighted: the prox makes matrices of low rank.

    Formula: ``g(X) = w * sum(sigma)``; ``prox(X, s) = U @ diag(max(sigma - s * w, 0)) @ V.T``, where
    ``X = U @ diag(sigma) @ V.T``.

    Args:
        weight: w >= 0, one number.
        selection: what a singular value exactly at the threshold does: the weight in [0, 1] on the
            branch that keeps it, or a name. Static.

    X is a matrix of any shape, or several along leading axes.

    Kinks:
        sigma = s w, up to rounding; default 0, set to zero. A simple singular value is one switch; for
        k equal ones the element taken is the weight times the identity on their k x k symmetric block.
        Repeated and zero singular values are smooth. Where w = 0 the prox is the identity. The
        gradient of g at zero singular values is the one without a part on their singular vectors.

    Cost:
        O((m + n)^3), one singular value decomposition for m x n. The derivative divides by no
        difference of singular values.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.NuclearNorm(1.0).prox(jnp.array([[0.0, 3.0], [0.5, 0.0]]), 1.0).round(5).tolist()
        [[0.0, 2.0], [0.0, 0.0]]

    References:
        Cai, Candes, Shen, A singular value thresholding algorithm for matrix completion (2010).
    """

    weight: Any = 1.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.weight, "prox.NuclearNorm", "weight", CONCAVE)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        x = matrix(x, "prox.NuclearNorm")
        # The eigenvalues of the dilation come in pairs of both signs: the positive ones add up to the norm.
        total = jnp.trace(positive_part(shifted(dilated(x)), 0.5), axis1=-2, axis2=-1)
        return fit(self.weight, jnp.zeros((), x.dtype), "prox.NuclearNorm(weight=...)") * jnp.sum(total)

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            y = matrix(x, "prox.NuclearNorm")
            tau = fit(step * self.weight, jnp.zeros((), y.dtype), "prox.NuclearNorm(weight=...)")
            return _shrunk(y, tau, self.selection).astype(real(x, "prox.NuclearNorm").dtype)

        return prox


@data
class SpectralNormBall(Set):
    """Matrices whose singular values are at most a radius.

    Formula: ``project(X) = U @ diag(min(sigma, r)) @ V.T``, where ``X = U @ diag(sigma) @ V.T``.

    Args:
        radius: r >= 0, one number.
        selection: what a singular value exactly at the radius does: the weight in [0, 1] on the
            branch that keeps it, ``"inside"`` (1) or ``"outside"`` (0). Static.

    X is a matrix of any shape, or several along leading axes.

    Kinks:
        sigma = r, up to rounding; default 1, inside. Repeated ones as in :class:`NuclearNorm`.

    Cost:
        O((m + n)^3), one singular value decomposition for m x n.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SpectralNormBall(1.0).project(jnp.array([[0.0, 3.0], [0.5, 0.0]])).round(5).tolist()
        [[0.0, 1.0], [0.5, 0.0]]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.7.2.
    """

    radius: Any = 1.0
    selection: Any = static(None)

    def __post_init__(self) -> None:
        require("nonnegative", self.radius, "prox.SpectralNormBall", "radius", "A ball of negative radius is empty.")

    def _radius(self, x: jax.Array) -> jax.Array:
        return fit(self.radius, jnp.zeros((), x.dtype), "prox.SpectralNormBall(radius=...)")

    def __call__(self, x: Any) -> jax.Array:
        """0 in the ball, up to rounding; inf elsewhere."""
        x = matrix(x, "prox.SpectralNormBall")
        sigma, radius = jnp.linalg.svd(lax.stop_gradient(x), compute_uv=False), self._radius(x)
        return indicator(snap(radius - sigma, sum(x.shape[-2:]) * (radius + sigma)) >= 0, sigma)

    def project(self, x: Any) -> jax.Array:
        """The nearest matrix in the ball."""
        y = matrix(x, "prox.SpectralNormBall")
        weight = inside(self.selection, "prox.SpectralNormBall")
        # What is taken off is the prox of the nuclear norm, whose branch above is outside.
        taken = _shrunk(y, self._radius(y), None if weight is None else 1 - weight)
        return (y - taken).astype(real(x, "prox.SpectralNormBall").dtype)


def _shrunk(x: jax.Array, tau: jax.Array, selection: Any) -> jax.Array:
    """The singular values of x lowered by tau, those below tau set to zero."""
    # At tau = 0 the identity, with the derivative in tau of the other side and no kink where sigma = 0.
    factors = decompose(x)
    U, _, Vh = factors
    k = min(x.shape[-2:])
    low = x - change(tau * matmul(U[..., :k], Vh[..., :k, :]))
    return jnp.where(tau > 0, lowered(x, jnp.where(tau > 0, tau, 1), factors, selection), low)
