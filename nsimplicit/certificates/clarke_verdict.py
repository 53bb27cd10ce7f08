"""The same verdict for the function rather than its program: branches that never occur together do not count."""

from __future__ import annotations

import numpy as np

from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.calculus.selected import arguments, jacobians
from nsimplicit.certificates.bounds import hull_bound


def clarke_code(form: NormalForm, groups: np.ndarray, signs: np.ndarray, rounding: float, most: int = 8) -> int:
    """Whether the Clarke Jacobian, a convex hull, has only invertible elements.

    Kinks whose switches have one argument, up to sign, take their branches together: relu(x) and
    relu(-x) are never both above. What is left, one bit for each argument, contains every limit of
    derivatives nearby, so a hull of these that is regular proves it. A singular one refutes it where
    the arguments have independent derivatives, for then every pattern occurs nearby.

    Args:
        form: square, concrete.
        groups: int array (k,), the same number for kinks with one argument.
        signs: int array (k,), 1 or -1: that argument, or its negative.
        rounding: relative size of a singular value that counts as zero.
        most: up to this number of arguments all patterns are looked at.

    Returns:
        1 regular, -1 singular, 0 undecided.
    """
    count = int(groups.max(initial=-1)) + 1
    if count > most:
        return 0
    patterns = np.array(list(np.ndindex(*[2] * count)))
    selections = np.where(signs > 0, patterns[:, groups], 1 - patterns[:, groups]).astype(float)
    corners = jacobians(form, selections)
    if hull_bound(corners) > 0 or (count == 1 and _segment_regular(corners[0], corners[1], rounding)):
        return 1
    leaders = [int(np.flatnonzero(groups == g)[0]) for g in range(count)]
    if count == 1:
        return -1 if np.any(arguments(form, selections[0])[leaders]) else 0
    for s, corner in zip(selections, corners, strict=True):
        values = np.linalg.svd(corner, compute_uv=False)
        rows = arguments(form, s)[leaders]
        if values[-1] <= rounding * values[0] and np.linalg.matrix_rank(rows) == count:
            return -1
    return 0


def _segment_regular(a: np.ndarray, b: np.ndarray, rounding: float) -> bool:
    """Whether (1 - t) a + t b is invertible for every t in [0, 1]: no eigenvalue of a⁻¹b is real and at most 0."""
    for end in (a, b):
        values = np.linalg.svd(end, compute_uv=False)
        if values[-1] <= rounding * values[0]:
            return False
    found = np.linalg.eigvals(np.linalg.solve(a, b))
    return not np.any((np.abs(found.imag) <= rounding * np.abs(found)) & (found.real <= 0))
