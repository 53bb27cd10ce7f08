"""The main job: tune the weight of a Lasso by the derivative of its held-out error, and check that derivative.

    python examples/main_job.py                     ten real features, about a minute
    python examples/main_job.py --features 5000     the same with 4990 random features of them, within 2 GB

The data are scikit-learn's diabetes study: 442 patients, ten measurements, the progress of the disease a year later.
Every derivative is checked against two references that share no code with it: finite differences of scikit-learn's
Lasso, solved to 1e-12, and the closed form on the support S, dbeta_S/dweight = -(X_S' X_S)^-1 sign(beta_S).

With 5000 features nothing of size features x features is made. What needs such a matrix is left out: the spectral
radius of each map at the solution, against which the fitted rates are held.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import main_job_figures as figures
import numpy as np
import optax
from main_job_breakpoint import breakpoint_of
from main_job_problem import (
    SPLITTINGS,
    TOLERANCE,
    compared_weight,
    held_out,
    largest_weight,
    load,
    reference,
    scan_weights,
    solve,
)
from main_job_report import Progress, peak_mb, plain, report

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)

PEAK_MB = 2000
SMALL = 500  # features x features matrices are made up to here


def compare_modes(data, weight, truth, repeats, progress):
    """One hypergradient in every mode and through every splitting: value, error, time, memory."""
    tables = {}
    for name, make in SPLITTINGS.items():
        z0 = jnp.zeros(data.X.shape[1])
        count = int(jax.jit(lambda w, z0, data, make=make: solve(make, w, z0, data).num_steps)(weight, z0, data))
        modes = {
            "implicit": nsi.derivatives.Implicit(),
            "unrolled": nsi.derivatives.Unrolled(count),
            "unrolled, checkpoints": nsi.derivatives.Unrolled(count, checkpoint=True),
            "piggyback": nsi.derivatives.Piggyback(),
            "Neumann, 50 terms": nsi.derivatives.Neumann(50),
            "one-step": nsi.derivatives.OneStep(),
        }

        def error(theta, z0, data, derivative, make=make):
            return held_out(solve(make, jnp.exp(theta), z0, data, derivative).value, data)

        progress(f"{name}: {count} iterations to {TOLERANCE:g}; {len(modes)} modes, {repeats} timed calls each")
        arguments = (jnp.log(weight), z0, data)
        tables[name] = nsi.compare(error, *arguments, derivatives=modes, reference=truth, repeats=repeats)
        for row in tables[name].rows:
            row["iterations"] = count
        print(tables[name], flush=True)
    return tables


def converge(data, weight, iterations, progress):
    """How the iterates and their derivatives approach their limits."""
    seen = {}
    for name, make in SPLITTINGS.items():
        steps = iterations[name] * 5 // 4  # into the rounding errors
        progress(f"{name}: {steps} iterations and their derivatives")
        T, tangents = jax.jvp(lambda w, make=make: make(w, data), (weight,), (1.0,))
        path = nsi.history(T, jnp.zeros(data.X.shape[1]), tangents=tangents, steps=steps)
        fitted = path.rates()
        seen[name] = {
            "error": np.asarray(path.error / jnp.linalg.norm(path.z_limit)),
            "derivative_error": np.asarray(path.derivative_error / jnp.linalg.norm(path.dz_limit)),
            "iterate_rate": fitted[0],
            "derivative_rate": fitted[1],
            "local_rate": spectral_radius(T, path.z_limit) if data.X.shape[1] <= SMALL else None,
        }
    return seen


def spectral_radius(T, z):
    """Of the Jacobian of T at z: what the errors shrink by per step, once the support has been found."""
    return float(np.max(np.abs(np.linalg.eigvals(jax.jacfwd(lambda z: T(z))(z)))))


def tune(data, start, steps, progress):
    """Gradient descent on theta = log weight through each splitting; every solve starts from the one before."""
    paths = {}
    # No step changes the weight by more than a fifth. The steps vanish, as at a kink of the error they must.
    optimiser = optax.chain(optax.clip(0.2 / 30), optax.sgd(optax.cosine_decay_schedule(30.0, steps)))
    for name, make in SPLITTINGS.items():

        def error(theta, z0, data, make=make):
            solution = solve(make, jnp.exp(theta), z0, data, tol=1e-10)
            return held_out(solution.value, data), solution

        step = jax.jit(jax.value_and_grad(error, has_aux=True))
        theta, z0 = jnp.log(start), jnp.zeros(data.X.shape[1])
        state, path = optimiser.init(theta), []
        for k in range(steps):
            (value, solution), slope = step(theta, z0, data)
            row = dict(weight=jnp.exp(theta), held_out_error=value, slope=slope, iterations=solution.num_steps)
            path.append({key: x.item() for key, x in row.items()})
            update, state = optimiser.update(slope, state)
            theta, z0 = optax.apply_updates(theta, update), solution.z
            progress.bar(name, k + 1, steps, f"weight {row['weight']:8.4f}  held-out error {value:.5f}")
        paths[name] = path
    return paths


def check(result, small):
    """What must be true; the numbers are all in results/main_job.json."""
    one = result["hypergradient"]
    # The difference divides errors of 1e-12 by a step of 1e-4.
    assert abs(one["finite_difference"] / one["closed_form"] - 1) < 1e-6, "the two references disagree"
    for rows in result["modes"].values():
        errors = {row["name"]: row["error"] for row in rows}
        for exact in ("implicit", "unrolled", "unrolled, checkpoints", "piggyback"):
            assert errors[exact] < 1e-8, (exact, errors)  # solved to 1e-12, times the condition of the support
        assert errors["one-step"] > 1e-3  # a first-order method is not what one-step is for
    slopes = np.array([[row["slope"] for row in path] for path in result["tuning"].values()])
    assert np.ptp(slopes, axis=0).max() < 1e-5, "the splittings disagree"  # solves are to 1e-10 here
    for path in result["tuning"].values():
        assert path[-1]["held_out_error"] < path[0]["held_out_error"]
        assert path[-1]["held_out_error"] < 1.001 * result["scan"]["held_out_error"].min()
    for seen in result["convergence"].values():
        # The derivative may be slower by a factor k, not by a rate.
        assert abs(seen["derivative_rate"] - seen["iterate_rate"]) < 0.04
        assert not small or abs(seen["iterate_rate"] - seen["local_rate"]) < 0.04
    knot = result["breakpoint"]
    for q, side in ((0.0, "right"), (1.0, "left")):
        np.testing.assert_allclose(knot["selected"][q], knot["sides"][side], rtol=1e-6, atol=1e-9)
    assert np.max(np.abs(knot["sides"]["left"] - knot["sides"]["right"])) > 1e-4, "no kink"
    for slope in knot["program"].values():
        assert min(np.max(np.abs(slope - side)) for side in knot["sides"].values()) < 1e-6
    assert result["run"]["peak_mb"] < PEAK_MB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=10, help="columns; more than 10 are made at random")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the JSON and the figures go")
    parser.add_argument("--readme-figure", type=Path, help="write the picture of the breakpoint here as well")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    small = options.features <= SMALL

    data = load(options.features)
    largest, weight = largest_weight(data.X, data.y), compared_weight(data.X, data.y)
    progress(
        f"diabetes: {data.X.shape[0]} patients to fit, {data.X_held.shape[0]} held out, {data.X.shape[1]} features"
    )
    beta, closed, difference = reference(data, weight)
    tables = compare_modes(data, weight, closed, 11 if small else 3, progress)
    result = {
        "hypergradient": {
            "weight": weight,
            "support": int(np.sum(beta != 0)),
            "closed_form": closed,
            "finite_difference": difference,
        },
        "modes": {name: table.rows for name, table in tables.items()},
        "convergence": converge(data, weight, {n: t.rows[0]["iterations"] for n, t in tables.items()}, progress),
        "tuning": tune(data, 0.5 * largest, 60 if small else 30, progress),
    }
    progress("held-out error on a grid of weights, by scikit-learn")
    result["scan"] = scan_weights(data, 0.005 * largest if small else 0.1 * largest, 0.6 * largest)
    progress("an exact breakpoint of the path")
    result["breakpoint"] = breakpoint_of(data)
    result["run"] = {
        "features": options.features,
        "seconds": progress.seconds,
        "peak_mb": peak_mb(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("jax", "jaxlib", "optax", "numpy", "scikit-learn")},
    }
    report(result)
    (options.results / "main_job.json").write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")
    figures.draw(result, options.results, options.readme_figure)
    check(result, small)
    progress(f"all checks passed; peak memory {peak_mb():.0f} MB; see {options.results}/")


if __name__ == "__main__":
    main()
