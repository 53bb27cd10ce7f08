"""Speed of proxes and projections: n = 10^4, float64, forward and VJP, next to jaxopt, scico, pyproximal, scikit-learn.

The error of a row is its largest difference from nsimplicit's answer (``agreement`` says who is right). NumPy has no
VJP, and its libraries take one vector at a time: a loop over a batch of 100, next to nsimplicit's ``vmap``.

One promise per operator, at its worst cell: forward and VJP no slower than jaxopt and scico, a batch no slower than
pyproximal. Every row that is faster than nsimplicit says so, promised or not.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.proxes_operators import OPERATORS, Operator
from benchmarks.race import OURS, Entrant, absent, race
from benchmarks.report import Table, write
from nsimplicit import prox

N, BATCH = 10_000, 100
PSD_BOUND = 1.3  # times one eigendecomposition
NO_SLOWER = 0.95  # of a peer's time: what the medians of one program in two runs differ by
ERROR = 1e-5  # a peer that is further off computes something else
MOST_BYTES = 4e9
SECONDS = 1.5  # for the calls of one entrant in one race


def draw(operator: Operator, n: int, batch: int = 1) -> np.ndarray:
    side = int(n**0.5)
    x = np.random.default_rng(0).normal(size=(batch, side, side) if operator.matrix else (batch, n))
    return np.cumsum(x, axis=-1) / 10 if operator.walk else x


def vjp(fun: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """What a gradient costs: the prox, and its pullback."""
    return lambda x, weights: jax.vjp(fun, x)[1](weights)[0]


def entrant(name: str, call: Callable[..., Any], args: tuple[Any, ...], truth: Any = None) -> Entrant:
    """A program of JAX in the race, compiled here, unless it needs more memory than there should be."""
    try:
        ready = jax.jit(call).lower(*args).compile()
    except Exception as failure:
        return absent(name, failure, args)
    memory = ready.memory_analysis()
    if memory is not None and memory.temp_size_in_bytes > MOST_BYTES:
        return absent(name, MemoryError(f"would take {memory.temp_size_in_bytes / 1e9:.1f} GB"), args)
    return Entrant(name, call, args, None if truth is None else off(truth), ready=ready)


def eager(name: str, call: Callable[..., Any], args: tuple[Any, ...], truth: Any) -> Entrant:
    """A program of NumPy's."""
    return Entrant(name, call, args, off(truth), jitted=False, ready=call)


def off(truth: Any) -> Callable[[Any], float]:
    return lambda out: float(np.max(abs(np.asarray(out) - truth)))


def add(table: Table, what: dict[str, Any], entrants: list[Entrant], repeats: int) -> list[dict[str, Any]]:
    """Race, and say how many times nsimplicit's time each took."""
    rows = race(entrants, repeats, compiles=0, seconds=SECONDS)
    ours = rows[0]["median ms"]
    keep = ("entrant", "median ms", "quartile 1", "quartile 3", "error", "note")
    for row in rows:
        ratio: Any = row["median ms"] / ours if isinstance(row["median ms"], float) and isinstance(ours, float) else ""
        slower = "nsimplicit is slower" if ratio != "" and ratio < 1 else ""
        table.rows.append(what | {column: row[column] for column in keep} | {"x nsimplicit": ratio, "bound": slower})
    return table.rows[-len(rows) :]


def one(table: Table, operator: Operator, n: int, repeats: int) -> list[dict[str, Any]]:
    """Forward and VJP of a single vector or matrix; the rows that are promised."""
    (x,) = draw(operator, n)
    weights, promised = np.random.default_rng(1).normal(size=x.shape), []
    for word, args in (("forward", (x,)), ("VJP", (x, weights))):
        change = vjp if word == "VJP" else lambda fun: fun
        arrays = tuple(jnp.asarray(a) for a in args)
        ours = entrant(OURS, change(operator.ours), arrays)
        truth = np.asarray((ours.ready or ours.call)(*arrays))
        jitted = [entrant(name, change(call), arrays, truth) for name, call in operator.array.items()]
        numpy = operator.numpy.items() if word == "forward" else ()
        others = [eager(name, call, (x,), truth) for name, call in numpy]
        rows = add(table, {"operator": operator.name, "what": word, "batch": 1}, [ours, *jitted, *others], repeats)
        promised += rows[1 : 1 + len(jitted)]
    return promised


