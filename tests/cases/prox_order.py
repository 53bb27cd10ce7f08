"""Rows for functions of ordered entries: monotone vectors, total variation, sorted weights, the largest entries.

The oracles enumerate the ways to part a vector into blocks, or find a threshold by bisection.
"""

import itertools

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row, block
from tests.cases.prox_sets import capped_simplex

V4 = np.array([1.2, -0.3, 0.8, 2.0])


def partitions(n):
    """For each set of cuts, the blocks of 0, ..., n - 1."""
    for cuts in itertools.product((False, True), repeat=n - 1):
        yield cuts, np.split(np.arange(n), np.flatnonzero(cuts) + 1)


def averaging(n, sure, maybe):
    """The Jacobians of averages over blocks, for the cuts ``sure`` and any of ``maybe``; cut i is after entry i."""
    out = []
    for cuts, blocks in partitions(n):
        found = set(np.flatnonzero(cuts))
        if set(sure) <= found <= {*sure, *maybe}:
            out.append(sum(block(np.full((len(b), len(b)), 1 / len(b)), b, n) for b in blocks))
    return out


def best(candidates, objective):
    return min(candidates, key=objective)


def isotonic(x, s=None, sign=1):
    """The averages over blocks that are in order, of least distance."""
    del s
    found = [np.concatenate([np.full(len(b), np.mean(x[b])) for b in blocks]) for _, blocks in partitions(len(x))]
    return best([p for p in found if np.all(sign * np.diff(p) >= -1e-15)], lambda p: np.sum((p - x) ** 2))


def total_variation(x, s, w):
    """The best of all patterns of steps up, steps down and no steps."""
    w = s * np.broadcast_to(w, len(x) - 1)
    found = []
    for cuts, blocks in partitions(len(x)):
        for signs in itertools.product((-1, 1), repeat=sum(cuts)):
            u = np.zeros(len(x) - 1)
            u[np.flatnonzero(cuts)] = np.array(signs) * w[np.flatnonzero(cuts)]
            y = x + np.append(u, 0) - np.append(0, u)
            found.append(np.concatenate([np.full(len(b), np.mean(y[b])) for b in blocks]))
    return best(found, lambda p: np.sum(w * abs(np.diff(p))) + np.sum((p - x) ** 2) / 2)


def sorted_l1(x, s, w):
    """The best block averages of the sorted moduli, less their weights, cut off at zero."""
    size, w = abs(x), s * np.broadcast_to(w, len(x))
    order = np.argsort(-size, kind="stable")
    z = size[order] - w
    found = [
        np.concatenate([np.full(len(b), max(np.mean(z[b]), 0)) for b in blocks]) for _, blocks in partitions(len(x))
    ]
    p = best([p for p in found if np.all(np.diff(p) <= 1e-15)], lambda p: np.sum((p - z) ** 2))
    out = np.zeros_like(x)
    out[order] = p * np.exp(1j * np.angle(x[order])) if np.iscomplexobj(x) else p * np.sign(x[order])
    return out


def sum_largest(x, s, k, w):
    """By Moreau's decomposition: x less the nearest vector between 0 and s w with the sum k s w."""
    return x - capped_simplex(x, s, k * s * w, s * w)


def lowered(moving, n):
    """The Jacobians where the entries of each group move together, and all others are kept."""
    return [np.eye(n) - block(np.eye(len(m)) - 1 / max(len(m), 1), m, n) for m in moving]


def on_a_line(n, l1, l2):
    return l1 + l2 * np.arange(n)[::-1]


def signed(matrix, signs):
    return np.outer(signs, signs) * matrix


def pairs(i, j, n):
    """The Jacobians where two entries are averaged or not, and all others are zero."""
    return [block(HALF, [i, j], n), block(np.eye(2), [i, j], n)]


HALF = np.full((2, 2), 0.5)
SOLE = np.diag([0.0, 0.0, 1.0, 0.0])

