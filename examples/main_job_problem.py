"""The problem of the main job: the data, the three splittings, and the references that share no code with them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from sklearn.model_selection import train_test_split

import nsimplicit as nsi

TOLERANCE = 1e-12
IMPLICIT = nsi.derivatives.Implicit()


class Data(NamedTuple):
    """Standardised; the held-out half in the units of the training half."""

    X: jax.Array
    y: jax.Array
    X_held: jax.Array
    y_held: jax.Array
    mu: jax.Array  # smallest eigenvalue of X_S' X_S on the support S at the weight that is compared
    L: jax.Array  # largest eigenvalue of X' X


def load(features: int) -> Data:
    """The study, and beyond its ten measurements cosines of random combinations of them."""
    X, y = load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    rng = np.random.default_rng(0)
    frequencies = rng.normal(0.0, 2.0, (X.shape[1], max(0, features - X.shape[1])))
    phases = rng.uniform(0.0, 2 * np.pi, frequencies.shape[1])
    X = np.concatenate([X, np.cos(X @ frequencies + phases)], axis=1)[:, :features]
    X, X_held, y, y_held = train_test_split(X, y, test_size=0.5, random_state=0)
    mean, scale = X.mean(0), X.std(0)
    X, X_held = (X - mean) / scale, (X_held - mean) / scale
    y, y_held = (y - y.mean()) / y.std(), (y_held - y.mean()) / y.std()
    small = X @ X.T if X.shape[0] < X.shape[1] else X.T @ X  # never features x features
    L = np.linalg.eigvalsh(small)[-1]
    support = np.flatnonzero(sklearn_lasso(X, y, compared_weight(X, y)))
    mu = np.linalg.eigvalsh(X[:, support].T @ X[:, support])[0]
    return Data(*map(jnp.asarray, (X, y, X_held, y_held, mu, L)))


def largest_weight(X, y):
    """From here on the solution is zero."""
    return float(np.max(np.abs(X.T @ y)))


def compared_weight(X, y):
    return 0.2 * largest_weight(X, y)


# The three splittings of  min_beta 1/2 |y - X beta|^2 + weight |beta|_1


def forward_backward(weight, data):
    f, g = nsi.prox.LeastSquares(data.X, data.y), nsi.prox.L1(weight)
    return nsi.splittings.ForwardBackward(f, g, step=2 / (data.mu + data.L))


def douglas_rachford(weight, data):
    f, g = nsi.prox.LeastSquares(data.X, data.y), nsi.prox.L1(weight)
    return nsi.splittings.DouglasRachford(f, g, step=1 / jnp.sqrt(data.mu * data.L))


def admm(weight, data):
    f, g = nsi.prox.LeastSquares(data.X, data.y), nsi.prox.L1(weight)
    return nsi.splittings.ADMM(f, g, step=jnp.sqrt(data.mu * data.L))


SPLITTINGS = {"forward-backward": forward_backward, "Douglas-Rachford": douglas_rachford, "ADMM": admm}


def solve(make, weight, z0, data, derivative=IMPLICIT, tol=TOLERANCE):
    return nsi.fixed_point(make(weight, data), z0, tol=tol, max_steps=20_000, derivative=derivative)


def held_out(beta, data):
    """Mean squared error on the held-out half; 1 is what predicting the mean would give on the training half."""
    return jnp.mean((data.X_held @ beta - data.y_held) ** 2)


# The references: scikit-learn and the closed form, nothing of JAX


def sklearn_lasso(X, y, weight, tol=1e-12):
    # scikit-learn minimises 1/(2 n) |y - X beta|^2 + alpha |beta|_1, so alpha = weight / n.
    model = Lasso(alpha=float(weight) / len(y), fit_intercept=False, tol=tol, max_iter=1_000_000)
    return model.fit(X, y).coef_


def closed_form(X, beta):
    """dbeta/dweight on the support, zero elsewhere."""
    support = np.flatnonzero(beta)
    slope = np.zeros_like(beta)
    slope[support] = -np.linalg.solve(X[:, support].T @ X[:, support], np.sign(beta[support]))
    return slope


def reference(data, weight):
    """d held-out error / d log weight, twice: by the closed form and by central differences of scikit-learn."""
    X, y, X_held, y_held = map(np.asarray, data[:4])
    beta = sklearn_lasso(X, y, weight)
    residual = X_held @ beta - y_held
    closed = weight * 2 * np.mean(residual * (X_held @ closed_form(X, beta)))

    # Between two knots of the path the error is a quadratic in the weight: the central difference has no error of
    # its own, so h can be large against the 1e-12 of the solutions.
    h = 1e-4 * weight
    near = [sklearn_lasso(X, y, weight + side) for side in (h, -h)]
    assert all(np.array_equal(b != 0, beta != 0) for b in near), "a knot lies within the difference"
    errors = [np.mean((X_held @ b - y_held) ** 2) for b in near]
    return beta, float(closed), float(weight * (errors[0] - errors[1]) / (2 * h))


def scan_weights(data, low, high, count=60):
    """Held-out error on a grid of weights, by scikit-learn: what the tuning should find the bottom of."""
    X, y, X_held, y_held = map(np.asarray, data[:4])
    weights = np.geomspace(low, high, count)
    errors = [np.mean((X_held @ sklearn_lasso(X, y, w, tol=1e-8) - y_held) ** 2) for w in weights]
    return {"weight": weights, "held_out_error": np.array(errors)}
