"""The operators whose speed is measured, by nsimplicit and elsewhere."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_row import STEP as S
from benchmarks.agreement_row import jaxopt, jaxopt_isotonic, pyproximal, scico, sklearn_isotonic
from nsimplicit import prox

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
