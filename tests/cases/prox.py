"""One row per function with a prox: how to build it, where to look, and what it must return.

Every oracle starts from the definition and uses another idea than the code: enumerating the candidates of a scalar
minimisation, Moreau's decomposition, bisection, a dense solve, a matrix square root. Oracles are NumPy, so central
differences of an oracle are independent of every derivative rule.
"""

from typing import Any

import numpy as np
import scipy.linalg

from nsimplicit import primitives, prox
from tests.cases import (
    prox_cones,
    prox_losses,
    prox_low_rank,
    prox_norms,
    prox_order,
    prox_polyhedra,
    prox_polytopes,
    prox_rules,
    prox_sets,
    prox_spectral,
)
from tests.cases.prox_row import Row, block, diagonals, ray, simplex_vertices


def enumerate_l1(x, step, l1, l2=0.0):
    """Per entry, the best of the stationary points of both branches and the kink."""
    candidates = [(x - step * l1) / (1 + step * l2), (x + step * l1) / (1 + step * l2), 0 * x]
    objective = [step * (l1 * abs(u) + l2 / 2 * u**2) + (u - x) ** 2 / 2 for u in candidates]
    return np.take_along_axis(np.array(candidates), np.argmin(objective, axis=0)[None], axis=0)[0]


def minus_ball(x, radius):
    """x minus its projection on the ball: the prox of a norm by Moreau's decomposition."""
    return x - x * min(1.0, radius / max(np.linalg.norm(x), 1e-300))


GROUPS = ((0, 3), (1, 2))


def group_prox(x, step, weights):
    out = np.array(x, float)
    for k, group in enumerate(GROUPS):
        out[list(group)] = minus_ball(x[list(group)], step * np.broadcast_to(weights, 2)[k])
    return out


def group_value(x, weights):
    return sum(np.broadcast_to(weights, 2)[k] * np.linalg.norm(x[list(g)]) for k, g in enumerate(GROUPS))


def simplex_bisection(x, step, total):
    del step
    low, high = np.min(x) - total, np.max(x)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(x - middle, 0).sum() > total else (low, middle)
    return np.maximum(x - high, 0)


def on_simplex(x, total):
    return 0.0 if np.min(x) >= 0 and abs(np.sum(x) - total) < 1e-12 else np.inf


def nearest_in_box(x, step, lo, hi):
    """The nearest of lo, hi and, if it is inside, x."""
    del step
    candidates = np.stack(np.broadcast_arrays(np.where((lo <= x) & (x <= hi), x, np.inf), lo, hi))
    return np.take_along_axis(candidates, np.argmin(abs(candidates - x), axis=0)[None], axis=0)[0]


def in_box(x, lo, hi):
    return 0.0 if np.all((lo <= x) & (x <= hi)) else np.inf


def symmetric(x):
    return (x + x.T) / 2


def log_det_prox(x, step, C):
    """The positive root of U^2 - W U = step I, by a matrix square root."""
    W = symmetric(x) - step * symmetric(C)
    return symmetric((W + scipy.linalg.sqrtm(W @ W + 4 * step * np.eye(len(W))).real) / 2)


def log_det_value(x, C):
    x = symmetric(x)
    return -np.log(np.linalg.det(x)) + np.sum(C * x) if np.min(np.linalg.eigvalsh(x)) > 0 else np.inf


def quadratic_prox(x, step, P, q):
    P = P if np.ndim(P) == 2 else np.diag(np.broadcast_to(P, len(x)))
    return np.linalg.solve(np.eye(len(x)) / step + symmetric(P), x / step - q)


def quadratic_value(x, P, q):
    return x @ (P @ x if np.ndim(P) == 2 else P * x) / 2 + np.sum(q * x)


def least_squares_prox(x, step, A, b):
    """The stacked least-squares problem of the prox, by QR."""
    stacked = np.vstack([A, np.eye(A.shape[1]) / np.sqrt(step)])
    return np.linalg.lstsq(stacked, np.concatenate([b, x / np.sqrt(step)]), rcond=None)[0]


def support_prox(x, step, lo, hi):
    """The prox of max(lo u, hi u), by enumeration."""
    candidates = [x - step * hi, x - step * lo, 0 * x]
    objective = [step * np.maximum(lo * u, hi * u) + (u - x) ** 2 / 2 for u in candidates]
    return np.take_along_axis(np.array(candidates), np.argmin(objective, axis=0)[None], axis=0)[0]


