"""How wrong a float32 gradient is on random systems of growing condition number, and who says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.report import Table

SIZE, SEEDS = 50, 20
CONDITIONS = tuple(10.0**k for k in range(1, 8))
EPS = float(np.finfo(np.float32).eps)
NAN = float("nan")
DEFAULT = "nsimplicit, default"


def system(condition: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A matrix with geometric singular values, a cotangent, and the gradient that is exact for this float32 matrix."""
    rng = np.random.default_rng([seed, int(condition)])
    left, right = (np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0] for _ in range(2))
    A = ((left * np.geomspace(1, 1 / condition, SIZE)) @ right).astype(np.float32)
    cotangent = rng.normal(size=SIZE).astype(np.float32)
    return A, cotangent, np.linalg.solve(A.T.astype(float), cotangent.astype(float))


def optimality(z, theta, A):
    return A @ z - theta


def ours(linear_solver, on_failure="ignore"):
    """Gradient, whether flagged, and condition x eps, as the tap reports them."""
    guard = nsi.guards.Solved(on_failure=on_failure)
    decorate = nsi.custom_root(
        optimality, init_argnum=None, derivative=nsi.derivatives.Implicit(linear_solver=linear_solver, guard=guard)
    )

    def run(A, cotangent):
        z = jnp.ones(SIZE, A.dtype)
        fit = decorate(lambda theta, A: z)
        loss = lambda theta, tap: cotangent @ fit.reporting(tap)(theta, A)  # noqa: E731
        gradient, report = jax.grad(loss, (0, 1))(A @ z, nsi.tap())
        return gradient, report.failed, report.condition * EPS

    return run


def plain(gradient):
    """A peer: flagged is what is not finite; it reports no bound."""

    def run(A, cotangent):
        found = gradient(A, cotangent)
        return found, ~jnp.all(jnp.isfinite(found)), jnp.asarray(NAN)

    return run


def with_jaxopt(**options):
    from jaxopt import implicit_diff

    def gradient(A, cotangent):
        z = jnp.ones(SIZE, A.dtype)
        fit = implicit_diff.custom_root(optimality, **options)(lambda init, theta, A: z)
        return jax.grad(lambda theta: cotangent @ fit(None, theta, A))(A @ z)

    return plain(gradient)


def with_optimistix():
    import optimistix

    def gradient(A, cotangent):
        z = jnp.ones(SIZE, A.dtype)
        newton = optimistix.Newton(rtol=1e-3, atol=1e-3)

        def loss(theta):
            found = optimistix.root_find(lambda z, t: A @ z - t, newton, z, theta, throw=False, max_steps=4)
            return cotangent @ found.value

        return jax.grad(loss)(A @ z)

    return plain(gradient)


def entrants():
    """Name -> a function that makes the program; what is not installed becomes a row that says so."""
    solvers = nsi.linear_solvers

    def jaxopt_lu():
        return with_jaxopt(solve=__import__("jaxopt").linear_solve.solve_lu)

    return {
        DEFAULT: functools.partial(ours, solvers.Auto()),
        "nsimplicit, GMRES": functools.partial(ours, solvers.GMRES()),
        "nsimplicit, NormalCG": functools.partial(ours, solvers.NormalCG()),
        "jaxopt, default": with_jaxopt,
        "jaxopt, LU": jaxopt_lu,
        "optimistix, default": with_optimistix,
    }


def measure() -> Table:
    table = Table(
        f"How wrong is a float32 gradient? {SEEDS} random systems of {SIZE} unknowns per condition number, against "
        "the same matrices in float64. Flagged: the tap says failed, or a peer's answer is not finite; missed: not "
        "flagged, and an error above 1e-2; false alarms: the flagged share of the systems with an error below 1e-3."
    )
    data = {c: [np.stack(x) for x in zip(*(system(c, s) for s in range(SEEDS)), strict=True)] for c in CONDITIONS}
    for name, make in entrants().items():
        try:
            run = jax.jit(jax.vmap(make()))
            found = {c: [np.asarray(x, float) for x in run(A, cotangent)] for c, (A, cotangent, _) in data.items()}
        except Exception as refusal:
            table.rows.append({"program": name, "refused": f"{type(refusal).__name__}: {str(refusal).splitlines()[0]}"})
            continue
        errors, flags = [], []
        for c, (gradient, flagged, bound) in found.items():
            exact, flagged = data[c][2], flagged.astype(bool)
            error = np.linalg.norm(gradient - exact, axis=1) / np.linalg.norm(exact, axis=1)
            row = {"program": name, "condition": c, "median error": float(np.median(error))}
            row |= {"largest error": float(np.max(error)), "flagged": int(flagged.sum())}
            row |= {"missed": int(np.sum((error > 1e-2) & ~flagged)), "false alarms": ""}
            row |= {"bound reported": float(np.median(bound)), "error / bound": float(np.max(error / bound))}
            row["promise"] = promise(table, c, error, flagged, bound) if name == DEFAULT else ""
            table.rows.append(row)
            errors.append(error)
            flags.append(flagged)
        small, flagged = np.concatenate(errors) < 1e-3, np.concatenate(flags)
        alarms = float(np.mean(flagged[small]))
        row = {"program": name, "condition": "all", "missed": int(np.sum(~flagged & (np.concatenate(errors) > 1e-2)))}
        row |= {"flagged": int(flagged.sum()), "false alarms": alarms}
        row["promise"] = table.bound("share of false alarms", alarms, 0.05) if name == DEFAULT else ""
        table.rows.append(row)
    return table


def promise(table: Table, condition: float, error, flagged, bound) -> str:
    """What is promised of the default at this condition number."""
    what = f"condition number {condition:.0e}"
    if condition <= 1e5:
        return table.bound(f"largest error, {what}", float(np.max(np.where(flagged, np.inf, error))), 1e-3)
    unflagged = float(np.max(np.where(flagged, 0, error)))
    most = 5e-2 if condition == 1e6 else 1e-2
    found = table.bound(f"largest error not flagged, {what}", unflagged, most)
    return f"{found}; {table.bound(f'error / bound, {what}', float(np.max(error / bound)), 10)}"