ROWS = {
    "Isotonic": Row(
        "Isotonic",
        prox.Isotonic,
        lambda x: 0.0 if np.all(np.diff(x) >= 0) else np.inf,
        isotonic,
        (V4, np.array([2.0, 1.0, 0.5, 0.7])),
        (),
        (
            (np.array([1.0, 1.0, 1.0, 1.5]), averaging(4, [2], [0, 1])),
            (np.array([0.1, 2.0, 1.0, 1.5]), averaging(4, [0], [2])),  # two blocks of one value, up to rounding
            (np.array([2.0, 1.0, 1.8, 1.2]), averaging(4, [], [1])),
        ),
    ),
    "Isotonic, decreasing": Row(
        "Isotonic",
        lambda **options: prox.Isotonic(decreasing=True, **options),
        lambda x: 0.0 if np.all(np.diff(x) <= 0) else np.inf,
        lambda x, s: isotonic(x, s, -1),
        (V4,),
        (),
        ((np.array([1.0, 2.0, 1.5, 0.3]), averaging(4, [2], [1])),),
    ),
    "TotalVariation1D": Row(
        "TotalVariation1D",
        prox.TotalVariation1D,
        lambda x, w: np.sum(w * abs(np.diff(x))),
        total_variation,
        (V4, np.array([1.0, 1.2, 4.0, 3.5]), np.array([0.1, 0.2, 0.3, 0.2])),
        (0.6,),
        (
            (np.array([0.7, 1.0, 2.2, 2.1]), averaging(4, [1], [0])),
            (np.array([0.7, 1.6, 0.4, 3.3]), averaging(4, [2], [0, 1])),
        ),
    ),
    "TotalVariation1D per pair": Row(
        "TotalVariation1D",
        prox.TotalVariation1D,
        lambda x, w: np.sum(w * abs(np.diff(x))),
        total_variation,
        (V4, np.array([1.2, 1.0, 0.9, 0.2])),
        (np.array([0.6, 0.3, 1.0]),),
        curved=True,
    ),
    "SLOPE": Row(
        "SLOPE",
        prox.SLOPE,
        lambda x, w: np.sum(w * np.sort(abs(x))[::-1]),
        sorted_l1,
        (V4, np.array([-2.0, 1.9, 0.3, 3.0]), np.array([1.5, -1.5, 0.4, 1.5]), np.array([0.3, 0.2, 0.2, 0.4])),
        (np.array([3.0, 2.0, 1.0, 0.4]),),
        (
            # In the order -2.5, 2, 0.1, 0.1 the first two meet at 1.
            (np.array([2.0, 0.1, -2.5, 0.1]), [signed(m, [1, 1, -1, 1]) for m in pairs(2, 0, 4)]),
            # The block of 0.8 and 0.7 has the average 0; 3 is alone.
            (np.array([0.8, -0.7, 3.0, 0.1]), [SOLE, signed(block(HALF, [0, 1], 4), [1, -1, 1, 1]) + SOLE]),
        ),
        curved=True,
    ),
    "SLOPE, equal weights": Row(
        "SLOPE",
        lambda w, **options: prox.SLOPE(w * np.array([1.0, 1.0, 1.0, 0.0]), **options),
        lambda x, w: np.sum(np.array([w, w, w, 0.0]) * np.sort(abs(x))[::-1]),
        lambda x, s, w: sorted_l1(x, s, np.array([w, w, w, 0.0])),
        (np.array([-2.0, 2.0, 0.1, 0.9]),),
        (1.2,),
        # No kinks: ties of equal weights are as in the l1 norm, and the smallest entry has no weight.
        ((np.array([2.0, -2.0, 0.9, 0.0]), [np.eye(4)]),),
    ),
    "SLOPE complex": Row(
        "SLOPE",
        prox.SLOPE,
        lambda x, w: np.sum(w * np.sort(abs(x))[::-1]),
        sorted_l1,
        (np.array([0.6 - 1.1j, 0.1 + 0.2j, -1.3j]),),
        (np.array([1.2, 0.5, 0.1]),),
        curved=True,
    ),
    "OSCAR": Row(
        "OSCAR",
        prox.OSCAR,
        lambda x, a, b: a * np.sum(abs(x)) + b * sum(max(abs(u), abs(v)) for u, v in itertools.combinations(x, 2)),
        lambda x, s, a, b: sorted_l1(x, s, on_a_line(len(x), a, b)),
        (V4, np.array([-2.0, 1.9, 0.3, 3.0])),
        (0.3, 0.6),
        ((np.array([2.0, 0.1, -2.3, 0.1]), [signed(m, [1, 1, -1, 1]) for m in pairs(2, 0, 4)]),),
        curved=True,
    ),
    "SumLargest": Row(
        "SumLargest",
        lambda w, **options: prox.SumLargest(2, w, **options),
        lambda x, w: w * np.sum(np.sort(x)[-2:]),
        lambda x, s, w: sum_largest(x, s, 2, w),
        (V4, np.array([1.0, 1.3, 0.9, 3.0]), np.array([3.0, 4.0, 0.1, -1.0])),
        (1.2,),
        # An entry at tau = 0.7; one at tau + s w = 1.4.
        (
            (np.array([1.0, 1.0, 0.7, 1.9]), lowered(([0, 1], [0, 1, 2]), 4)),
            (np.array([1.4, 1.1, 1.0, 0.9]), lowered(([0, 1, 2, 3], [1, 2, 3]), 4)),
        ),
        curved=True,
    ),
    "SumLargest, all": Row(
        "SumLargest",
        lambda w: prox.SumLargest(3, w),
        lambda x, w: w * np.sum(x),
        lambda x, s, w: x - s * w,
        (V4[:3],),
        (1.2,),
        selection=False,
    ),
    "Maximum": Row(
        "Maximum",
        prox.Maximum,
        lambda x, w: w * np.max(x),
        lambda x, s, w: sum_largest(x, s, 1, w),
        (V4, np.array([2.0, 1.9, -0.3, 1.8]), np.array([-2.0, -1.9, -2.3, -4.8])),
        (1.2,),
        ((np.array([1.6, 1.0, 1.0, 0.3]), lowered(([0], [0, 1], [0, 2], [0, 1, 2]), 4)),),
        curved=True,
    ),
}

