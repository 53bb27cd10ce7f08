"""Rows of functions of eigenvalues and singular values.

Oracles: the polar decomposition, the eigenvalues of the Gram matrix, bisection. The vertices at a kink are divided
differences, written for a matrix whose eigenvectors or singular vectors are known.
"""

import numpy as np
import scipy.linalg

from nsimplicit import prox
from tests.cases.prox_row import Row


def symmetric(x):
    return (x + np.swapaxes(x, -1, -2)) / 2


def psd_prox(x, step=None):
    """Half the sum of X and its modulus, the positive factor of the polar decomposition."""
    del step
    x = symmetric(x)
    if x.ndim > 2:
        return np.stack([psd_prox(part) for part in x])
    return symmetric((x + scipy.linalg.polar(x)[1]) / 2)


def in_psd(x):
    return 0.0 if np.min(np.linalg.eigvalsh(symmetric(x))) >= -1e-12 * (1 + np.abs(x).max()) else np.inf


def shrunk(x, step, weight):
    """X times (1 - tau/sigma)+ as a function of the Gram matrix."""
    gram, V = np.linalg.eigh(x.T @ x)
    factor = np.maximum(1 - step * weight / np.sqrt(np.maximum(gram, 1e-30)), 0)
    return x @ (V * factor) @ V.T


def level(lam, k, s):
    """tau with sum(clip(lam - tau, 0, s)) = s k, by bisection."""
    low, high = np.min(lam) - s, np.max(lam)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(lam - middle, 0, s).sum() > s * k else (low, middle)
    return high


def sum_prox(x, s, k):
    x = symmetric(x)
    lam, V = np.linalg.eigh(x)
    return x - (V * np.clip(lam - level(lam, k, s), 0, s)) @ V.T


def matrix_of(linear, shape):
    """The matrix of a linear map of matrices."""
    basis = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.stack([linear(e).ravel() for e in basis], axis=1)


def differences(lam, phi, slopes):
    """phi[lam_i, lam_j], with the given slopes where the two are equal."""
    gap = lam[:, None] - lam
    slopes = (slopes[:, None] + slopes) / 2
    return np.where(gap == 0, slopes, (phi[:, None] - phi) / np.where(gap == 0, 1, gap))


def function_jacobian(lam, V, phi, slopes):
    table = differences(lam, phi, slopes)
    return matrix_of(lambda e: V @ (table * (V.T @ symmetric(e) @ V)) @ V.T, V.shape)


def psd_vertices(lam, V, places):
    """The Jacobian with the zero eigenvalue at ``places`` counted as positive, and as negative."""
    return [
        function_jacobian(lam, V, np.maximum(lam, 0), np.where(np.isin(np.arange(len(lam)), places), s, lam > 0))
        for s in (0.0, 1.0)
    ]


def shrunk_vertices(sigma, tau, shape):
    """At the matrix with singular values sigma on its diagonal, tau being one of them."""

    def jacobian(kept):
        phi, slope = np.maximum(sigma - tau, 0), np.where(sigma == tau, kept, sigma > tau)
        even = differences(sigma, phi, slope)
        odd = (phi[:, None] + phi) / (sigma[:, None] + sigma)
        k = len(sigma)

        def linear(e):
            square = e[:k, :k]
            out = e * (phi / sigma)[:, None] if shape[0] == k else e * (phi / sigma)[None, :]
            out[:k, :k] = even * symmetric(square) + odd * (square - square.T) / 2
            return out

        return matrix_of(linear, shape)

    return [jacobian(s) for s in (0.0, 1.0)]


def sum_vertices(lam, k, s, tau):
    """At diag(lam), with eigenvalues at tau counted as below it or as between tau and tau + s."""

    def jacobian(counted):
        q = np.where((lam > tau) & (lam < tau + s), 1.0, np.where((lam == tau) | (lam == tau + s), counted, 0.0))
        table = differences(lam, np.clip(lam - tau, 0, s), q)

        def linear(e):
            e = symmetric(e)
            return e - table * e + np.diag(q * (q @ np.diag(e)) / max(q.sum(), 1e-300))

        return matrix_of(linear, (len(lam), len(lam)))

    return [jacobian(c) for c in (0.0, 1.0)]


Y = np.array([[1.0, -0.6, 0.2], [0.4, -2.0, 0.9], [0.1, 0.3, 0.5]])
TURN = np.linalg.qr(np.array([[1.0, 2.0, 0.5], [-1.0, 0.3, 1.0], [0.2, 0.1, -2.0]]))[0]
HALF = np.sqrt(0.5)
PAIR = np.array([[HALF, HALF, 0.0], [HALF, -HALF, 0.0], [0.0, 0.0, 1.0]])
WIDE = np.array([[1.0, -0.6, 0.2], [0.4, -2.0, 0.9]])


