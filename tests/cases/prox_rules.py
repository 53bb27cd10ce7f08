"""Rows for rules: a function plus a simple one, a function of a linear map, an envelope.

The oracles know the combined function as one: an elastic net, a Huber function, an l1 norm in other coordinates.
"""

from typing import Any

import numpy as np
import scipy.linalg

from nsimplicit import prox
from tests.cases.prox_row import Row, diagonals


def piecewise(x, s, pieces, value):
    """Per entry, the best of the stationary points of some quadratics P u^2 / 2 + q u, and of given points."""
    points = [(x - s * q) / (1 + s * P) for P, q in pieces] + [0 * x]
    objective = [s * value(u) + (u - x) ** 2 / 2 for u in points]
    return np.take_along_axis(np.array(points), np.argmin(objective, axis=0)[None], axis=0)[0]


def tilted_prox(x, s, w, c):
    return piecewise(x, s, [(0, c + w), (0, c - w)], lambda u: w * abs(u) + c * u)


def regularized_prox(x, s, w, rho, a):
    pieces = [(rho, w - rho * a), (rho, -w - rho * a)]
    return piecewise(x, s, pieces, lambda u: w * abs(u) + rho / 2 * (u - a) ** 2)


def scaled_prox(x, s, w, d):
    return piecewise(x, s, [(0, w * abs(d)), (0, -w * abs(d))], lambda u: w * abs(d * u))


def huber(u, w, mu):
    return np.where(abs(u) <= mu * w, u**2 / (2 * mu), w * abs(u) - mu * w**2 / 2)


def huber_prox(x, s, w, mu):
    return piecewise(x, s, [(1 / mu, 0), (0, w), (0, -w)], lambda u: huber(u, w, mu))


A = np.array([[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]]) / 2.5  # rows of length 2
FRAME = np.vstack([A / 2, [[0.8, 0.0, -0.6]]])


def orthogonal_prox(x, s, w, b):
    """In the orthonormal coordinates that complete the rows of A, with the shift moved into x."""
    origin = np.append(b / 2, 0.0)
    y = FRAME @ x + origin
    y[:2] = scaled_prox(y[:2], s, w, 2.0)
    return FRAME.T @ (y - origin)


def ridge_prox(x, s, P, q, c, rho, a):
    """The prox of a quadratic plus a linear and a square function, by one dense solve."""
    H = (P + P.T) / 2 + rho * np.eye(3)
    return scipy.linalg.solve(np.eye(3) + s * H, x - s * (q + c - rho * a))


def perspective(x, w):
    if x[0] > 0:
        return w * (x[1:] @ x[1:]) / (2 * x[0])
    return 0.0 if np.all(x == 0) else np.inf


def perspective_prox(x, s, w):
    """The largest root of the cubic (v - t) (v + s w)^2 = s w |z|^2 / 2, from a companion matrix."""
    length, squared = s * w, x[1:] @ x[1:]
    if x[0] + squared / (2 * length) <= 0:
        return 0 * x
    cubic = np.polysub(np.polymul([1, -x[0]], np.polymul([1, length], [1, length])), [length * squared / 2])
    v = max(np.roots(cubic), key=lambda r: (abs(r.imag) < 1e-9, r.real)).real
    return np.append(v, x[1:] * v / (v + length))


P = np.array([[2.0, 0.3, 0.7], [-0.1, 1.0, 0.2], [0.1, 0.4, 3.0]])
V3 = np.array([0.9, -1.7, 0.4])
SHIFT = np.array([0.4, -0.3, 0.1])
DIAGONAL = np.array([0.5, -2.0, 1.0])
ALONG = np.array([0.6, 0.0, 0.8])  # the direction of the first row of A
ACROSS = np.eye(3) - np.outer(ALONG, ALONG)

NORMAL = np.array([1.0, 2.0, 0.0]) / np.sqrt(5)
NO_FUNCTION: Any = abs

