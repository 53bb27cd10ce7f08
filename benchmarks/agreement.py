"""Do other libraries compute the same proxes and projections, and who is right where they do not?

Random inputs away from kinks, float64. Where two answers differ by more than 1e-8, a third route decides: the value of
what the prox minimises, written down in NumPy as the peer documents it, and CVXPY where the function is convex. For
derivatives it is central differences of the values. ``agreement_edges`` adds the points where derivatives go wrong.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import agreement_edges
from benchmarks.agreement_functions import FUNCTIONS
from benchmarks.agreement_row import Operator, by_cvxpy
from benchmarks.agreement_sets import SETS
from benchmarks.report import Table

SAME = 1e-8
RESOLVED = 1e-13  # values of an objective closer than this say nothing
DIFFERENTIABLE = ("jaxopt", "scico")
SEEDS = 5


def points(operator: Operator, seeds: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=operator.shape) * operator.scale for seed in range(seeds)]


def gradients(fun: Callable[..., Any], x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a fixed linear function of the prox, in x and in the parameter."""
    weights = np.random.default_rng(9).normal(size=x.shape)
    in_x, in_t = jax.grad(lambda x, t: jnp.sum(weights * fun(x, t)), (0, 1))(jnp.asarray(x), jnp.asarray(t))
    return np.asarray(in_x), np.asarray(in_t)


def differences(operator: Operator, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by central differences of nsimplicit's values, with which the peers' agree or have been judged."""
    weights = np.random.default_rng(9).normal(size=x.shape)

    def value(x: np.ndarray, t: float) -> float:
        return float(np.sum(weights * np.asarray(operator.ours(jnp.asarray(x), jnp.asarray(t)))))

    h = 1e-6
    steps = h * np.eye(x.size).reshape(x.size, *x.shape)
    in_x = np.array([value(x + step, operator.t) - value(x - step, operator.t) for step in steps]) / (2 * h)
    return in_x.reshape(x.shape), np.array(value(x, operator.t + h) - value(x, operator.t - h)) / (2 * h)


def who_is_right(operator: Operator, peer: str, x: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> str:
    """By the value of what is minimised, and by CVXPY where it can tell."""
    if not np.all(np.isfinite(theirs)):
        return "nsimplicit: the peer is not finite"
    low, high = operator.objective(ours, x), operator.objective(theirs, x)
    said = f"objective {low:.5g}, the peer's {high - low:+.1e}" if np.isfinite(high) else "the peer leaves the set"
    winner = "nsimplicit" if low < high - RESOLVED else "peer" if high < low - RESOLVED else "undecided"
    best = by_cvxpy(operator, x) if operator.convex is not None and peer != "CVXPY" else None
    if best is not None:
        near = [float(np.max(abs(answer - best))) for answer in (ours, theirs)]
        by_distance = "nsimplicit" if near[0] < near[1] / 2 else "peer" if near[1] < near[0] / 2 else "undecided"
        said += f"; from CVXPY {near[0]:.1e} against {near[1]:.1e}"
        winner = by_distance if winner == "undecided" else winner
        winner = "undecided" if "undecided" not in (winner, by_distance) and winner != by_distance else winner
    return f"{winner}: {said}"


def compare(operator: Operator, peer: str, call: Callable[..., Any], xs: list[np.ndarray]) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"operator": operator.name, "peer": peer, "inputs": len(xs)}
    row |= dict.fromkeys(("difference", "in x", "in the parameter", "right", "note"), "")
    row["note"] = operator.notes.get(peer, "")
    worst, in_x, in_t, verdict, judged = 0.0, 0.0, 0.0, "", ""
    for x in xs:
        ours = np.asarray(operator.ours(jnp.asarray(x), operator.t))
        theirs = np.asarray(call(jnp.asarray(x) if peer in DIFFERENTIABLE else x.copy(), operator.t))
        difference = float(np.max(abs(ours - theirs)))
        if not difference <= max(worst, SAME):
            verdict = who_is_right(operator, peer, x, ours, theirs)
        worst = max(worst, difference) if difference == difference else float("nan")
        if peer not in DIFFERENTIABLE:
            continue
        mine, other = (gradients(fun, x, operator.t) for fun in (operator.ours, call))
        gaps = [float(np.max(abs(a - b))) for a, b in zip(mine, other, strict=True)]
        if not max(gaps) <= max(in_x, in_t, SAME) and not verdict:
            truth = differences(operator, x)
            off = [max(float(np.max(abs(a - b))) for a, b in zip(truth, g, strict=True)) for g in (mine, other)]
            near = "nsimplicit" if off[0] < off[1] / 2 else "peer" if off[1] < off[0] / 2 else "undecided"
            judged = f"{near}: derivatives are {off[0]:.1e} and {off[1]:.1e} from differences"
        in_x, in_t = max(in_x, gaps[0]), max(in_t, gaps[1])
    row["difference"] = worst
    if peer in DIFFERENTIABLE:
        row |= {"in x": in_x, "in the parameter": in_t}
    row["right"] = verdict or judged or "same"
    return row


def measure(smoke: bool = False) -> Table:
    table = Table(
        "Proxes and projections next to other libraries' (float64, off kinks): largest difference, 1e-8 is the same"
    )
    warnings.simplefilter("ignore")  # the peers' own
    seeds = 2 if smoke else SEEDS
    with jax.enable_x64(True):
        for operator in FUNCTIONS + SETS:
            xs = points(operator, seeds)
            peers: dict[str, Callable[..., Any]] = dict(operator.peers)
            if operator.convex is not None and not smoke:
                peers["CVXPY"] = lambda x, t, operator=operator: by_cvxpy(operator, x)
            for peer, call in peers.items():
                try:
                    table.rows.append(compare(operator, peer, call, xs))
                except Exception as failure:  # what a peer raises is its row
                    missing = isinstance(failure, ImportError)
                    said = "not installed" if missing else f"{type(failure).__name__}: {failure}"[:160]
                    row = {"operator": operator.name, "peer": peer, "inputs": len(xs)}
                    table.rows.append(row | {"right": "", "note": said})
        table.rows += agreement_edges.rows()
    return table
