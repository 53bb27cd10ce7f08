"""Whole programs: a thousand small quadratic programs, optimal transport, and roots of smooth equations.

* ``nonnegative least squares``, ``inequalities``, ``general path``: a thousand, 256, 256 programs; see
  ``benchmarks.quadratic_programs``.
* ``optimal transport``: Sinkhorn's potentials between two clouds of points, and the derivative in the points of what
  the plan does with them. The equation has a direction without an answer, a shift of the potential: one entrant takes
  it out of the map, another leaves it to the guard.
* ``root``: z + s A tanh(z) = b, differentiated in s and b at a solution known to rounding. Only the rule is timed.

Everything in float64 and at equal measured error, where a library has a setting that gets there.
"""

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import rules
from benchmarks.hypergradients import solve
from benchmarks.quadratic_programs import large, nonnegative
from benchmarks.race import DEFAULT, Entrant, at_equal_error, judge, race
from benchmarks.report import Table

POINTS = (64, 256)
EPSILON = 0.1  # of transport, in units of the mean cost
UNKNOWNS = (50, 100, 200, 400, 800)
SEEDS = 3
TARGETS = {"optimal transport": 1e-5, "root": 1e-8}
TOLERANCES = tuple(10.0**-k for k in range(2, 12))


def relative(truth):
    scale = np.abs(truth).max()
    return lambda out: float(np.abs(np.asarray(out, np.float64) - truth).max() / scale)


# --- optimal transport


