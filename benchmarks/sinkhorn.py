"""Entropic optimal transport and its gradient, beside ott-jax at equal measured error.

Two clouds of n points in the plane, squared distances, uniform weights, epsilon in units of the mean cost. Two
gradients in the cost: of a linear function of the plan, which needs the implicit rule, and of the value, which needs
none. The truth of the first is automatic differentiation of an iteration run far past convergence, of the second the
plan it converged to. Float64; the error is relative to the largest entry.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.race import OURS, at_equal_error, judge, race
from benchmarks.report import Table

PROBLEMS = ((64, 0.1), (256, 0.1), (256, 0.05))
TARGET = 1e-9
TOLERANCES = tuple(10.0**-k for k in range(9, 13))
STEPS = 20000


def problem(n, share):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 0.5
    cost = ((x[:, None] - y) ** 2).sum(-1)
    return tuple(map(jnp.asarray, (cost, share * cost.mean(), rng.normal(size=(n, n)))))


def ours(kind, solver, tol):
    def loss(cost, epsilon, weight):
        n = len(cost)
        uniform = jnp.full(n, 1 / n)
        found = nsi.layers.sinkhorn(uniform, uniform, cost, epsilon, solver=solver, tol=tol, max_steps=STEPS)
        return n * (found.plan * weight).sum() if kind == "plan" else n * found.value

    return jax.grad(loss)


def through_ott(kind, threshold, momentum=1.0):
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.acceleration import Momentum
    from ott.solvers.linear.sinkhorn import Sinkhorn

    solver = Sinkhorn(threshold=threshold, max_iterations=STEPS, momentum=Momentum(value=momentum))

    def loss(cost, epsilon, weight):
        found = solver(LinearProblem(Geometry(cost_matrix=cost, epsilon=epsilon)))
        return len(cost) * jnp.sum(found.matrix * weight if kind == "plan" else jnp.asarray(found.reg_ot_cost))

    return jax.grad(loss)


@functools.partial(jax.jit, static_argnums=3)
def truth(cost, epsilon, weight, steps):
    """Gradients by automatic differentiation of the last 1000 of ``steps`` steps in the log domain."""
    n = len(cost)

    def half(f, cost, epsilon):
        return -epsilon * (jax.nn.logsumexp((f[:, None] - cost) / epsilon, 0) - jnp.log(n))

    def step(f, cost, epsilon):
        f = half(half(f, cost, epsilon), cost.T, epsilon)
        return f - f.mean()

    start = jax.lax.fori_loop(0, steps - 1000, lambda _, f: step(f, cost, epsilon), jnp.zeros(n))

    def plan(cost):
        f = jax.lax.scan(lambda f, _: (step(f, cost, epsilon), None), start, None, length=1000)[0]
        return jnp.exp((f[:, None] + half(f, cost, epsilon) - cost) / epsilon) / n**2

    found, back = jax.vjp(plan, cost)
    return {"plan": back(n * weight)[0], "value": n * found}


def relative(reference):
    reference = np.asarray(reference)
    return lambda out: float(np.abs(np.asarray(out) - reference).max() / np.abs(reference).max())


def compare(table, n, share, kinds=("plan", "value")):
    args = problem(n, share)
    exact, rows = truth(*args, STEPS // 4), []
    for kind in kinds:
        error = relative(exact[kind])

        def entrant(name, make, kind=kind, error=error, **options):
            settings = TOLERANCES
            return at_equal_error(lambda tol: make(kind, tol), settings, args, error, TARGET, name=name, **options)

        raced = race(
            [
                entrant(OURS, lambda kind, tol: ours(kind, nsi.solvers.Picard(), tol), traced=True),
                entrant(f"{OURS}, Anderson", lambda kind, tol: ours(kind, nsi.solvers.Anderson(), tol), traced=True),
                entrant("ott-jax", lambda kind, tol: lambda *args: through_ott(kind, tol)(*args)),
                entrant("ott-jax, momentum 1.3", lambda kind, tol: lambda *args: through_ott(kind, tol, 1.3)(*args)),
            ],
            repeats=7,
            compiles=1,
        )
        what = f"{kind}, n = {n}, epsilon {share:g}"
        judge(table, what, raced, TARGET, None)
        raced[0]["bound"] = "error " + table.bound(f"{what}, error", raced[0]["error"], TARGET)
        # The plain iteration against the plain one, the accelerated against the accelerated.
        for mine, theirs in zip(raced[:2], raced[2:], strict=True):
            if isinstance(theirs["median ms"], float):
                ratio = theirs["median ms"] / mine["median ms"]
                theirs["bound"] = table.at_least(f"{what}, {theirs['entrant']}", ratio, 1.0)
        rows += [{"gradient of": kind, "n": n, "epsilon": share} | row for row in raced]
    return rows


def measure(smoke: bool = False) -> Table:
    table = Table("Gradients through entropic optimal transport, float64, at equal error (1e-9 where reached).")
    with jax.enable_x64(True):
        for n, share in PROBLEMS[: 1 if smoke else None]:
            table.rows += compare(table, n, share, ("plan",) if smoke else ("plan", "value"))
    return table
