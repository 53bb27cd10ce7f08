"""Is every selection of k kinks invertible? One answer from cheap tests, a Cholesky factorisation and all minors."""

from __future__ import annotations

from typing import Any

import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.certificates.cheap_tests import (
    CERTIFICATES,
    EPS,
    REFUTATIONS,
    definiteness,
    determinant_sign,
    kink_matrix,
)
from nsimplicit.certificates.p_matrix import MOST_KINKS, check_square, minors, symmetriser

CHOLESKY = "Cholesky factor of the symmetrised I - Q"
MINORS = "all principal minors of I - Q"


@data
class Decision:
    """Whether I - S Q is invertible for every S = diag(s), s in [0, 1]^k.

    Args:
        code: 1 yes, -1 no, 0 undecided.
        margin: positive for 1: the distance from failing by the measure of ``method``, in (0, 1]: 1 - ‖Q‖₂, the
            least eigenvalue of the scaled symmetric part, 1 - ρ of a scaled |Q|, or the smallest scaled minor;
            nan where no such number was computed.
        subset: bool (k,), the kinks of a principal minor of I - Q that is not positive, or of the smallest scaled
            one; all false where no single minor decided.
        method: what decided, in words.
        reason: why nothing did, in words; empty for 1 and -1.
    """

    code: int
    margin: float
    subset: np.ndarray
    method: str = static("")
    reason: str = static("")


def decide(q: Any, error: Any = 0.0, *, max_kinks: int = 16) -> Decision:
    """Decide whether I - Q is a P-matrix, so that I - S Q is invertible for every selection S.

    Sufficient tests come first, then refutations, then a Cholesky factorisation if I - Q is similar to a symmetric
    matrix by a diagonal one, then all principal minors. A verdict other than 0 holds for every matrix within
    ``error`` of Q: rounding is accounted for.

    Args:
        q: array (k, k), concrete.
        error: bound on the error of Q, entry by entry; scalar or (k, k).
        max_kinks: up to this k all 2^k minors are looked at; at most 24.

    Returns:
        The decision. nan and infinity are undecided.

    Raises:
        InputError: Q is not square, or ``max_kinks`` is not in 0..24.

    Cost: O(k³), and 200·2^k flops if it comes to all minors (0.1 s for k = 16).

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import decide
        >>> decide(np.array([[0.0, 3.0], [-3.0, 0.5]])).method
        'symmetric part of I - Q positive definite'
        >>> decide(np.eye(2)).code, decide(np.eye(2)).subset
        (-1, array([ True, False]))
    """
    q = np.asarray(q, np.float64)
    check_square("decide", q.shape)
    if not 0 <= max_kinks <= MOST_KINKS:
        raise InputError(
            message(
                f"decide(max_kinks={max_kinks})",
                f"expected 0 <= max_kinks <= {MOST_KINKS}.",
                "There are 2^k - 1 principal minors.",
                "max_kinks=16",
            )
        )
    k, error = len(q), np.broadcast_to(np.asarray(error, np.float64), q.shape)
    nobody = np.zeros(k, bool)
    if k == 0:
        return Decision(1, 1.0, nobody, method="no kink")
    if not (np.all(np.isfinite(q)) and np.all(np.isfinite(error)) and np.all(error >= 0)):
        return Decision(0, np.nan, nobody, reason="Q or its error bound has a nan, an infinity or a negative bound")
    # A subnormal number may be treated as zero on the way.
    error = error + np.finfo(np.float64).tiny * ((q != 0) & (np.abs(q) < np.finfo(np.float64).tiny))
    with np.errstate(all="ignore"):
        for method, certify in CERTIFICATES.items():
            margin = certify(q, error)
            if margin > 0:
                return Decision(1, margin, nobody, method=method)
        for method, refute in REFUTATIONS.items():
            subset = refute(q, error)
            if subset is not None:
                return Decision(-1, np.nan, subset, method=method)
        matrix, bound = kink_matrix(q, error)
        decision = _symmetric(matrix, bound)
        if decision is None or (decision.code == 0 and k <= max_kinks):
            decision = _all_minors(matrix, bound, max_kinks)
    return decision


