"""One row per splitting, solver and derivative mode, and small problems whose answers have closed forms.

Every problem is piecewise smooth with a known solution: it is found by trying all sign patterns (or
recognised by its optimality conditions), and its derivative follows from the pattern. Nothing here
iterates, so nothing here shares an idea with the package.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi

COVERED = frozenset(
    """fixed_point root Solution
    splittings.Splitting splittings.ForwardBackward splittings.DouglasRachford splittings.ADMM
    splittings.DavisYin splittings.ChambollePock
    solvers.Solver solvers.Picard solvers.Anderson solvers.Broyden solvers.Nesterov solvers.SemismoothNewton
    derivatives.Derivative derivatives.Implicit derivatives.Unrolled derivatives.Piggyback derivatives.Truncated
    derivatives.OneStep derivatives.Neumann
    testing.check_prox testing.check_projection testing.check_solver testing.check_splitting""".split()
)

prox, solvers, splittings, derivatives = nsi.prox, nsi.solvers, nsi.splittings, nsi.derivatives


@dataclasses.dataclass(frozen=True)
class Problem:
    """A splitting of a problem with parameters theta = (weight, data), and its answer by other means.

    Args:
        make: ``(weight, data) -> splitting``.
        z0: a starting point.
        theta: the parameters.
        solution: the solution x, exact to rounding.
        tangent: ``(d_weight, d_data) -> dx``, exact to rounding.
    """

    make: Callable[[Any, Any], Any]
    z0: Any
    theta: tuple[Any, Any]
    solution: np.ndarray
    tangent: Callable[[Any, Any], np.ndarray]


def spectrum(m, n, condition, seed):
    """An (m, n) matrix, m >= n, whose squared singular values run from 1 to ``condition``."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(m, n)))
    right, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return left * np.sqrt(np.linspace(1, condition, n)) @ right


CONDITION = 4.0
MATRIX = spectrum(12, 6, CONDITION, 0)
DATA = MATRIX @ np.array([2.0, -2.0, 1.5, 0.0, 0.0, 0.0]) + 0.3 * np.random.default_rng(1).normal(size=12)
WEIGHT = 0.5
BEST_STEP = 2 / (1 + CONDITION)  # forward-backward on the Lasso below: 2/(mu + L)
BEST_PENALTY = CONDITION**0.5  # Douglas-Rachford's best step is 1/sqrt(mu L), ADMM's penalty its inverse


def lasso_answer(weight, data):
    """The Lasso by trying every support and sign pattern; also its derivative on the support."""
    gram, correlation = MATRIX.T @ MATRIX, MATRIX.T @ data
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        signs = np.array(signs)
        on = signs != 0
        x = np.zeros(6)
        x[on] = np.linalg.solve(gram[np.ix_(on, on)], correlation[on] - weight * signs[on])
        slope = correlation - gram @ x
        # 0.01 inside: the pattern must hold in a neighbourhood for the derivative to exist
        if np.all(x[on] * signs[on] > 0.01) and np.all(abs(slope[~on]) < weight - 0.01):
            break
    else:
        raise AssertionError("no sign pattern fits: choose other data")

    def tangent(d_weight, d_data):
        dx = np.zeros(6)
        dx[on] = np.linalg.solve(gram[np.ix_(on, on)], (MATRIX.T @ d_data)[on] - d_weight * signs[on])
        return dx

    return x, tangent


DIFFERENCES = np.diff(np.eye(7), n=2, axis=0)  # second differences: full row rank, 5 x 7
SIGNAL = np.array([0.0, 1.1, 1.9, 3.1, 2.2, 0.8, 0.3])
TREND_WEIGHT = 0.3


def trend_answer(weight, data):
    """Trend filtering, min ½‖u - y‖² + weight·‖D u‖₁, by trying every pattern of signs of D u.

    With I the rows where D u = 0 and P the projection onto the kernel of D_I:
    u = P (y - weight·D_Aᵀ sign), hence du = P (dy - d_weight·D_Aᵀ sign).
    """
    D = DIFFERENCES
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=5):
        signs = np.array(signs)
        flat = D[signs == 0]
        P = np.eye(7) - flat.T @ np.linalg.solve(flat @ flat.T, flat)
        u = P @ (data - weight * D.T @ signs)
        dual = np.linalg.solve(D @ D.T, D @ (data - u))
        bent = D @ u
        if np.all(bent * signs >= 0.01 * signs**2) and np.all(abs(dual[signs == 0]) < weight - 0.01):
            break
    else:
        raise AssertionError("no sign pattern fits: choose other data")
    return u, lambda d_weight, d_data: P @ (d_data - d_weight * D.T @ signs)


