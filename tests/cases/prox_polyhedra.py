"""Rows for polyhedra and transport plans.

The oracle tries every set of inequalities as equations: of the projections on those planes that are feasible, the
nearest is the one.
"""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row
from tests.cases.prox_sets import within


def on_rows(y, K, c):
    """The nearest point to y with K x = c, by the singular values of K."""
    inverse = np.linalg.pinv(K, rcond=1e-10)
    x = y - inverse @ (K @ y - c)
    return x - inverse @ (K @ x - c)


def nearest(y, A, b, G, h):
    """The nearest point to y with A x = b, G x <= h."""
    best: Any = None
    for size in range(min(len(y), len(h)) + 1):
        for rows in map(list, itertools.combinations(range(len(h)), size)):
            K, c = np.vstack([A, G[rows]]), np.concatenate([b, h[rows]])
            x = on_rows(y, K, c) if len(K) else y
            feasible = not len(K) or np.max(abs(K @ x - c)) < 1e-10
            if feasible and np.all(G @ x - h < 1e-10) and (best is None or (x - y) @ (x - y) < (best - y) @ (best - y)):
                best = x
    return best


def polyhedron(x, s, A, b, G, h):
    del s
    return nearest(x, A, b, G, h)


def off(*rows):
    """The projection on the null space of some rows."""
    K = np.array(rows)
    return np.eye(K.shape[1]) - np.linalg.pinv(K) @ K


def in_polyhedron(x, A, b, G, h):
    return within([*abs(A @ x - b), *(G @ x - h)])


PLANE, LEVEL = np.array([[1.0, 1.0, 1.0, -0.5]]), np.array([0.5])
G4 = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, -1.0, 1.0], [1.0, -1.0, 0.0, 0.5]])
# At (1, -1, 0, -1) the first two hold with equality, the third with 0.5 to spare.
CORNER, H4 = np.array([1.0, -1.0, 0.0, -1.0]), np.array([1.0, -2.0, 2.0])
V4 = np.array([1.2, -0.3, 0.8, 2.0])


def sums(n, m):
    """The sums of rows and columns of an n x m matrix as a matrix; the last follows from the others."""
    return np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])[:-1]


def transport(x, s, a, b):
    """``b`` without the last sum."""
    del s
    n, m = x.shape
    return nearest(x.ravel(), sums(n, m), np.concatenate([a, b]), -np.eye(n * m), np.zeros(n * m)).reshape(n, m)


def is_plan(x, a, b):
    return within([*-x.ravel(), *abs(x.sum(1) - a), *abs(x.sum(0)[:-1] - b)])


def turning(n, m, *supports):
    """The projections on the matrices without sums that are zero off a support."""
    off_support = [np.eye(n * m)[[k for k in range(n * m) if k not in J]] for J in supports]
    return [off(*sums(n, m), *rows) for rows in off_support]


def plans(a, b, **options):
    return prox.TransportPolytope(a, jnp.append(b, jnp.sum(a) - jnp.sum(b)), **options)


X23 = np.array([[1.0, -0.5, 0.7], [0.2, 0.4, -0.3]])
# A plan, and potentials: entry 2 is at the kink, entry 3 below it.
PLAN, ALPHA, BETA = np.array([[0.5, 0.25, 0.0], [0.0, 0.25, 0.5]]), np.array([0.5, -0.25]), np.array([0.0, 0.75, 0.25])
KINK = PLAN + ALPHA[:, None] + BETA - np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
# Both zero entries are at the kink.
TIES = PLAN + ALPHA[:, None] + BETA

ROWS = {
    "Polyhedron": Row(
        "Polyhedron",
        prox.Polyhedron,
        in_polyhedron,
        polyhedron,
        (V4, np.array([3.0, -1.0, 1.0, -2.0])),
        (PLANE, LEVEL, G4, H4),
        (
            (CORNER, [off(*PLANE, *G4[list(J)]) for J in ((), (0,), (1,), (0, 1))]),
            # The first has a multiplier.
            (CORNER + 0.5 * PLANE[0] + 0.75 * G4[0], [off(*PLANE, *G4[list(J)]) for J in ((0,), (0, 1))]),
        ),
        curved=True,
    ),
    "TransportPolytope": Row(
        "TransportPolytope",
        plans,
        is_plan,
        transport,
        (X23, np.array([[3.0, -0.5, 0.7], [0.2, 5.0, -4.0]])),
        (np.array([0.75, 0.75]), np.array([0.5, 0.5])),
        (
            (KINK, turning(2, 3, (0, 1, 4, 5), (0, 1, 2, 4, 5))),
            (TIES, turning(2, 3, (0, 1, 4, 5), (0, 1, 2, 4, 5), (0, 1, 3, 4, 5), (0, 1, 2, 3, 4, 5))),
        ),
    ),
    "Birkhoff": Row(
        "Birkhoff",
        prox.Birkhoff,
        lambda x: is_plan(x, np.ones(3), np.ones(2)),
        lambda x, s: transport(x, s, np.ones(3), np.ones(2)),
        (np.array([[1.0, -0.5, 0.7], [0.2, 0.4, -0.3], [0.5, 0.1, 0.9]]),),
    ),
}

WRONG = {
    "Polyhedron, nothing": (lambda: prox.Polyhedron(), "there is no A and no G"),
    "Polyhedron, b": (lambda: prox.Polyhedron(PLANE, np.ones(3)), r"\(1, 4\), b has shape \(3,\)"),
    "Polyhedron, no h": (lambda: prox.Polyhedron(G=G4), "h has shape None"),
    "Polyhedron, columns": (
        lambda: prox.Polyhedron(PLANE, LEVEL, np.eye(3), H4),
        r"A has .*\(1, 4\), G .*\(3, 3\)",
    ),
    "Polyhedron, a zero row": (lambda: prox.Polyhedron(G=G4 * [[1], [0], [1]], h=H4), "row 1 of G is zero"),
    "Polyhedron, x": (lambda: prox.Polyhedron(PLANE, LEVEL).project(np.ones(3)), r"\(1, 4\), x has shape \(3,\)"),
    "Polyhedron, complex": (lambda: prox.Polyhedron(PLANE, LEVEL).project(1j * V4), "complex128"),
    "Polyhedron, selection": (
        lambda: prox.Polyhedron(G=G4, h=H4, selection="both").project(V4),
        "'inside', 'outside'",
    ),
    "TransportPolytope, totals": (lambda: prox.TransportPolytope(np.ones(3), np.ones(2)), "a adds up to 3, b to 2"),
    "TransportPolytope, sign": (
        lambda: prox.TransportPolytope(np.array([2.0, -1.0]), np.ones(1)),
        "smallest of a is -1",
    ),
    "TransportPolytope, a": (lambda: prox.TransportPolytope(1.0, np.ones(1)), r"a has shape \(\)"),
    "TransportPolytope, x": (
        lambda: prox.TransportPolytope(np.ones(2), np.ones(2)).project(X23),
        r"x has shape \(2, 3\), a has shape \(2,\)",
    ),
    "TransportPolytope, selection": (
        lambda: prox.TransportPolytope(np.ones(2), np.ones(2), selection="inside").project(np.eye(2)),
        "'above', 'below'",
    ),
    "Birkhoff, not square": (lambda: prox.Birkhoff().project(X23), r"x has shape \(2, 3\)"),
    "Birkhoff, complex": (lambda: prox.Birkhoff().project(1j * np.eye(2)), "complex128"),
}

COVERED = frozenset(f"prox.{row.name}" for row in ROWS.values())