WRONG = {
    "Isotonic, weights": (
        lambda: prox.Isotonic(np.array([1.0, 0.0])),
        "smallest of weights is 0, and must be positive",
    ),
    "Isotonic, shapes": (lambda: prox.Isotonic(np.ones(3)).project(V4), r"weights=...\).*\(3,\).*\(4,\)"),
    "Isotonic, complex": (lambda: prox.Isotonic().project(1j * V4), "complex128"),
    "Isotonic, selection": (lambda: prox.Isotonic(selection="both").project(V4), "'split', 'pooled'"),
    "TotalVariation1D": (lambda: prox.TotalVariation1D(-1.0), ": weight is -1"),
    "TotalVariation1D, shapes": (lambda: prox.TotalVariation1D(np.ones(4))(V4), r"weight=...\).*\(4,\).*\(3,\)"),
    "SLOPE, negative": (lambda: prox.SLOPE(np.array([1.0, -1.0])), "smallest of weights is -1"),
    "SLOPE, rising": (lambda: prox.SLOPE(np.array([1.0, 1.5])), "the weights rise, by up to 0.5"),
    "SLOPE, shapes": (lambda: prox.SLOPE(np.ones(3)).prox(V4, 1.0), r"shape \(3,\), and x has 4 entries"),
    "OSCAR, l1": (lambda: prox.OSCAR(-1.0, 1.0), ": l1 is -1"),
    "SumLargest, k": (lambda: prox.SumLargest(0), "k is 0"),
    "SumLargest, too many": (lambda: prox.SumLargest(5)(V4), r"SumLargest\(5\).*x has 4 entries"),
    "SumLargest, weight": (lambda: prox.SumLargest(1, -1.0), ": weight is -1"),
    "Maximum": (lambda: prox.Maximum(-1.0), ": weight is -1"),
    "Maximum, complex": (lambda: prox.Maximum().prox(1j * V4, 1.0), "complex128"),
    "OSCAR, l2": (lambda: prox.OSCAR(1.0, -1.0), ": l2 is -1"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
