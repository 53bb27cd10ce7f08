"""What a guard costs: a derivative with each guard, against the same derivative with the default one, or with none.

A ratio is that of the fastest calls: a few per cent are asked for, and whatever else the machine does only slows.

z = relu(W z + b) is solved exactly by construction, with k entries on the kink, so that only the derivative is timed.
"""

import functools
import random
import statistics

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.report import Table, clock

CASES = (
    # name, unknowns, active kinks, linear solver; the most that every selection and a condition number may cost
    ("dense", 500, 8, nsi.linear_solvers.Dense(), 1.3, 1.05),
    ("Krylov", 2000, 4, nsi.linear_solvers.GMRES(), 4 + 1.5, 1.25),
)
REFERENCES = {"default": "Solved", "none": "Off"}
REPEATS = 31


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
        for name, n, k, linear_solver, most, most_conditioned in CASES:
            W, z, b = map(jnp.asarray, problem(n, k))
            guards = {
                "Off": nsi.guards.Off(),
                "Solved": nsi.guards.Solved(),
                "Conditioned": nsi.guards.Conditioned(),
                "AllSelections": nsi.guards.AllSelections(max_kinks=k, on_undecided="fail"),
            }
            calls = {word: gradient(linear_solver, guard, z) for word, guard in guards.items()}
            values = {word: call(b, W) for word, call in calls.items()}
            assert all(bool(jnp.isfinite(value).all()) for value in values.values()), "a guard refused a regular system"
            times: dict[str, list[float]] = {word: [] for word in calls}
            shuffle = random.Random(0)
            for _ in range(REPEATS):
                for word in shuffle.sample(list(calls), len(calls)):
                    times[word] += clock(functools.partial(calls[word], b, W), 1)

            fastest = {word: min(seconds) for word, seconds in times.items()}
            bounds = {
                "AllSelections": (fastest["AllSelections"] / fastest["Solved"], most),
                "Conditioned": (fastest["Conditioned"] / fastest["Off"], most_conditioned),
            }
            for word, seconds in times.items():
                row = {"linear solver": name, "unknowns": n, "active kinks": k, "guard": word}
                row |= {"median ms": statistics.median(seconds) * 1e3, "fastest ms": fastest[word] * 1e3}
                row |= {f"times {what}": fastest[word] / fastest[other] for what, other in REFERENCES.items()}
                row["bound"] = table.bound(f"{word} with {name}", *bounds[word]) if word in bounds else ""
                table.rows.append(row)
    return table
