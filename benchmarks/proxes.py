"""Speed of proxes and projections: n = 10^4, float64, forward and VJP, next to jaxopt, scico, pyproximal, scikit-learn.

The error of a row is its largest difference from nsimplicit's answer (``agreement`` says who is right). NumPy has no
VJP, and its libraries take one vector at a time: a loop over a batch of 100, next to nsimplicit's ``vmap``.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_row import STEP as S
from benchmarks.agreement_row import jaxopt, jaxopt_isotonic, pyproximal, scico, sklearn_isotonic
from benchmarks.race import OURS, Entrant, absent, race
from benchmarks.report import Table
from nsimplicit import prox

N, BATCH = 10_000, 100
PSD_BOUND = 1.3  # times one eigendecomposition
MOST_BYTES = 4e9
W = 0.5


@dataclasses.dataclass(frozen=True)
class Operator:
    """A prox on vectors of any length, or on matrices; ``array`` are peers in JAX, ``numpy`` those of NumPy."""

    name: str
    ours: Callable[[Any], Any]
    array: dict[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    numpy: dict[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    matrix: bool = False
    walk: bool = False  # a random walk for an input, with structure to be found


def half(x: Any) -> float:
    """A number that does not grow with the length, so that some entries are kept and others are not."""
    return 0.1 * x.shape[-1]


OPERATORS = (
    Operator(
        "L1",
        prox.L1(W).prepare(S),
        {
            "jaxopt": lambda x: jaxopt.prox.prox_lasso(x, W * jnp.ones_like(x), S),
            "scico": lambda x: scico.L1Norm().prox(x, W * S),
        },
        {"pyproximal": lambda x: pyproximal.L1(W).prox(x, S)},
    ),
    Operator(
        "ElasticNet",
        prox.ElasticNet(W, W * W).prepare(S),
        {"jaxopt": lambda x: jaxopt.prox.prox_elastic_net(x, (W, W), S)},
    ),
    Operator(
        "GroupL2",
        prox.GroupL2(10 * W, axis=0).prepare(S),
        {
            "jaxopt": lambda x: jax.vmap(lambda c: jaxopt.prox.prox_group_lasso(c, 10 * W, S), 1, 1)(x),
            "scico": lambda x: scico.L21Norm(0).prox(x, 10 * W * S),
        },
        {"pyproximal": lambda x: pyproximal.L21(len(x), 10 * W).prox(x.ravel(), S).reshape(x.shape)},
        matrix=True,
    ),
    Operator(
        "L2Ball",
        prox.L2Ball(5.0).project,
        {
            "jaxopt": lambda x: jaxopt.projection.projection_l2_ball(x, 5.0),
            "scico": lambda x: scico.L2BallIndicator(5.0).prox(x),
        },
        {"pyproximal": lambda x: pyproximal.EuclideanBall(0.0, 5.0).prox(x, 1.0)},
    ),
    Operator(
        "Box",
        prox.Box(-W, W).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_box(x, (-W, W))},
        {"pyproximal": lambda x: pyproximal.Box(-W, W).prox(x, 1.0)},
    ),
    Operator(
        "Simplex",
        lambda x: prox.Simplex(half(x)).project(x),
        {"jaxopt": lambda x: jaxopt.projection.projection_simplex(x, half(x))},
        {"pyproximal": lambda x: pyproximal.Simplex(len(x), half(x)).prox(x, 1.0)},
    ),
    Operator(
        "L1Ball",
        lambda x: prox.L1Ball(half(x)).project(x),
        {"jaxopt": lambda x: jaxopt.projection.projection_l1_ball(x, half(x))},
        {"pyproximal": lambda x: pyproximal.L1Ball(len(x), half(x)).prox(x, 1.0)},
    ),
    Operator(
        "CappedSimplex",
        lambda x: prox.CappedSimplex(half(x), 1.0).project(x),
        {
            "jaxopt": lambda x: jaxopt.projection.projection_box_section(
                x, (jnp.zeros_like(x), jnp.ones_like(x), jnp.ones_like(x), half(x))
            )
        },
        {
            "pyproximal": lambda x: pyproximal.projection.HyperPlaneBoxProj(np.ones(len(x)), half(x), 0.0, 1.0)(x),
        },
    ),
    Operator(
        "TotalVariation1D",
        prox.TotalVariation1D(5.0).prepare(S),
        {},
        {
            "pyproximal, as it comes (10 steps)": lambda x: pyproximal.TV(x.shape, 5.0).prox(x, S),
            "pyproximal, 1000 steps": lambda x: pyproximal.TV(x.shape, 5.0, niter=1000, rtol=0.0).prox(x, S),
        },
        walk=True,
    ),
    Operator(
        "Isotonic",
        prox.Isotonic().project,
        {"jaxopt": jaxopt_isotonic},
        {"scikit-learn": lambda x: sklearn_isotonic.isotonic_regression(x)},
        walk=True,
    ),
    Operator(
        "NuclearNorm",
        prox.NuclearNorm(10 * W).prepare(S),
        {"scico": lambda x: scico.NuclearNorm().prox(x, 10 * W * S)},
        {"pyproximal": lambda x: pyproximal.Nuclear(x.shape, 10 * W).prox(x.ravel(), S).reshape(x.shape)},
        matrix=True,
    ),
)


def draw(operator: Operator, n: int, batch: int = 1) -> np.ndarray:
    side = int(n**0.5)
    x = np.random.default_rng(0).normal(size=(batch, side, side) if operator.matrix else (batch, n))
    return np.cumsum(x, axis=-1) / 10 if operator.walk else x


def vjp(fun: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """What a gradient costs: the prox, and its pullback."""
    return lambda x, weights: jax.vjp(fun, x)[1](weights)[0]


def entrant(name: str, call: Callable[..., Any], args: tuple[Any, ...], truth: Any, jitted: bool = True) -> Entrant:
    """A program in the race, unless it needs more memory than there should be."""

    def error(out: Any) -> float:
        return float(np.max(abs(np.asarray(out) - truth)))

    if jitted and name != OURS:
        try:
            memory = jax.jit(call).lower(*args).compile().memory_analysis()
        except Exception as failure:
            return absent(name, failure, args)
        if memory is not None and memory.temp_size_in_bytes > MOST_BYTES:
            return absent(name, MemoryError(f"would take {memory.temp_size_in_bytes / 1e9:.1f} GB"), args)
    return Entrant(name, call, args, error, jitted=jitted, ready=None if jitted else call)


def add(table: Table, what: dict[str, Any], entrants: list[Entrant], repeats: int) -> list[dict[str, Any]]:
    """Race, and say how many times nsimplicit's time each took."""
    rows = race(entrants, repeats, compiles=0)
    ours = rows[0]["median ms"]
    keep = ("entrant", "median ms", "quartile 1", "quartile 3", "error", "MB", "note")
    for row in rows:
        timed = isinstance(row["median ms"], float) and isinstance(ours, float)
        ratio = {"x nsimplicit": row["median ms"] / ours if timed else "", "bound": ""}
        table.rows.append(what | {column: row[column] for column in keep} | ratio)
    return table.rows[-len(rows) :]