def many(table: Table, operator: Operator, n: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """A batch: ``vmap``, next to a loop in NumPy; the rows that are promised."""
    x = draw(operator, n, batch)
    ours = entrant(OURS, jax.vmap(operator.ours), (jnp.asarray(x),))
    truth = np.asarray((ours.ready or ours.call)(*ours.args))
    loops = {name: loop(call) for name, call in operator.numpy.items() if "1000" not in name}
    entrants = [ours, *(eager(name, call, (x,), truth) for name, call in loops.items())]
    what = {"operator": operator.name, "what": "forward", "batch": batch}
    rows = add(table, what, entrants, repeats) if loops else []
    return [row for row in rows if row["entrant"].startswith("pyproximal")]


def loop(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: np.stack([call(row) for row in x])


def judge(table: Table, operator: Operator, promised: list[dict[str, Any]]) -> None:
    """One bound: at the cell where nsimplicit is worst, of the peers that compute the same."""
    timed = [r for r in promised if isinstance(r["x nsimplicit"], float) and r["error"] <= ERROR]
    if timed:
        worst = min(timed, key=lambda row: row["x nsimplicit"])
        cell = f"{operator.name}, {worst['what']}, batch {worst['batch']}, against {worst['entrant']}"
        kept = table.at_least(cell, worst["x nsimplicit"], NO_SLOWER)
        worst["bound"] = f"{kept}; {worst['bound']}" if worst["bound"] else kept


def cone(table: Table, side: int, repeats: int) -> None:
    """The projection on the positive semidefinite matrices, next to the eigendecomposition it needs."""
    a = np.random.default_rng(0).normal(size=(2, side, side))
    x, weights = jnp.asarray(a + a.transpose(0, 2, 1))
    project = prox.PSDCone().project
    for word, call, args in (("forward", project, (x,)), ("VJP", vjp(project), (x, weights))):
        floor = entrant("one eigendecomposition", lambda x, *_: jnp.linalg.eigh(x), args)
        what = {"operator": f"PSDCone, {side} x {side}", "what": word, "batch": 1}
        ours, one = add(table, what, [entrant(OURS, call, args), floor], repeats)
        one["bound"] = ""  # it is part of the projection
        if word == "forward":
            ratio = ours["median ms"] / one["median ms"]
            ours["bound"] = table.bound(f"PSDCone {side}, times an eigendecomposition", ratio, PSD_BOUND)


def summary(table: Table) -> Table:
    """A line for each operator: nsimplicit's milliseconds, and how many times those each peer takes."""
    short = Table(table.question)
    for name in dict.fromkeys(row["operator"] for row in table.rows):
        line: dict[str, Any] = {"operator": name}
        for row in (row for row in table.rows if row["operator"] == name):
            cell = row["what"] if row["batch"] == 1 else f"batch {row['batch']}"
            if row["entrant"] == OURS:
                line[f"{cell}, ms"] = row["median ms"]
            elif row["x nsimplicit"] != "":
                line[f"{cell}, peers"] = "; ".join(
                    [*filter(None, [line.get(f"{cell}, peers")]), f"{row['entrant']} {row['x nsimplicit']:.2g}"]
                )
        short.rows.append(line)
    return short


def measure(smoke: bool = False) -> Table:
    n, batch, repeats = (400, 5, 3) if smoke else (N, BATCH, 401)
    table = Table(f"Proxes at n = {n}, float64, CPU, jit: milliseconds next to other libraries; error: off nsimplicit")
    warnings.simplefilter("ignore")  # the peers' own
    with jax.enable_x64(True):
        for operator in OPERATORS:
            promised = one(table, operator, n, repeats)
            judge(table, operator, promised + many(table, operator, n, batch, max(3, repeats // 20)))
        for side in (20,) if smoke else (100, 400):
            cone(table, side, max(3, repeats // 8))
    write(f"proxes-summary{'-smoke' * smoke}", summary(table))
    return table
