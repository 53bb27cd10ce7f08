"""Rows for functions of ordered entries: monotone vectors, total variation, sorted weights, the largest entries.

The oracles enumerate the ways to part a vector into blocks, or find a threshold by bisection.
"""

import itertools

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row, block

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
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
