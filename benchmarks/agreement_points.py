"""Points where derivatives go wrong: the rows of ``agreement_edges``."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_row import STEP as S
from benchmarks.agreement_row import jaxopt, jaxopt_isotonic, scico
from nsimplicit import prox


@dataclasses.dataclass(frozen=True)
class Edge:
    """A point, and the prox as a function of it, or of its parameter."""

    name: str
    where: str
    ours: Callable[[Any], Any]
    peers: dict[str, Callable[[Any], Any]]
    x: Any
    one_sided: bool = False  # a parameter that cannot be negative


ZERO, V, ENTRY = np.zeros(3), np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, -2.0])
REPEATED = np.diag([2.0, 2.0, 0.5])
TIES = np.array([1.0, 1.0, 2.0])
CLOSE = np.array([1.0, 1.0 + 5e-9, 2.0])
MATRIX = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])

lasso, group = (
    (lambda w: lambda x: jaxopt.prox.prox_lasso(x, w, S)),
    (lambda w: lambda x: jaxopt.prox.prox_group_lasso(x, w, S)),
)
EDGES = (
    Edge(
        "L1",
        "an entry 0, weight 0",
        prox.L1(0.0).prepare(S),
        {"jaxopt": lasso(0.0), "scico": lambda x: scico.L1Norm().prox(x, 0.0)},
        ENTRY,
    ),
    Edge(
        "L1, in the weight",
        "weight 0",
        lambda w: prox.L1(w).prepare(S)(V),
        {
            "jaxopt": lambda w: jaxopt.prox.prox_lasso(V, w * jnp.ones(3), S),
            "scico": lambda w: scico.L1Norm().prox(jnp.asarray(V), w * S),
        },
        np.array(0.0),
        one_sided=True,
    ),
    Edge(
        "L1",
        "at the threshold",
        prox.L1(2.0).prepare(0.5),
        {"jaxopt": lambda x: jaxopt.prox.prox_lasso(x, 2.0, 0.5), "scico": lambda x: scico.L1Norm().prox(x, 1.0)},
        V,
    ),
    Edge(
        "ElasticNet",
        "an entry 0, l1 weight 0",
        prox.ElasticNet(0.0, 0.0).prepare(S),
        {"jaxopt": lambda x: jaxopt.prox.prox_elastic_net(x, (0.0, 0.0), S)},
        ENTRY,
    ),
    Edge(
        "L2",
        "x = 0",
        prox.L2(1.0).prepare(S),
        {"jaxopt": group(1.0), "scico": lambda x: scico.L2Norm().prox(x, S)},
        ZERO,
    ),
    Edge(
        "L2",
        "x = 0, weight 0",
        prox.L2(0.0).prepare(S),
        {"jaxopt": group(0.0), "scico": lambda x: scico.L2Norm().prox(x, 0.0)},
        ZERO,
    ),
    Edge(
        "GroupL2",
        "one group 0",
        prox.GroupL2(0.5, axis=0).prepare(S),
        {"jaxopt": lambda x: jax.vmap(group(0.5), 1, 1)(x), "scico": lambda x: scico.L21Norm(0).prox(x, 0.5 * S)},
        MATRIX,
    ),
    Edge(
        "L2",
        "norm(x) at the threshold",
        prox.L2(5.0).prepare(1.0),
        {"jaxopt": lambda x: jaxopt.prox.prox_group_lasso(x, 5.0, 1.0), "scico": lambda x: scico.L2Norm().prox(x, 5.0)},
        np.array([3.0, 4.0]),
    ),
    Edge(
        "Huber of the norm",
        "x = 0",
        prox.Huber(1.0, radial=True).prepare(S),
        {"scico": lambda x: scico.HuberNorm(1.0, separable=False).prox(x, S)},
        ZERO,
    ),
    Edge("Huber", "x = 0", prox.Huber(1.0).prepare(S), {"scico": lambda x: scico.HuberNorm(1.0).prox(x, S)}, ZERO),
    Edge(
        "L2Ball",
        "the centre",
        prox.L2Ball(1.0).project,
        {
            "jaxopt": lambda x: jaxopt.projection.projection_l2_ball(x, 1.0),
            "scico": lambda x: scico.L2BallIndicator(1.0).prox(x),
        },
        ZERO,
    ),
    Edge(
        "L2Ball",
        "the centre, vmapped",
        lambda x: jax.vmap(prox.L2Ball(1.0).project)(x[None]),
        {"jaxopt": lambda x: jax.vmap(jaxopt.projection.projection_l2_ball)(x[None])},
        ZERO,
    ),
    Edge(
        "L2Ball",
        "on the sphere",
        prox.L2Ball(5.0).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_l2_ball(x, 5.0)},
        np.array([3.0, 4.0]),
    ),
    Edge(
        "L1Ball",
        "the centre",
        prox.L1Ball(1.0).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_l1_ball(x, 1.0)},
        ZERO,
    ),
    Edge(
        "L1Ball",
        "inside, vmapped",
        lambda x: jax.vmap(prox.L1Ball(5.0).project)(x[None]),
        {"jaxopt": lambda x: jax.vmap(lambda v: jaxopt.projection.projection_l1_ball(v, 5.0))(x[None])},
        ENTRY,
    ),
    Edge(
        "L1Ball",
        "on the sphere",
        prox.L1Ball(3.0).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_l1_ball(x, 3.0)},
        ENTRY,
    ),
    Edge(
        "Simplex",
        "ties",
        prox.Simplex().project,
        {"jaxopt": lambda x: jaxopt.projection.projection_simplex(x)},
        np.array([0.4, 0.4, -1.0]),
    ),
    Edge(
        "Simplex",
        "an entry at tau",
        prox.Simplex().project,
        {"jaxopt": lambda x: jaxopt.projection.projection_simplex(x)},
        np.array([1.0, 0.0, 0.0]),
    ),
    Edge(
        "Box",
        "at a bound",
        prox.Box(-1.0, 1.0).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_box(x, (-1.0, 1.0))},
        np.array([1.0, -2.0, 0.5]),
    ),
    Edge(
        "Box",
        "equal bounds, at them",
        prox.Box(1.0, 1.0).project,
        {"jaxopt": lambda x: jaxopt.projection.projection_box(x, (1.0, 1.0))},
        np.array([1.0, -2.0, 0.5]),
    ),
    Edge(
        "BoxSection",
        "a vertex",
        prox.BoxSection(0.0, 1.0, 1.0, 1.0).project,
        {
            "jaxopt": lambda x: jaxopt.projection.projection_box_section(
                x, (jnp.zeros(3), jnp.ones(3), jnp.ones(3), 1.0)
            )
        },
        np.array([3.0, 0.5, 0.2]),
    ),
    Edge("Isotonic", "ties, in order", prox.Isotonic().project, {"jaxopt": jaxopt_isotonic}, TIES),
    Edge("Isotonic", "in order, 5e-9 apart", prox.Isotonic().project, {"jaxopt": jaxopt_isotonic}, CLOSE),
    Edge(
        "NuclearNorm",
        "equal singular values",
        prox.NuclearNorm(1.0).prepare(S),
        {"scico": lambda x: scico.NuclearNorm().prox(x, S)},
        REPEATED,
    ),
    Edge(
        "NuclearNorm",
        "x = 0",
        prox.NuclearNorm(1.0).prepare(S),
        {"scico": lambda x: scico.NuclearNorm().prox(x, S)},
        np.zeros((3, 3)),
    ),
)
