"""Hypergradients: the derivative of a held-out error in the penalties of a Lasso and an elastic net.

All entrants get the same solution, exact to rounding, and the gradient v of the held-out error there; what is timed is
the way from v to the gradient in the penalties: one weight per coefficient, and for the elastic net also its ridge.
nsimplicit runs at its defaults, which are tighter than the target.

Data: rows of A are Gaussian with correlation 0.5^|i-j| between columns i and j, divided by sqrt(m); the true
coefficients are Gaussian on m/10 random places; the noise is a third of the signal. The weight is a tenth of the
smallest that gives zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import rules
from benchmarks.race import Entrant, at_equal_error, judge, race
from benchmarks.report import Table

SIZES = ((100, 200), (150, 500), (250, 1000), (350, 1400), (500, 2000))
RHO = 0.5
SEEDS = 3
TARGET = 1e-8
# At the largest size and equal error: times jaxopt's default linear solver, times its fastest.
PROMISED = {"Lasso": (20.0, 5.0), "elastic net": (15.0, 3.5)}
RIDGE = 0.05


def data(m: int, p: int, seed: int) -> tuple[np.ndarray, ...]:
    """Training and held-out halves: A, b, A', b'."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(2 * m, p))
    for j in range(1, p):
        A[:, j] = RHO * A[:, j - 1] + np.sqrt(1 - RHO**2) * A[:, j]
    A /= np.sqrt(m)
    truth = np.zeros(p)
    truth[rng.choice(p, m // 10, replace=False)] = rng.normal(size=m // 10)
    b = A @ truth
    b += rng.normal(size=2 * m) * np.linalg.norm(b) / np.sqrt(2 * m) / 3
    return A[:m], b[:m], A[m:], b[m:]


def solve(H: np.ndarray, b: np.ndarray) -> np.ndarray:
    """H⁻¹b, refined through residuals in extended precision."""
    x = np.zeros_like(b, np.longdouble)
    for _ in range(3):
        x += np.linalg.solve(H, np.asarray(b - H.astype(np.longdouble) @ x, float))
    return x.astype(float)


def solution(A: np.ndarray, b: np.ndarray, l1: float, l2: float) -> np.ndarray:
    """The minimiser of ½‖Ax - b‖² + l1 |x|₁ + ½ l2 ‖x‖²: its signs by scikit-learn, its entries in closed form."""
    from sklearn.linear_model import ElasticNet

    m = len(b)
    model = ElasticNet(alpha=(l1 + l2) / m, l1_ratio=l1 / (l1 + l2), fit_intercept=False, tol=1e-10, max_iter=10**5)
    rough = model.fit(A, b).coef_
    S, x = np.flatnonzero(rough), np.zeros(A.shape[1])
    x[S] = solve(A[:, S].T @ A[:, S] + l2 * np.eye(len(S)), A[:, S].T @ b - l1 * np.sign(rough[S]))
    slack = l1 - np.abs(A.T @ (b - A @ x))
    assert (np.sign(x) == np.sign(rough)).all(), "the signs were not found"
    assert np.delete(slack, S).min() > 1e-6 * l1, "the solution is at a kink"
    return x


def reference(A: np.ndarray, x: np.ndarray, v: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """-sign(x)·y and -<x, y> with H y = v on the support, H = AᵀA + l2: the gradients in the l1 weights and l2."""
    S, y = np.flatnonzero(x), np.zeros_like(x)
    y[S] = solve(A[:, S].T @ A[:, S] + l2 * np.eye(len(S)), v[S])
    if len(x) <= SIZES[0][1]:  # the same from the fixed-point equation as a whole: (I - T')ᵀ u = v
        step, D = 1 / np.linalg.norm(A, 2) ** 2, np.diag(x != 0)
        S_map = np.eye(len(x)) - step * (A.T @ A + l2 * np.eye(len(x)))
        whole = step * np.where(x != 0, solve((np.eye(len(x)) - D @ S_map).T, v), 0)
        assert np.allclose(whole, y, rtol=0, atol=1e-12 * np.abs(y).max()), "two ways to the reference disagree"
    return -np.sign(x) * y, -float(x @ y)


def instance(m: int, p: int, seed: int, ridge: float) -> tuple[Any, Any]:
    """The arguments of every call, and the error of its answer."""
    A, b, A_out, b_out = data(m, p, seed)
    l1 = 0.1 * np.abs(A.T @ b).max()
    x = solution(A, b, l1, ridge)
    v = A_out.T @ (A_out @ x - b_out)
    truth = np.append(*reference(A, x, v, ridge)) if ridge else reference(A, x, v, 0.0)[0]
    theta = {"l1": np.full(p, l1)} | ({"l2": ridge} if ridge else {})
    known = {"A": A, "b": b, "step": 1 / (np.linalg.norm(A, 2) ** 2 + ridge)}

    def error(g: Any) -> float:
        found = np.append(g["l1"], g["l2"]) if ridge else g["l1"]
        return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))

    return jax.tree.map(jnp.asarray, (theta, known, x, v)), error


def step_map(x, theta, known):
    """T as a person writes it, for whoever takes any function."""
    z = x - known["step"] * (known["A"].T @ (known["A"] @ x - known["b"]))
    z = jnp.sign(z) * jax.nn.relu(jnp.abs(z) - known["step"] * theta["l1"])
    return z / (1 + known["step"] * theta["l2"]) if "l2" in theta else z


def forward_backward(theta, known):
    f = nsi.prox.LeastSquares(known["A"], known["b"])
    g = nsi.prox.ElasticNet(theta["l1"], theta["l2"]) if "l2" in theta else nsi.prox.L1(theta["l1"])
    return nsi.splittings.ForwardBackward(f, g, known["step"])


def by_hand(size: int):
    """What an expert writes for this one problem: gather a support of static size, Cholesky, scatter."""

    def call(theta, known, x, v):
        (S,) = jnp.nonzero(x, size=size, fill_value=len(x))
        A = known["A"].at[:, S].get(mode="fill", fill_value=0)
        H = A.T @ A + jnp.diag(jnp.where(S < len(x), theta.get("l2", 0.0), 1.0))
        y = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(H), v.at[S].get(mode="fill", fill_value=0))
        y = jnp.zeros_like(x).at[S].set(y, mode="drop")
        return {"l1": -jnp.sign(x) * y} | ({"l2": -jnp.vdot(x, y)} if "l2" in theta else {})

    return call


