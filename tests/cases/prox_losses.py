"""Rows for losses, entropies, distances and activations.

The oracles find the minimiser by enumerating the pieces, by bisection on the derivative, by Newton's method on the full
optimality system, or take SciPy's special functions.
"""

import functools

import numpy as np
import scipy.optimize
import scipy.special

from nsimplicit import prox
from tests.cases.prox_row import Row, diagonals

Y3 = np.array([1.0, -1.0, 1.0])


def best(candidates, objective):
    """Per entry, the candidate with the smallest objective."""
    candidates = np.stack(np.broadcast_arrays(*candidates))
    return np.take_along_axis(candidates, np.argmin(objective(candidates), axis=0)[None], axis=0)[0]


def bisection(slope, low, high):
    """The root of an increasing function of each entry."""
    for _ in range(120):
        middle = (low + high) / 2
        up = slope(middle) < 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


def hinge(u, y, w):
    return w * np.maximum(1 - y * u, 0)


def hinge_prox(x, s, y, w):
    return best((x, x + s * w * y, 1 / y + 0 * x), lambda u: s * hinge(u, y, w) + (u - x) ** 2 / 2)


def squared_hinge_prox(x, s, y, w):
    moved = (x + s * w * y) / (1 + s * w * y**2)
    return best((x, moved), lambda u: s * hinge(u, y, 1.0) ** 2 * w / 2 + (u - x) ** 2 / 2)


def smoothed_hinge(u, y, d, w):
    short = 1 - y * u
    return w * np.where(short <= 0, 0, np.where(short >= d, short - d / 2, short**2 / (2 * d)))


def smoothed_hinge_prox(x, s, y, d, w):
    middle = (x + s * w * y / d) / (1 + s * w * y**2 / d)
    return best((x, x + s * w * y, middle), lambda u: s * smoothed_hinge(u, y, d, w) + (u - x) ** 2 / 2)


def logistic_prox(x, s, y, w):
    reach = abs(s * w * y)
    return bisection(lambda u: u - x - s * w * y * scipy.special.expit(-y * u), x - reach, x + reach)


def softmax(u):
    return scipy.special.softmax(u)


def cross_entropy_prox(x, s, y, w):
    """Newton's method on the gradient, with the full Hessian."""
    if np.ndim(x) == 2:
        columns = [cross_entropy_prox(x[:, k], s, y[:, k], w[k]) for k in range(x.shape[1])]
        return np.stack(columns, axis=1)
    u = np.array(x)
    for _ in range(30):
        p = softmax(u)
        hessian = np.eye(len(x)) + s * w * (np.diag(p) - np.outer(p, p))
        u = u - np.linalg.solve(hessian, u - x + s * w * (p - y))
    return u


def cross_entropy(x, y, w):
    return np.sum(w * (scipy.special.logsumexp(x, axis=0) - np.sum(y * x, axis=0)))


def kl_value(x, y, w):
    return np.sum(w * scipy.special.kl_div(x, y * np.ones_like(x)))


def kl_prox(x, s, y, w):
    """Bisection on the derivative, for the logarithm of the result."""
    v = bisection(lambda v: np.exp(v) - x + s * w * (v - np.log(y)), -60 + 0 * x, 5 + 0 * x)
    return np.exp(v)


def entropy_value(x, w, total):
    return w * -np.sum(scipy.special.entr(x)) if np.min(x) >= 0 and abs(np.sum(x) - total) < 1e-12 else np.inf


def entropy_prox(x, s, w, total):
    """The multiplier by Brent's method, the entries by SciPy's omega function."""
    t = s * w

    def entries(shift):
        return t * scipy.special.wrightomega((x - shift) / t).real

    low, high = np.max(x) - 50, np.max(x) + 50
    shift = scipy.optimize.brentq(lambda v: entries(v).sum() - total, low, high, xtol=1e-15)
    return entries(shift)


