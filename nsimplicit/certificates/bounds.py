"""Lower bounds on the smallest singular value over a set of matrices, in NumPy and float64, rounding included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.certificates.cheap_tests import EPS, norm_bound


def hull_bound(matrices: Any) -> float:
    """A lower bound on the smallest singular value over the convex hull of finitely many matrices.

    Formula: (1 - γ) / ‖P‖ with P the inverse of the mean and γ = max ‖I - P B_i‖; 0 where γ ≥ 1.
    Same-sign determinants alone prove nothing about a hull: halfway from I to -I in the plane lies 0.

    Args:
        matrices: array (count, n, n), or a sequence of arrays (n, n); concrete.

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import hull_bound
        >>> round(hull_bound([np.diag([1.0, 3.0]), np.diag([3.0, 1.0])]), 6)
        1.0
        >>> hull_bound([np.eye(2), -np.eye(2)])
        0.0
    """
    stack = np.asarray(matrices, np.float64)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not len(stack):
        _refuse("hull_bound", "(count, n, n)", stack.shape)
    if not np.all(np.isfinite(stack)):
        return 0.0
    try:
        inverse = np.linalg.inv(stack.mean(0))
    except np.linalg.LinAlgError:
        return 0.0
    n = stack.shape[-1]
    size = norm_bound(inverse, 0.0)
    rounding = 8 * (n + 1) * EPS * size * max(float(np.linalg.norm(b)) for b in stack)
    gamma = max(norm_bound(np.eye(n) - inverse @ b, 0.0) for b in stack) + rounding
    return (1 - gamma) / size if gamma < 1 else 0.0


def contraction_bound(a: Any) -> float:
    """A lower bound on the smallest singular value of I - A: 1 - ‖A‖₂, or 0.

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import contraction_bound
        >>> round(contraction_bound(np.diag([0.5, -0.25])), 6)
        0.5
    """
    a = np.asarray(a, np.float64)
    return float(np.maximum(1 - norm_bound(a, 0.0), 0.0))


def monotone_bound(w: Any, m: float | None = None) -> float:
    """A lower bound on the smallest singular value of I - J W, for every symmetric J with 0 ≼ J ≼ I.

    Formula: m / ‖2 I - W‖₂ where I - W ≽ m I in its symmetric part; 0 where m ≤ 0. J is any Clarke element of
    a prox, as in the equation z = prox(W z + b) of a monotone deep equilibrium model.

    Args:
        w: array (n, n), concrete.
        m: the strong monotonicity, if it is known; ``None`` computes it.

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import monotone_bound
        >>> round(monotone_bound(np.array([[0.0, 1.0], [-1.0, 0.0]])), 6)
        0.447214

    References: E. Winston, J. Z. Kolter, Monotone operator equilibrium networks, NeurIPS 2020.
    """
    w = np.asarray(w, np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1]:
        _refuse("monotone_bound", "(n, n)", w.shape)
    eye = np.eye(len(w))
    if not np.all(np.isfinite(w)):
        return 0.0
    if m is None:
        half = eye - (w + w.T) / 2
        m = float(np.linalg.eigvalsh(half)[0]) - 8 * (len(w) + 1) * EPS * float(np.linalg.norm(half))
    return m / norm_bound(2 * eye - w, 0.0) if m > 0 else 0.0


def smallest_singular_value(normal_form: NormalForm, *, max_kinks: int = 8) -> tuple[float, str]:
    """The smallest singular value of M(s) over all selections s, and what the number is.

    If every M(s) is invertible the minimum is at a vertex: M(s) is affine in s_i with a direction of rank one, so
    M(s)⁻¹ is affine in t = s_i / (1 + c s_i), which increases with s_i; a norm that is convex in each t is largest
    at a vertex. If two vertices have determinants of different signs some M(s) is singular: 0.

    Args:
        normal_form: of an equation, with a square base; concrete.
        max_kinks: up to this k all 2^k vertices are evaluated.

    Returns:
        A number and one of ``"exact"`` (all vertices, up to rounding), ``"lower bound"``
        (from the symmetric part of I - Q) and ``"no bound"`` (nan).

    Raises:
        InputError: the base is not square.

    Cost: 2^k singular value decompositions.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.calculus.normal_form import NormalForm
        >>> from nsimplicit.certificates import smallest_singular_value
        >>> one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
        >>> smallest_singular_value(NormalForm(2 * one, one, -one, zero, -one, zero))
        (1.0, 'exact')
    """
    base, gain, into, coupling = (
        np.asarray(x, np.float64) for x in (normal_form.base, normal_form.gain, normal_form.into, normal_form.coupling)
    )
    if base.shape[0] != base.shape[1]:
        _refuse("smallest_singular_value", "(n, n) of the base", base.shape)
    k = len(into)
    if not all(np.all(np.isfinite(x)) for x in (base, gain, into, coupling)):
        return np.nan, "no bound"
    if k <= max_kinks:
        signs, least = set(), np.inf
        for number in range(2**k):
            s = (number >> np.arange(k) & 1).astype(np.float64)[:, None]
            matrix = base + gain @ np.linalg.solve(np.eye(k) - s * coupling, s * into)
            signs.add(float(np.linalg.slogdet(matrix)[0]))
            least = min(least, float(np.min(np.linalg.svd(matrix, compute_uv=False), initial=np.inf)))
        return (0.0 if len(signs) > 1 else least), "exact"
    try:
        inverse = np.linalg.inv(base)
    except np.linalg.LinAlgError:
        return 0.0, "exact"
    # M(s)⁻¹ = M₀⁻¹ - M₀⁻¹ G y with y = S (Q y + C M₀⁻¹ v). As y² <= y (Q y + ...) entry by entry,
    # yᵀ(I - Q) y <= yᵀ C M₀⁻¹ v, hence ‖y‖ <= ‖C M₀⁻¹ v‖ / mu.
    right, left = inverse @ gain, into @ inverse
    q = coupling - into @ right
    norms = [norm_bound(x, 0.0) for x in (inverse, right, left)]
    loss = 8 * (len(base) + k) * EPS * norm_bound(base, 0.0) * norms[0]  # relative, of what is made with the inverse
    mu = float(np.linalg.eigvalsh(np.eye(k) - (q + q.T) / 2)[0])
    mu -= (loss + k * EPS) * (1 + norm_bound(coupling, 0.0) + norm_bound(into, 0.0) * norms[0] * norm_bound(gain, 0.0))
    if not (mu > 0 and loss < 0.5):
        return np.nan, "no bound"
    return (1 - 2 * loss) / (norms[0] + norms[1] * norms[2] / mu), "lower bound"


def _refuse(where: str, expected: str, got: Sequence[int]) -> None:
    raise InputError(
        message(
            f"{where}(...)", f"expected shape {expected}, got {tuple(got)}.", "A singular value of a square matrix."
        )
    )
