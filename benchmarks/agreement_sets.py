"""Sets with a projection that other libraries have too: the rows of ``agreement``."""

import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_polytopes import ON, POLYTOPES
from benchmarks.agreement_row import (
    SLACK,
    Operator,
    cp,
    jaxopt,
    jaxopt_isotonic,
    pylops,
    pyproximal,
    scico,
    sklearn_isotonic,
    zero_where,
)
from nsimplicit import prox

NORMAL = np.array([1.0, -0.5, 2.0, 0.3, -1.5, 0.7, 1.1])
ROWS = np.random.default_rng(2).normal(size=(3, 7))
TIGHT = {"xtol": 1e-14, "maxiter": 1000}
BISECTION = {
    "pyproximal": "bisection, xtol=1e-14 (default 1e-8 or 1e-5)",
    "jaxopt": "bisection, tolerance 1e-5 is built in",
}


def singular(u):
    return np.linalg.svd(u, compute_uv=False)


def few(x, k):
    """The k largest moduli."""
    return np.where(abs(x) >= np.sort(abs(x))[-k], x, 0)


SETS = (
    Operator(
        "Nonnegative",
        lambda x, t: prox.Nonnegative().project(x),
        lambda u, t: zero_where(u >= 0),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_non_negative(x),
            "scico": lambda x, t: scico.NonNegativeIndicator().prox(x),
            "pyproximal": lambda x, t: pyproximal.Box(0.0, np.inf).prox(x, 1.0),
        },
        lambda u, t: (0, [u >= 0]),
    ),
    Operator(
        "Box",
        lambda x, t: prox.Box(-t, 2 * t).project(x),
        lambda u, t: zero_where((u >= -t - SLACK) & (u <= 2 * t + SLACK)),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_box(x, (-t, 2 * t)),
            "pyproximal": lambda x, t: pyproximal.Box(-t, 2 * t).prox(x, 1.0),
        },
        lambda u, t: (0, [u >= -t, u <= 2 * t]),
    ),
    Operator(
        "Simplex",
        lambda x, t: prox.Simplex(t).project(x),
        lambda u, t: zero_where((u >= -SLACK) & (abs(np.sum(u) - t) <= ON)),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_simplex(x, t),
            "pyproximal": lambda x, t: pyproximal.Simplex(7, t, **TIGHT).prox(x, 1.0),
        },
        lambda u, t: (0, [u >= 0, cp.sum(u) == t]),
        notes={"pyproximal": BISECTION["pyproximal"]},
    ),
    Operator(
        "CappedSimplex",
        lambda x, t: prox.CappedSimplex(2.5 * t, t).project(x),
        lambda u, t: zero_where((u >= -SLACK) & (u <= t + SLACK) & (abs(np.sum(u) - 2.5 * t) <= ON)),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_box_section(
                x, (jnp.zeros(7), t * jnp.ones(7), jnp.ones(7), 2.5 * t)
            ),
            "pyproximal": lambda x, t: pyproximal.projection.HyperPlaneBoxProj(np.ones(7), 2.5 * t, 0.0, t, **TIGHT)(x),
        },
        lambda u, t: (0, [u >= 0, u <= t, cp.sum(u) == 2.5 * t]),
        notes=BISECTION,
    ),
    Operator(
        "BoxSection",
        lambda x, t: prox.BoxSection(-1.0, t, abs(NORMAL), t).project(x),
        lambda u, t: zero_where((u >= -1 - SLACK) & (u <= t + SLACK) & (abs(abs(NORMAL) @ u - t) <= ON)),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_box_section(
                x, (-jnp.ones(7), t * jnp.ones(7), jnp.asarray(abs(NORMAL)), t)
            ),
            "pyproximal": lambda x, t: pyproximal.projection.HyperPlaneBoxProj(abs(NORMAL), t, -1.0, t, **TIGHT)(x),
        },
        lambda u, t: (0, [u >= -1, u <= t, abs(NORMAL) @ u == t]),
        notes=BISECTION,
    ),
    Operator(
        "SparseSimplex(3)",
        lambda x, t: prox.SparseSimplex(3, t).project(x),
        lambda u, t: zero_where(
            (u >= -SLACK) & (abs(np.sum(u) - t) <= ON) & (np.count_nonzero(u) <= 3) & np.isfinite(u)
        ),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_sparse_simplex(x, 3, value=t)},
    ),
    Operator(
        "L1Ball",
        lambda x, t: prox.L1Ball(t).project(x),
        lambda u, t: zero_where(np.sum(abs(u)) <= t + ON),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_l1_ball(x, t),
            "pyproximal": lambda x, t: pyproximal.L1Ball(7, t, **TIGHT).prox(x, 1.0),
        },
        lambda u, t: (0, [cp.norm1(u) <= t]),
        t=2.0,
        scale=0.6,
        notes={"pyproximal": BISECTION["pyproximal"]},
    ),
    Operator(
        "L1Sphere",
        lambda x, t: prox.L1Sphere(t).project(x),
        lambda u, t: zero_where(abs(np.sum(abs(u)) - t) <= ON),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_l1_sphere(x, t)},
    ),
    Operator(
        "L2Ball",
        lambda x, t: prox.L2Ball(t).project(x),
        lambda u, t: zero_where(np.linalg.norm(u) <= t + SLACK),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_l2_ball(x, t),
            "scico": lambda x, t: scico.L2BallIndicator(t).prox(x),
            "pyproximal": lambda x, t: pyproximal.EuclideanBall(0.0, t).prox(x, 1.0),
        },
        lambda u, t: (0, [cp.norm2(u) <= t]),
        t=2.0,
        scale=0.8,
        notes={"scico": "projects onto the sphere, also from inside the ball"},
    ),
    Operator(
        "L2Sphere",
        lambda x, t: prox.L2Sphere(t).project(x),
        lambda u, t: zero_where(abs(np.linalg.norm(u) - t) <= SLACK),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_l2_sphere(x, t)},
    ),
    Operator(
        "LInfBall",
        lambda x, t: prox.LInfBall(t).project(x),
        lambda u, t: zero_where(abs(u) <= t + SLACK),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_linf_ball(x, t)},
        lambda u, t: (0, [cp.abs(u) <= t]),
    ),
    Operator(
        "L0Ball(3)",
        lambda x, t: prox.L0Ball(3).project(x),
        lambda u, t: zero_where(np.count_nonzero(u) <= 3),
        {"pyproximal": lambda x, t: pyproximal.L0Ball(3).prox(x, 1.0), "NumPy": lambda x, t: few(x, 3)},
    ),
    Operator(
        "Hyperplane",
        lambda x, t: prox.Hyperplane(NORMAL, t).project(x),
        lambda u, t: zero_where(abs(NORMAL @ u - t) <= SLACK),
        {"jaxopt": lambda x, t: jaxopt.projection.projection_hyperplane(x, (jnp.asarray(NORMAL), t))},
        lambda u, t: (0, [NORMAL @ u == t]),
    ),
    Operator(
        "Halfspace",
        lambda x, t: prox.Halfspace(NORMAL, t).project(x),
        lambda u, t: zero_where(NORMAL @ u <= t + SLACK),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_halfspace(x, (jnp.asarray(NORMAL), t)),
            "pyproximal": lambda x, t: pyproximal.HalfSpace(NORMAL, t).prox(x, 1.0),
        },
        lambda u, t: (0, [NORMAL @ u <= t]),
    ),
    Operator(
        "AffineSet",
        lambda x, t: prox.AffineSet(ROWS, t * jnp.ones(3)).project(x),
        lambda u, t: zero_where(abs(ROWS @ u - t) <= ON),
        {
            "jaxopt": lambda x, t: jaxopt.projection.projection_affine_set(x, (jnp.asarray(ROWS), t * jnp.ones(3))),
            "pyproximal": lambda x, t: pyproximal.AffineSet(pylops.MatrixMult(ROWS), t * np.ones(3), 200).prox(x, 1.0),
        },
        lambda u, t: (0, [ROWS @ u == t]),
    ),
    *POLYTOPES,
    Operator(
        "Isotonic",
        lambda x, t: prox.Isotonic().project(x),
        lambda u, t: zero_where(np.diff(u) >= -SLACK),
        {
            "jaxopt": lambda x, t: jaxopt_isotonic(x),
            "scikit-learn": lambda x, t: sklearn_isotonic.isotonic_regression(x),
        },
        lambda u, t: (0, [cp.diff(u) >= 0]),
        notes={"jaxopt": "derivative: 1e-8 is added to the size of each block"},
    ),
    Operator(
        "SecondOrderCone",
        lambda x, t: prox.SecondOrderCone().project(x),
        lambda u, t: zero_where(np.linalg.norm(u[1:]) <= u[0] + SLACK),
        {},
        lambda u, t: (0, [cp.SOC(u[0], u[1:])]),
    ),
    Operator(
        "ExponentialCone",
        lambda x, t: prox.ExponentialCone().project(x),
        lambda u, t: zero_where(u[1] * np.exp(u[0] / u[1]) <= u[2] + ON if u[1] > 0 else False),
        {},
        lambda u, t: (0, [cp.ExpCone(u[0], u[1], u[2])]),
        shape=(3,),
    ),
    Operator(
        "PowerCone(0.3)",
        lambda x, t: prox.PowerCone(0.3).project(x),
        lambda u, t: zero_where(max(u[0], 0) ** 0.3 * max(u[1], 0) ** 0.7 >= abs(u[2]) - ON),
        {},
        lambda u, t: (0, [cp.PowCone3D(u[0], u[1], u[2], 0.3)]),
        shape=(3,),
    ),
    Operator(
        "PSDCone",
        lambda x, t: prox.PSDCone().project((x + x.T) / 2),
        lambda u, t: zero_where(np.linalg.eigvalsh(u) >= -SLACK),
        {},
        lambda u, t: (0, [u == u.T, u >> 0]),
        shape=(4, 4),
    ),
    Operator(
        "SpectralNormBall",
        lambda x, t: prox.SpectralNormBall(t).project(x),
        lambda u, t: zero_where(singular(u) <= t + SLACK),
        {},
        lambda u, t: (0, [cp.sigma_max(u) <= t]),
        shape=(4, 5),
    ),
)