def barrier_prox(x, s, w):
    """The positive root of u^2 - x u - s w, from the eigenvalues of its companion matrix."""
    return np.array([np.max(np.roots([1, -a, -b]).real) for a, b in zip(x, s * w * np.ones_like(x), strict=True)])


def to_box(x, lo, hi):
    return np.minimum(np.maximum(x, lo), hi)


def distance_prox(x, s, lo, hi, w):
    """x minus its step, which ends at the projection."""
    away = x - to_box(x, lo, hi)
    return x - away * min(1.0, s * w / max(np.linalg.norm(away), 1e-300))


def squared_distance_prox(x, s, lo, hi, w):
    pulled = [(x + s * w * bound) / (1 + s * w) for bound in (lo, hi)]
    return best((x, *pulled), lambda u: s * w * (u - to_box(u, lo, hi)) ** 2 / 2 + (u - x) ** 2 / 2)


def activation_row(name, inverse, value, low, high):
    """f' = inverse - identity: the prox by bisection on its optimality condition."""

    def oracle(x, s):
        with np.errstate(divide="ignore"):  # the inverse is infinite at an end of the range
            return bisection(lambda u: u - x + s * (inverse(u) - u), low + 0 * x, high + 0 * x)

    points = (np.array([0.7, 0.2, 0.9]), np.array([4.0, -0.8, -3.0]))
    make = functools.partial(prox.activation, name)
    return Row("activation", make, lambda u: np.sum(value(u)), oracle, points, selection=False, curved=True)


def tanh_value(u):
    u = np.where(abs(u) < 1, u, np.nan)
    return np.nan_to_num(u * np.arctanh(u) + np.log(1 - u**2) / 2 - u**2 / 2, nan=np.inf)


def sigmoid_value(u):
    inside = (u >= 0) & (u <= 1)
    return np.where(inside, -scipy.special.entr(u) - scipy.special.entr(1 - u) - u**2 / 2, np.inf)


def elu_value(u):
    low = np.where((u > -1) & (u < 0), u, 0)
    return np.where(u > -1, (1 + low) * np.log1p(low) - low - low**2 / 2, np.inf)


def step_of(u, low, high):
    return 0.0 if np.all((low <= u) & (u <= high)) else np.inf


LABELS = np.array([[0.2, 0.0], [0.5, 1.0], [0.3, 0.0]])
LOGITS = np.array([[1.0, -0.4], [0.3, 0.8], [-1.2, 2.0]])

