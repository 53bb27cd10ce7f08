"""Products of the backward solves of a hyperparameter descent, each started at the last adjoint or at zero."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nsimplicit as nsi
from benchmarks.report import Table

SAMPLES, FEATURES, STEPS = 120, 300, 50
CASES = ("Lasso", "elastic net", "ridge")
SOLVERS = (nsi.linear_solvers.ProxCG, nsi.linear_solvers.GMRES)
TOLERANCES = (None, 1e-6)
RATES = {"0.1": 0.1, "0.1, cosine decay": optax.cosine_decay_schedule(0.1, STEPS)}


def data():
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(FEATURES) % 20 == 0, rng.normal(size=FEATURES), 0)

    def sample():
        hidden = rng.normal(size=(SAMPLES, FEATURES))
        A = hidden + 0.7 * np.roll(hidden, 1, 1)  # neighbours are correlated
        return A, A @ truth + 0.5 * rng.normal(size=SAMPLES)

    return (*sample(), *sample())


def descent(case, linear_solver, rate, warm):
    """Steps of Adam on log weights, one compiled scan: test errors, gradients, products."""
    A, b, A_test, b_test = map(jnp.asarray, data())
    step = float(1 / jnp.linalg.norm(A, 2) ** 2)
    derivative = nsi.derivatives.Implicit(linear_solver=linear_solver)
    weights = {"Lasso": [3.0], "elastic net": [3.0, 1.0], "ridge": [1.5]}[case]  # logarithms
    optimizer = optax.adam(rate)

    def test_error(log_weights, start, tap):
        weight = jnp.exp(log_weights)
        l1, l2 = {"Lasso": (weight[0], 0.0), "elastic net": weight, "ridge": (0.0, weight[0])}[case]

        def fit(x, l2):
            return 0.5 * jnp.sum((A @ x - b) ** 2) + 0.5 * l2 * jnp.sum(x**2)

        T = nsi.splittings.ForwardBackward(nsi.smooth(fit, l2), nsi.prox.L1(l1), step / 2)
        found = nsi.fixed_point(
            T, start, solver=nsi.solvers.Nesterov(), derivative=derivative, max_steps=20000, tap=tap
        )
        return jnp.mean((A_test @ found.value - b_test) ** 2), (found.value, found.converged)

    def one(carry, _):
        log_weights, state, x, tap = carry
        (error, (x, converged)), (gradient, report) = jax.value_and_grad(test_error, (0, 2), has_aux=True)(
            log_weights, x, tap
        )
        updates, state = optimizer.update(gradient, state)
        failed = report.failed | ~converged
        out = error, gradient, report.num_steps, failed
        return (optax.apply_updates(log_weights, updates), state, x, report if warm else tap), out

    @jax.jit
    def run(log_weights):
        x = jnp.zeros(FEATURES)
        carry = log_weights, optimizer.init(log_weights), x, nsi.tap(like=x)
        return jax.lax.scan(one, carry, None, STEPS)[1]

    error, gradient, products, failed = map(np.asarray, run(jnp.asarray(weights)))
    assert not failed.any()
    return error, gradient, products


def measure() -> Table:
    table = Table(
        f"What does a warm start save? {STEPS} steps of Adam on the log weights of a fit of {FEATURES} features, "
        "float64: products of the backward solves, cold and from the last adjoint (tap(like=x))."
    )
    with jax.enable_x64(True):
        for case, solver, rtol, rate in itertools.product(CASES, SOLVERS, TOLERANCES, RATES):
            error, gradient, cold = descent(case, solver(rtol=rtol), RATES[rate], warm=False)
            _, other, warm = descent(case, solver(rtol=rtol), RATES[rate], warm=True)
            row = {"fit": case, "linear solver": solver.__name__, "rtol": rtol or "default", "rate": rate}
            row |= {
                "test error": f"{error[0]:.3g} -> {error[-1]:.3g}",
                "cold": int(cold.sum()),
                "warm": int(warm.sum()),
            }
            row |= {
                "saved": 1 - float(warm.sum() / cold.sum()),
                "in the last ten": 1 - float(warm[-10:].sum() / cold[-10:].sum()),
            }
            row["gradients apart"] = float(np.max(np.abs(other - gradient)) / np.max(np.abs(gradient)))
            table.rows.append(row)
    return table
