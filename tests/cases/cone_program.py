"""Cone programs with planted solutions, all of one shape, and ten whose verdict is known and that solvers find hard.

One row is an equation, three are inequalities, three a second-order cone, three a semidefinite matrix of order two.
"""

import numpy as np

COVERED = frozenset({"layers.cone_program", "layers.ConeSolution"})
CONES = {"z": 1, "l": 3, "q": [3], "s": [2]}
M, N = 10, 4


def second_order(t):
    """The projection, and its derivative, where t is neither in the cone nor in its polar."""
    head, z = t[0], t[1:]
    r = np.linalg.norm(z)
    unit, eye = z / r, np.eye(len(z))
    D = np.block(
        [[np.ones((1, 1)), unit[None]], [unit[:, None], (1 + head / r) * eye - head / r * np.outer(unit, unit)]]
    )
    return (head + r) / 2 * np.append(1, unit), D / 2


def matrix(v):
    """The symmetric matrix of three rows."""
    return np.array([[v[0], v[1] / np.sqrt(2)], [v[1] / np.sqrt(2), v[2]]])


def rows(X):
    return np.array([X[0, 0], np.sqrt(2) * X[0, 1], X[1, 1]])


def semidefinite(t):
    """The projection, and its derivative, where one eigenvalue is positive and one negative."""
    lam, V = np.linalg.eigh(matrix(t))
    share = lam[1] / (lam[1] - lam[0])
    B = np.array([[0, share], [share, 1]])
    columns = [rows(V @ (B * (V.T @ matrix(e) @ V)) @ V.T) for e in np.eye(3)]
    return rows(V @ np.diag(np.maximum(lam, 0)) @ V.T), np.array(columns).T


def projection(t):
    """The projection on the cones of all programs here, and its derivative, in closed form."""
    D = np.zeros((M, M))
    D[1:4, 1:4] = np.diag(t[1:4] > 0)
    (q, D[4:7, 4:7]), (s, D[7:, 7:]) = second_order(t[4:7]), semidefinite(t[7:])
    return np.concatenate([[0], np.maximum(t[1:4], 0), q, s]), D


def program(seed, active=1, P=None, row_scale=1.0, cost_scale=1.0):
    """A program and t = s - y of its only solution, at which so many inequalities are active."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=M)
    t[1:4] = np.where(np.arange(3) < active, -1, 1) * rng.uniform(0.5, 1.5, 3)
    t[4] = rng.uniform(-0.5, 0.5) * np.linalg.norm(t[5:7])
    U = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    t[7:] = rows(U @ np.diag([rng.uniform(0.5, 1.5), -rng.uniform(0.5, 1.5)]) @ U.T)
    s = projection(t)[0]
    A, x = rng.normal(size=(M, N)), rng.normal(size=N)
    P = np.zeros((N, N)) if P is None else P
    scale = np.repeat([row_scale, 1.0, row_scale, 1.0], [1, 3, 3, 3])
    made = {"A": A, "b": A @ x + s, "c": -A.T @ (s - t) - P @ x, "P": P}
    made["A"], made["b"] = scale[:, None] * A, scale * made["b"]
    made["c"], made["P"] = cost_scale * made["c"], cost_scale * made["P"]
    return made | {"x": x, "y": cost_scale * (s - t) / scale, "s": scale * s}


def curved(seed):
    root = np.random.default_rng(seed).normal(size=(N, 2))
    return root @ root.T


# name -> program
SMOOTH = {
    "vertex": program(0),
    "on curves": program(1, active=0),
    "quadratic": program(2, P=curved(2)),
    "quadratic, full rank": program(3, P=np.eye(N)),
    "scaled": program(4, row_scale=1e3, cost_scale=1e2),
}

BASE = program(5)
# name -> program, status
FAILED = {
    "infeasible": (BASE | {"A": np.vstack([np.eye(N)[:1], -np.eye(N)[:1], BASE["A"][2:]]), "b": -np.ones(M)}, -1),
    "unbounded": (BASE | {"A": 0 * BASE["A"], "b": np.array([0, 1, 1, 1, 1, 0, 0, 1, 0, 1.0])}, -2),
    "nan": (BASE | {"c": np.array([np.nan, 0, 0, 0])}, -3),
    "indefinite": (BASE | {"P": -np.eye(N)}, -3),
}

# Ten programs min c'x, b - A x in K, of at most two variables, with what is true of them: 1 there is a solution and a
# multiplier, -1 no x is feasible and a multiplier proves it, -2 a ray proves that there is no bound, 0 none of these.
# name -> rows per cone (A, b), c, verdicts that are right
R2 = np.sqrt(2)
HARD = {
    "vertex of five": ({"l": ([[-1, 0], [0, -1], [1, 1], [1, 2], [2, 1]], [0, 0, 1, 1, 2])}, [-1, -0.5], {1}),
    "an edge of solutions": ({"l": ([[1, 0], [-1, 0], [0, 1], [0, -1]], [1, 1, 1, 1])}, [1, 0], {1}),
    "an equation twice": ({"z": ([[1, 1], [2, 2]], [1, 2]), "l": ([[-1, 0], [0, -1]], [0, 0])}, [1, 2], {1}),
    "the apex alone": ({"q": ([[0, 0], [-1, 0], [0, -1]], [0, 0, 0])}, [1, 1], {1}),
    "neither side feasible": ({"l": ([[-1, 0], [1, 0], [0, -1]], [-1, 0, 0])}, [0, -1], {-1, -2}),
    "no multiplier": ({"q": ([[-1, 0], [-1, 0], [0, -1]], [0, 0, 0])}, [0, 1], {0}),
    "feasible in the limit": ({"s": ([[-1, 0], [0, 0], [0, 0]], [0, R2, 0])}, [0, 0], {0}),
    "optimal in the limit": ({"s": ([[-1, 0], [0, 0], [0, -1]], [0, R2, 0])}, [1, 0], {0}),
    "optimal in the limit of exp": ({"ep": ([[-1, 0], [0, 0], [0, -1]], [0, 1, 0])}, [0, 1], {0}),
    "no exponential is negative": (
        {"l": ([[0, 1]], [-1]), "ep": ([[-1, 0], [0, 0], [0, -1]], [0, 1, 0])},
        [-1, 0],
        {-1},
    ),
}
HARD_CONES = {"z": 2, "l": 5, "q": [3], "s": [2], "ep": 1}
INSIDE = {"z": [0, 0], "l": [1] * 5, "q": [1, 0, 0], "s": [1, 0, 1], "ep": [0, 1, 2]}


def padded(parts, c):
    """The program with rows of every cone: those that it has not are at a point inside, whatever x."""
    A, b = [], []
    for key, inside in INSIDE.items():
        given, side = parts.get(key, (np.zeros((0, 2)), []))
        rest = len(inside) - len(side)
        A += [*given, *np.zeros((rest, 2))]
        b += [*side, *inside[len(inside) - rest :]]
    return np.array(A, float), np.array(b, float), np.array(c, float)
