"""How an implicit gradient grows with the size of the problem, and how far it is from the least it could take.

* ``unknowns``: a sparse signal in noise, ½ z'(c + D'D)z - b'z + |z|₁ with D the differences of neighbours, by products
  only, at a solution known in closed form. The floor is one product with c + D'D for each step of the linear solver.
* ``batch``: systems z = relu(W z + b) in 20 unknowns by vmap, each with a W of its own. The floor is reading every W
  once at the speed of a large copy.
* ``kinks``: z = relu(W z + b) in 200 unknowns with k entries exactly on the kink, under ``AllSelections``. The floor is
  the same gradient with no guard.

The exponent p of time ~ size^p is fitted to the three largest sizes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import guard_cost
from benchmarks.race import Entrant, race
from benchmarks.report import Table, clock

UNKNOWNS = (100, 1000, 10_000, 100_000, 1_000_000)
BATCHES = (1, 16, 256, 4096)
KINKS = (0, 2, 4, 8, 12, 16)
SMALL, KINKED = 20, 200
RIDGE = 0.1  # the c above: condition number 41
MOST_BASIS = 100_000  # unknowns up to which GMRES takes part: its basis is as long as all else together
REPEATS = 7


def fastest(call, repeats=5):
    """Seconds, the least of a few calls: a floor is not a typical time."""
    return min(clock(call, repeats + 1)[1:])


def bandwidth():
    """Bytes per second of a copy of 64 MB, both ways counted."""
    x = jnp.ones(2**23)
    copy = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / fastest(lambda: copy(x))


def relative(truth):
    return lambda out: float(np.linalg.norm(np.asarray(out) - truth) / np.linalg.norm(truth))


def series(table, problem, entrants, floors, sizes):
    """Race the entrants of each size; the exponent that fits its last three sizes becomes part of a name."""
    rows: list[dict[str, Any]] = []
    for size in sizes:
        found: list[dict[str, Any]] = race(entrants(size), REPEATS, compiles=1)
        for row in found:
            floor = floors(size, row)
            timed = isinstance(row["median ms"], float)
            row |= {"floor ms": floor * 1e3, "times floor": row["median ms"] / floor / 1e3 if timed else ""}
        # as a row of its own, that of the first entrant, so that a plot shows it
        found.append({"entrant": f"floor of {found[0]['entrant']}", "median ms": found[0]["floor ms"]})
        title = problem if size else f"no {problem}"  # a plot with logarithmic axes has no place for it
        rows += [{"problem": title, "size": size} | row for row in found]
    for name in dict.fromkeys(row["entrant"] for row in rows):
        line = [row for row in rows if row["entrant"] == name]
        timed = [row for row in line if isinstance(row["median ms"], float) and row["size"] > 0][-3:]
        ends = np.log([[row["size"], row["median ms"]] for row in timed])
        exponent = np.polyfit(ends[:, 0], ends[:, 1], 1)[0] if len(timed) > 1 else float("nan")
        for row in line:
            row |= {"entrant": f"{name}, ~ size^{exponent:.2f}", "exponent": float(exponent)}
    table.rows += rows


# --- unknowns


def energy(z, b):
    differences = z[1:] - z[:-1]
    return RIDGE * jnp.vdot(z, z) / 2 + jnp.vdot(differences, differences) / 2 - jnp.vdot(b, z)


def hessian(v):
    return jax.jvp(jax.grad(energy), (v, v), (v, 0 * v))[1]


def sparse_signal(n):
    """b, the solution z, a cotangent v and the gradient of <v, z> in b, by a banded solve on the support."""
    from scipy.linalg import solveh_banded

    rng = np.random.default_rng(n)
    z = np.where(rng.random(n) < 0.7, rng.normal(size=n), 0)
    subgradient = np.where(z == 0, rng.uniform(-0.9, 0.9, n), np.sign(z))
    with jax.default_device(jax.devices("cpu")[0]):
        b = np.asarray(hessian(jnp.asarray(z))) + subgradient
    v, support = rng.normal(size=n), np.flatnonzero(z)
    diagonal = np.full(n, RIDGE + 2.0)
    diagonal[[0, -1]] -= 1
    beside = np.where(np.diff(support) == 1, -1.0, 0.0)
    truth = np.zeros(n)
    truth[support] = solveh_banded([np.append(0, beside), diagonal[support]], v[support])
    return tuple(map(jnp.asarray, (b, z, v))), truth


def sparse_gradient(linear_solver):
    """b, z, v -> the gradient in b, and the products it took."""
    derivative = nsi.derivatives.Implicit(linear_solver)

    def loss(b, tap, z, v):
        T = nsi.splittings.ForwardBackward(nsi.prox.smooth(energy, b), nsi.prox.L1(1.0), 1 / (RIDGE + 4))
        # the solution is handed in: the solver checks it with one step and stops
        return jnp.vdot(v, nsi.fixed_point(T, z, derivative=derivative, tap=tap, max_steps=1).value)

    def gradient(b, z, v):
        found, report = jax.grad(loss, argnums=(0, 1))(b, nsi.tap(), z, v)
        return found, report.num_steps

    return gradient


def unknowns(table, sizes):
    menu, counts, one = nsi.linear_solvers, {}, {}
    found = {"ProxCG": menu.ProxCG(), "BiCGStab": menu.BiCGStab(), "GMRES(20)": menu.GMRES(20)}

    def entrants(n):
        args, truth = sparse_signal(n)
        product = jax.jit(lambda v: jax.lax.fori_loop(0, 20, lambda _, v: hessian(v) / 4, v))
        one[n] = fastest(lambda: product(args[2])) / 20

        def error(out, name=""):
            counts[n, name] = int(out[1])
            return relative(truth)(out[0])

        taking = {k: s for k, s in found.items() if n <= MOST_BASIS or k != "GMRES(20)"}
        return [
            Entrant(name, sparse_gradient(solver), args, lambda out, name=name: error(out, name))
            for name, solver in taking.items()
        ]

    def floors(n, row):
        row["products"] = counts.get((n, row["entrant"]), "")
        return one[n] * max(1, counts.get((n, row["entrant"]), 1))

    series(table, "unknowns", entrants, floors, sizes)


# --- batch


def small_systems(batch):
    """W, b, z, v of every system and the gradient of <v, z> in b."""
    rng = np.random.default_rng(batch)
    W = 0.5 * rng.normal(size=(batch, SMALL, SMALL)) / np.sqrt(SMALL)
    z = np.maximum(rng.normal(size=(batch, SMALL)), 0)
    before = np.where(z > 0, z, -0.1)
    v = rng.normal(size=z.shape)
    D = (z > 0)[..., None].astype(float)
    M = np.eye(SMALL) - D * W
    truth = D[..., 0] * np.linalg.solve(np.swapaxes(M, 1, 2), v[..., None])[..., 0]
    b = before - np.einsum("bij,bj->bi", W, z)
    return tuple(map(jnp.asarray, (W, b, z, v))), truth


def small_gradient(linear_solver):
    def one(W, b, z, v):
        def solve(b, W):
            derivative = nsi.derivatives.Implicit(linear_solver)
            rule = nsi.custom_fixed_point(lambda z, b, W: nsi.relu(W @ z + b), init_argnum=None, derivative=derivative)
            return rule(lambda b, W: z)(b, W)

        return jax.grad(lambda b: jnp.vdot(v, solve(b, W)))(b)

    return jax.vmap(one)


def batch(table, sizes, speed):
    menu = nsi.linear_solvers
    found = {"default (elimination)": menu.Auto(), "GMRES": menu.GMRES(), "BiCGStab": menu.BiCGStab()}

    def entrants(size):
        args, truth = small_systems(size)
        return [Entrant(name, small_gradient(solver), args, relative(truth)) for name, solver in found.items()]

    series(table, "batch", entrants, lambda size, row: 8 * SMALL**2 * size / speed, sizes)


# --- kinks


def kinks(table, sizes):
    bare = {}

    def entrants(k):
        W, z, b = map(jnp.asarray, guard_cost.problem(KINKED, k))
        off = jax.jit(guard_cost.gradient(nsi.linear_solvers.Dense(), nsi.guards.Off(), z))
        bare[k], truth = fastest(lambda: off(b, W), 15), np.asarray(off(b, W))
        guard = nsi.guards.AllSelections(max_kinks=max(k, 1), on_undecided="fail")
        program = guard_cost.gradient(nsi.linear_solvers.Dense(), guard, z)
        return [Entrant("AllSelections, Dense", program, (b, W), relative(truth))]

    series(table, "kinks", entrants, lambda k, row: bare[k], sizes)


def measure(smoke: bool = False) -> Table:
    few = slice(0, 2) if smoke else slice(None)
    table = Table("How does an implicit gradient grow, float64, and how far is it from its floor?")
    with jax.enable_x64(True):
        speed = bandwidth()
        table.question += f" A copy runs at {speed / 1e9:.1f} GB/s."
        unknowns(table, UNKNOWNS[few])
        batch(table, BATCHES[few], speed)
        kinks(table, KINKS[few])
    return table
