"""Quadratic programs of three variables, and their solutions by trying every active set.

All have the same shapes, so that they are lanes of one call: an equality, three inequalities, bounds on both sides.
"""

import itertools

import numpy as np

COVERED = frozenset({"layers.qp", "layers.QPSolution"})
NAMES = ("P", "q", "A", "b", "G", "h", "lo", "hi")
N = 3


def program(seed, rank=N, **changes):
    """A feasible program with bounds that are there or not; P has the given rank."""
    rng = np.random.default_rng(seed)
    root, x = rng.normal(size=(N, rank)), rng.normal(size=N)
    A, G = rng.normal(size=(1, N)), rng.normal(size=(3, N))
    made = {
        "P": root @ root.T,
        "q": 2 * rng.normal(size=N),
        "A": A,
        "b": A @ x,
        "G": G,
        "h": G @ x + rng.uniform(0, 1, 3),
        "lo": np.where(rng.uniform(size=N) < 0.4, -np.inf, x - rng.uniform(0, 1, N)),
        "hi": x + rng.uniform(0, 1, N),
    }
    return made | {name: np.asarray(value, float) for name, value in changes.items()}


FREE = {"lo": np.full(N, -np.inf), "hi": np.full(N, np.inf)}
ROW = program(3)["G"][:1]

# name -> program; all of these have one solution, and no constraint is weakly active there
SMOOTH = {f"definite {seed}": program(seed) for seed in range(4)} | {
    "semidefinite": program(11, rank=1),
    "linear": program(12, rank=0),
    "no bound": program(13, **FREE),
    "a row that is not there": program(14, h=[np.inf, 0.3, np.inf], A=[[1.0, 1.0, 0.0]], b=[0.2]),
    "scaled": program(15, P=1e4 * program(15)["P"], G=1e3 * program(15)["G"], h=1e3 * program(15)["h"]),
}

# The second and third row say the same, and hold: their multipliers are not unique, x is.
TWICE = program(3, G=np.vstack([ROW, ROW, 2 * ROW]), h=[9.0, -4.0, -8.0], **FREE)

# name -> program and its status
FAILED = {
    "infeasible rows": (program(20, G=np.vstack([ROW, -ROW, ROW]), h=[0.0, -1.0, 5.0]), -1),
    "infeasible bounds": (program(21, lo=np.ones(N), hi=np.zeros(N)), -1),
    "unbounded": (program(22, P=np.zeros((N, N)), G=np.zeros((3, N)), h=np.ones(3), **FREE), -2),
    "nan": (program(23, q=[np.nan, 0.0, 0.0]), -3),
    "indefinite": (program(24, P=-np.eye(N)), -3),
}


def stacked(p):
    """The rows of all inequalities that are there, and their right-hand sides."""
    C, d = np.vstack([p["G"], -np.eye(N), np.eye(N)]), np.concatenate([p["h"], -p["lo"], p["hi"]])
    return C[np.isfinite(d)], d[np.isfinite(d)]


def active_sets(p):
    """The solutions of the equations of every active set, where they have one: (indices, x, multipliers)."""
    C, d = stacked(p)
    m = len(p["b"])
    for size in range(N - m + 1):
        for index in map(list, itertools.combinations(range(len(d)), size)):
            R, r = np.vstack([p["A"], C[index]]), np.append(p["b"], d[index])
            M = np.block([[p["P"], R.T], [R, np.zeros((len(R), len(R)))]])
            if np.linalg.cond(M) < 1e12:
                z = np.linalg.solve(M, np.append(-p["q"], r))
                yield index, z[:N], z[N:]


def solution(p):
    """x by trying all active sets: the one that is feasible and has multipliers of the right sign."""
    C, d = stacked(p)
    size = 1e-7 * (1 + np.abs(C).max())
    fits = [x for i, x, y in active_sets(p) if (C @ x <= d + size).all() and (y[len(p["b"]) :] >= -size).all()]
    assert fits, "no active set is right"
    return fits[0]