def one(table: Table, operator: Operator, n: int, repeats: int) -> None:
    """Forward and VJP of a single vector or matrix."""
    (x,) = draw(operator, n)
    weights = np.random.default_rng(1).normal(size=x.shape)
    for word, args in (("forward", (x,)), ("VJP", (x, weights))):
        change = vjp if word == "VJP" else lambda fun: fun
        truth = np.asarray(jax.jit(change(operator.ours))(*args))
        arrays = tuple(jnp.asarray(a) for a in args)
        entrants = [Entrant(OURS, change(operator.ours), arrays)]
        entrants += [entrant(name, change(call), arrays, truth) for name, call in operator.array.items()]
        if word == "forward":
            entrants += [entrant(name, call, (x,), truth, jitted=False) for name, call in operator.numpy.items()]
        add(table, {"operator": operator.name, "what": word, "batch": 1}, entrants, repeats)


def many(table: Table, operator: Operator, n: int, batch: int, repeats: int) -> None:
    """A batch: ``vmap``, next to a loop in NumPy."""
    x = draw(operator, n, batch)
    ours = jax.vmap(operator.ours)
    truth = np.asarray(jax.jit(ours)(x))
    entrants = [Entrant(OURS, ours, (jnp.asarray(x),))]
    for name, call in operator.numpy.items():
        if "1000" not in name:
            loop = lambda x, call=call: np.stack([call(row) for row in x])  # noqa: E731
            entrants.append(entrant(name, loop, (x,), truth, jitted=False))
    if len(entrants) > 1:
        add(table, {"operator": operator.name, "what": "forward", "batch": batch}, entrants, repeats)


def cone(table: Table, side: int, repeats: int) -> None:
    """The projection on the positive semidefinite matrices, next to the eigendecomposition it needs."""
    a = np.random.default_rng(0).normal(size=(2, side, side))
    x, weights = jnp.asarray(a + a.transpose(0, 2, 1))
    project = prox.PSDCone().project
    for word, call, args in (("forward", project, (x,)), ("VJP", vjp(project), (x, weights))):
        floor = Entrant("one eigendecomposition", lambda x, *_: jnp.linalg.eigh(x), args)
        what = {"operator": f"PSDCone, {side} x {side}", "what": word, "batch": 1}
        ours, one = add(table, what, [Entrant(OURS, call, args), floor], repeats)
        if word == "forward":
            ratio = ours["median ms"] / one["median ms"]
            ours["bound"] = table.bound(f"PSDCone {side}, times an eigendecomposition", ratio, PSD_BOUND)


def measure(smoke: bool = False) -> Table:
    n, batch, repeats = (400, 5, 3) if smoke else (N, BATCH, 21)
    table = Table(f"Proxes at n = {n}, float64, CPU, jit: milliseconds next to other libraries; error: off nsimplicit")
    warnings.simplefilter("ignore")  # the peers' own
    with jax.enable_x64(True):
        for operator in OPERATORS:
            one(table, operator, n, repeats)
            many(table, operator, n, batch, max(3, repeats // 3))
        for side in (20,) if smoke else (100, 400):
            cone(table, side, repeats)
    return table
