"""The table behind the default linear solver: every solver that could take a system, over size, support, conditioning.

Forward-backward systems are those of a least-squares problem with n/4 rows and n columns, a support that is a given
fraction of the rows, and singular values on the support that spread over sqrt(kappa). General systems are I - A with A
of norm 0.9, scaled so that the condition number is about kappa.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import Table, clock
from nsimplicit import linear_solvers as ls
from nsimplicit.linear_solvers.auto import choose
from nsimplicit.linear_solvers.operator import General, Operator, ProxGradient
from nsimplicit.prox.hessian import GramHessian, ScaledHessian

DTYPES = (np.float64, np.float32)
STRUCTURED = (ls.RestrictedCholesky(), ls.ProxCG(), ls.Dense())
UNKNOWN = (ls.Dense(), ls.GMRES(), ls.BiCGStab(), ls.Auto())
DENSE_MOST = 2048  # a larger dense solve takes seconds
REPEATS = 7


def lasso(n: int, fraction: float, kappa: float, seed: int = 0):
    """A scaled so that step = 1, and the mask of the support."""
    rng = np.random.default_rng(seed)
    m = n // 4
    k = max(2, int(fraction * m))
    A = 0.05 * rng.normal(size=(m, n)) / np.sqrt(n)
    U, V = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (m, k))
    A[:, :k] = (U * np.geomspace(kappa**-0.5, 1, k)) @ V.T
    order = rng.permutation(n)
    return A[:, order] / np.linalg.norm(A, 2), (np.arange(n) < k).astype(float)[order]


def general(n: int, kappa: float, seed: int = 0):
    """I - A, nonsymmetric."""
    rng = np.random.default_rng(seed)
    M = np.eye(n) - 0.9 * rng.normal(size=(n, n)) / (2 * np.sqrt(n))
    return M * np.geomspace(kappa**-0.5, 1, n)[:, None]


def structured_solve(solver):
    def solve(A, d, b):
        structure = ProxGradient(
            lambda v: d * v,
            lambda v: v - A.T @ (A @ v),
            transposed=True,
            block=ScaledHessian(1.0, GramHessian(A)).block,
        )

        def matvec(v):
            return v - structure.forward(structure.prox(v))

        out = solver.solve(Operator(matvec, structure), b)
        return out.value, jnp.linalg.norm(matvec(out.value) - b) / jnp.linalg.norm(b)

    return jax.jit(solve)


def plain_solve(solver):
    def solve(M, b):
        out = solver.solve(Operator(lambda v: M @ v), b)
        return out.value, jnp.linalg.norm(M @ out.value - b) / jnp.linalg.norm(b)

    return jax.jit(solve)


def picked(n: int, structured: bool) -> str:
    structure = ProxGradient(lambda v: v, lambda v: v, block=lambda i: i) if structured else General()
    return name(choose(Operator(lambda v: v, structure), jnp.zeros(n)))


def name(solver) -> str:
    parts = (name(x) for x in (getattr(solver, "first", None), getattr(solver, "second", None)) if x is not None)
    return ", then ".join(parts) or type(solver).__name__


def fill(row, runs, args, eps) -> None:
    """Median milliseconds of each solver that reached its residual; the others show the residual."""
    best = {}
    for solver, run in runs.items():
        residual = float(run(*args)[1])
        milliseconds = statistics.median(clock(lambda run=run: run(*args), REPEATS)) * 1e3
        fine = residual <= 20 * eps**0.75
        row[type(solver).__name__] = round(milliseconds, 3) if fine else f"residual {residual:.0e}"
        if fine:
            best[type(solver).__name__] = milliseconds
    row["fastest"] = min(best, key=best.get) if best else "none"


def measure(smoke: bool = False) -> Table:
    with jax.enable_x64(True):
        return tabulate(smoke)


def tabulate(smoke: bool) -> Table:
    table = Table("Which linear solver is fastest, and which one `Auto` takes")
    sizes = (256,) if smoke else (128, 512, 2048)
    for dtype in DTYPES[:1] if smoke else DTYPES:
        for n in sizes:
            runs = {s: structured_solve(s) for s in STRUCTURED if n <= DENSE_MOST or not isinstance(s, ls.Dense)}
            for fraction in (0.1, 0.9):
                for kappa in (1e2,) if smoke else (1e1, 1e3):
                    A, d = (jnp.asarray(x, dtype) for x in lasso(n, fraction, kappa))
                    row = {"system": "I - SD", "dtype": np.dtype(dtype).name, "n": n, "support": int(d.sum())}
                    row["kappa"] = kappa
                    fill(row, runs, (A, d, jnp.ones(n, dtype)), np.finfo(dtype).eps)
                    table.rows.append(row | {"Auto takes": picked(n, True)})
        for n in sizes:
            runs = {s: plain_solve(s) for s in UNKNOWN if n <= DENSE_MOST or not isinstance(s, ls.Dense)}
            for kappa in (1e2,) if smoke else (1e1, 1e4):
                M = jnp.asarray(general(n, kappa), dtype)
                row = {"system": "general", "dtype": np.dtype(dtype).name, "n": n, "support": "", "kappa": kappa}
                fill(row, runs, (M, jnp.ones(n, dtype)), np.finfo(dtype).eps)
                table.rows.append(row | {"Auto takes": picked(n, False)})
    return table
