"""Rows for norms that are sums or largest entries, and for the Huber function.

The oracles enumerate the pieces of a scalar function, or find one number, a length or a height, by bisection on its own
optimality condition.
"""

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row, block, diagonals, ray

V3 = np.array([0.9, -1.7, 0.4])
V4 = np.array([1.2, -0.3, 0.8, 2.0])
Z3 = np.array([0.6 - 1.1j, 0.1 + 0.2j, -0.9j])
GROUPS = ((0, 3), (1, 2))


def best(candidates, objective):
    """Per entry, the candidate with the smallest objective."""
    candidates = np.stack(np.broadcast_arrays(*candidates))
    return np.take_along_axis(candidates, np.argmin(objective(candidates), axis=0)[None], axis=0)[0]


def root(fun, high):
    """The root in [0, high] of a function that decreases; 0 if it is negative there."""
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if fun(middle) > 0 else (low, middle)
    return low


def nonnegative_l1(x, w):
    return np.sum(w * x) if np.min(x) >= 0 else np.inf


def nonnegative_l1_prox(x, s, w):
    return best((x - s * w, 0 * x), lambda u: np.where(u >= 0, s * w * u + (u - x) ** 2 / 2, np.inf))


def sparse_group(x, l1, w):
    return np.sum(l1 * abs(x)) + sum(w[k] * np.linalg.norm(x[list(g)]) for k, g in enumerate(GROUPS))


def sparse_group_prox(x, s, l1, w):
    """Entry by entry for a known length of the group, which is the one that comes out."""
    out = np.zeros_like(x)
    for k, group in enumerate(map(list, GROUPS)):

        def entries(length, y=x[group], w=w[k]):
            # |u|_1 and |u|^2 / (2 length) have the gradients of the two norms where |u|_2 = length.
            scale = 1 + s * w / length
            return best(
                ((y - s * l1) / scale, (y + s * l1) / scale, 0 * y),
                lambda u: s * l1 * abs(u) + u**2 * scale / 2 - u * y,
            )

        length = root(lambda t, u=entries: np.linalg.norm(u(t)) / t - 1, np.linalg.norm(x))
        out[group] = entries(length) if length > 1e-9 else 0
    return out


def at_most(x, height):
    """Moduli cut off."""
    return x * np.minimum(1, height / np.maximum(abs(x), 1e-300))


def l_inf_prox(x, s, w):
    return at_most(x, root(lambda t: np.sum(np.maximum(abs(x) - t, 0)) - s * w, np.max(abs(x))))


def squared_l_inf_prox(x, s, w):
    return at_most(x, root(lambda t: np.sum(np.maximum(abs(x) - t, 0)) - s * w * t, np.max(abs(x))))


def huber(t, delta, w):
    t = abs(t)
    return w * np.where(t <= delta, t**2 / 2, delta * (t - delta / 2))


def huber_prox(x, s, delta, w):
    candidates = (x / (1 + s * w), x - s * w * delta, x + s * w * delta)
    return best(candidates, lambda u: s * huber(u, delta, w) + (u - x) ** 2 / 2)


def radial_huber_prox(x, s, delta, w):
    length = np.linalg.norm(x)
    return x / length * huber_prox(length, s, delta, w)


def height_vertices(n, sure, maybe, signs, slope=0.0):
    """The Jacobian for each set of largest entries between ``sure`` and ``sure`` plus ``maybe``."""
    out = []
    for support in ({*sure, *(m for k, m in enumerate(maybe) if bits >> k & 1)} for bits in range(2 ** len(maybe))):
        top = np.where([i in support for i in range(n)], signs, 0.0)
        out.append(np.diag((top == 0).astype(float)) + np.outer(top, top) / (len(support) + slope))
    return out


