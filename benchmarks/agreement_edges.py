"""Derivatives at kinks and edges, next to other libraries': weight 0, the zero vector, the centre of a ball, ties.

The third route is differences of nsimplicit's values, which agree with the peers' there or have been judged. Where the
operator is differentiable its Jacobian is that of central differences; at a kink a derivative must be a mixture of
Jacobians at points nearby (it then is an element of the Clarke Jacobian, up to the distance shown).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from benchmarks.agreement_points import CLOSE, EDGES, TIES, Edge

NEAR = 1e-4  # how far the points nearby are
SAME = 1e-5


def jacobian(fun: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    out = jax.jacrev(fun)(jnp.asarray(x))
    return np.asarray(out).reshape(-1, x.size)


def differences(edge: Edge, points: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
    """One-sided difference Jacobians at each point, forwards and backwards (forwards for a one-sided parameter)."""
    steps = h * np.eye(edge.x.size).reshape(edge.x.size, *edge.x.shape)
    at = jax.jit(jax.vmap(lambda x: edge.ours(x).ravel()))
    signs = (0, 1) if edge.one_sided else (0, 1, -1)
    moved = [points[:, None] + sign * steps for sign in signs]
    flat = np.concatenate([m.reshape(-1, *edge.x.shape) for m in moved])
    here, *around = np.split(
        np.asarray(at(flat)).reshape(len(signs), len(points), len(steps), -1)[..., None], len(signs)
    )
    sides = [sign * (side - here)[0, ..., 0] / h for sign, side in zip(signs[1:], around, strict=True)]
    ahead, behind = (np.swapaxes(side, 1, 2) for side in (sides[0], sides[-1]))
    return ahead, behind


def verdicts(edge: Edge, found: dict[str, np.ndarray]) -> tuple[str, dict[str, str]]:
    """Whether the point is smooth, and each Jacobian's distance from what it must be."""
    ahead, behind = differences(edge, edge.x[None], 1e-10 if edge.x is CLOSE else 1e-7)
    smooth = np.max(abs(ahead - behind)) < SAME and edge.x is not TIES
    if smooth:
        allowed = (ahead + behind) / 2
    else:
        rng = np.random.default_rng(0)
        near = edge.x + NEAR * rng.normal(size=(60, *edge.x.shape))
        allowed = sum(differences(edge, near, 1e-7)) / 2
    columns = allowed.reshape(len(allowed), -1).T
    system = np.vstack([columns, 1e3 * np.ones(columns.shape[1])])

    def distance(J: np.ndarray) -> str:
        if not np.all(np.isfinite(J)):
            return "nan"
        mixture, _ = nnls(system, np.append(J.ravel(), 1e3))
        off = float(np.max(abs(columns @ mixture - J.ravel())))
        return "right" if off < 10 * NEAR else f"off by {off:.2g}"

    return "smooth" if smooth else "kink", {who: distance(J) for who, J in found.items()}


def rows() -> list[dict[str, Any]]:
    out = []
    for edge in EDGES:
        mine = jacobian(edge.ours, edge.x)
        for peer, call in edge.peers.items():
            row = {"operator": edge.name, "peer": peer, "at": edge.where}
            try:
                theirs = jacobian(call, edge.x)
                value = abs(np.asarray(edge.ours(jnp.asarray(edge.x))) - np.asarray(call(jnp.asarray(edge.x))))
                kind, said = verdicts(edge, {"ours": mine, "theirs": theirs})
            except Exception as failure:  # what a peer raises is its row
                missing = isinstance(failure, ImportError)
                out.append(row | {"note": "not installed" if missing else f"{type(failure).__name__}: {failure}"[:120]})
                continue
            row |= {
                "at": f"{edge.where} ({kind})",
                "difference": float(np.max(value)),
                "in x": float(np.max(abs(mine - theirs))),
            }
            row["right"] = f"nsimplicit: {said['ours']}; {peer}: {said['theirs']}"
            if row["in x"] <= SAME:
                row["right"] = "same" if said["ours"] == "right" else f"both: {said['ours']}"
            elif kind == "kink" and said == {"ours": "right", "theirs": "right"}:
                row["right"] = "both: two derivatives of a kink"
            if row["difference"] != row["difference"]:
                row["note"] = "the value is nan"
            out.append(row)
    return out
