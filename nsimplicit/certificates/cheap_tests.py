"""Cheap tests of a matrix Q of kinks.

The question is about I - Q: is every I - S Q, S = diag(s), s in [0, 1]^k, invertible? A sufficient test gives a
number, positive if the answer is certainly yes; a refutation gives the subset of a principal minor of I - Q that
is certainly not positive. "Certainly" means for every matrix within ``error`` of Q, and beyond rounding. These
functions run on concrete arrays, in NumPy and float64; a table of each names what it tests in reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)


def kink_matrix(q: Any, error: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """I - Q in float64 and the bound on its error; the rounding of 1 - q_ii is found exactly."""
    q = np.asarray(q, np.float64)
    matrix, bound = np.eye(len(q)) - q, np.array(np.broadcast_to(np.asarray(error, np.float64), q.shape))
    diagonal, rounded = np.diagonal(q), np.diagonal(matrix)
    back = rounded - 1
    lost = (1 - (rounded - back)) + (-diagonal - back)  # Knuth's two-sum
    bound[np.diag_indices(len(q))] += np.abs(lost)
    return matrix, bound * (1 + 4 * EPS)


def norm_below_one(q: np.ndarray, error: np.ndarray) -> float:
    """1 - ‖Q‖₂: S Q is a contraction for every S, so I - S Q is invertible."""
    return 1 - norm_bound(q, error)


def symmetric_part(q: np.ndarray, error: np.ndarray) -> float:
    """Whether xᵀ(I - Q)x > 0, which principal submatrices inherit, and with it a positive determinant."""
    return definiteness(*kink_matrix(q, error))


def absolute_radius(q: np.ndarray, error: np.ndarray) -> float:
    """1 - ρ(|Q|), or less: the Neumann series of S Q converges for every S."""
    size = np.abs(q) + error
    return _dominance(np.ones(len(q)), size)


def h_matrix(q: np.ndarray, error: np.ndarray) -> float:
    """Whether columns can be scaled so that I - Q is dominated by its diagonal, which is positive."""
    matrix, bound = kink_matrix(q, error)
    size = np.abs(matrix) + bound
    np.fill_diagonal(size, 0)
    return _dominance(np.diagonal(matrix) - np.diagonal(bound), size)


def bad_diagonal(q: np.ndarray, error: np.ndarray) -> np.ndarray | None:
    """A kink that makes the derivative singular on its own."""
    matrix, bound = kink_matrix(q, error)
    excess = np.diagonal(matrix) + np.diagonal(bound)
    return _subset(len(q), int(np.argmin(excess))) if np.min(excess, initial=1.0) <= 0 else None


def bad_pair(q: np.ndarray, error: np.ndarray) -> np.ndarray | None:
    """Two kinks that make it singular together."""
    a, e = kink_matrix(q, error)
    diagonal, doubt = np.diagonal(a), np.diagonal(e)
    size, across = np.abs(diagonal), np.abs(a)
    minor = np.outer(diagonal, diagonal) - a * a.T
    bound = np.outer(size + doubt, size + doubt) - np.outer(size, size)
    bound += (across + e) * (across + e).T - across * across.T
    gross = np.outer(size + doubt, size + doubt) + (across + e) * (across + e).T
    # The differences in `bound` cancel: their own rounding is under 4 EPS of the total.
    excess = minor + bound + 8 * EPS * gross + np.finfo(np.float64).tiny
    np.fill_diagonal(excess, np.inf)
    if not np.any(excess <= 0):  # what overflowed is nan
        return None
    with np.errstate(all="ignore"):
        worst = np.argmin(np.where(excess <= 0, excess / gross, np.inf))
    return _subset(len(q), *np.unravel_index(worst, excess.shape))


def bad_determinant(q: np.ndarray, error: np.ndarray) -> np.ndarray | None:
    """All kinks together: between s = 0 and s = 1 the determinant changes sign."""
    return np.ones(len(q), bool) if determinant_sign(*kink_matrix(q, error)) < 0 else None


CERTIFICATES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "norm of Q below one": norm_below_one,
    "symmetric part of I - Q positive definite": symmetric_part,
    "spectral radius of |Q| below one": absolute_radius,
    "I - Q an H-matrix with positive diagonal": h_matrix,
}
REFUTATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray | None]] = {
    "diagonal entry of I - Q not positive": bad_diagonal,
    "2 by 2 minor of I - Q not positive": bad_pair,
    "determinant of I - Q not positive": bad_determinant,
}


def definiteness(matrix: np.ndarray, error: np.ndarray) -> float:
    """A lower bound, positive if certain, on the least eigenvalue of the symmetric part scaled to unit diagonal.

    A Cholesky factorisation that runs through for H - c I proves H positive definite if c is above its backward
    error, (k + 1) eps trace H, and the error of H.

    References: S. Rump, Verification of positive definiteness, BIT 46 (2006).
    """
    k, diagonal = len(matrix), np.diagonal(matrix)
    if k == 0:
        return 1.0
    if not np.min(diagonal - np.diagonal(error)) > 0:
        return -1.0
    scale = 1 / np.sqrt(diagonal)
    with np.errstate(all="ignore"):
        half = (matrix + matrix.T) / 2 * np.outer(scale, scale)
        doubt = (error + error.T) / 2 * np.outer(scale, scale) + 8 * EPS * np.abs(half)
    slack = 4 * k * (k + 2) * EPS + float(np.linalg.norm(doubt)) * (1 + k * k * EPS)
    if not np.all(np.isfinite(half)) or not slack < 1:
        return -1.0
    try:
        np.linalg.cholesky(half - slack * np.eye(k))
    except np.linalg.LinAlgError:
        return -1.0
    return float(np.maximum(np.linalg.eigvalsh(half)[0] - slack, np.finfo(np.float64).tiny))


def determinant_sign(matrix: np.ndarray, error: np.ndarray) -> int:
    """The sign of a determinant, 0 where it is not certain.

    Householder's QR factors a matrix that is within ~k² EPS of the given one, column by column, whatever the
    matrix. No matrix on the way from one to the other is singular if the smallest singular value is larger.
    """
    k = len(matrix)
    if k == 0:
        return 1
    for axis in (1, 0):  # powers of two round nothing
        scale = np.ldexp(1.0, -np.frexp(np.max(np.abs(matrix), axis, keepdims=True))[1])
        matrix, error = matrix * scale, error * scale
    norm = float(np.linalg.norm(matrix))
    distance = 16 * (k + 2) ** 2 * EPS * norm + float(np.linalg.norm(error)) * (1 + k * k * EPS)
    if not (np.isfinite(distance) and np.linalg.svd(matrix, compute_uv=False)[-1] > distance):
        return 0
    packed, tau = np.linalg.qr(matrix, mode="raw")
    # A reflection has determinant -1; LAPACK marks the ones it left out by tau = 0.
    return int(np.prod(np.sign(np.diagonal(packed))) * (-1) ** np.count_nonzero(tau))


def norm_bound(a: np.ndarray, error: Any) -> float:
    """An upper bound on ‖A‖₂ for every A within ``error``."""
    if not a.size:
        return 0.0
    if not np.all(np.isfinite(a)):
        return np.inf
    doubt = float(np.linalg.norm(np.broadcast_to(error, a.shape)))
    return float(np.linalg.norm(a, 2)) * (1 + 8 * (len(a) + 1) * EPS) + doubt * (1 + len(a) ** 2 * EPS)


def _dominance(diagonal: np.ndarray, size: np.ndarray) -> float:
    """1 - max (size v)_i / (diagonal v)_i for a positive v, the solution of (diag(diagonal) - size) v = diagonal."""
    if not len(size):
        return 1.0
    if not np.min(diagonal) > 0:
        return -1.0
    try:
        v = np.linalg.solve(np.eye(len(size)) - size / diagonal[:, None], np.ones(len(size)))
    except np.linalg.LinAlgError:
        return -1.0
    # Whatever v is, if it is positive this is a proof (Collatz and Wielandt).
    if not (np.all(np.isfinite(v)) and np.min(v) > 0):
        return -1.0
    return float(1 - np.max(size @ v / (diagonal * v)) * (1 + 4 * (len(v) + 4) * EPS))


def _subset(k: int, *members: Any) -> np.ndarray:
    return np.isin(np.arange(k), members)
