"""Cone programs and their gradients, beside SCS, Clarabel and diffcp; what is not installed is a row that says so.

Programs with a planted solution, at which multipliers are unique and the solution is too: x is compared with it. The
gradient is that of a product with x in A, b and c, and is compared with this layer's own: they find the same numbers in
different ways. ``host`` is this layer with the forward solution from SCS or Clarabel. diffcp has no power
cones. Times are of one solve with its gradient, compiled before; ``64 lanes`` is a ``vmap`` of 64 programs, for diffcp
a loop over them in its own threads, per program. Float64.
"""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.report import Table, clock, spread

AGREE = 1e-6
LANES = 64
# name -> sizes of cones, how many inequalities are active, number of variables
PROGRAMS = {
    "linear": ({"z": 5, "l": 30}, 15, 20),
    "second-order": ({"z": 2, "l": 10, "q": [5, 5, 5, 5]}, 4, 15),
    "semidefinite": ({"z": 3, "s": [4, 4]}, 0, 13),
    "exponential": ({"l": 5, "ep": 8}, 2, 14),
    "power": ({"l": 3, "p": [0.3, 0.6, -0.4, 0.7]}, 1, 7),
}


def planted(name, seed):
    """A, b, c and x: a point t is split by the cones into slack and multipliers, and A is random."""
    sizes, active, n = PROGRAMS[name]
    rng, parts = np.random.default_rng(seed), []
    if "z" in sizes:
        parts.append((rng.normal(size=sizes["z"]), nsi.prox.ZeroCone()))
    if "l" in sizes:
        t = rng.uniform(0.5, 1.5, sizes["l"]) * np.where(np.arange(sizes["l"]) < active, -1, 1)
        parts.append((t, nsi.prox.Nonnegative()))
    for q in sizes.get("q", ()):
        t = rng.normal(size=q)
        t[0] = 0.5 * np.linalg.norm(t[1:]) * rng.uniform(-1, 1)
        parts.append((t, nsi.prox.SecondOrderCone()))
    for k in sizes.get("s", ()):
        V = np.linalg.qr(rng.normal(size=(k, k)))[0]
        lam = rng.uniform(0.5, 1.5, k) * np.where(np.arange(k) < k // 2, -1, 1)
        parts.append((V @ np.diag(lam) @ V.T, nsi.prox.PSDCone()))
    for _ in range(sizes.get("ep", 0)):
        r = rng.uniform(-1, 1)
        t = np.array([r, 1, np.exp(r)]) * rng.uniform(0.5, 1.5)  # in the cone, and a multiplier orthogonal to it
        parts.append((t + np.array([1, 1 - r, -np.exp(-r)]) * rng.uniform(0.5, 1.5), nsi.prox.ExponentialCone()))
    for alpha in sizes.get("p", ()):
        cone = nsi.prox.PowerCone(alpha) if alpha > 0 else nsi.prox.DualPowerCone(-alpha)
        parts.append((np.append(rng.uniform(-0.3, 0.3, 2), 1.0), cone))
    s, t = [], []
    for point, cone in parts:
        found = np.asarray(cone.project(jnp.asarray(point)))
        if point.ndim == 2:
            column, row = np.triu_indices(len(point))
            weight = np.where(row == column, 1, np.sqrt(2))
            point, found = weight * point[row, column], weight * found[row, column]
        s.append(found)
        t.append(point)
    s, t = np.concatenate(s), np.concatenate(t)
    A, x = rng.normal(size=(len(s), n)), rng.normal(size=n)
    return (A, A @ x + s, -A.T @ (s - t)), x


def ours(sizes, weight, solver=None):
    def both(A, b, c):
        def product(A, b, c):
            found = nsi.layers.cone_program(A, b, c, sizes, solver=solver)
            return found.value @ weight, found

        gradient, found = jax.grad(product, argnums=(0, 1, 2), has_aux=True)(A, b, c)
        return found.value, gradient

    return both


def by_diffcp(sizes, weight, method):
    import diffcp
    import scipy.sparse

    options = {"SCS": {"eps_abs": 1e-11, "eps_rel": 1e-11, "max_iters": 100_000}, "Clarabel": {}}[method]

    def both(A, b, c):
        call = diffcp.solve_and_derivative
        x, y, s, _, adjoint = call(
            scipy.sparse.csc_matrix(A), b, c, sizes, solve_method=method, mode="dense", **options
        )
        dA, db, dc = adjoint(np.asarray(weight), 0 * y, 0 * s)
        return x, (dA.toarray(), db, dc)

    return both


def diffcp_lanes(sizes, weight, batch, method="SCS"):
    import diffcp
    import scipy.sparse

    As, bs, cs = ([list(v) for v in batch][i] for i in range(3))
    As = [scipy.sparse.csc_matrix(A) for A in As]

    def call():
        many = [sizes] * len(bs)
        xs, ys, ss, _, adjoint = diffcp.solve_and_derivative_batch(As, bs, cs, many, solve_method=method, mode="dense")
        return adjoint([np.asarray(weight)] * len(xs), [0 * y for y in ys], [0 * s for s in ss])

    return call


def there(*packages):
    """Which of the packages are not installed."""
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


def off(got, expected):
    """The largest difference, relative to the largest entry."""
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True))
    size = max(float(np.abs(e).max()) for _, e in pairs)
    return max(float(np.abs(np.asarray(g) - np.asarray(e)).max()) for g, e in pairs) / size


