"""An exact breakpoint of the Lasso path: both one-sided derivatives, and the selection that gives each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from main_job_problem import SPLITTINGS, sklearn_lasso, solve
from sklearn.linear_model import lars_path

import nsimplicit as nsi


class Knot(NamedTuple):
    """A weight at which one coefficient is zero and about to leave zero."""

    weight: float
    beta: np.ndarray  # on the columns that matter, E: the support and the entering one
    entering: int  # its place in E
    columns: np.ndarray  # E
    signs: np.ndarray  # of X_E' (y - X beta), which is weight * signs


def find_knot(data):
    """The most isolated knot at which a coefficient joins at least two others; solved for in closed form."""
    X, y = np.asarray(data.X), np.asarray(data.y)
    alphas, _, coefs = lars_path(X, y, method="lasso", max_iter=20)
    joins = [
        k
        for k in range(1, len(alphas) - 1)
        if np.sum(coefs[:, k] != 0) >= 2 and np.sum((coefs[:, k] == 0) & (coefs[:, k + 1] != 0)) == 1
    ]
    k = max(joins, key=lambda k: min(alphas[k - 1] - alphas[k], alphas[k] - alphas[k + 1]) / alphas[0])
    support = np.flatnonzero(coefs[:, k])
    entering = int(np.flatnonzero((coefs[:, k] == 0) & (coefs[:, k + 1] != 0))[0])

    # On this stretch beta_S = a - weight b, so the entering correlation is c + weight d, and it reaches +-weight.
    gram = X[:, support].T @ X[:, support]
    signs = np.sign(coefs[support, k])
    a, b = np.linalg.solve(gram, X[:, support].T @ y), np.linalg.solve(gram, signs)
    c, d = X[:, entering] @ (y - X[:, support] @ a), X[:, entering] @ (X[:, support] @ b)
    sign = np.sign(c + alphas[k] * len(y) * d)
    weight = c / (sign - d)
    columns = np.append(support, entering)
    return Knot(float(weight), np.append(a - weight * b, 0.0), len(support), columns, np.append(signs, sign))


def recentred(weight, knot, gram, step, selection):
    """Forward-backward for the Lasso of the columns E, in delta = beta - knot.beta.

    A kink is hit in floating point only if the two numbers it compares are the same to the last bit. In
    X'(y - X beta) rounding decides, and the derivative is one of the two one-sided ones by luck. Around the knot
    the gradient is gram delta - knot.weight * signs, so at delta = 0 the entering coefficient compares
    step * weight with step * weight. ``knot`` is rounded to a grid (see ``on_grid``) so that the other
    coefficients, whose prox adds and subtracts step * weight, come back to delta = 0 exactly.
    """
    f = nsi.prox.Quadratic(gram, -knot.weight * knot.signs)
    g = nsi.prox.Translate(nsi.prox.L1(weight, selection=selection), -knot.beta)
    return nsi.splittings.ForwardBackward(f, g, step)


def on_grid(knot, bits=30):
    """The knot with its numbers rounded to multiples of 2^-30: sums of them with few more bits are exact."""
    rounded = [np.round(np.asarray(x) * 2.0**bits) / 2.0**bits for x in (knot.weight, knot.beta)]
    return knot._replace(weight=float(rounded[0]), beta=rounded[1])


def slope_at_knot(data, knot, selection):
    """dbeta_E/dweight at the knot with this selection of the kink."""
    knot = on_grid(knot)
    X = np.asarray(data.X)[:, knot.columns]
    gram = X.T @ X
    step = 2.0 ** np.floor(np.log2(1 / np.linalg.eigvalsh(gram)[-1]))

    def delta(weight):
        return nsi.fixed_point(recentred(weight, knot, gram, step, selection), jnp.zeros(len(knot.beta))).value

    assert not np.any(delta(knot.weight)), "the knot is not a fixed point to the last bit"
    return np.asarray(jax.jacrev(delta)(knot.weight))


def breakpoint_of(data):
    """Both one-sided derivatives, by scikit-learn and by selections; and the path around the knot for the figure."""
    knot = find_knot(data)
    X, y = np.asarray(data.X), np.asarray(data.y)

    def path(weight):
        return sklearn_lasso(X, y, weight)[knot.columns]

    h = 1e-4 * knot.weight
    at = path(knot.weight)
    sides = {"left": (at - path(knot.weight - h)) / h, "right": (path(knot.weight + h) - at) / h}
    weights = knot.weight * np.linspace(0.75, 1.25, 41)
    return {
        "knot": knot,
        "sides": sides,
        "selected": {q: slope_at_knot(data, knot, q) for q in (0.0, 0.5, 1.0)},
        "program": {name: slope_of_program(data, knot, make) for name, make in SPLITTINGS.items()},
        "weights": weights,
        "path": np.array([path(w) for w in weights]),
    }


def slope_of_program(data, knot, make):
    """dbeta_E/dweight at the knot of the problem as it stands, where rounding decides which side of the kink it is."""
    slope = jax.jit(jax.jacfwd(lambda w, data: solve(make, w, jnp.zeros(data.X.shape[1]), data).value))
    return np.asarray(slope(knot.weight, data))[knot.columns]
