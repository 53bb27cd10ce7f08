"""Differentiate solvers that JAX cannot see into: scikit-learn's and SciPy's.

You learn: `nsi.host` makes a NumPy function callable under jit and vmap; `custom_root` and `custom_fixed_point` give
it the derivative of the equation its answer satisfies, in both modes and every order; told which splitting a solution
belongs to, they solve the tangent system by its structure. The solver may iterate, branch or call Fortran: it is run,
never differentiated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import Lasso, LogisticRegression

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)
X, y = load_breast_cancer(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
sign = 2.0 * y - 1


# scikit-learn. The equation of ridge-penalised logistic regression is that its gradient vanishes.
def gradient(w, penalty):
    return jax.grad(lambda w: jnp.sum(jnp.logaddexp(0, -sign * (X @ w))) + penalty * w @ w / 2)(w)


def fit(penalty):
    model = LogisticRegression(C=1 / float(penalty), fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    return model.fit(X, y).coef_[0]


logistic = nsi.custom_root(gradient, init_argnum=None)(nsi.host(fit, like=jnp.zeros(X.shape[1])))


def size(penalty):
    return jnp.sum(logistic(penalty) ** 2)


penalties = jnp.array([1.0, 10.0, 100.0])
slopes = jax.jit(jax.vmap(jax.grad(size)))(penalties)
differences = (jax.vmap(size)(1.01 * penalties) - jax.vmap(size)(0.99 * penalties)) / (0.02 * penalties)
print("scikit-learn's LogisticRegression, |w|² against the penalty")
print(f"  {'penalty':>8} {'derivative':>12} {'difference quotient':>20}")
for row in zip(penalties, slopes, differences, strict=True):
    print("  {:8.0f} {:12.6f} {:20.6f}".format(*map(float, row)))
assert jnp.allclose(slopes, differences, rtol=1e-3)  # the quotient's own error is about 1e-4


# SciPy. Kepler's equation, x - e sin x = M, by Brent's method: a bracket and no derivatives.
def find(e, M):
    return np.asarray(scipy.optimize.brentq(lambda x: x - e * np.sin(x) - M, M - 1, M + 1, xtol=1e-14))


anomaly = nsi.custom_root(lambda x, e, M: x - e * jnp.sin(x) - M, init_argnum=None)(nsi.host(find, like=lambda e, M: M))

e, M = 0.3, 1.2
x = anomaly(e, M)
first, second = jax.grad(anomaly, argnums=1)(e, M), jax.grad(jax.grad(anomaly, argnums=1), argnums=1)(e, M)
rate = 1 / (1 - e * jnp.cos(x))  # by hand
print(f"\nSciPy's brentq on Kepler's equation\n  dx/dM   {first:.12f}   by hand {rate:.12f}")
print(f"  d²x/dM² {second:.12f}   by hand {-e * jnp.sin(x) * rate**3:.12f}")
assert jnp.allclose(first, rate, rtol=1e-12) and jnp.allclose(second, -e * jnp.sin(x) * rate**3, rtol=1e-12)


# scikit-learn again. With the class of a splitting for an equation, the solution's structure is known: the derivative
# of a Lasso factors a matrix of its support, however many features there are.
def sparse_fit(A, b, weight):
    model = Lasso(alpha=float(weight) / len(b), fit_intercept=False, tol=1e-12, max_iter=10**5)
    return model.fit(A, b).coef_


@nsi.custom_fixed_point(nsi.splittings.ForwardBackward)
def lasso(x0, f, g):
    return nsi.host(sparse_fit, like=x0)(f.A, f.b, g.weight)


def fitted(weight):
    x = lasso(jnp.zeros(X.shape[1]), nsi.prox.LeastSquares(X, sign), nsi.prox.L1(weight))
    return jnp.sum(x**2)


slope, quotient = jax.jit(jax.grad(fitted))(20.0), (fitted(20.01) - fitted(19.99)) / 0.02
print(f"\nscikit-learn's Lasso, d|x|²/dweight\n  {slope:.8f}   difference quotient {quotient:.8f}")
assert jnp.allclose(slope, quotient, rtol=1e-4)


# A solver that solves another problem than its equation (here: another scaling) cannot hide.
wrong = nsi.custom_root(lambda w, penalty: gradient(w, 5 * penalty), init_argnum=None)(
    nsi.host(fit, like=jnp.zeros(X.shape[1]))
)
print(f"\n{nsi.diagnose(wrong)(10.0)}")
assert nsi.diagnose(wrong)(10.0).verdict == "unconverged" and nsi.diagnose(logistic)(10.0).verdict == "fine"
