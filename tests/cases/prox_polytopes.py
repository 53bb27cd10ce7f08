"""Rows for polytopes.

The oracles find the multiplier of the one equation by bisection.
"""

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row, block
from tests.cases.prox_sets import root, within

V4 = np.array([1.2, -0.3, 0.8, 2.0])
A4 = np.array([1.0, -2.0, 0.5, 1.5])


def box_section(x, s, lo, hi, a, b=0.0):
    """With the middle of the multipliers, where there are many; in units of the largest slope they are within 100."""
    del s

    def p(nu):
        return np.clip(x - nu * a, lo, hi)

    low, high = (root(lambda nu, k=k: a @ p(nu) - b - k, -100.0, 100.0) for k in (1e-13, -1e-13))
    return p((low + high) / 2)


def cut(moving, a):
    """The Jacobians where only some entries move, along the plane."""
    out = []
    for m in moving:
        v = a[list(m)]
        out.append(block(np.eye(len(m)) - np.outer(v, v) / (v @ v), m, len(a)))
    return out


LO, HI = np.array([-1.0, -1.0, -np.inf, 0.0]), np.array([1.0, 0.5, np.inf, np.inf])

ROWS = {
    "BoxSection": Row(
        "BoxSection",
        prox.BoxSection,
        lambda x, lo, hi, a, b: within([*(lo - x), *(x - hi), abs(a @ x - b)]),
        box_section,
        (V4, np.array([0.2, 0.1, 0.3, 0.4]), np.array([5.0, -3.0, 1.0, -2.0])),
        (LO, HI, A4, 0.5),
        (
            # nu = 1: the points are p + a, and the first and the last entry are at a bound of theirs.
            (np.array([2.0, -1.75, 0.5, 1.5]), cut([[1, 2], [0, 1, 2], [1, 2, 3], [0, 1, 2, 3]], A4)),
        ),
        curved=True,
    ),
    "BoxSection at a vertex": Row(
        "BoxSection",
        lambda b, **options: prox.BoxSection(0.0, 1.0, np.array([1.0, -1.0, 1.0]), b, **options),
        lambda x, b: within([*-x, *(x - 1), abs(x[0] - x[1] + x[2] - b)]),
        lambda x, s, b: box_section(x, s, 0.0, 1.0, np.array([1.0, -1.0, 1.0]), b),
        (np.array([3.0, 2.5, -2.0]),),
        (0.0,),
        at_bound=(0,),
    ),
    "BoxSection with a free entry": Row(
        "BoxSection",
        lambda a, **options: prox.BoxSection(-1.0, 1.0, np.array([1.0, 0.0, 1.0]) * a, 0.5, **options),
        lambda x, a: within([*(-1 - x), *(x - 1), abs(a * (x[0] + x[2]) - 0.5)]),
        lambda x, s, a: box_section(x, s, -1.0, 1.0, np.array([1.0, 0.0, 1.0]) * a, 0.5),
        (np.array([0.3, 0.7, 0.4]), np.array([0.3, 1.7, 0.4])),
        (1.25,),
        # The entry that is not in the equation has a kink of its own.
        (
            (
                np.array([0.3, 1.0, 0.4]),
                cut([[0, 2]], np.array([1.0, 0.0, 1.0])) + cut([[0, 1, 2]], np.array([1.0, 0.0, 1.0])),
            ),
        ),
        curved=True,
    ),
}

WRONG = {
    "BoxSection, bounds": (lambda: prox.BoxSection(np.array([0.0, 3.0]), 1.0, 1.0), "lo exceeds hi by up to 2"),
    "BoxSection, a": (lambda: prox.BoxSection(0.0, 1.0, np.zeros(3)), "all entries of a are zero"),
    "BoxSection, empty": (lambda: prox.BoxSection(0.0, 1.0, 1.0, 5.0).project(V4), "b is 5, and .* between 0 and 4"),
    "BoxSection, shapes": (lambda: prox.BoxSection(0.0, 1.0, np.ones(3)).project(V4), r"a=...\).*\(3,\).*\(4,\)"),
    "BoxSection, complex": (lambda: prox.BoxSection(0.0, 1.0, 1.0).project(1j * V4), "complex128"),
    "BoxSection, selection": (
        lambda: prox.BoxSection(0.0, 1.0, 1.0, selection="both").project(V4),
        "'inside', 'outside'",
    ),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