ROWS = {
    "Tilt": Row(
        "Tilt",
        lambda w, c, **options: prox.Tilt(prox.L1(w, **options), c),
        lambda x, w, c: np.sum(w * abs(x) + c * x),
        tilted_prox,
        (V3,),
        (1.0, np.array([0.5, 0.0, -1.0])),
        ((np.array([0.75, 1.0, -0.5]), diagonals((0, 1), (1,), (0,))),),
    ),
    "Regularize": Row(
        "Regularize",
        lambda w, rho, a, **options: prox.Regularize(prox.L1(w, **options), rho, a),
        lambda x, w, rho, a: np.sum(w * abs(x) + rho / 2 * (x - a) ** 2),
        regularized_prox,
        (V3,),
        (0.5, 2.0, SHIFT),
        ((np.array([-0.15, 1.0, -0.1]), diagonals((0, 0.5), (0.5,), (0,))),),
        curved=True,
    ),
    "Tilt and Regularize a quadratic": Row(
        "Regularize",
        lambda P, q, c, rho, a: prox.Regularize(prox.Tilt(prox.Quadratic(P, q), c), rho, a),
        lambda x, P, q, c, rho, a: x @ P @ x / 2 + (q + c) @ x + rho / 2 * np.sum((x - a) ** 2),
        ridge_prox,
        (V3,),
        (P, V3, np.array([0.5, 0.0, -1.0]), 2.0, SHIFT),
        selection=False,
    ),
    "PrecomposeDiagonal": Row(
        "PrecomposeDiagonal",
        lambda w, d, **options: prox.PrecomposeDiagonal(prox.L1(w, **options), d),
        lambda x, w, d: np.sum(w * abs(d * x)),
        scaled_prox,
        (V3,),
        (0.5, DIAGONAL),
        ((np.array([0.125, -0.5, 1.0]), diagonals((0, 1), (0, 1), (1,))),),
        curved=True,
    ),
    "PrecomposeDiagonal of a smooth one": Row(
        "PrecomposeDiagonal",
        lambda w, d: prox.PrecomposeDiagonal(prox.SquaredL2(w), d),
        lambda x, w, d: np.sum(w * (d * x) ** 2) / 2,
        lambda x, s, w, d: np.linalg.solve(np.eye(3) / s + np.diag(w * d**2), x / s),
        (V3,),
        (0.5, DIAGONAL),
        selection=False,
    ),
    "PrecomposeOrthogonal": Row(
        "PrecomposeOrthogonal",
        lambda w, b, **options: prox.PrecomposeOrthogonal(prox.L1(w, **options), A, b),
        lambda x, w, b: np.sum(w * abs(A @ x + b)),
        orthogonal_prox,
        (V3,),
        (0.5, np.array([0.5, -0.25])),
        ((1.0 * ALONG / 4 + np.array([0.0, 1.0, 0.0]), [ACROSS, np.eye(3)]),),
        curved=True,
    ),
    "MoreauEnvelope": Row(
        "MoreauEnvelope",
        lambda w, mu, **options: prox.MoreauEnvelope(prox.L1(w, **options), mu),
        lambda x, w, mu: np.sum(huber(x, w, mu)),
        huber_prox,
        (np.array([3.0, -0.5, -2.0]),),
        (1.0, 0.75),
        ((np.array([1.25, 0.1, -1.25]), diagonals((0.6, 1), (0.6,), (0.6, 1))),),
        curved=True,
    ),
    "MoreauEnvelope of a quadratic": Row(
        "MoreauEnvelope",
        lambda w, mu: prox.MoreauEnvelope(prox.SquaredL2(w), mu),
        lambda x, w, mu: np.sum(w / (1 + mu * w) * x**2) / 2,
        lambda x, s, w, mu: np.linalg.solve(np.eye(3) / s + np.diag(w / (1 + mu * w)), x / s),
        (V3,),
        (np.array([0.5, 2.0, 1.0]), 0.75),
        selection=False,
    ),
    "PerspectiveOfSquare": Row(
        "PerspectiveOfSquare",
        prox.PerspectiveOfSquare,
        perspective,
        perspective_prox,
        (np.array([0.5, 1.0, -0.7]), np.array([-0.3, 1.0, 0.5]), np.array([-3.0, 1.0, 0.5])),
        (1.0,),
        ((np.array([-1.0, 1.0, 0.0]), [np.zeros((3, 3)), np.outer(NORMAL, NORMAL)]),),
        curved=True,
    ),
}

WRONG = {
    "Tilt": (lambda: prox.Tilt(NO_FUNCTION, 1.0), "prox.Tilt.*fun is a builtin"),
    "Tilt, c": (lambda: prox.Tilt(prox.L1(1.0), np.ones(3)).prox(np.ones(2), 1.0), r"Tilt\(c=...\).*\(3,\).*\(2,\)"),
    "Regularize": (lambda: prox.Regularize(NO_FUNCTION, 1.0), "prox.Regularize.*fun is a builtin"),
    "Regularize, rho": (lambda: prox.Regularize(prox.L1(1.0), -1.0), ": rho is -1"),
    "PrecomposeDiagonal": (lambda: prox.PrecomposeDiagonal(NO_FUNCTION, 1.0), "fun is a builtin"),
    "PrecomposeDiagonal, not separable": (lambda: prox.PrecomposeDiagonal(prox.L2(1.0), 1.0), "L2 is not separable"),
    "PrecomposeDiagonal, zero": (
        lambda: prox.PrecomposeDiagonal(prox.L1(1.0), np.array([0.0, 1.0, np.inf])),
        "2 entries of diagonal are 0 or not finite",
    ),
    "PrecomposeOrthogonal": (lambda: prox.PrecomposeOrthogonal(NO_FUNCTION, A), "fun is a builtin"),
    "PrecomposeOrthogonal, tall": (lambda: prox.PrecomposeOrthogonal(prox.L1(1.0), A.T), r"A has shape \(3, 2\)"),
    "PrecomposeOrthogonal, rows": (
        lambda: prox.PrecomposeOrthogonal(prox.L1(1.0), np.array([[1.0, 0.0], [0.0, 2.0]])),
        "differs from 2.5 times the identity by up to 1.5e",
    ),
    "PrecomposeOrthogonal, x": (
        lambda: prox.PrecomposeOrthogonal(prox.L1(1.0), A)(np.ones(2)),
        r"A has shape \(2, 3\), x has shape \(2,\)",
    ),
    "MoreauEnvelope": (lambda: prox.MoreauEnvelope(NO_FUNCTION, 1.0), "fun is a builtin"),
    "PerspectiveOfSquare": (lambda: prox.PerspectiveOfSquare(0.0), ": weight is 0"),
    "MoreauEnvelope, mu": (lambda: prox.MoreauEnvelope(prox.L1(1.0), 0.0), ": mu is 0"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