CAP = 1.2


def capped_lasso_answer(weight, data):
    """The Lasso with |x| <= CAP by trying every pattern: an entry is free with a sign, zero, or at a bound."""
    gram, correlation = MATRIX.T @ MATRIX, MATRIX.T @ data
    for pattern in itertools.product((0.0, -1.0, 1.0, -CAP, CAP), repeat=6):
        pattern = np.array(pattern)
        on, signs = abs(pattern) == 1, np.sign(pattern)
        x = np.where(on, 0.0, pattern)
        x[on] = np.linalg.solve(gram[np.ix_(on, on)], (correlation - gram @ x - weight * signs)[on])
        slope, capped = correlation - gram @ x, abs(pattern) == CAP
        inside = np.all((abs(x[on]) < CAP - 0.01) & (x[on] * signs[on] > 0.01))
        if inside and np.all(slope[capped] * signs[capped] > weight + 0.01):
            if np.all(abs(slope[pattern == 0]) < weight - 0.01):
                break
    else:
        raise AssertionError("no pattern fits: choose other data")

    def tangent(d_weight, d_data):
        dx = np.zeros(6)
        dx[on] = np.linalg.solve(gram[np.ix_(on, on)], (MATRIX.T @ d_data)[on] - d_weight * signs[on])
        return dx

    return x, tangent


COVARIANCE = np.array([[1.0, 0.5, 0.1, 0.0], [0.5, 1.5, 0.05, -0.4], [0.1, 0.05, 0.8, 0.1], [0.0, -0.4, 0.1, 1.2]])
COVARIANCE_WEIGHT = 0.2


def covariance_answer(weight, data):
    """Sparse inverse covariance, min -logdet X + <C, X> + weight·‖X‖₁, by Newton on each sign pattern.

    On the support S of X the equation is (X⁻¹ - C)_S = weight·sign, with derivative
    (X⁻¹ dX X⁻¹)_S = -(dC + d_weight·sign)_S.
    """
    n = len(data)
    upper = [(i, j) for i in range(n) for j in range(i + 1, n)]

    def solve(X, right, on):
        inverse = np.linalg.inv(X)
        system = np.kron(inverse, inverse)[np.ix_(on.ravel(), on.ravel())]
        out = np.zeros(n * n)
        out[on.ravel()] = np.linalg.solve(system, right.ravel()[on.ravel()])
        return out.reshape(n, n)

    for pattern in itertools.product((0.0, -1.0, 1.0), repeat=len(upper)):
        signs = np.eye(n)
        for (i, j), s in zip(upper, pattern, strict=True):
            signs[i, j] = signs[j, i] = s
        on, X = signs != 0, np.diag(1 / (np.diag(data) + weight))
        for _ in range(30):
            X = X + solve(X, np.linalg.inv(X) - data - weight * signs, on)
            if np.linalg.eigvalsh(X)[0] <= 0:
                break
        else:
            slack = abs(np.linalg.inv(X) - data)[~on]
            if np.all(X[on] * signs[on] > 0.01) and np.all(slack < weight - 0.01):
                break
    else:
        raise AssertionError("no sign pattern fits: choose other data")
    return X, lambda d_weight, d_data: -solve(X, d_data + d_weight * signs, on)


def problem(make, z0, weight, data, answer):
    return Problem(make, jax.tree.map(jnp.asarray, z0), (jnp.asarray(weight), jnp.asarray(data)), *answer(weight, data))


def lasso(make):
    return problem(make, np.zeros(6), WEIGHT, DATA, lasso_answer)


def least_squares(data):
    return prox.LeastSquares(jnp.asarray(MATRIX), data)


def douglas_rachford(relaxation):
    return lambda w, b: splittings.DouglasRachford(least_squares(b), prox.L1(w), 1 / BEST_PENALTY, relaxation)


def davis_yin(order, relaxation):
    def make(w, b):
        g, h = (prox.L1(w), prox.Box(-CAP, CAP))[::order]
        return splittings.DavisYin(least_squares(b), g, h, BEST_STEP, relaxation)

    return lambda: problem(make, np.zeros(6), WEIGHT, DATA, capped_lasso_answer)


