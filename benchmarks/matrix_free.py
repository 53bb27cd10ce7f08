"""Derivatives where the matrix is known only by its products, and where it would not fit.

Three problems, each min ½‖A x - b‖² + <w, |x|>, differentiated in w at a known solution:

* a Lasso whose smooth term is a Python function: the data of ``benchmarks.hypergradients``;
* deconvolution: A is a circular convolution with a Gaussian pulse, evaluated by FFT; n/64 spikes at random places;
* a Lasso with 500 rows and 20 000 columns in float32, where a p x p matrix would take 1.6 GB.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import hypergradients, rules
from benchmarks.race import OURS, Entrant, absent, at_equal_error, judge, race
from benchmarks.report import Table

SIZES = hypergradients.SIZES
LENGTHS = (1024, 2048, 4096, 8192, 16384)
WIDE = (500, 20_000)
SEEDS = 3
TARGET = 1e-8
TARGET_32 = 1e-4
PROMISED = (5.0, 1.5)  # times jaxopt's default linear solver, times its fastest
MOST_MB = 200.0  # for the wide Lasso: A is 40 MB, a p x p matrix 1600 MB


def half_square(x, A, b):
    r = A @ x - b
    return jnp.vdot(r, r) / 2


def convolve(x, pulse):
    return jnp.fft.irfft(pulse * jnp.fft.rfft(x), len(x))


def misfit(x, pulse, b):
    r = convolve(x, pulse) - b
    return jnp.vdot(r, r) / 2


def threshold(z, known, w):
    return jnp.sign(z) * jax.nn.relu(jnp.abs(z) - known["step"] * w)


def product_map(x, w, known):
    r = known["A"] @ x - known["b"]
    return threshold(x - known["step"] * (known["A"].T @ r), known, w)


def deconvolution_map(x, w, known):
    return threshold(x - known["step"] * jax.grad(misfit)(x, known["pulse"], known["b"]), known, w)


def by_products(w, known):
    f = nsi.prox.smooth(half_square, known["A"], known["b"])
    return nsi.splittings.ForwardBackward(f, nsi.prox.L1(w), known["step"])


def with_matrix(w, known):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(known["A"], known["b"]), nsi.prox.L1(w), known["step"])


def deconvolution(w, known):
    f = nsi.prox.smooth(misfit, known["pulse"], known["b"])
    return nsi.splittings.ForwardBackward(f, nsi.prox.L1(w), known["step"])


def masked_cg(gradient_product):
    """By hand: conjugate gradients on vectors that vanish off the support."""

    def family(tol):
        def call(w, known, x, v):
            on = jnp.where(x != 0, 1.0, 0.0).astype(x.dtype)

            def H(y):
                return on * gradient_product(known, on * y)

            y = jax.scipy.sparse.linalg.cg(H, on * v, tol=tol, maxiter=4000)[0]
            return -jnp.sign(x) * y

        return call

    return family


def spikes(n: int, seed: int) -> tuple[Any, Any]:
    """One deconvolution: the arguments of every call, and the error of its answer."""
    rng = np.random.default_rng(seed)
    shape = np.exp(-0.5 * (np.minimum(np.arange(n), n - np.arange(n)) / 1.5) ** 2)
    pulse = np.fft.rfft(shape / np.linalg.norm(shape))
    truth = np.zeros(n)
    truth[rng.choice(n, n // 64, replace=False)] = rng.choice((-1, 1), n // 64) * rng.uniform(1, 2, n // 64)

    def A(x, k=pulse):
        return np.fft.irfft(k * np.fft.rfft(x), n)

    b = A(truth) + 0.05 * rng.normal(size=n)
    weight, step = 0.1 * np.abs(A(b, pulse.conj())).max(), 1 / np.abs(pulse).max() ** 2
    columns = A(np.eye(1, n)[0])
    x, z, t = np.zeros(n), np.zeros(n), 1.0
    for turn in range(20_000):  # FISTA, until its support gives the solution in closed form
        y = z - step * A(A(z) - b, pulse.conj())
        new = np.sign(y) * np.maximum(np.abs(y) - step * weight, 0)
        if np.vdot(z - new, new - x) > 0:
            t = 1.0
        faster = (1 + np.sqrt(1 + 4 * t * t)) / 2
        x, z, t = new, new + (t - 1) / faster * (new - x), faster
        if turn % 100 == 99:
            S = np.flatnonzero(x)
            A_S = columns[(np.arange(n)[:, None] - S) % n]
            H = A_S.T @ A_S
            exact = np.zeros(n)
            exact[S] = hypergradients.solve(H, A_S.T @ b - weight * np.sign(x[S]))
            slack = np.delete(weight - np.abs(A(b - A(exact), pulse.conj())), S)
            if (np.sign(exact) == np.sign(x)).all() and slack.min() > 1e-6 * weight:
                break
    else:
        raise AssertionError("the signs were not found")
    v = exact - truth
    reference = np.zeros(n)
    reference[S] = -np.sign(exact[S]) * hypergradients.solve(H, v[S])
    known = {"pulse": pulse, "b": b, "step": step}
    return jax.tree.map(jnp.asarray, (np.full(n, weight), known, exact, v)), _error(reference)


def lasso(m: int, p: int, seed: int, dtype: Any = np.float64) -> tuple[Any, Any]:
    """One Lasso, with the weights as a plain array."""
    A, b, A_out, b_out = hypergradients.data(m, p, seed)
    weight = 0.1 * np.abs(A.T @ b).max()
    x = hypergradients.solution(A, b, weight, 0.0)
    v = A_out.T @ (A_out @ x - b_out)
    known = {"A": A, "b": b, "step": 1 / np.linalg.norm(A, 2) ** 2}
    args = jax.tree.map(lambda a: jnp.asarray(a, dtype), (np.full(p, weight), known, x, v))
    return args, _error(hypergradients.reference(A, x, v, 0.0)[0])


def _error(truth: np.ndarray) -> Any:
    return lambda g: float(np.linalg.norm(np.asarray(g, float) - truth) / np.linalg.norm(truth))


def entrants(T, make, product, instances, target, *, peers: bool, full: bool) -> list[Entrant]:
    (args, error), *others = instances
    case: dict[str, Any] = {"args": args, "error": error, "others": others}
    ours = rules.splitting_entrants(make, ("GMRES",) if full else (), instances, target, count=full)
    ours.append(Entrant("nsimplicit, custom_fixed_point", rules.decorated(T), **case))
    if not peers:
        return ours
    cg = at_equal_error(
        masked_cg(product), rules.tolerances(target), **case, target=target, name="by hand: masked CG", traced=True
    )
    jaxopt = rules.jaxopt_entrants(T, instances, target, dense=False, count=full, restarts=(20,))
    return [*ours, cg, *jaxopt, *rules.other_entrants(T, instances, target, dense=False, gmres=full)]


def gram(known, y):
    return known["A"].T @ (known["A"] @ y)


def blur_twice(known, y):
    pulse = known["pulse"]
    return convolve(convolve(y, pulse), pulse.conj())


def measure(smoke: bool = False) -> Table:
    table = Table(
        "And where the matrix is known by its products alone? One derivative at a known solution, "
        f"linear solvers at the loosest tolerance with error <= {TARGET:g} (float32: {TARGET_32:g})"
    )
    seeds = range(1 if smoke else SEEDS)
    with jax.enable_x64(True):
        for m, p in () if smoke else SIZES:
            instances = [lasso(m, p, seed) for seed in seeds]
            largest = (m, p) == SIZES[-1]
            field = entrants(product_map, by_products, gram, instances, TARGET, peers=True, full=largest)
            rows = race(field, 7, compiles=2 if largest else 0)
            what, ours = f"Lasso by products {m}x{p}", rules.TUNED if largest else OURS
            judge(table, what, rows, TARGET, PROMISED if largest else None, ours)
            add(table, "Lasso by products", m, p, instances, rows)
        for n in LENGTHS[:1] if smoke else LENGTHS:
            instances = [spikes(n, seed) for seed in seeds]
            largest = n == LENGTHS[-1] and not smoke
            field = entrants(
                deconvolution_map, deconvolution, blur_twice, instances, TARGET, peers=not smoke, full=largest
            )
            rows = race(field, 7, compiles=1 if largest else 0)
            judge(table, f"deconvolution {n}", rows, TARGET, None)
            add(table, "deconvolution", n, n, instances, rows)
    if not smoke:
        wide(table)
    return table


def wide(table: Table) -> None:
    """The Lasso with 20 000 columns, in float32."""
    instances = [lasso(*WIDE, 0, np.float32)]
    args, error = instances[0]
    field = entrants(product_map, with_matrix, gram, instances, TARGET_32, peers=True, full=True)
    products = Entrant("nsimplicit, f by products", rules.splitting(by_products), args, error)
    field.insert(1, products)
    field = [entrant for entrant in field if entrant.name != rules.UNTUNED]  # seconds a call, and far off
    needs = MemoryError("a p x p matrix takes 1.6 GB: not run")
    field += [absent(name, needs) for name in ("jaxopt, LU", "lax.custom_root, LU", "optimistix, default (lineax LU)")]
    rows = race(field, 7, compiles=1)
    what = "Lasso, float32, {}x{}".format(*WIDE)
    judge(table, what, rows, TARGET_32, None)
    for row in rows:
        if row["entrant"] in ("nsimplicit", "nsimplicit, f by products"):
            size = row["MB"] if isinstance(row["MB"], float) else float("inf")
            row["bound"] = "MB " + table.bound(f"{what}, {row['entrant']}, MB", size, MOST_MB)
    add(table, "Lasso, float32", *WIDE, instances, rows)


def add(table: Table, problem: str, m: int, p: int, instances: Any, rows: list[dict[str, Any]]) -> None:
    support = max(int(np.count_nonzero(args[2])) for args, _ in instances)
    table.rows += [{"problem": problem, "m": m, "p": p, "support": support, **row} for row in rows]