def own_value(x, w):
    return (w * primitives.relu(x)).sum()


def own_prox(x, step, w):
    return primitives.minimum(x, primitives.relu(x - step * w))


A = np.array([[1.0, 2.0, 0.5], [-1.0, 0.3, 1.0], [0.2, 0.1, -2.0], [1.5, -0.4, 0.6], [0.7, 0.9, -0.1]])
B = np.array([1.0, -2.0, 0.5, 0.3, 0.8])
P = np.array([[2.0, 0.3, 0.7], [-0.1, 1.0, 0.2], [0.1, 0.4, 3.0]])  # positive definite, not symmetric
C = np.array([[1.0, 0.2, -0.3], [0.2, 0.5, 0.1], [-0.1, 0.3, 2.0]])
Y = np.array([[1.0, -0.6, 0.2], [0.4, -2.0, 0.9], [0.1, 0.3, 0.5]])
V3 = np.array([0.9, -1.7, 0.4])
V4 = np.array([1.2, -0.3, 0.8, 2.0])
Z2 = np.array([0.6 - 1.1j, 0.1 + 0.2j])
TREE = {"a": np.array([1.4, -0.2]), "b": (np.array(0.9), np.array([[-2.0, 0.1]]))}


def tree_map(fun, x):
    return {"a": fun(x["a"]), "b": (fun(x["b"][0]), fun(x["b"][1]))}


def leaves(x):
    return [x["a"], x["b"][0], x["b"][1]]