ROWS = {
    "NonnegativeL1": Row(
        "NonnegativeL1",
        prox.NonnegativeL1,
        nonnegative_l1,
        nonnegative_l1_prox,
        (V3,),
        (np.array([1.2, 0.0, 0.5]),),
        (
            (np.array([0.6, 0.0, 0.25]), diagonals((0, 1), (0, 1), (0, 1))),
            (np.array([0.6, 1.0, -3.0]), diagonals((0, 1), (1,), (0,))),
        ),
        curved=True,
    ),
    "L1PlusGroupL2": Row(
        "L1PlusGroupL2",
        lambda l1, w, **options: prox.L1PlusGroupL2(l1, w, GROUPS, **options),
        sparse_group,
        sparse_group_prox,
        (V4, np.array([0.1, 1.0, -2.0, 0.2])),
        (0.5, np.array([1.0, 0.6])),
        (
            # An entry at its threshold in a group that stays: its own direction, shrunk as the group is.
            (
                np.array([0.25, 0.1, 0.1, 1.25]),
                [block(np.diag([q, 1.0]), [0, 3], 4) for q in (0.0, 0.5)],
            ),
            # A group at its threshold, of length 1/2 after the first step; and one below.
            (np.array([0.55, 0.1, -0.1, 0.65]), [s * block(ray(np.array([3.0, 4.0])), [0, 3], 4) for s in (0.0, 1.0)]),
        ),
        curved=True,
    ),
    "LInf": Row(
        "LInf",
        prox.LInf,
        lambda x, w: w * np.max(abs(x)),
        l_inf_prox,
        (V4, np.array([0.1, -0.2, 0.1, 0.3]), np.array([3.0, -0.5, 0.2, 0.1])),
        (3.0,),
        (
            (np.array([2.5, -1.0, 1.0, 0.5]), height_vertices(4, [0], [1, 2], [1, -1, 1, 1])),
            (np.array([1.0, -0.5]), [np.zeros((2, 2)), *height_vertices(2, [0, 1], [], [1, -1])]),
        ),
        curved=True,
    ),
    "LInf without weight": Row(
        "LInf",
        prox.LInf,
        lambda x, w: w * np.max(abs(x)),
        l_inf_prox,
        (np.array([1.0, -0.5]),),
        (0.0,),
        ((np.array([0.0, 0.0]), [np.eye(2)]), (np.array([1.0, -1.0]), [np.eye(2)])),
        at_bound=(0,),
    ),
    "LInf complex": Row(
        "LInf",
        prox.LInf,
        lambda x, w: w * np.max(abs(x)),
        l_inf_prox,
        (Z3,),
        (1.2,),
        curved=True,
    ),
    "SquaredLInf": Row(
        "SquaredLInf",
        prox.SquaredLInf,
        lambda x, w: w / 2 * np.max(abs(x)) ** 2,
        squared_l_inf_prox,
        (V4, np.array([3.0, -0.5, 0.2, 0.0])),
        (2.0,),
        ((np.array([2.0, -1.0, 1.0, 0.5]), height_vertices(4, [0], [1, 2], [1, -1, 1, 1], 1.0)),),
        curved=True,
    ),
    "Huber": Row(
        "Huber",
        prox.Huber,
        lambda x, delta, w: np.sum(huber(x, delta, w)),
        huber_prox,
        (np.array([0.9, -1.7, 0.4]), np.array([0.3, -0.2, 0.0])),
        (0.5, np.array([2.0, 1.0, 0.0])),
        ((np.array([1.0, -0.75, 3.0]), diagonals((0.5, 1), (1 / 1.5, 1), (1,))),),
        curved=True,
    ),
    "Huber of the length": Row(
        "Huber",
        lambda delta, w, **options: prox.Huber(delta, w, radial=True, **options),
        lambda x, delta, w: float(huber(np.linalg.norm(x), delta, w)),
        radial_huber_prox,
        (np.array([0.9, -1.7, 0.4]), np.array([0.3, -0.2, 0.1])),
        (0.5, 2.0),
        ((np.array([0.0, -1.0, 0.0]), [np.diag([0.5, q, 0.5]) for q in (0.5, 1.0)]),),
        curved=True,
    ),
    "Huber complex": Row(
        "Huber",
        prox.Huber,
        lambda x, delta, w: np.sum(huber(x, delta, w)),
        lambda x, s, delta, w: x / abs(x) * huber_prox(abs(x), s, delta, w),
        (Z3,),
        (0.5, 2.0),
        curved=True,
    ),
}

WRONG = {
    "NonnegativeL1": (lambda: prox.NonnegativeL1(-1.0), ": weight is -1"),
    "NonnegativeL1, complex": (lambda: prox.NonnegativeL1(1.0).prox(Z3, 1.0), "complex128"),
    "L1PlusGroupL2, l1": (lambda: prox.L1PlusGroupL2(-1.0, 1.0), "weight is -1"),
    "L1PlusGroupL2, weights": (lambda: prox.L1PlusGroupL2(1.0, -1.0), "weights is -1"),
    "L1PlusGroupL2, groups": (lambda: prox.L1PlusGroupL2(1.0, 1.0, [[0], [0]]), "2 positions, 1 of them different"),
    "LInf": (lambda: prox.LInf(-1.0), ": weight is -1"),
    "SquaredLInf": (lambda: prox.SquaredLInf(-1.0), ": weight is -1"),
    "Huber, delta": (lambda: prox.Huber(0.0), ": delta is 0, and must be positive"),
    "Huber, weight": (lambda: prox.Huber(1.0, -1.0), ": weight is -1"),
    "Huber, one weight for the length": (lambda: prox.Huber(1.0, np.ones(3), radial=True)(V3), r"weight=...\).*\(3,\)"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
