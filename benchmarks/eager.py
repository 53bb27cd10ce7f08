"""What a call of `fixed_point` costs outside jit once it has been compiled."""

import statistics

import jax
import jax.numpy as jnp

import nsimplicit as nsi
from benchmarks.report import Table, clock, spread

MOST = 2.0  # milliseconds


def half(z, theta):
    """A contraction with the fixed point 2 theta, so small that the call itself is what is timed."""
    return 0.5 * z + theta


def solve(theta):
    return nsi.fixed_point(half, jnp.zeros_like(theta), theta, tol=1e-6).value


def measure() -> Table:
    table = Table("What does a second eager call cost? The map is a module-level function on three numbers.")
    theta = jnp.arange(3.0)
    gradient = jax.grad(lambda t: jnp.sum(solve(t)))
    for name, call, truth in (("fixed_point", solve, 2 * theta), ("its gradient", gradient, jnp.full(3, 2.0))):
        (first,) = clock(lambda call=call: call(theta), 1)
        times = clock(lambda call=call: call(theta), 51)
        error = float(jnp.max(jnp.abs(call(theta) - truth)))
        row = {"call": name, "first call ms": first * 1e3, **spread(times), "error": error, "bound": ""}
        if call is solve:
            row["bound"] = table.bound("a second eager fixed_point, ms", statistics.median(times) * 1e3, MOST)
        table.rows.append(row)
    return table
