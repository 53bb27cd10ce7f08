"""What a guard costs: a derivative with each guard, against the same derivative with the default one.

z = relu(W z + b) is solved exactly by construction, with k entries on the kink, so that only the derivative is timed.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.report import Table, clock

CASES = (("dense", 500, 8, nsi.linear_solvers.Dense(), 1.3), ("Krylov", 2000, 4, nsi.linear_solvers.GMRES(), 4 + 1.5))
REPEATS = 11


def problem(n: int, k: int):
    """A matrix of norm below one, a solution with half of its entries zero, k of them on the kink, and its b."""
    rng = np.random.default_rng(0)
    W = 0.3 * rng.normal(size=(n, n)) / np.sqrt(n)
    z = np.where(np.arange(n) < n // 2, np.abs(rng.normal(size=n)) + 0.1, 0)
    before = np.where(z > 0, z, -np.abs(rng.normal(size=n)) - 0.1)
    z[:k] = before[:k] = 0
    return W, z, before - W @ z


def gradient(linear_solver, guard, z):
    derivative = nsi.derivatives.Implicit(linear_solver=linear_solver, guard=guard)

    def loss(b, W):
        layer = nsi.custom_fixed_point(lambda z, b, W: nsi.relu(W @ z + b), init_argnum=None, derivative=derivative)
        return jnp.sum(layer(lambda b, W: z)(b, W) ** 2)

    return jax.jit(jax.grad(loss))


def measure() -> Table:
    table = Table("What does a guard cost? A gradient through z = relu(W z + b), float64, next to the default guard.")
    with jax.enable_x64(True):
        for name, n, k, linear_solver, most in CASES:
            W, z, b = map(jnp.asarray, problem(n, k))
            guards = {
                "Off": nsi.guards.Off(),
                "Solved": nsi.guards.Solved(),
                "AllSelections": nsi.guards.AllSelections(max_kinks=k, on_undecided="fail"),
            }
            calls = {word: gradient(linear_solver, guard, z) for word, guard in guards.items()}
            values = {word: call(b, W) for word, call in calls.items()}
            assert all(bool(jnp.isfinite(value).all()) for value in values.values()), "a guard refused a regular system"
            times: dict[str, list[float]] = {word: [] for word in calls}
            for _ in range(REPEATS):  # interleaved, so that a busy moment hits all of them
                for word, call in calls.items():
                    times[word] += clock(lambda call=call, b=b, W=W: call(b, W), 1)
            usual = statistics.median(times["Solved"])
            for word, seconds in times.items():
                ratio = statistics.median(seconds) / usual
                row = {"linear solver": name, "unknowns": n, "active kinks": k, "guard": word}
                row |= {"median ms": statistics.median(seconds) * 1e3, "times default": ratio, "bound": ""}
                if word == "AllSelections":
                    row["bound"] = table.bound(f"AllSelections, {name}", ratio, most)
                table.rows.append(row)
    return table
