"""Rows for balls, half-spaces, affine sets and the capped simplex.

The oracles find the multiplier of the one constraint by bisection, or solve the linear system of the optimality
conditions.
"""

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row, diagonals, ray, simplex_vertices

V3 = np.array([0.9, -1.7, 0.4])
V4 = np.array([1.2, -0.3, 0.8, 2.0])
Z3 = np.array([0.6 - 1.1j, 0.1 + 0.2j, -0.9j])
NORMAL = np.array([1.0, 2.0, -2.0])
WIDE = np.array([[1.0, 2.0, 0.5, -0.4], [-1.0, 0.3, 1.0, 0.7]])


def root(fun, low, high):
    """The root of a function that decreases."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if fun(middle) > 0 else (low, middle)
    return low


def within(excess):
    """The value of an indicator, for what must not be positive."""
    return 0.0 if np.max(excess) <= 1e-12 else np.inf


def l1_ball(x, s, r):
    del s
    size = abs(x)
    tau = root(lambda t: np.sum(np.maximum(size - t, 0)) - r, 0.0, np.max(size)) if np.sum(size) > r else 0.0
    return x * np.maximum(1 - tau / np.maximum(size, 1e-300), 0)


def l2_ball(x, s, r, c):
    """The optimality condition x - p = multiplier * (p - c)."""
    del s
    d = x - c
    return c + d / (1 + root(lambda m: np.linalg.norm(d) / (1 + m) - r, 0.0, np.linalg.norm(d) / r))


def l_inf_ball(x, s, r):
    del s
    return np.where(abs(x) > r, r * np.exp(1j * np.angle(x)), x)


def kkt(x, A, b):
    """The nearest point with A p = b, and its multipliers."""
    m, n = A.shape
    system = np.block([[np.eye(n), A.T], [A, np.zeros((m, m))]])
    return np.linalg.solve(system, np.concatenate([x, b]))[:n]


def hyperslab(x, s, a, lo, hi):
    del s
    return kkt(x, a[None], np.array([np.clip(a @ x, lo, hi)]))


def capped_simplex(x, s, total, cap=1.0):
    """With the middle of the roots, where there are many."""
    del s
    ends = np.min(x) - total - 1.0, np.max(x) + 1.0
    low, high = (root(lambda t, k=k: np.sum(np.clip(x - t, 0, cap)) - total - k, *ends) for k in (1e-13, -1e-13))
    return np.clip(x - (low + high) / 2, 0, cap)


def signed(matrices, signs):
    return [np.outer(signs, signs) * m for m in matrices]


NO_ONE = np.zeros((4, 4))

ROWS = {
    "L1Ball": Row(
        "L1Ball",
        prox.L1Ball,
        lambda x, r: within(np.sum(abs(x)) - r),
        l1_ball,
        (V4, np.array([5.0, -0.1, 0.0, 0.3]), np.array([0.5, -0.2, 0.1, 0.0])),
        (1.5,),
        (
            (np.array([2.5, -1.0, 1.0, 0.5]), signed(simplex_vertices(4, [0], [1, 2]), [1, -1, 1, 1])),
            # On the sphere: the entry that is zero may become support with either sign.
            (
                np.array([1.0, -0.5, 0.0]),
                [
                    np.eye(3),
                    *signed(simplex_vertices(3, [0, 1], []), [1, -1, 1]),
                    *signed(simplex_vertices(3, [0, 1, 2], []), [1, -1, 1]),
                    *signed(simplex_vertices(3, [0, 1, 2], []), [1, -1, -1]),
                ],
            ),
        ),
        curved=True,
    ),
    "L1Ball complex": Row(
        "L1Ball",
        prox.L1Ball,
        lambda x, r: within(np.sum(abs(x)) - r),
        l1_ball,
        (Z3,),
        (1.5,),
        curved=True,
    ),
    "L2Ball": Row(
        "L2Ball",
        prox.L2Ball,
        lambda x, r, c: within(np.linalg.norm(x - c) - r),
        l2_ball,
        (V3, np.array([1.0, 0.1, 0.2]), np.array([1.0, 0.0, 0.5])),
        (1.5, np.array([1.0, 0.0, 0.5])),
        ((np.array([1.0, -1.5, 0.5]), [np.eye(3), np.diag([1.0, 0.0, 1.0])]),),
        curved=True,
    ),
    "L2Ball complex": Row(
        "L2Ball",
        lambda r, **options: prox.L2Ball(r, 0.5j, **options),
        lambda x, r: within(np.linalg.norm(x - 0.5j) - r),
        lambda x, s, r: l2_ball(x, s, r, 0.5j),
        (Z3,),
        (1.5,),
        curved=True,
    ),
    "LInfBall": Row(
        "LInfBall",
        prox.LInfBall,
        lambda x, r: within(abs(x) - r),
        lambda x, s, r: l_inf_ball(x, s, r).real,
        (V3,),
        (np.array([1.5, 0.5, 1.0]),),
        ((np.array([1.5, -0.5, 0.25]), diagonals((0, 1), (0, 1), (1,))),),
    ),
    "LInfBall complex": Row(
        "LInfBall",
        prox.LInfBall,
        lambda x, r: within(abs(x) - r),
        l_inf_ball,
        (Z3,),
        (1.0,),
        # The entries are 1 and -i/2: real parts come first.
        ((np.array([1.0, -0.5j]), diagonals((0, 1), (1,), (1,), (1,))),),
        curved=True,
    ),
    "Hyperplane": Row(
        "Hyperplane",
        prox.Hyperplane,
        lambda x, a, b: within(abs(a @ x - b)),
        lambda x, s, a, b: kkt(x, a[None], np.array([b])),
        (V3,),
        (NORMAL, 2.0),
        selection=False,
        curved=True,
    ),
    "Halfspace": Row(
        "Halfspace",
        prox.Halfspace,
        lambda x, a, b: within(a @ x - b),
        lambda x, s, a, b: hyperslab(x, s, a, -np.inf, b),
        (V3, np.array([3.0, 0.5, -1.0])),
        (NORMAL, 2.0),
        (
            (np.array([1.0, 1.0, 0.5]), [np.eye(3), np.eye(3) - ray(NORMAL)]),
            (np.array([0.3, 1.4, 0.55]), [np.eye(3), np.eye(3) - ray(NORMAL)]),  # up to rounding
        ),
        curved=True,
    ),
    "Hyperslab": Row(
        "Hyperslab",
        prox.Hyperslab,
        lambda x, a, lo, hi: within([lo - a @ x, a @ x - hi]),
        hyperslab,
        (V3, np.array([3.0, 0.5, -1.0]), np.array([0.1, 0.2, 0.3])),
        (NORMAL, -1.0, 2.0),
        (
            (np.array([1.0, 1.0, 0.5]), [np.eye(3), np.eye(3) - ray(NORMAL)]),
            (np.array([0.0, 0.5, 1.0]), [np.eye(3), np.eye(3) - ray(NORMAL)]),
        ),
        curved=True,
    ),
    "Hyperslab between equal planes": Row(
        "Hyperslab",
        lambda a, b, **options: prox.Hyperslab(a, b, b, **options),
        lambda x, a, b: within(abs(a @ x - b)),
        lambda x, s, a, b: kkt(x, a[None], np.array([b])),
        (V3,),
        (NORMAL, 2.0),
        ((np.array([1.0, 1.0, 0.5]), [np.eye(3) - ray(NORMAL)]),),
    ),
    "AffineSet": Row(
        "AffineSet",
        prox.AffineSet,
        lambda x, A, b: within(abs(A @ x - b)),
        lambda x, s, A, b: kkt(x, A, b),
        (V4,),
        (WIDE, np.array([1.0, -2.0])),
        selection=False,
        curved=True,
    ),
    "CappedSimplex": Row(
        "CappedSimplex",
        prox.CappedSimplex,
        lambda x, total, cap: within([*-x, *(x - cap), abs(np.sum(x) - total)]),
        capped_simplex,
        (V4, np.array([0.3, 0.3, 0.2, 0.1]), np.array([5.0, -1.0, 3.0, 1.5])),
        (2.0, np.array([1.0, 0.8, np.inf, 1.0])),
        (
            (np.array([1.5, 0.5, 1.0, 1.0]), simplex_vertices(4, [2, 3], [0, 1])),
            (np.array([1.75, 0.5, -1.0, 1.5]), [NO_ONE, *simplex_vertices(4, [1, 3], [])]),
        ),
        curved=True,
    ),
    "CappedSimplex at a vertex": Row(
        "CappedSimplex",
        lambda total, **options: prox.CappedSimplex(total, 1.0, **options),
        lambda x, total: within([*-x, *(x - 1), abs(np.sum(x) - total)]),
        capped_simplex,
        (np.array([5.0, 4.0, 0.3, 0.1]), np.array([-0.3, 0.9, 1.1, -0.4])),
        (2.0,),
        at_bound=(0,),
    ),
}

WRONG = {
    "L1Ball": (lambda: prox.L1Ball(0.0), ": radius is 0, and must be positive"),
    "L1Ball, selection": (lambda: prox.L1Ball(selection="both").project(V3), "'inside', 'outside'"),
    "L2Ball": (lambda: prox.L2Ball(-1.0), ": radius is -1"),
    "L2Ball, center": (lambda: prox.L2Ball(1.0, np.ones(2)).project(V3), r"center=...\).*\(2,\)"),
    "LInfBall": (lambda: prox.LInfBall(np.array([1.0, 0.0])), "smallest of radius is 0"),
    "Hyperplane": (lambda: prox.Hyperplane(np.zeros(3)), r"Hyperplane\(a, ...\).*all entries of a are zero"),
    "Hyperplane, a": (lambda: prox.Hyperplane(np.ones(2)).project(V3), r"a=...\).*\(2,\)"),
    "Hyperplane, complex": (lambda: prox.Hyperplane(1.0).project(Z3), "complex128"),
    "Halfspace": (lambda: prox.Halfspace(0.0), r"Halfspace\(a, ...\).*all entries of a are zero"),
    "Halfspace, b": (lambda: prox.Halfspace(1.0, np.ones(3)).project(V3), r"b=...\).*\(3,\)"),
    "Hyperslab": (lambda: prox.Hyperslab(np.zeros(3), 0.0, 1.0), r"Hyperslab\(a, ...\).*all entries of a are zero"),
    "Hyperslab, bounds": (lambda: prox.Hyperslab(1.0, 3.0, 1.0), "lo exceeds hi by 2"),
    "AffineSet, tall": (lambda: prox.AffineSet(WIDE.T, np.ones(4)), r"A has shape \(4, 2\)"),
    "AffineSet, b": (lambda: prox.AffineSet(WIDE, np.ones(3)), r"b has shape \(3,\)"),
    "AffineSet, a zero row": (lambda: prox.AffineSet(np.eye(2, 3)[:, [0, 2, 2]], np.ones(2)), "of which 1 are indep"),
    "AffineSet, equal rows": (lambda: prox.AffineSet(WIDE[[0, 0]], np.ones(2)), "2 rows, of which 1 are independent"),
    "AffineSet, x": (lambda: prox.AffineSet(WIDE, np.ones(2)).project(V3), r"\(2, 4\), x has shape \(3,\)"),
    "CappedSimplex, total": (lambda: prox.CappedSimplex(0.0), ": total is 0"),
    "CappedSimplex, cap": (lambda: prox.CappedSimplex(1.0, 0.0), ": cap is 0"),
    "CappedSimplex, empty": (lambda: prox.CappedSimplex(4.0).project(V3), "total is 4, and the caps .* to 3"),
    "SparseSimplex, k": (lambda: prox.SparseSimplex(0), ": k is 0"),
    "SparseSimplex, total": (lambda: prox.SparseSimplex(1, 0.0), ": total is 0"),
    "L1Sphere": (lambda: prox.L1Sphere(0.0), ": radius is 0"),
    "L2Sphere": (lambda: prox.L2Sphere(0.0), ": radius is 0"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values()) | {
    "prox.SparseSimplex",
    "prox.L1Sphere",
    "prox.L2Sphere",
}