def by_hand_cg(tol):
    """The same without a gather: conjugate gradients on vectors that vanish off the support."""

    def call(theta, known, x, v):
        on = jnp.where(x != 0, 1.0, 0.0)

        def H(y):
            return on * (known["A"].T @ (known["A"] @ (on * y))) + theta.get("l2", 0.0) * y

        y = jax.scipy.sparse.linalg.cg(H, on * v, tol=tol, maxiter=4000)[0]
        return {"l1": -jnp.sign(x) * y} | ({"l2": -jnp.vdot(x, y)} if "l2" in theta else {})

    return call


def bucket(instances) -> int:
    """The support's size as an expert fixes it beforehand: the next power of two."""
    return 1 << max(int(np.count_nonzero(args[2])) - 1 for args, _ in instances).bit_length()


def entrants(instances, *, peers: bool, dense: bool, full: bool) -> list[Entrant]:
    """Who takes part; with ``full`` also the slower choices of each library, and products are counted."""
    (args, error), *others = instances
    case: dict[str, Any] = {"args": args, "error": error, "others": others}
    names = ("RestrictedCholesky", "ProxCG", "GMRES") if full else ("ProxCG",) if peers else ()
    ours = rules.splitting_entrants(forward_backward, names, instances, TARGET, count=full)
    ours.append(Entrant("nsimplicit, custom_fixed_point", rules.decorated(step_map), **case))
    size = bucket(instances)
    hand = [Entrant("by hand: support, Cholesky", by_hand(size), **case, note=f"static size {size}")]
    if not peers:
        return ours + hand
    name, tolerances = "by hand: masked CG", rules.tolerances(TARGET)
    hand.append(at_equal_error(by_hand_cg, tolerances, **case, target=TARGET, name=name, traced=True))
    restarts = (20, 50) if full else (20,)
    jaxopt = rules.jaxopt_entrants(step_map, instances, TARGET, dense=dense, count=full, restarts=restarts)
    return ours + hand + jaxopt + rules.other_entrants(step_map, instances, TARGET, dense=dense, gmres=full)


def measure(smoke: bool = False) -> Table:
    table = Table(
        "How fast is a hypergradient? One derivative at a known solution, float64, "
        f"linear solvers at the loosest tolerance with error <= {TARGET:g}"
    )
    with jax.enable_x64(True):
        for problem, ridge in (("Lasso", 0.0), ("elastic net", RIDGE))[: 1 if smoke else 2]:
            for m, p in SIZES[:1] if smoke else SIZES:
                instances = [instance(m, p, seed, ridge) for seed in range(1 if smoke else SEEDS)]
                support = max(int(np.count_nonzero(args[2])) for args, _ in instances)
                largest = (m, p) == SIZES[-1]
                field = entrants(instances, peers=not smoke, dense=problem == "Lasso", full=largest)
                rows = race(field, 7, compiles=2 if largest else 0)
                judge(table, f"{problem} {m}x{p}", rows, TARGET, PROMISED[problem] if largest else None)
                table.rows += [{"problem": problem, "m": m, "p": p, "support": support, **row} for row in rows]
    return table