def costs(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def scale(C):
    return EPSILON * jax.lax.stop_gradient(jnp.mean(C))


def potential(f, C, eps):
    """The other potential, for uniform weights."""
    return -eps * (jax.nn.logsumexp((f[:, None] - C) / eps, 0) + np.log(C.shape[1]))


def carried(plan, y, target):
    """Half the squared distance between where the plan sends the points and where they should go."""
    return ((len(plan) * plan @ y - target) ** 2).sum() / 2


def sinkhorn(f, C, eps):
    return potential(potential(f, C, eps), C.T, eps)


def pinned(f, C, eps):
    f = sinkhorn(f, C, eps)
    return f - f.mean()


def ours_transport(
    T,
    solver,
    tol,
    linear_solver: nsi.linear_solvers.LinearSolver = nsi.linear_solvers.Auto(),
    guard: nsi.guards.Guard = nsi.guards.Solved(),
):
    def loss(x, y, target):
        C = costs(x, y)
        eps = scale(C)
        options = {"solver": solver, "derivative": nsi.derivatives.Implicit(linear_solver, guard)}
        f = nsi.fixed_point(T, jnp.zeros(len(x)), C, eps, tol=tol, max_steps=5000, **options).value
        return carried(jnp.exp((f[:, None] + potential(f, C, eps) - C) / eps), y, target)

    return jax.grad(loss)


def through_ott(threshold):
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    def loss(x, y, target):
        C = costs(x, y)
        geometry = Geometry(cost_matrix=C, epsilon=scale(C))  # pyright: ignore[reportArgumentType]
        problem = LinearProblem(geometry)
        return carried(Sinkhorn(threshold=threshold, max_iterations=5000)(problem).matrix, y, target)

    return jax.grad(loss)


def unrolled(x, y, target):
    """The truth: automatic differentiation of many more steps than convergence takes."""
    C = costs(x, y)
    eps = scale(C)
    f = jax.lax.fori_loop(0, 4000, lambda _, f: pinned(f, *jax.lax.stop_gradient((C, eps))), jnp.zeros(len(x)))
    f = jax.lax.scan(lambda f, _: (pinned(f, C, eps), None), jax.lax.stop_gradient(f), None, length=600)[0]
    return carried(jnp.exp((f[:, None] + potential(f, C, eps) - C) / eps), y, target)


def transport(table, n):
    rng = np.random.default_rng(n)
    args = tuple(jnp.asarray(rng.normal(size=(n, 2)) + shift) for shift in (0, 0.5, 0))
    goal, error = TARGETS["optimal transport"], relative(np.asarray(jax.jit(jax.grad(unrolled))(*args)))
    singular = nsi.guards.Solved(on_failure="least_squares")
    families = {
        "nsimplicit": lambda tol: ours_transport(pinned, nsi.solvers.Anderson(), tol),
        "nsimplicit, GMRES": lambda tol: ours_transport(
            pinned, nsi.solvers.Anderson(), tol, nsi.linear_solvers.GMRES()
        ),
        "nsimplicit, shift left in": lambda tol: ours_transport(sinkhorn, nsi.solvers.Anderson(), tol, guard=singular),
        "ott-jax": lambda tol: lambda *args: through_ott(tol)(*args),
    }
    tighter = TOLERANCES[3:]
    entrants = [at_equal_error(make, tighter, args, error, goal, name=name) for name, make in families.items()]
    default = lambda *args: through_ott(1e-3)(*args)  # noqa: E731
    entrants.append(Entrant("ott-jax, default", default, args, error, note="threshold 1e-3"))
    rows = race(entrants, compiles=1)
    judge(table, f"optimal transport, n = {n}", rows, goal, None)
    return [{"problem": "optimal transport", "n": n, "off": ""} | row for row in rows]


# --- roots of smooth equations


def residual(z, theta, data):
    return z + theta["s"] * data["A"] @ jnp.tanh(z) - theta["b"]


def smooth_equation(n, seed):
    """Arguments of a call, and the error of its answer."""
    rng = np.random.default_rng((n, seed))
    A, b, v = 1.5 * rng.normal(size=(n, n)) / np.sqrt(n), 2 * rng.normal(size=n), rng.normal(size=n)
    z, step = b, b
    for _ in range(100):  # Newton, damped until it is near
        jacobian = np.eye(n) + A * (1 - np.tanh(z) ** 2)
        step = np.linalg.solve(jacobian, z + A @ np.tanh(z) - b)
        z = z - step * min(1.0, 1.0 / np.linalg.norm(step, np.inf))
    assert np.linalg.norm(step) < 1e-10
    u = solve((np.eye(n) + A * (1 - np.tanh(z) ** 2)).T, v)
    truth = np.append(u, -u @ (A @ np.tanh(z)))
    args = jax.tree.map(jnp.asarray, ({"b": b, "s": 1.0}, {"A": A}, z, v))
    compare = relative(truth)
    return args, lambda out: compare(np.append(np.asarray(out["b"]), float(out["s"])))


def decorated(linear_solver, guard: nsi.guards.Guard = nsi.guards.Solved()):
    derivative = nsi.derivatives.Implicit(linear_solver, guard)

    def solve(theta, data, x):
        rule = nsi.custom_root(residual, init_argnum=None, derivative=derivative)
        return rule(lambda theta, data: x)(theta, data)

    return rules.gradient(solve)


def loosened(tol):
    """The guard refuses what was not solved to the precision of the dtype, unless told that less is enough."""
    return decorated(nsi.linear_solvers.BiCGStab(rtol=tol), nsi.guards.Solved(rtol=10 * tol))


def roots(table, n):
    instances = [smooth_equation(n, seed) for seed in range(SEEDS)]
    (args, error), *others = instances
    menu, goal = nsi.linear_solvers, TARGETS["root"]
    found = {"nsimplicit": menu.Auto(), "nsimplicit, GMRES": menu.GMRES(), "nsimplicit, Dense": menu.Dense()}
    entrants = [Entrant(name, decorated(solver), args, error, others=others) for name, solver in found.items()]
    name = "nsimplicit, BiCGStab at equal error"
    entrants.append(at_equal_error(loosened, rules.STATIC_TOLERANCES, args, error, goal, name=name, others=others))
    # These take a map rather than a residual: that of z - F(z) has the same tangent system.
    T = lambda z, theta, data: z - residual(z, theta, data)  # noqa: E731
    entrants += rules.jaxopt_entrants(T, instances, goal, dense=True, count=False, restarts=(100,))
    entrants += rules.other_entrants(T, instances, goal, dense=True)
    rows = race(entrants, compiles=1)
    judge(table, f"root, n = {n}", rows, goal, None)
    ours, jaxopts = rows[0], next((r for r in rows if r["entrant"] == DEFAULT and r["compile ms"] != ""), None)
    most = min(1000.0, 2 * jaxopts["compile ms"]) if jaxopts else 1000.0
    ours["bound"] = "error " + table.bound(f"root, n = {n}, error", ours["error"], goal)
    ours["bound"] += "; compile " + table.bound(f"root, n = {n}, compile ms", ours["compile ms"], most)
    return [{"problem": "root", "n": n, "off": ""} | row for row in rows]


def measure(smoke: bool = False) -> Table:
    table = Table("Whole programs and smooth equations, float64, every library at the error the others meet.")
    with jax.enable_x64(True):
        table.rows += nonnegative(table)
        for kind in ("inequalities",) if smoke else ("inequalities", "general path"):
            table.rows += large(table, kind)
        for n in POINTS[: 1 if smoke else None]:
            table.rows += transport(table, n)
        for n in UNKNOWNS[: 1 if smoke else None]:
            table.rows += roots(table, n)
    return table