ROWS = {
    "Hinge": Row(
        "Hinge",
        prox.Hinge,
        lambda x, y, w: np.sum(hinge(x, y, w)),
        hinge_prox,
        (np.array([2.0, -0.8, -3.0]),),
        (Y3, np.array([1.0, 2.0, 0.8])),
        ((np.array([1.0, 0.0, -0.5]), diagonals((0, 1), (0, 1), (1,))),),
        formula="y w",
        curved=True,
    ),
    "SquaredHinge": Row(
        "SquaredHinge",
        prox.SquaredHinge,
        lambda x, y, w: np.sum(w * np.maximum(1 - y * x, 0) ** 2) / 2,
        squared_hinge_prox,
        (np.array([2.0, -0.8, -3.0]),),
        (Y3, np.array([1.0, 2.0, 0.8])),
        ((np.array([1.0, -1.0, 2.0]), diagonals((1, 1 / 1.5), (1, 0.5), (1,))),),
        formula="y w",
        curved=True,
    ),
    "SmoothedHinge": Row(
        "SmoothedHinge",
        prox.SmoothedHinge,
        lambda x, y, d, w: np.sum(smoothed_hinge(x, y, d, w)),
        smoothed_hinge_prox,
        (np.array([2.0, -0.8, -3.0]),),
        (Y3, 0.5, np.array([1.0, 2.0, 0.8])),
        ((np.array([1.0, 0.5, 0.9]), diagonals((1, 0.5), (1, 1 / 3), (0.5 / 0.9,))),),
        formula="y d w",
        curved=True,
    ),
    "Logistic": Row(
        "Logistic",
        prox.Logistic,
        lambda x, y, w: np.sum(w * np.logaddexp(0, -y * x)),
        logistic_prox,
        (np.array([2.0, -0.8, -3.0]), np.array([-30.0, 0.0, 50.0])),
        (Y3, np.array([1.0, 2.0, 0.8])),
        selection=False,
        curved=True,
    ),
    "CrossEntropy": Row(
        "CrossEntropy",
        prox.CrossEntropy,
        cross_entropy,
        cross_entropy_prox,
        (LOGITS[:, 0], np.array([40.0, -7.0, 3.0])),
        (LABELS[:, 0], 1.5),
        selection=False,
        curved=True,
    ),
    "CrossEntropy along an axis": Row(
        "CrossEntropy",
        lambda y, w: prox.CrossEntropy(y, w, axis=0),
        cross_entropy,
        cross_entropy_prox,
        (LOGITS,),
        (LABELS, np.array([1.5, 0.3])),
        selection=False,
    ),
    "KL": Row(
        "KL",
        prox.KL,
        kl_value,
        kl_prox,
        (np.array([1.3, -0.8, 0.2]), np.array([5.0, 0.0, -2.0])),
        (np.array([1.0, 2.0, 0.4]), 0.7),
        selection=False,
        curved=True,
    ),
    "LogBarrier": Row(
        "LogBarrier",
        prox.LogBarrier,
        lambda x, w: -np.sum(w * np.log(x)) if np.min(x) > 0 else np.inf,
        barrier_prox,
        (np.array([1.3, 0.8, 0.2]), np.array([1.3, -0.8, 0.0])),
        (np.array([1.0, 2.0, 0.4]),),
        selection=False,
        formula="w",
        curved=True,
    ),
    "Entropy": Row(
        "Entropy",
        prox.Entropy,
        entropy_value,
        entropy_prox,
        (np.array([0.3, -0.9, 1.1]), np.array([0.5, 0.25, 0.75]), np.array([3.0, 0.0, -2.0])),
        (0.4, 1.5),
        selection=False,
        curved=True,
    ),
    "DistanceTo": Row(
        "DistanceTo",
        lambda lo, hi, w, **options: prox.DistanceTo(prox.Box(lo, hi), w, **options),
        lambda x, lo, hi, w: w * np.linalg.norm(x - to_box(x, lo, hi)),
        distance_prox,
        (np.array([2.5, -0.4, -3.0]), np.array([1.2, 0.5, -0.9])),
        (-0.8, np.array([1.0, 1.0, 2.0]), 1.0),
        ((np.array([1.5, 0.25, 0.0]), diagonals((0, 1), (1,), (1,))),),
        curved=True,
    ),
    "SquaredDistanceTo": Row(
        "SquaredDistanceTo",
        lambda lo, hi, w, **options: prox.SquaredDistanceTo(prox.Box(lo, hi, **options), w),
        lambda x, lo, hi, w: w * np.linalg.norm(x - to_box(x, lo, hi)) ** 2 / 2,
        squared_distance_prox,
        (np.array([2.5, -0.4, -3.0]),),
        (-0.8, np.array([1.0, 1.0, 2.0]), 2.0),
        ((np.array([1.0, -0.8, 0.0]), diagonals((0.5, 1), (0.5, 1), (1,))),),
        curved=True,
    ),
    "activation tanh": activation_row("tanh", np.arctanh, tanh_value, -1.0, 1.0),
    "activation sigmoid": activation_row("sigmoid", scipy.special.logit, sigmoid_value, 0.0, 1.0),
    "activation softplus": activation_row(
        "softplus",
        lambda u: np.log(np.expm1(u)),
        lambda u: np.where(u >= 0, scipy.special.spence(1 - np.exp(-np.maximum(u, 0))), np.inf),
        1e-300,
        20.0,
    ),
    "activation elu": activation_row(
        "elu", lambda u: np.where(u < 0, np.log1p(np.minimum(u, 0)), u), elu_value, -1 + 1e-16, 20.0
    ),
    "activation relu": Row(
        "activation",
        functools.partial(prox.activation, "relu"),
        lambda u: step_of(u, 0, np.inf),
        lambda x, s: to_box(x, 0, np.inf),
        (np.array([0.9, -1.7]),),
        (),
        ((np.array([0.0, 1.0]), diagonals((0, 1), (1,))),),
    ),
    "activation hard_tanh": Row(
        "activation",
        functools.partial(prox.activation, "hard_tanh"),
        lambda u: step_of(u, -1, 1),
        lambda x, s: to_box(x, -1, 1),
        (np.array([0.9, -1.7]),),
        (),
        ((np.array([1.0, -1.0]), diagonals((0, 1), (0, 1))),),
    ),
    "activation soft_threshold": Row(
        "activation",
        functools.partial(prox.activation, "soft_threshold"),
        lambda u: np.sum(abs(u)),
        lambda x, s: best((x - s, x + s, 0 * x), lambda u: s * abs(u) + (u - x) ** 2 / 2),
        (np.array([0.9, -1.7, 0.2]),),
        (),
        ((np.array([0.5, 1.0]), diagonals((0, 1), (1,))),),
    ),
}