def one(table, name, repeats):
    sizes, _, n = PROGRAMS[name]
    args, x = planted(name, 0)
    weight = np.cos(np.arange(n))
    entrants: dict[str, Any] = {"nsimplicit": ((), lambda: jax.jit(ours(sizes, weight)))}
    entrants["nsimplicit, host SCS"] = (("scs",), lambda: jax.jit(ours(sizes, weight, "scs")))
    entrants["nsimplicit, host Clarabel"] = (("clarabel",), lambda: jax.jit(ours(sizes, weight, "clarabel")))
    entrants["diffcp, SCS"] = (("diffcp", "scs"), lambda: by_diffcp(sizes, weight, "SCS"))
    entrants["diffcp, Clarabel"] = (("diffcp", "clarabel"), lambda: by_diffcp(sizes, weight, "Clarabel"))
    rows, reference = [], None
    for entrant, (packages, make) in entrants.items():
        row = {"problem": name, "entrant": entrant}
        rows.append(row)
        if missing := there(*packages):
            row["note"] = f"not installed: {', '.join(missing)}"
            continue
        try:
            call = functools.partial(make(), *args)
            value, gradient = call()
        except Exception as failure:
            row["note"] = f"{type(failure).__name__}: {str(failure).splitlines()[0][:60]}"
            continue
        reference = gradient if reference is None else reference
        row |= {"off x": off(value, x), "off gradient": off(gradient, reference)} | spread(clock(call, repeats))
        if entrant == "nsimplicit":
            row["bound"] = table.bound(f"{name}, x", row["off x"], AGREE)
        elif entrant == "diffcp, SCS":
            row["bound"] = table.bound(f"{name}, gradient beside diffcp with SCS", row["off gradient"], AGREE)
    return rows


def lanes(name, repeats):
    sizes, _, n = PROGRAMS[name]
    weight, packages = np.cos(np.arange(n)), ("diffcp", "scs")
    batch = tuple(np.stack(v) for v in zip(*(planted(name, seed)[0] for seed in range(LANES)), strict=True))
    call = functools.partial(jax.jit(jax.vmap(ours(sizes, weight))), *batch)
    _, gradient = call()
    good = int(np.isfinite(np.asarray(gradient[2])).all(1).sum())
    times = [t / LANES for t in clock(call, repeats)]
    rows = [{"problem": f"{name}, {LANES} lanes", "entrant": "nsimplicit", "note": f"{good} regular"} | spread(times)]
    row = {"problem": rows[0]["problem"], "entrant": "diffcp, SCS", "note": "its default tolerance"}
    if missing := there(*packages):
        return [*rows, row | {"note": f"not installed: {', '.join(missing)}"}]
    times = [t / LANES for t in clock(diffcp_lanes(sizes, weight, batch), repeats)]
    return [*rows, row | spread(times)]


def measure(smoke: bool = False) -> Table:
    table = Table("Are the solutions and derivatives of cone programs those of SCS, Clarabel and diffcp, and how fast?")
    # For all threads: a callback to the host may run in another one, which `with jax.enable_x64` does not reach.
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        for name in list(PROGRAMS)[1:2] if smoke else PROGRAMS:
            table.rows += one(table, name, 3 if smoke else 9)
        if not smoke:
            for name in ("linear", "second-order"):
                table.rows += lanes(name, 5)
    finally:
        jax.config.update("jax_enable_x64", before)
    return table
