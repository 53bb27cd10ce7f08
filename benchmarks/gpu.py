"""The table for a GPU: ``python -m benchmarks.gpu``, or ``--lower`` and ``--tiny`` where there is none.

Sizes that fill a GPU, float32, JAX's default matmul precision: on a GPU that may round the factors of a product to ten
bits, and a derivative must not. Each gradient is compared with NumPy's in float64, on the same float32 data; what is
promised is an error of at most 1e-4. The rows that differentiate a known solution show the rule alone; a training
step of an equilibrium layer also has the layer's own products, whose precision is the user's choice, so nothing is
promised about its error.

``--lower`` exports every case for CUDA and TPU instead of running it, ``--tiny`` runs small sizes on whatever is here.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import deq, report, rules
from benchmarks.deq_by_hand import by_hand, picard
from benchmarks.race import Entrant, race
from benchmarks.report import Table

PLATFORMS = ("cuda", "tpu")
MOST = 1e-4  # error, relative


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and the programs that solve it.

    Args:
        name: what the rows say.
        size: of the problem, in words.
        calls: name -> program of ``args``.
        args: float32 arrays, in NumPy.
        truth: makes the gradient in float64; not called where only lowering is asked for.
        bounded: whether the error of nsimplicit's rows is promised.
    """

    name: str
    size: str
    calls: dict[str, Callable[..., Any]]
    args: tuple[Any, ...]
    truth: Callable[[], Any]
    bounded: bool = True


def single(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def relative(truth):
    """The largest error of a leaf, relative in the 2-norm."""

    def error(out):
        pairs = zip(jax.tree.leaves(double(out)), jax.tree.leaves(truth), strict=True)
        return float(max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs))

    return error


def jaxopt_calls(T, *, dense):
    """jaxopt's default, tightened until float32 is the limit, and its LU."""

    def member(method, **options):
        def call(*args):
            from jaxopt import linear_solve

            return rules.jaxopt_rule(T, lambda matvec, b: getattr(linear_solve, method)(matvec, b, **options))(*args)

        return call

    found = {"jaxopt, default as it comes": member("solve_normal_cg")}
    found["jaxopt, normal CG"] = member("solve_normal_cg", tol=1e-7, maxiter=2000)
    found["jaxopt, BiCGStab"] = member("solve_bicgstab", tol=1e-7, maxiter=2000)
    return found | ({"jaxopt, LU": member("solve_lu")} if dense else {})


# --- a Lasso, differentiated in its weights