def turned(*lam):
    return symmetric((TURN * np.array(lam)) @ TURN.T)


ROWS = {
    "PSDCone": Row(
        "PSDCone",
        prox.PSDCone,
        in_psd,
        psd_prox,
        (Y, turned(2.0, 2.0, -1.0), turned(1.0, -1.0, -1.0)),
        (),
        (
            (
                np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
                psd_vertices(np.array([3.0, -1.0, 0.0]), PAIR, [2]),
            ),
        ),
        space=symmetric,
        curved=True,
    ),
    "PSDCone, matrices side by side": Row(
        "PSDCone", prox.PSDCone, in_psd, psd_prox, (np.stack([Y[:2, :2], -Y[1:, 1:]]),), space=symmetric
    ),
    "SumEigenvalues": Row(
        "SumEigenvalues",
        lambda **options: prox.SumEigenvalues(2, **options),
        lambda x: np.sum(np.linalg.eigvalsh(symmetric(x))[-2:]),
        lambda x, s: sum_prox(x, s, 2),
        # Two between the bounds; repeated ones; a gap: the prox takes s off the two largest.
        (turned(1.3, 1.2, 1.1), turned(1.0, 1.0, -0.1), Y),
        (),
        ((np.diag([1.5, 1.3, 1.2]), sum_vertices(np.array([1.5, 1.3, 1.2]), 2, 0.5, 1.0)),),
        space=symmetric,
        curved=True,
    ),
    "SumEigenvalues, the largest": Row(
        "SumEigenvalues",
        lambda **options: prox.SumEigenvalues(1, **options),
        lambda x: np.max(np.linalg.eigvalsh(symmetric(x))),
        lambda x, s: sum_prox(x, s, 1),
        (),
        (),
        ((np.diag([1.25, 1.25, 1.0]), sum_vertices(np.array([1.25, 1.25, 1.0]), 1, 0.5, 1.0)),),
        space=symmetric,
    ),
    "NuclearNorm": Row(
        "NuclearNorm",
        prox.NuclearNorm,
        lambda x, w: w * np.sum(scipy.linalg.svdvals(x)),
        shrunk,
        (WIDE, np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])),
        (1.2,),
        ((np.array([[2.0, 0.0, 0.0], [0.0, 0.6, 0.0]]), shrunk_vertices(np.array([2.0, 0.6]), 0.6, (2, 3))),),
        curved=True,
    ),
    "NuclearNorm, tall": Row(
        "NuclearNorm",
        prox.NuclearNorm,
        lambda x, w: w * np.sum(scipy.linalg.svdvals(x)),
        shrunk,
        (WIDE.T,),
        (1.2,),
    ),
    "SpectralNormBall": Row(
        "SpectralNormBall",
        prox.SpectralNormBall,
        lambda x, r: 0.0 if np.linalg.norm(x, 2) <= r + 1e-12 else np.inf,
        lambda x, s, r: x - shrunk(x, 1.0, r),
        (WIDE, np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])),
        (1.25,),
        (
            (
                np.array([[2.0, 0.0, 0.0], [0.0, 1.25, 0.0]]),
                [np.eye(6) - J for J in shrunk_vertices(np.array([2.0, 1.25]), 1.25, (2, 3))],
            ),
        ),
        curved=True,
    ),
}

WRONG = {
    "PSDCone, not square": (lambda: prox.PSDCone().project(np.ones((2, 3))), r"PSDCone.*\(2, 3\).*n x n"),
    "PSDCone, vector": (lambda: prox.PSDCone()(np.ones(3)), r"x has shape \(3,\)"),
    "PSDCone, selection": (lambda: prox.PSDCone(selection=-1.0).project(np.eye(2)), r"PSDCone\(selection=-1.0\)"),
    "SumEigenvalues, k": (lambda: prox.SumEigenvalues(0), r"k is 0"),
    "SumEigenvalues, too many": (lambda: prox.SumEigenvalues(3)(np.eye(2)), r"SumEigenvalues\(3\).*2 eigenvalues"),
    "NuclearNorm, weight": (lambda: prox.NuclearNorm(-1.0), ": weight is -1"),
    "NuclearNorm, vector": (lambda: prox.NuclearNorm()(np.ones(3)), r"x has shape \(3,\)"),
    "SpectralNormBall, radius": (lambda: prox.SpectralNormBall(-1.0), ": radius is -1"),
}

COVERED = frozenset({f"prox.{row.name}" for row in ROWS.values()})
