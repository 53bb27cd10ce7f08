"""Sets and functions of symmetric matrices through their eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, Set, fit, indicator, real
from nsimplicit.prox.boundary import change, inside, magnitude
from nsimplicit.prox.spectral_function import Spectrum, matrix, positive_part, shifted, symmetric


@data
class PSDCone(Set):
    """Positive semidefinite matrices. The cone is its own dual.

    Formula: ``project(X) = V @ diag(max(lam, 0)) @ V.T``, where ``X = V @ diag(lam) @ V.T``.

    Args:
        selection: what a zero eigenvalue does: the weight in [0, 1] on the branch inside the cone,
            ``"inside"`` (1) or ``"outside"`` (0). Static.

    It lives on symmetric matrices: X is replaced by its symmetric part. The last two axes of X are a
    matrix; other axes are matrices side by side.

    Kinks:
        An eigenvalue that is zero up to rounding; default 0, outside. A simple one is one switch, and
        the Jacobian there is between that of the two branches. k of them are a k x k block in which
        the Clarke Jacobian is no segment: the element taken is s times the identity, s the weight.
        Repeated eigenvalues other than zero are smooth.

    Cost:
        O(n^3), one eigendecomposition. The derivative divides by no difference of eigenvalues.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PSDCone().project(jnp.array([[0.0, 2.0], [2.0, 0.0]])).round(5).tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    References:
        Higham, Computing a nearest symmetric positive semidefinite matrix (1988).
        Malick, Sendov, Clarke generalized Jacobian of the projection onto the cone of positive
        semidefinite matrices (2006).
    """

    selection: Any = static(None)

    def subspace(self, x: Any) -> jax.Array:
        """The symmetric part."""
        return _symmetric_part(x, "prox.PSDCone")

    def __call__(self, x: Any) -> jax.Array:
        """0 where the symmetric part of x is positive semidefinite, up to rounding; inf elsewhere."""
        spectrum = shifted(symmetric(x, "prox.PSDCone"))
        return indicator(spectrum.lam >= 0, spectrum.lam)

    def project(self, x: Any) -> jax.Array:
        """The nearest positive semidefinite matrix to the symmetric part of x."""
        where = "prox.PSDCone"
        nearest = positive_part(shifted(symmetric(x, where)), inside(self.selection, where))
        return nearest.astype(real(x, where).dtype)


@data
class SumEigenvalues(Function):
    """The sum of the k largest eigenvalues of a symmetric matrix; k = 1 is the largest eigenvalue.

    Formula: ``g(X) = sum(lam[:k])`` with the eigenvalues in falling order; ``prox(X, s) =
    X - V @ diag(clip(lam - tau, 0, s)) @ V.T``, tau the root of ``sum(clip(lam - tau, 0, s)) = s * k``.

    Args:
        k: how many eigenvalues, between 1 and n. Static.
        selection: whether an eigenvalue exactly at ``tau`` or ``tau + s`` moves with those between
            them: its weight in [0, 1], or ``"inside"`` (it does) or ``"outside"`` (it does not). Static.

    It lives on symmetric matrices, as :class:`PSDCone` does.

    Kinks:
        lam = tau and lam = tau + s; default 0, outside. A simple eigenvalue there is one switch; of
        repeated ones the element s times the identity is taken, as in :class:`PSDCone`. The gradient
        of g at equal eigenvalues lam[k-1] = lam[k] is the mean over all choices of k among them.

    Cost:
        O(n^3), one eigendecomposition.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.SumEigenvalues(1).prox(jnp.diag(jnp.array([3.0, 2.5, 0.0])), 1.0).diagonal().round(5).tolist()
        [2.25, 2.25, 0.0]

    References:
        Overton, Womersley, On the sum of the largest eigenvalues of a symmetric matrix (1992).
    """

    k: int = static(kw_only=False)
    selection: Any = static(None)

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            found = f"k is {self.k!r}."
            raise InputError(message("prox.SumEigenvalues(k)", found, "It counts eigenvalues.", "k=1, the largest"))

    def subspace(self, x: Any) -> jax.Array:
        """The symmetric part."""
        return _symmetric_part(x, "prox.SumEigenvalues")

    def _spectrum(self, x: Any) -> Spectrum:
        spectrum = symmetric(x, "prox.SumEigenvalues")
        n = spectrum.lam.shape[-1]
        if self.k > n:
            found = f"an {n} x {n} matrix has {n} eigenvalues."
            raise InputError(
                message(f"prox.SumEigenvalues({self.k})(x)", found, "k is at most n.", f"k={n}, the trace")
            )
        return spectrum

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        spectrum = self._spectrum(x)
        lam = lax.stop_gradient(spectrum.lam)  # rising
        n = lam.shape[-1]
        if self.k == n:
            return jnp.sum(_trace(spectrum.W))
        height = (lam[..., n - self.k] + lam[..., n - self.k - 1]) / 2
        between = shifted(spectrum, height)
        sure, tied = (jnp.sum(test, axis=-1) for test in (between.lam > 0, between.lam == 0))
        share = (self.k - sure) / jnp.where(tied > 0, tied, 1)
        return jnp.sum(self.k * height + _trace(positive_part(between, share[..., None, None])))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def prox(x: Any) -> jax.Array:
            spectrum = self._spectrum(x)
            W, lam, _ = spectrum
            s = fit(step, jnp.zeros(lam.shape[:-1], lam.dtype), "prox.SumEigenvalues.prox(step=...)")
            s = jnp.broadcast_to(s, lam.shape[:-1])
            if self.k == lam.shape[-1]:
                moved = s[..., None, None] * jnp.eye(lam.shape[-1], dtype=lam.dtype)
                return (W - moved).astype(real(x, "prox.SumEigenvalues").dtype)
            tau = _level(lam, self.k, lax.stop_gradient(s))
            clipped, q = _clipped(spectrum, tau, s, self.selection)
            # sum(clip(lam - tau, 0, s)) = s k for constant q, the weights on "between".
            drift = change(_trace(clipped) - s * self.k) / jnp.where(q > 0, q, 1)
            return (W - _clipped(spectrum, tau + drift, s, self.selection)[0]).astype(
                real(x, "prox.SumEigenvalues").dtype
            )

        return prox


def _symmetric_part(x: Any, where: str) -> jax.Array:
    wide = matrix(x, where, square=True)
    return ((wide + wide.mT) / 2).astype(real(x, where).dtype)


def _trace(x: jax.Array) -> jax.Array:
    return jnp.trace(x, axis1=-2, axis2=-1)


def _clipped(spectrum: Spectrum, tau: jax.Array, s: jax.Array, selection: Any) -> tuple[jax.Array, jax.Array]:
    """V diag(clip(lam - tau, 0, s)) V^T, and how many eigenvalues are between the bounds, as the selection counts.

    clip(t, 0, s) = max(t, 0) + (s - t) - max(s - t, 0): "between" is the branch above of both kinks.
    """
    selection = inside(selection, "prox.SumEigenvalues")
    low, top = shifted(spectrum, tau), shifted(spectrum, tau + s)
    top = Spectrum(-top.W, -top.lam, top.V)

    def counts(u: jax.Array) -> jax.Array:
        ramp = jnp.ones_like(u)
        return jax.jvp(lambda t: primitives.switch(u, t, 0 * t, selection=selection), (u,), (ramp,))[1]

    between = jnp.sum(counts(low.lam) + counts(top.lam) - 1, axis=-1)
    return positive_part(low, selection) + top.W - positive_part(top, selection), between


def _level(lam: jax.Array, k: int, s: jax.Array) -> jax.Array:
    """tau with sum(clip(lam - tau, 0, s)) = s k; the middle where there are many."""
    s = s[..., None]
    breaks = jnp.concatenate([lam, lam - s], axis=-1)
    moved = lam[..., None, :] - breaks[..., :, None]
    total = jnp.sum(jnp.where(moved < 0, 0, jnp.where(moved > s[..., None], s[..., None], moved)), axis=-1) - s * k
    slack = 4 * lam.shape[-1] * jnp.finfo(lam.dtype).eps * (s + jnp.max(magnitude(lam)))
    low = jnp.max(jnp.where(total >= -slack, breaks, -jnp.inf), axis=-1, keepdims=True)
    high = jnp.min(jnp.where(total <= slack, breaks, jnp.inf), axis=-1, keepdims=True)
    middle = (low + high) / 2
    full = lam - s >= middle
    between = (lam > middle) & ~full
    count = jnp.sum(between, axis=-1)
    excess = jnp.sum(jnp.where(between, lam, 0), axis=-1) + s[..., 0] * (jnp.sum(full, axis=-1) - k)
    return jnp.where(count > 0, excess / jnp.where(count > 0, count, 1), middle[..., 0])
