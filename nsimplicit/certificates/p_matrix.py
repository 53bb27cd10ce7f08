"""P-matrices: are all principal minors of a matrix positive, beyond rounding?

Every selection of a program with k active kinks has an invertible derivative if and only if its matrix
without kinks does and ``I - Q`` is a P-matrix, Q the k by k matrix of how kinks feed back into each other.
There are ``2^k - 1`` principal minors. The recursion behind all of this file is

    A is P  if and only if  a_00 > 0, A without row and column 0 is P, and the Schur complement of a_00 is P:

the first matrix left has the minors without index 0, the second those with it, divided by a_00. Doing both
at once for a batch of matrices gives, after k levels, every ratio det A[S + i] / det A[S], i > max S.

References:
    M. Tsatsomeros, L. Li, A recursive test for P-matrices, BIT 40 (2000).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import promote

MOST_KINKS = 24
"""Beyond this size even one number a minor does not fit into memory."""


@data
class PTest:
    """What the principal minors of a matrix say; arrays, so that it crosses jit and vmap.

    Args:
        code: int32, 1 every principal minor is positive, -1 one is certainly not, 0 undecided.
        margin: the smallest scaled principal minor. A minor is scaled as det A[S + i] / det A[S], i the last
            index, divided by the sum of the absolute values of what this difference is made of: a_ii and the
            terms elimination takes off it. It lies in [-1, 1], is 1 for a diagonal matrix and for no kink at
            all, and does not change when rows or columns are multiplied by positive numbers; it depends on
            the order of the indices. Matrices below a minor that is not positive are not looked at.
            nan if the matrix has a nan or an infinity.
        subset: bool (k,), the rows and columns of the worst minor; for -1 of one that is certainly not positive,
            while the minor without its last index certainly is.
    """

    code: jax.Array
    margin: jax.Array
    subset: jax.Array


def p_test(matrix: Any, error: Any = 0.0) -> PTest:
    """Whether all principal minors of a matrix are positive.

    Rounding errors are bounded along the way: a minor counts as positive, or as not positive, only if it is
    for every matrix within ``error`` of the given one. An exact zero that exact arithmetic has found counts as
    not positive. Rows and columns of the identity change neither code nor margin: a kink that is not active
    can be left in as one. Subnormal numbers count as zero.

    Args:
        matrix: array (k, k), float32 or float64 (16 bits are widened): usually I - Q.
        error: bound on |matrix - the matrix that is meant|, entry by entry; scalar or (k, k).

    Returns:
        The verdict; undecided if anything is nan or infinite.

    Raises:
        InputError: the matrix is not square, or has more than 24 rows.

    Cost: about 200·2^k flops, 2^(k+1) numbers of memory; k = 16 takes hundredths of a second on one core.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.certificates import p_test
        >>> p_test(jnp.array([[1.0, -2.0], [2.0, 1.0]])).code
        Array(1, dtype=int32)
        >>> bad = p_test(jnp.array([[1.0, 2.0], [2.0, 1.0]]))
        >>> bad.code, bad.subset
        (Array(-1, dtype=int32), Array([ True,  True], dtype=bool))
    """
    matrix = promote(jnp.asarray(matrix))
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        matrix = matrix.astype(jnp.result_type(float))
    check_square("p_test", matrix.shape, MOST_KINKS)
    error = jnp.broadcast_to(jnp.asarray(error, matrix.dtype), matrix.shape)
    return PTest(*_compiled(matrix, error))


def check_square(where: str, shape: tuple[int, ...], most: int | None = None) -> None:
    """Raise unless ``shape`` is that of a square matrix, with at most ``most`` rows."""
    if len(shape) != 2 or shape[0] != shape[1] or (most is not None and shape[0] > most):
        limit = "" if most is None else f" with at most {most} rows"
        raise InputError(
            message(
                f"{where}(matrix)",
                f"expected a square matrix{limit}, got shape {tuple(shape)}.",
                "There is one row for each active kink, and 2^k - 1 principal minors.",
                "jax.vmap(nsimplicit.certificates.p_test) for a batch of matrices",
                "nsimplicit.certificates.decide for more kinks",
            )
        )


def minors(xp: Any, matrix: Any, error: Any) -> tuple[Any, Any, Any]:
    """Code, margin and subset of :class:`PTest`, in the array module ``xp``: ``jax.numpy`` or ``numpy``.

    The batch is the last axis. Position b of level l stands for the subset whose bits are those of b, so over
    all levels the pivot of subset S sits at position S - 1, S read as a binary number.
    """
    k = matrix.shape[0]
    eps, tiny = (float(getattr(xp.finfo(matrix.dtype), name)) for name in ("eps", "tiny"))
    finite = xp.all(xp.isfinite(matrix)) & xp.all(xp.isfinite(error)) & xp.all(error >= 0)
    if k == 0:
        return xp.int32(1), xp.ones((), matrix.dtype), xp.zeros(0, bool)
    # A cast may have rounded the bound down.
    a, e = matrix[:, :, None], (error * (1 + 4 * eps))[:, :, None]
    gross = xp.abs(xp.diagonal(matrix))[:, None]
    signs, margins = [], []
    for _ in range(k):
        pivot, doubt = a[0, 0], e[0, 0]
        good = pivot > doubt
        signs.append(good.astype(xp.int8) - (pivot <= -doubt).astype(xp.int8))
        scaled = pivot / xp.where(gross[0] > 0, gross[0], 1)
        margins.append(xp.where(xp.isfinite(scaled), xp.clip(scaled, -1, 1), 0))
        schur, bound, terms = _schur(xp, a, e, good, eps, tiny)
        # The verdict of what lies below a bad pivot is settled: the identity says nothing more.
        unit = xp.eye(a.shape[0] - 1, dtype=a.dtype)[:, :, None]
        pairs = (a[1:, 1:], schur, unit), (e[1:, 1:], bound, 0), (gross[1:], gross[1:] + terms, 1)
        a, e, gross = (xp.concatenate([out, xp.where(good, into, dead)], -1) for out, into, dead in pairs)
    sign, scaled = xp.concatenate(signs), xp.concatenate(margins)
    refuted = xp.any(sign < 0)
    code = xp.where(finite, xp.where(refuted, -1, xp.where(xp.all(sign > 0), 1, 0)), 0).astype(xp.int32)
    worst = xp.where(refuted, xp.argmax(sign < 0), xp.argmin(scaled)) + 1
    subset = finite & ((worst >> xp.arange(k)) & 1 == 1)
    return code, xp.where(finite, xp.min(scaled), xp.nan).astype(matrix.dtype), subset


_compiled = jax.jit(functools.partial(minors, jnp))


def _schur(xp: Any, a: Any, e: Any, good: Any, eps: float, tiny: float) -> tuple[Any, Any, Any]:
    """Schur complements of the pivots, bounds on their errors, and the sizes of what the diagonals lost.

    With hats for what is stored, t = b d / p, |b - b^| <= f, |d - d^| <= g, |p - p^| <= h and p^ - h >= low,

        |t - t^| <= (f (|d^| + g) + |b^| g) / low + |t^| h / low + rounding,

    and the difference a - t rounds by at most eps |a - t|, and by at most |t|, a being a number itself.
    Where b or d is certainly zero nothing is done and nothing is lost: zeros stay exact.
    """
    pivot, doubt = xp.where(good, a[0, 0], 1), xp.where(good, e[0, 0], 0)
    low = (pivot - doubt) * (1 - 4 * eps)
    b, d, f, g = a[1:, :1], a[:1, 1:], e[1:, :1], e[:1, 1:]
    size_b, size_d = xp.abs(b), xp.abs(d)
    ratio = d / pivot
    term = b * ratio
    size = xp.abs(term)
    left = a[1:, 1:] - term
    bound = (f * (size_d + g) + size_b * g) / low + size * (doubt / low + 4 * eps)
    bound = bound + xp.minimum(eps * xp.abs(left), size)
    idle = (size_b + f == 0) | (size_d + g == 0)
    bound = xp.where(idle, 0, bound + 8 * tiny * (1 + size_b + 1 / low))
    terms = xp.abs(b[:, 0] * ratio[0])
    return left, (e[1:, 1:] + bound) * (1 + 16 * eps), terms


def symmetrised(q: Any, error: Any = 0.0) -> np.ndarray | None:
    """The symmetric matrix D (I - Q) D⁻¹, D diagonal and positive; ``None`` if there is none, up to rounding.

    Minors do not change, so I - Q is a P-matrix if and only if this matrix is positive definite: one Cholesky
    factorisation for any k. Kinks of a separable prox in a problem with a symmetric Hessian are of this kind.

    Args:
        q: array (k, k), concrete.
        error: bound on the error of Q, entry by entry; scalar or (k, k).

    Returns:
        NumPy array (k, k) in float64, or ``None``.

    Cost: O(k²) NumPy operations in O(k) steps.

    Example:
        >>> import numpy as np
        >>> from nsimplicit.certificates import symmetrised
        >>> symmetrised(np.array([[0.0, 8.0], [2.0, 0.0]]))
        array([[ 1., -4.],
               [-4.,  1.]])
        >>> symmetrised(np.array([[0.0, 8.0], [-2.0, 0.0]]))
    """
    q = np.asarray(q, np.float64)
    matrix = np.eye(len(q)) - q
    scale = symmetriser(matrix, np.broadcast_to(np.asarray(error, np.float64), q.shape))
    if scale is None:
        return None
    scaled = matrix * scale[:, None] / scale
    return (scaled + scaled.T) / 2


def symmetriser(matrix: np.ndarray, error: np.ndarray) -> np.ndarray | None:
    """The diagonal d of D with D matrix D⁻¹ symmetric, up to ``error`` and rounding; ``None`` if there is none.

    Symmetry asks for (d_j / d_i)² = a_ij / a_ji wherever these are not zero. That fixes d along a spanning
    tree of each connected part; the tree follows the largest a_ij a_ji (which D does not change), so that
    entries that are noise decide nothing. The other entries are then compared.
    """
    k = len(matrix)
    with np.errstate(all="ignore"):
        weight = matrix * matrix.T
        np.fill_diagonal(weight, 0)
        steps = np.log(np.abs(matrix / matrix.T)) / 2  # log d_j - log d_i, at (i, j)
        logs, reach, parent = np.zeros(k), np.full(k, -1.0), np.full(k, -1)
        waiting = np.ones(k, bool)
        for _ in range(k):
            j = int(np.argmax(np.where(waiting, reach, -2.0)))
            waiting[j] = False
            if parent[j] >= 0:
                logs[j] = logs[parent[j]] + steps[parent[j], j]
            nearer = waiting & (weight[j] > np.maximum(reach, 0))
            reach, parent = np.where(nearer, weight[j], reach), np.where(nearer, j, parent)
        scale = np.exp(logs)
        scaled = matrix * scale[:, None] / scale
        doubt = error * scale[:, None] / scale
        noise = 64 * max(k, 1) * np.finfo(np.float64).eps * np.max(np.abs(scaled), initial=0)
        symmetric = np.all(np.abs(scaled - scaled.T) <= doubt + doubt.T + noise)
    return scale if symmetric and np.all(np.isfinite(scaled)) and np.all(scale > 0) else None