WRONG = {
    "Hinge": (lambda: prox.Hinge(Y3, -1.0), r"prox.Hinge\(weight=...\).*: weight is -1"),
    "Hinge, labels": (lambda: prox.Hinge(Y3).prox(np.ones(2), 1.0), r"Hinge\(labels=...\).*\(3,\).*\(2,\)"),
    "SquaredHinge": (lambda: prox.SquaredHinge(Y3, -1.0), ": weight is -1"),
    "SmoothedHinge, weight": (lambda: prox.SmoothedHinge(Y3, 1.0, -1.0), ": weight is -1"),
    "SmoothedHinge, width": (lambda: prox.SmoothedHinge(Y3, 0.0), "smoothing is 0, and must be positive"),
    "Logistic": (lambda: prox.Logistic(Y3, -1.0), ": weight is -1"),
    "Logistic, complex": (lambda: prox.Logistic(Y3)(1j * Y3), "complex128"),
    "CrossEntropy, weight": (lambda: prox.CrossEntropy(Y3 * Y3, 0.0), ": weight is 0"),
    "CrossEntropy, labels": (lambda: prox.CrossEntropy(Y3), "the smallest of labels is -1"),
    "CrossEntropy, shape": (lambda: prox.CrossEntropy(np.ones(2))(Y3), r"labels=...\).*\(2,\).*\(3,\)"),
    "KL, target": (lambda: prox.KL(-1.0), ": target is -1"),
    "KL, weight": (lambda: prox.KL(1.0, 0.0), ": weight is 0"),
    "LogBarrier": (lambda: prox.LogBarrier(0.0), ": weight is 0"),
    "Entropy, weight": (lambda: prox.Entropy(0.0), ": weight is 0"),
    "Entropy, total": (lambda: prox.Entropy(1.0, 0.0), ": total is 0"),
    "DistanceTo, set": (lambda: prox.DistanceTo(prox.L1(1.0)), r"prox.DistanceTo\(set, weight\).*set is a L1"),
    "DistanceTo, weight": (lambda: prox.DistanceTo(prox.Nonnegative(), -1.0), ": weight is -1"),
    "SquaredDistanceTo, set": (lambda: prox.SquaredDistanceTo(abs), "set is a builtin"),
    "SquaredDistanceTo, weight": (lambda: prox.SquaredDistanceTo(prox.Nonnegative(), -1.0), ": weight is -1"),
    "activation, name": (lambda: prox.activation("gelu"), "names are elu, hard_tanh, relu"),
    "activation, selection": (lambda: prox.activation("tanh", selection=0.5), "tanh has no kink"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values()) | {"prox.Activation"}
