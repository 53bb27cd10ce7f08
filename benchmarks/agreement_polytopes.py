"""Polyhedra and transport plans next to other libraries: rows of ``agreement``."""

import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_row import SLACK, Operator, cp, jaxopt, zero_where
from nsimplicit import prox

ON = 1e-8  # how far the answer of an iteration may be off an equation
EQUATIONS = np.random.default_rng(12).normal(size=(2, 7))
G, SUMS = np.random.default_rng(13).normal(size=(9, 7)), (np.full(4, 0.25), np.array([0.1, 0.2, 0.3, 0.15, 0.25]))
ADMM = "ADMM stopped at 1e-3, derivative by its KKT system"


def polyhedron(t):
    """Equations and inequalities that hold at 0."""
    return jnp.asarray(EQUATIONS), jnp.zeros(2), jnp.asarray(G), t * np.arange(1.0, 10.0) / 20


def doubly_stochastic(u):
    """The indicator."""
    return zero_where((u >= -SLACK) & (abs(u.sum(0) - 1) <= ON) & (abs(u.sum(1, keepdims=True) - 1) <= ON))


POLYTOPES = (
    Operator(
        "Polyhedron",
        lambda x, t: prox.Polyhedron(*polyhedron(t)).project(x),
        lambda u, t: zero_where(max(np.max(abs(EQUATIONS @ u)), np.max(G @ u - t * np.arange(1, 10) / 20)) <= ON),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_polyhedron(x, polyhedron(t), check_feasible=False)},
        lambda u, t: (0, [EQUATIONS @ u == 0, G @ u <= t * np.arange(1, 10) / 20]),
        notes={"jaxopt": ADMM},
    ),
    Operator(
        "TransportPolytope",
        lambda x, t: prox.TransportPolytope(t * SUMS[0], t * SUMS[1]).project(x),
        lambda u, t: zero_where(
            (u >= -SLACK) & (abs(u.sum(0) - t * SUMS[1]) <= ON) & (abs(u.sum(1) - t * SUMS[0])[:, None] <= ON)
        ),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_transport(x, (t * SUMS[0], t * SUMS[1]))},
        lambda u, t: (0, [u >= 0, cp.sum(u, axis=1) == t * SUMS[0], cp.sum(u, axis=0) == t * SUMS[1]]),
        shape=(4, 5),
        scale=0.3,
        notes={"jaxopt": "L-BFGS stopped at 1e-3"},
    ),
    Operator(
        "Birkhoff",
        lambda x, t: prox.Birkhoff().project(x),
        lambda u, t: doubly_stochastic(u),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_birkhoff(x)},
        lambda u, t: (0, [u >= 0, cp.sum(u, axis=1) == 1, cp.sum(u, axis=0) == 1]),
        shape=(5, 5),
        notes={"jaxopt": "L-BFGS stopped at 1e-3"},
    ),
)