ROWS = {
    "L1": Row(
        "L1",
        prox.L1,
        lambda x, w: np.sum(w * abs(x)),
        enumerate_l1,
        (V3, -V3),
        (1.2,),
        (
            (np.array([0.6, 2.0, 0.1]), diagonals((0, 1), (1,), (0,))),
            (np.array([0.6, -0.6, -3.0]), diagonals((0, 1), (0, 1), (1,))),
        ),
        formula="w",
    ),
    "L1 per entry, one free": Row(
        "L1",
        prox.L1,
        lambda x, w: np.sum(w * abs(x)),
        enumerate_l1,
        (V3,),
        (np.array([1.2, 3.6, 0.1]),),
        ((np.array([0.6, 3.0, 0.3]), diagonals((0, 1), (1,), (1,))),),
        formula="w",
        curved=True,
    ),
    "L1 complex": Row(
        "L1",
        prox.L1,
        lambda x, w: np.sum(w * abs(x)),
        lambda x, s, w: x - x * np.minimum(1, s * w / abs(x)),
        (Z2,),
        (1.2,),
        ((np.array([0.6j, 2.0]), [np.diag([0, 1, s, 0.7]) for s in (0.0, 1.0)]),),
        curved=True,
    ),
    "L1 on a tree": Row(
        "L1",
        prox.L1,
        lambda x, w: sum(np.sum(w * abs(u)) for u in leaves(x)),
        lambda x, s, w: tree_map(lambda u: enumerate_l1(u, s, w), x),
        (TREE,),
        (0.8,),
    ),
    "ElasticNet": Row(
        "ElasticNet",
        prox.ElasticNet,
        lambda x, l1, l2: np.sum(l1 * abs(x) + l2 / 2 * x**2),
        enumerate_l1,
        (V3,),
        (0.9, np.array([0.7, 0.1, 1.5])),
        ((np.array([-0.45, 2.0, 0.1]), diagonals((0, 1 / 1.35), (1 / 1.05,), (0,))),),
        formula="l1 l2",
        curved=True,
    ),
    "ElasticNet without l1": Row(
        "ElasticNet",
        prox.ElasticNet,
        lambda x, l1, l2: np.sum(l1 * abs(x) + l2 / 2 * x**2),
        enumerate_l1,
        (np.array([0.9, -1.7]),),
        (0.0, 2.0),
        # No kink at 0: this is the prox of the square alone.
        ((np.array([0.0, 0.0]), diagonals((0.5,), (0.5,))),),
        at_bound=(0,),
    ),
    "SquaredL2": Row(
        "SquaredL2",
        prox.SquaredL2,
        lambda x, w: np.sum(w * x**2) / 2,
        lambda x, s, w: np.linalg.solve(np.eye(3) / s + np.diag(w), x / s),
        (V3,),
        (np.array([0.7, 0.0, 1.5]),),
        selection=False,
        formula="w",
        curved=True,
    ),
    "SquaredL2 complex": Row(
        "SquaredL2",
        prox.SquaredL2,
        lambda x, w: w * np.vdot(x, x).real / 2,
        lambda x, s, w: np.linalg.solve(np.eye(2) * (1 / s + w), x / s),
        (Z2,),
        (0.7,),
        selection=False,
    ),
    "L2": Row(
        "L2",
        prox.L2,
        lambda x, w: w * np.linalg.norm(x),
        lambda x, s, w: minus_ball(x, s * w),
        (V3, np.array([0.1, 0.2, -0.1]), np.zeros(3)),
        (1.2,),
        ((np.array([0.0, -0.6, 0.0]), [np.zeros((3, 3)), np.diag([0.0, 1.0, 0.0])]),),
        formula="w",
        curved=True,
    ),
    "L2 complex": Row(
        "L2",
        prox.L2,
        lambda x, w: w * np.linalg.norm(x),
        lambda x, s, w: minus_ball(x, s * w),
        (Z2,),
        (1.2,),
        curved=True,
    ),
    "GroupL2": Row(
        "GroupL2",
        lambda w, **options: prox.GroupL2(w, GROUPS, **options),
        group_value,
        group_prox,
        (V4, np.array([0.0, 1.0, -2.0, 0.0])),
        (np.array([1.0, 0.6]),),
        (
            (np.array([0.3, 0.0, 0.0, 0.4]), [s * block(ray(np.array([3.0, 4.0])), [0, 3], 4) for s in (0.0, 1.0)]),
            (
                np.array([0.5, 0.0, 0.3, 0.0]),
                [s * block([[1.0]], [0], 4) + t * block([[1.0]], [2], 4) for s in (0.0, 1.0) for t in (0.0, 1.0)],
            ),
        ),
        curved=True,
    ),
    "GroupL2 along an axis": Row(
        "GroupL2",
        lambda w, **options: prox.GroupL2(w, axis=0, **options),
        lambda x, w: sum(w[k] * np.linalg.norm(x[:, k]) for k in range(2)),
        lambda x, s, w: np.stack([minus_ball(x[:, k], s * w[k]) for k in range(2)], axis=1),
        (np.array([[1.2, 0.0], [-0.3, 0.0], [0.5, 0.0]]),),
        (np.array([1.0, 0.6]),),
    ),
    "Zero": Row("Zero", prox.Zero, lambda x: 0.0, lambda x, s: x, (TREE,), selection=False),
    "Linear": Row(
        "Linear",
        prox.Linear,
        lambda x, c: np.dot(c, x),
        lambda x, s, c: x - s * c,
        (V3,),
        (np.array([0.7, 0.0, -1.5]),),
        selection=False,
        formula="c",
    ),
    "Quadratic": Row(
        "Quadratic",
        prox.Quadratic,
        quadratic_value,
        quadratic_prox,
        (V3,),
        (P, np.array([0.7, 0.0, -1.5])),
        selection=False,
        curved=True,
    ),
    "Quadratic with a diagonal": Row(
        "Quadratic",
        prox.Quadratic,
        quadratic_value,
        quadratic_prox,
        (V3,),
        (np.array([0.7, 0.0, 1.5]), 0.3),
        selection=False,
        curved=True,
    ),
    "LeastSquares tall": Row(
        "LeastSquares",
        prox.LeastSquares,
        lambda x, A, b: np.linalg.norm(A @ x - b) ** 2 / 2,
        least_squares_prox,
        (V3,),
        (A, B),
        selection=False,
        formula="A b",
        curved=True,
    ),
    "LeastSquares wide": Row(
        "LeastSquares",
        prox.LeastSquares,
        lambda x, A, b: np.linalg.norm(A @ x - b) ** 2 / 2,
        least_squares_prox,
        (V3,),
        (A[:2], B[:2]),
        selection=False,
        formula="A b",
        curved=True,
    ),
    "LogDet": Row(
        "LogDet",
        prox.LogDet,
        log_det_value,
        log_det_prox,
        # The second: every eigenvalue of x - step C is 1/2.
        (Y, 0.5 * (np.eye(3) + symmetric(C))),
        (C,),
        selection=False,
        space=symmetric,
        curved=True,
    ),
    "Box": Row(
        "Box",
        prox.Box,
        in_box,
        nearest_in_box,
        (np.array([2.0, -3.0, 0.1, 5.0]),),
        (np.array([-1.0, -np.inf, -np.inf, 0.5]), np.array([1.0, 0.5, np.inf, np.inf])),
        ((np.array([1.0, 0.5, 0.0, 0.5]), diagonals((0, 1), (0, 1), (1,), (0, 1))),),
    ),
    "Box with a fixed entry": Row(
        "Box",
        prox.Box,
        in_box,
        nearest_in_box,
        (),
        (np.array([0.5, -1.0]), np.array([0.5, 1.0])),
        ((np.array([0.5, -1.0]), diagonals((0,), (0, 1))),),
    ),
    "Nonnegative": Row(
        "Nonnegative",
        prox.Nonnegative,
        lambda x: in_box(x, 0.0, np.inf),
        lambda x, s: nearest_in_box(x, s, 0.0, np.inf),
        (V3,),
        (),
        ((np.array([0.0, 2.0, -1.0]), diagonals((0, 1), (1,), (0,))),),
    ),
    "Simplex": Row(
        "Simplex",
        prox.Simplex,
        on_simplex,
        simplex_bisection,
        (V4, np.array([5.0, 1.0, 0.2, -3.0]), np.array([0.3, 0.3, 0.2, 0.1])),
        (1.5,),
        (
            (np.array([1.5, 0.0, -1.0, -3.0]), simplex_vertices(4, [0], [1])),  # a vertex
            (np.array([2.5, 1.0, 1.0, -3.0]), simplex_vertices(4, [0], [1, 2])),  # a vertex, and a tie at the kink
            (np.array([0.7, 1.2, -0.2, 0.2]), simplex_vertices(4, [0, 1], [3])),  # 0.2 = tau, up to rounding
        ),
        curved=True,
    ),
    "from_function": Row(
        "from_function",
        lambda w: prox.from_function(own_value, own_prox, w),
        lambda x, w: np.sum(w * np.maximum(x, 0)),
        lambda x, s, w: support_prox(x, s, 0.0, w),
        (np.array([-1.0, 0.2, 3.0]),),
        (np.array([1.0, 2.0, 0.5]),),
        selection=False,
    ),
    "Conjugate of L1": Row(
        "Conjugate",
        lambda w, **options: prox.Conjugate(prox.L1(w, **options), value=lambda f, y: prox.Box(-f.weight, f.weight)(y)),
        lambda x, w: in_box(x, -w, w),
        lambda x, s, w: nearest_in_box(x, s, -w, w),
        (np.array([2.0, -3.0, 0.1]),),
        (1.2,),
        # The selection is that of the prox of f: its weight s on "keep" is 1 - s on x here.
        ((np.array([1.2, -1.2, 0.1]), diagonals((0, 1), (0, 1), (1,))),),
    ),
    "Conjugate of a box": Row(
        "Conjugate",
        lambda lo, hi, **options: prox.Conjugate(
            prox.Box(lo, hi, **options), value=lambda f, y: primitives.maximum(f.lo * y, f.hi * y).sum()
        ),
        lambda x, lo, hi: np.sum(np.maximum(lo * x, hi * x)),
        support_prox,
        (np.array([0.4, 2.0, -0.8]),),
        (-0.4, np.array([1.0, 2.0, 0.5])),
    ),
    "Translate": Row(
        "Translate",
        lambda w, a, **options: prox.Translate(prox.L1(w, **options), a),
        lambda x, w, a: np.sum(w * abs(x - a)),
        lambda x, s, w, a: a + enumerate_l1(x - a, s, w),
        (V3,),
        (1.0, np.array([1.0, -1.0, 0.0])),
        ((np.array([1.5, 1.0, 0.0]), diagonals((0, 1), (1,), (0,))),),
    ),
    "PreScale": Row(
        "PreScale",
        lambda w, a, **options: prox.PreScale(prox.L1(w, **options), a),
        lambda x, w, a: np.sum(w * abs(a * x)),
        lambda x, s, w, a: enumerate_l1(x, s, w * abs(a)),
        (V3,),
        (0.25, -2.0),
        ((np.array([0.25, 1.0, 0.0]), diagonals((0, 1), (1,), (0,))),),
        curved=True,
    ),
    "PostScale": Row(
        "PostScale",
        lambda w, a, **options: prox.PostScale(prox.L1(w, **options), a),
        lambda x, w, a: a * np.sum(w * abs(x)),
        lambda x, s, w, a: enumerate_l1(x, s, w * a),
        (V3,),
        (0.25, 2.0),
        ((np.array([0.25, 1.0, 0.0]), diagonals((0, 1), (1,), (0,))),),
    ),
    "Translate of Quadratic": Row(
        "Translate",
        lambda P, q, a: prox.Translate(prox.PostScale(prox.PreScale(prox.Quadratic(P, q), -2.0), 3.0), a),
        lambda x, P, q, a: 3 * quadratic_value(-2 * (x - a), P, q),
        lambda x, s, P, q, a: quadratic_prox(x, s, 12 * P, -6 * q - 12 * symmetric(P) @ a),
        (V3,),
        (P, np.array([0.7, 0.0, -1.5]), np.array([1.0, -1.0, 0.0])),
        selection=False,
    ),
    "SeparableSum": Row(
        "SeparableSum",
        lambda w, v, **options: prox.SeparableSum({"a": prox.L1(w, **options), "b": prox.SquaredL2(v)}),
        lambda x, w, v: np.sum(w * abs(x["a"])) + sum(v * np.sum(u**2) / 2 for u in x["b"]),
        lambda x, s, w, v: {"a": enumerate_l1(x["a"], s, w), "b": tuple(u / (1 + s * v) for u in x["b"])},
        (TREE,),
        (1.2, 2.0),
        (
            (
                {"a": np.array([0.6, 1.0]), "b": (np.array(0.3), np.zeros((1, 2)))},
                diagonals((0, 1), (1,), (0.5,), (0.5,), (0.5,)),
            ),
        ),
    ),
}

