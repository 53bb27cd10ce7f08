"""Differentiate a Lasso: how its coefficients and its held-out error move with the penalty, on real data.

You learn: put a problem together from a smooth and a nonsmooth term (a splitting), solve it to a fixed point, and
differentiate the answer. Forward mode for one hyperparameter, reverse mode for ten, and an exact check of both.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from sklearn.model_selection import train_test_split

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)

data = load_diabetes()
X, X_test, y, y_test = train_test_split(data.data * len(data.data) ** 0.5, data.target, random_state=0)
X, X_test, y, y_test = map(jnp.asarray, (X, X_test, y - y.mean(), y_test - y.mean()))


@jax.jit
def lasso(weight):
    """argmin ½‖Xb - y‖² + Σ weight·|b|, for one weight or one per coefficient."""
    problem = nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(X, y), nsi.prox.L1(weight))
    return nsi.fixed_point(problem, jnp.zeros(X.shape[1]), solver=nsi.solvers.Nesterov(), tol=1e-13).value


def held_out_error(weight):
    return jnp.mean((X_test @ lasso(weight) - y_test) ** 2)


weight = 1000.0
b = lasso(weight)
reference = Lasso(alpha=weight / len(X), fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_

# Forward mode: one hyperparameter moves ten coefficients.
_, slope = jax.jvp(lasso, (weight,), (1.0,))

# Where b is not 0 the signs are locally constant, X_Sᵀ(X_S b_S - y) + weight·sign(b_S) = 0, and so, in closed form:
S = np.flatnonzero(b)
closed = np.zeros(len(b))
closed[S] = -np.linalg.solve(X[:, S].T @ X[:, S], np.sign(b[S]))

# Reverse mode: ten penalties, one for each coefficient, move one error.
gradient = jax.grad(held_out_error)(jnp.full(len(b), weight))
total = jax.grad(held_out_error)(weight)

print("     coefficient  scikit-learn  |  its derivative  closed form  |  derivative of the error in its weight")
for name, *row in zip(data.feature_names, b, reference, slope, closed, gradient, strict=True):
    print("{:4}{:12.5f}{:14.5f}  |{:16.6f}{:13.6f}  |{:15.6f}".format(name, *(x + 0 for x in row)))
print(f"held-out error {held_out_error(weight):.3f}; its derivative in the common weight, their sum:{total:9.6f}\n")

assert np.allclose(b, reference, atol=1e-8)
assert np.allclose(slope, closed, rtol=1e-10, atol=0)
assert np.isclose(total, gradient.sum(), rtol=1e-10)
# While no coefficient enters or leaves, the error is quadratic in the weight, and central differences are exact.
assert np.isclose(total, (held_out_error(weight + 1) - held_out_error(weight - 1)) / 2, rtol=1e-8)
assert np.all(gradient[np.setdiff1d(np.arange(len(b)), S)] == 0)