def trend(make):
    return problem(make, (np.zeros(7), np.zeros(5)), TREND_WEIGHT, SIGNAL, trend_answer)


def second_differences(x):
    return jnp.diff(x, n=2)


PROBLEMS = {
    "FB lasso": lambda: lasso(lambda w, b: splittings.ForwardBackward(least_squares(b), prox.L1(w), BEST_STEP)),
    "DR lasso": lambda: lasso(douglas_rachford(1.0)),
    "DR lasso, relaxation 1.5": lambda: lasso(douglas_rachford(1.5)),
    "PR lasso": lambda: lasso(douglas_rachford(2.0)),
    "ADMM lasso": lambda: lasso(lambda w, b: splittings.ADMM(least_squares(b), prox.L1(w), step=BEST_PENALTY)),
    "ADMM trend filtering": lambda: problem(
        lambda w, y: splittings.ADMM(
            prox.LeastSquares(jnp.eye(7), y), prox.L1(w), A=jnp.asarray(DIFFERENCES), step=1.0
        ),
        np.zeros(5),
        TREND_WEIGHT,
        SIGNAL,
        trend_answer,
    ),
    "DR inverse covariance": lambda: problem(
        lambda w, C: splittings.DouglasRachford(prox.LogDet(C), prox.L1(w), 0.5),
        np.eye(4),
        COVARIANCE_WEIGHT,
        COVARIANCE,
        covariance_answer,
    ),
    "ADMM inverse covariance": lambda: problem(
        lambda w, C: splittings.ADMM(prox.LogDet(C), prox.L1(w), step=2.0),
        np.eye(4),
        COVARIANCE_WEIGHT,
        COVARIANCE,
        covariance_answer,
    ),
    "DY capped lasso": davis_yin(1, 1.0),
    "DY capped lasso, exchanged and relaxed": davis_yin(-1, 1.2),
    "CP lasso": lambda: problem(
        lambda w, b: splittings.ChambollePock(prox.L1(w), prox.Quadratic(1.0, -b), jnp.asarray(MATRIX)),
        (np.zeros(6), np.zeros(12)),
        WEIGHT,
        DATA,
        lasso_answer,
    ),
    "CP trend filtering": lambda: trend(
        lambda w, y: splittings.ChambollePock(
            prox.Quadratic(1.0, -y), prox.L1(w), jnp.asarray(DIFFERENCES), tau=0.5, theta=0.9
        )
    ),
    "CP trend filtering by a function": lambda: trend(
        lambda w, y: splittings.ChambollePock(
            prox.LeastSquares(jnp.eye(7), y), prox.L1(w), second_differences, sigma=0.1
        )
    ),
}
"""Each is built when a test asks for it."""

SOLVERS = {
    "Picard": solvers.Picard(),
    "Picard, relaxed": solvers.Picard(0.8),
    "Anderson": solvers.Anderson(),
    "Broyden": solvers.Broyden(),
    "Nesterov": solvers.Nesterov(),
    "SemismoothNewton": solvers.SemismoothNewton(),
}

STEPS = {
    "Picard": 200,
    "Picard, relaxed": 250,
    "Anderson": 150,
    "Broyden": 150,
    "Nesterov": 250,
    "SemismoothNewton": 40,
}
"""Steps well past convergence on each of the problems: the last hundred change nothing but rounding."""

DERIVATIVES = {
    "Implicit": lambda solver: derivatives.Implicit(),
    "Unrolled": lambda solver: derivatives.Unrolled(STEPS[solver]),
    "Unrolled, checkpoint": lambda solver: derivatives.Unrolled(STEPS[solver], checkpoint=True),
    "Piggyback": lambda solver: derivatives.Piggyback(),
    "Truncated": lambda solver: derivatives.Truncated(2 if solver == "SemismoothNewton" else 150),
    "OneStep": lambda solver: derivatives.OneStep(),
    "Neumann": lambda solver: derivatives.Neumann(150),
}
"""The mode, for a solver; with enough steps or terms that the contraction of every problem leaves rounding."""

FORWARD_ONLY = frozenset({"Piggyback"})
FIRST_ORDER = frozenset({"Piggyback", "Truncated", "OneStep", "Neumann"})

QUICK = {"xla_backend_optimization_level": 0}
"""Compiler options of the tests: most of their time is spent in the compiler."""