WRONG = {
    "L1, negative weight": (lambda: prox.L1(-1.0), r"prox.L1\(weight=...\).*weight is -1, .*nonnegative"),
    "L1, one weight of many": (lambda: prox.L1(np.array([1.0, -2.0])), "smallest of weight is -2"),
    "L1, nan": (lambda: prox.L1(np.nan), ": weight is nan"),
    "L1, shapes": (lambda: prox.L1(np.ones(3)).prox(np.ones(2), 1.0), r"L1\(weight=...\).*\(3,\).*\(2,\)"),
    "L1, negative step": (lambda: prox.L1(1.0).prox(np.ones(2), -1.0), r"L1.prox\(step=...\).*: step is -1,.*positive"),
    "L1, gradient": (lambda: prox.L1(1.0).gradient(np.ones(2)), "not smooth"),
    "ElasticNet, l1": (lambda: prox.ElasticNet(-1.0, 1.0), ": l1 is -1"),
    "ElasticNet, l2": (lambda: prox.ElasticNet(1.0, -1.0), ": l2 is -1"),
    "SquaredL2": (lambda: prox.SquaredL2(-0.5), ": weight is -0.5"),
    "L2": (lambda: prox.L2(-1.0), ": weight is -1"),
    "GroupL2, weight": (lambda: prox.GroupL2(np.array([1.0, -1.0])), "smallest of weights is -1"),
    "GroupL2, overlap": (lambda: prox.GroupL2(1.0, [[0, 1], [1, 2]]), "4 positions, 3 of them different"),
    "GroupL2, negative position": (lambda: prox.GroupL2(1.0, [[0], [-1]]), "smallest -1"),
    "GroupL2, number of weights": (lambda: prox.GroupL2(np.ones(3), [[0], [1]]), r"2 groups.*weights of shape \(3,\)"),
    "GroupL2, position": (lambda: prox.GroupL2(1.0, [[0, 7]]).prox(np.ones(3), 1.0), "largest position is 7"),
    "GroupL2, matrix": (lambda: prox.GroupL2(1.0, [[0, 1]])(np.ones((2, 2))), r"x has shape \(2, 2\)"),
    "Linear": (lambda: prox.Linear(np.ones(3))(np.ones(2)), r"Linear\(c=...\).*\(3,\)"),
    "Quadratic, not square": (lambda: prox.Quadratic(np.ones((2, 3))), r"P has shape \(2, 3\)"),
    "Quadratic, q": (lambda: prox.Quadratic(np.eye(2), np.ones(3)), r"q has shape \(3,\)"),
    "Quadratic, diagonal": (lambda: prox.Quadratic(np.array([1.0, -1.0])), "smallest of P is -1"),
    "Quadratic, x": (lambda: prox.Quadratic(np.eye(2)).prox(np.ones(3), 1.0), r"\(2, 2\), x has shape \(3,\)"),
    "LeastSquares, b": (lambda: prox.LeastSquares(A, np.ones(3)), r"A has shape \(5, 3\), b has shape \(3,\)"),
    "LeastSquares, A": (lambda: prox.LeastSquares(B, B), r"A has shape \(5,\)"),
    "LeastSquares, x": (lambda: prox.LeastSquares(A, B)(np.ones(5)), r"x has shape \(5,\)"),
    "LogDet, C": (lambda: prox.LogDet(np.ones((2, 3))), r"C has shape \(2, 3\)"),
    "LogDet, x": (lambda: prox.LogDet().prox(np.ones(3), 1.0), r"x has shape \(3,\)"),
    "Box, empty": (lambda: prox.Box(np.array([0.0, 3.0]), 1.0), "lo exceeds hi by up to 2"),
    "Box, complex": (lambda: prox.Box(0.0, 1.0).project(Z2), "complex128"),
    "Nonnegative, complex": (lambda: prox.Nonnegative().project(Z2), "complex128"),
    "Nonnegative, selection": (lambda: prox.Nonnegative(selection=2.0).project(V3), r"clip\(selection=2.0\)"),
    "Simplex": (lambda: prox.Simplex(0.0), ": total is 0, and must be positive"),
    "smooth, prox": (lambda: prox.smooth(np.sum).prox(V3, 1.0), "has no prox"),
    "smooth, not a function": (lambda: prox.smooth(3.0), "fun is a float"),
    "from_function, not a function": (lambda: prox.from_function(np.sum, 3.0), "prox is a float"),
    "from_function, shape": (
        lambda: prox.from_function(np.sum, lambda x, s: x[:1]).prox(V3, 1.0),
        r"returned \(1,\) for an x of \(3,\)",
    ),
    "Conjugate, value": (lambda: prox.Conjugate(prox.L1(1.0))(V3), "value of this conjugate is not known"),
    "Conjugate, not a function": (lambda: prox.Conjugate(abs), "prox.Conjugate.*fun is a builtin"),
    "Translate, not a function": (lambda: prox.Translate(abs, 1.0), "prox.Translate.*fun is a builtin"),
    "PreScale": (lambda: prox.PreScale(prox.L1(1.0), 0.0), "finite and not 0"),
    "PostScale": (lambda: prox.PostScale(prox.L1(1.0), -1.0), ": scale is -1"),
    "SeparableSum, not a function": (lambda: prox.SeparableSum({"a": abs}), "prox.SeparableSum.*fun is a builtin"),
    "SeparableSum, empty": (lambda: prox.SeparableSum({}), "fun is a NoneType"),
    "SeparableSum, keys": (lambda: prox.SeparableSum({"a": prox.Zero()})({"b": V3}), "x has structure"),
}

TOPICS: tuple[Any, ...] = (
    prox_cones,
    prox_losses,
    prox_low_rank,
    prox_norms,
    prox_order,
    prox_polyhedra,
    prox_polytopes,
    prox_rules,
    prox_sets,
    prox_spectral,
)
"""Modules with more rows: ``ROWS``, ``WRONG`` and ``COVERED`` each."""
for topic in TOPICS:
    ROWS |= topic.ROWS
    WRONG |= topic.WRONG

COVERED = frozenset(
    {f"prox.{row.name}" for row in ROWS.values()}
    | {"smooth", "prox.smooth", "prox.Smooth", "prox.FromFunction", "prox.Function", "prox.Set"}
)