def lasso(m, p):
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((m, p), np.float32) / np.float32(m**0.5)).astype(np.float32)
    support = rng.choice(p, m // 4, replace=False)
    z, v = np.zeros(p), rng.normal(size=p)
    z[support] = rng.normal(size=len(support)) + np.sign(rng.normal(size=len(support)))
    on = A[:, support].astype(np.float64)
    gram = on.T @ on
    signs = np.sign(z[support])
    residual = -0.1 * on @ np.linalg.solve(gram, signs)  # A z - b: A' of it is -0.1 sign(z) on the support
    b = A @ z.astype(np.float32) - residual
    weights = np.maximum(0.1, 1.2 * np.abs(A.T @ residual.astype(np.float32)))
    weights[support] = 0.1

    def truth():
        out = np.zeros(p)
        out[support] = -signs * np.linalg.solve(gram, v[support])
        return out

    step = 1 / (1 + (p / m) ** 0.5) ** 2

    def make(weights, data):
        f = nsi.prox.LeastSquares(data["A"], data["b"])
        return nsi.splittings.ForwardBackward(f, nsi.prox.L1(weights), step)

    def T(x, weights, data):
        u = x - step * (data["A"].T @ (data["A"] @ x - data["b"]))
        return jnp.sign(u) * jnp.maximum(jnp.abs(u) - step * weights, 0)

    Implicit, menu = nsi.derivatives.Implicit, nsi.linear_solvers
    ours = {"nsimplicit": menu.Auto(), "nsimplicit, ProxCG": menu.ProxCG()}
    calls = {name: rules.splitting(make, Implicit(solver)) for name, solver in ours.items()}
    args = single((weights, {"A": A, "b": b}, z, v))
    return Case("Lasso hypergradient", f"{m} x {p}", calls | jaxopt_calls(T, dense=False), args, truth)


# --- equilibria z = act(W z + b) at a known z


def relu(v, xp):
    return xp.maximum(v, 0) if xp is np else nsi.relu(v)


def tanh(v, xp):
    return xp.tanh(v)


SLOPES = {relu: lambda v: (v > 0).astype(float), tanh: lambda v: 1 - np.tanh(v) ** 2}


def equilibrium(name, size, act, n, batch, dense):
    rng = np.random.default_rng(1)
    shape = (batch, n) if batch else (n,)
    W = rng.standard_normal((*shape, n), np.float32) * np.float32(0.35 / n**0.5)
    before = rng.normal(size=shape)
    before += 0.05 * np.sign(before)  # a rounded product must not cross a kink
    z, v = act(before, np), rng.normal(size=shape)
    b = before - (W @ z[..., None])[..., 0]

    def truth():
        D = SLOPES[act](before)
        matrix = np.eye(n) - D[..., None] * W
        return D * np.linalg.solve(np.swapaxes(matrix, -1, -2), v[..., None])[..., 0]

    def T(z, b, data):
        return act(data["W"] @ z + b, jnp)

    menu = nsi.linear_solvers
    ours = {"nsimplicit": menu.Auto(), "nsimplicit, GMRES": menu.GMRES(restart=30)}
    if dense:
        ours["nsimplicit, Dense"] = menu.Dense()
    calls = {k: rules.decorated(T, derivative=nsi.derivatives.Implicit(solver)) for k, solver in ours.items()}
    calls |= jaxopt_calls(T, dense=dense)
    if dense:
        calls["lax.custom_root, LU"] = rules.custom_root_rule(T)
    if batch:
        calls = {name: jax.vmap(call) for name, call in calls.items()}
    return Case(name, size, calls, single((b, {"W": W}, z, v)), truth)


# --- a training step


def training(batch, width):
    problem = deq.problem(batch, width, width // 2)
    P, x, y = single(problem)
    menu = nsi.linear_solvers
    layers = {
        "by hand": by_hand(jnp.tanh, picard),
        "nsimplicit": deq.ours(jnp.tanh, nsi.solvers.Picard(), deq.same_adjoint()),
        "nsimplicit, GMRES": deq.ours(jnp.tanh, nsi.solvers.Picard(), menu.GMRES(20, deq.TOL)),
        "jaxopt": deq.through_jaxopt(
            jnp.tanh, "FixedPointIteration", implicit_diff_solve=lambda matvec, b: deq.jaxopt_adjoint(matvec, b)
        ),
    }
    calls = {name: lambda P, x, y, layer=layer: deq.step(layer, x, y)(P)[1] for name, layer in layers.items()}
    _, act, slope = deq.ACTIVATIONS["tanh"]
    truth = lambda: deq.exact(act, slope, *double((P, x, y)))  # noqa: E731
    return Case("equilibrium layer, a step", f"batch {batch}, width {width}", calls, (P, x, y), truth, bounded=False)


def cases(tiny: bool) -> list[Callable[[], Case]]:
    """What is measured, largest data last; each is made when its turn comes."""
    m, p, batch, n, large, rows, width = (
        (32, 96, 16, 8, 96, 8, 32) if tiny else (4096, 16384, 4096, 50, 8192, 1024, 2048)
    )
    return [
        lambda: equilibrium("many small systems", f"{batch} of {n}", relu, n, batch, dense=False),
        lambda: training(rows, width),
        lambda: equilibrium("one large system", f"{large} unknowns", tanh, large, 0, dense=True),
        lambda: lasso(m, p),
    ]


def lower(case: Case, platforms=PLATFORMS) -> list[dict[str, Any]]:
    """A row for each of this package's programs: what it exports to."""
    rows = []
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case.args)
    for name, call in case.calls.items():
        row: dict[str, Any] = {"problem": case.name, "size": case.size, "entrant": name}
        try:
            exported = jax.export.export(jax.jit(call), platforms=platforms)(*shapes)
            row |= {"platforms": " ".join(exported.platforms), "module KB": len(exported.mlir_module_serialized) / 1024}
        except Exception as failure:
            row |= {"platforms": f"{type(failure).__name__}: {str(failure)[:80]}", "module KB": ""}
        rows.append(row)
    return rows


def compare(table: Table, case: Case, repeats: int = 9) -> None:
    """Race a case and check what is promised of the error."""
    error = relative(case.truth())
    args = jax.tree.map(jnp.asarray, case.args)
    rows: list[dict[str, Any]] = race([Entrant(n, call, args, error) for n, call in case.calls.items()], repeats)
    ours = next(row for row in rows if row["entrant"] == "nsimplicit")
    for row in rows:
        timed = isinstance(row["median ms"], float) and isinstance(ours["median ms"], float)
        row["x nsimplicit"] = row["median ms"] / ours["median ms"] if timed else ""
        row["bound"] = ""
        if case.bounded and row["entrant"].startswith("nsimplicit"):
            found = row["error"] if isinstance(row["error"], float) else float("inf")
            row["bound"] = "error " + table.bound(f"{case.name}, {row['entrant']}", found, MOST)
        table.rows.append({"problem": case.name, "size": case.size} | row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lower", action="store_true", help="export every case for CUDA and TPU, run nothing")
    parser.add_argument("--tiny", action="store_true", help="small sizes, on whatever device is here")
    arguments = parser.parse_args()
    kind = jax.devices()[0]
    if arguments.lower:
        table = Table(f"What lowers for {' and '.join(PLATFORMS)} without one of them.")
        for make in cases(arguments.tiny):
            table.rows += lower(make())
        report.write("gpu-lowered", table)
        return any(row["module KB"] == "" for row in table.rows if row["entrant"].startswith("nsimplicit"))
    if kind.platform != "gpu" and not arguments.tiny:
        print(f"There is no GPU here, JAX sees {kind.device_kind}. Try --lower or --tiny.")
        return 2
    table = Table(f"Implicit gradients in float32 on {kind.device_kind}, default matmul precision.")
    for make in cases(arguments.tiny):
        case = make()
        compare(table, case)
        print(f"done: {case.name}, {case.size}", flush=True)
    report.write("gpu-tiny" if arguments.tiny else "gpu", table)
    return len(table.missed)


if __name__ == "__main__":
    sys.exit(main())