def _symmetric(matrix: np.ndarray, error: np.ndarray) -> Decision | None:
    """The decision for a matrix that D makes symmetric; ``None`` for others.

    Both verdicts hold whatever D is and however little it symmetrises: a positive definite symmetric part of
    D A D⁻¹ is enough, and for -1 the sign of one minor is bounded, which D does not change.
    """
    k, scale = len(matrix), symmetriser(matrix, error)
    if scale is None:
        return None
    ratio = scale[:, None] / scale
    scaled = matrix * ratio
    doubt = error * ratio + 4 * EPS * np.abs(scaled)
    margin = definiteness(scaled, doubt)
    if margin > 0:
        return Decision(1, margin, np.zeros(k, bool), method=CHOLESKY)
    # Leading blocks are positive definite up to some size; the minor of the next size is not positive.
    good, bad = 0, k
    while bad - good > 1:
        size = (good + bad) // 2
        good, bad = (size, bad) if definiteness(scaled[:size, :size], doubt[:size, :size]) > 0 else (good, size)
    subset = np.arange(k) < bad
    if determinant_sign(scaled[:bad, :bad], doubt[:bad, :bad]) < 0:
        return Decision(-1, np.nan, subset, method=CHOLESKY)
    reason = "I - Q is similar to a symmetric matrix whose least eigenvalue is within rounding of zero"
    return Decision(0, np.nan, subset, method=CHOLESKY, reason=reason)


def _all_minors(matrix: np.ndarray, error: np.ndarray, max_kinks: int) -> Decision:
    k = len(matrix)
    if k > max_kinks:
        return Decision(0, np.nan, np.zeros(k, bool), reason=f"{k} kinks, more than max_kinks={max_kinks}")
    code, margin, subset = minors(np, matrix, error)
    reason = "" if code else "a principal minor of I - Q is within rounding of zero"
    return Decision(int(code), float(margin), subset, method=MINORS, reason=reason)


def witness(subset: Any, q: Any, tolerance: float) -> np.ndarray | None:
    """Selections s in [0, 1]^k with I - S Q singular, from a principal minor of I - Q that is not positive.

    From s = 0 the members of ``subset`` are flipped to 1, one after the other. det(I - S Q) is affine along each
    flip and goes from 1 to the minor, so one flip passes through zero.

    Args:
        subset: bool (k,), as a decision gives it.
        q: array (k, k), concrete.
        tolerance: how small the smallest singular value of I - S Q must be, relative to 1 + ‖Q‖₂:
            I - S Q itself may be a single number, which is never small next to itself.

    Returns:
        NumPy array (k,), or ``None`` if what was found is not singular to that tolerance.

    Cost: O(k³ log k).

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import witness
        >>> witness(np.array([True, False]), np.diag([2.0, 0.0]), 1e-12)
        array([0.5, 0. ])
    """
    q, members = np.asarray(q, np.float64), np.flatnonzero(subset)
    k = len(q)
    if not members.size or not np.all(np.isfinite(q)):
        return None

    def corner(count: int) -> np.ndarray:
        return np.isin(np.arange(k), members[:count]).astype(np.float64)

    # A sign change between neighbours by bisection; the minor may also be a zero with either sign of rounding.
    low, high = 0, len(members)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.linalg.slogdet(_selected(q, corner(middle)))[0] > 0 else (low, middle)
    i, start = members[low], corner(low)
    candidates = [corner(high), start, _crossing(q, start, i)]
    least = [np.linalg.svd(_selected(q, s), compute_uv=False)[-1] for s in candidates]
    best = int(np.argmin(least))
    return candidates[best] if least[best] <= tolerance * (1 + np.linalg.norm(q, 2)) else None


def _selected(q: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.eye(len(q)) - s[:, None] * q


def _crossing(q: np.ndarray, start: np.ndarray, i: int) -> np.ndarray:
    """The zero of the determinant when s_i alone moves away from 0: at 1 / (q_i · x) with (I - S Q) x = e_i.

    That stays accurate where the system is ill conditioned: x is then large and the zero is close to 0.
    """
    unit = np.eye(len(q))[i]
    try:
        with np.errstate(all="ignore"):
            t = 1 / (q[i] @ np.linalg.solve(_selected(q, start), unit))
    except np.linalg.LinAlgError:
        return start
    return start + unit * np.clip(t, 0, 1) if np.isfinite(t) else start
