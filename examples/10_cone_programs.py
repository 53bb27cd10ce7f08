"""Cone programs: a robust portfolio, a nearest correlation matrix, logistic regression.

You learn: how a problem becomes `A x + s = b` with s in cones, for `nsi.layers.cone_program`: a second-order cone, a
semidefinite one, exponential ones; and what its derivative is good for. Each is checked against what is known of it.
"""

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)

# A portfolio for uncertain returns: min -mu'w + kappa·norm(L'w), w >= 0, sum(w) = 1. With a bound t on the norm,
# (t, L'w) is in a second-order cone. The layer learns kappa: the caution that would have paid.
assets = 8
returns = rng.normal(size=(60, assets)) @ np.diag(np.linspace(0.5, 2.0, assets)) + np.linspace(0.1, 0.3, assets)
mu, L = returns[:30].mean(0), np.linalg.cholesky(np.cov(returns[:30].T))
later = jnp.asarray(returns[30:])


def portfolio(kappa):
    zero, eye = jnp.zeros((assets, 1)), jnp.eye(assets)
    A = jnp.block([[jnp.ones((1, assets)), jnp.zeros((1, 1))], [-eye, zero]])
    A = jnp.concatenate([A, jnp.zeros((1, assets + 1)).at[0, assets].set(-1.0), jnp.hstack([-L.T, zero])])
    b = jnp.zeros(len(A)).at[0].set(1.0)
    found = nsi.layers.cone_program(A, b, jnp.append(-mu, kappa), {"z": 1, "l": assets, "q": [assets + 1]})
    return found.value[:assets], found.status


@jax.jit
@jax.value_and_grad
def regret(log_kappa):
    """Later risk less later return, of the portfolio chosen before."""
    earned = later @ portfolio(jnp.exp(log_kappa))[0]
    return earned.std() - earned.mean()


log_kappa, values = jnp.array(-1.5), []
for _ in range(30):
    value, slope = regret(log_kappa)
    values.append(float(value))
    log_kappa -= 2.0 * slope
w, status = portfolio(jnp.exp(log_kappa))
print(f"portfolio: caution {jnp.exp(-1.5):.2f} -> {jnp.exp(log_kappa):.2f}, regret {values[0]:.4f} -> {values[-1]:.4f}")
print("           weights", w.round(3) + 0.0)
assert status == 1 and values[-1] < values[0]
ahead, behind = (regret(log_kappa + h)[0] for h in (1e-5, -1e-5))
np.testing.assert_allclose(regret(log_kappa)[1], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-9)

# The nearest correlation matrix: min ½‖X - C‖², diag(X) = 1, X positive semidefinite. A matrix is its lower triangle,
# column by column, entries off the diagonal times sqrt(2): then ½‖x - c‖² is the objective, P the identity.
n = 4
columns, rows = np.triu_indices(n)
diagonal = np.flatnonzero(rows == columns)
weights = np.where(rows == columns, 1.0, np.sqrt(2))


def nearest(C):
    c = weights * C[rows, columns]
    size = len(c)
    A = jnp.concatenate([jnp.eye(size)[diagonal], -jnp.eye(size)])
    b = jnp.concatenate([jnp.ones(n), jnp.zeros(size)])
    found = nsi.layers.cone_program(A, b, -c, {"z": n, "s": [n]}, P=jnp.eye(size))
    entries = found.value / weights
    return jnp.zeros((n, n)).at[rows, columns].set(entries).at[columns, rows].set(entries)


C = jnp.array([[1.0, 0.9, 0.2, -0.6], [0.9, 1.0, 0.8, 0.1], [0.2, 0.8, 1.0, 0.7], [-0.6, 0.1, 0.7, 1.0]])
X, push = jax.linearize(jax.jit(nearest), C)
print("nearest correlation matrix of one whose eigenvalues are", jnp.linalg.eigvalsh(C).round(3))
print(X.round(3))
E = jnp.zeros((n, n)).at[0, 3].set(1.0).at[3, 0].set(1.0)
np.testing.assert_allclose(jnp.diagonal(X), 1, atol=1e-9)
np.testing.assert_allclose(push(E), (nearest(C + 1e-5 * E) - nearest(C - 1e-5 * E)) / 2e-5, atol=1e-6)

# Logistic regression: min sum(t) + lam/2‖theta‖², t >= log(1 + exp(u)), u = -label·(feature'theta). That is
# exp(u - t) + exp(-t) <= 1: two exponential cones (u - t, 1, p), (-t, 1, q) and p + q <= 1 for each sample.
samples, features = 15, 2
X_train = rng.normal(size=(samples, features))
labels = np.where(X_train @ np.array([1.0, -2.0]) + rng.normal(size=samples) > 0, 1.0, -1.0)
Z = -labels[:, None] * X_train


@jax.jit
def logistic(lam):
    eye, none = np.eye(samples), np.zeros((samples, samples))
    zero = np.zeros((samples, features))
    sums = np.hstack([zero, none, eye, eye])  # the variables are theta, t, p, q
    first = np.stack([np.hstack([-Z, eye, none, none]), 0 * sums, np.hstack([zero, none, -eye, none])], 1)
    second = np.stack([np.hstack([zero, eye, none, none]), 0 * sums, np.hstack([zero, none, none, -eye])], 1)
    A = np.concatenate([sums, first.reshape(-1, sums.shape[1]), second.reshape(-1, sums.shape[1])])
    b = np.concatenate([np.ones(samples), np.tile([0.0, 1.0, 0.0], 2 * samples)])
    P = lam * jnp.diag(jnp.arange(A.shape[1]) < features)
    c = np.concatenate([np.zeros(features), np.ones(samples), np.zeros(2 * samples)])
    return nsi.layers.cone_program(A, b, c, {"l": samples, "ep": 2 * samples}, P=P).value[:features]


theta, slope = jax.jvp(logistic, (0.5,), (1.0,))
share = jax.nn.sigmoid(Z @ theta)
hessian = Z.T @ ((share * (1 - share))[:, None] * Z) + 0.5 * np.eye(features)
print("logistic regression: theta", theta.round(4), "and its derivative in the penalty", slope.round(4))
np.testing.assert_allclose(Z.T @ share + 0.5 * theta, 0, atol=1e-7)
np.testing.assert_allclose(slope, -np.linalg.solve(hessian, theta), rtol=1e-6)
