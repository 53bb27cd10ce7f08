"""Functions with a prox that other libraries have too: the rows of ``agreement``."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.agreement_row import STEP, Operator, cp, jaxopt, pylops, pyproximal, scico
from nsimplicit import prox

S = STEP
MATRIX = (4, 5)
SLOPES = np.array([1.5, 1.2, 1.2, 0.9, 0.6, 0.3, 0.0])
BASIS = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
P = BASIS @ np.diag([3.0, 2.0, 1.5, 1.0, 0.5, 0.2, 0.0]) @ BASIS.T


def huber(a):
    """The Huber function with slope 1 beyond t, as pyproximal has it."""
    return lambda u, t: np.sum(np.where(a(u) <= t, a(u) ** 2 / (2 * t), a(u) - t / 2))


def length(u):
    return np.sqrt(np.sum(u**2))


def singular(u):
    return np.linalg.svd(u, compute_uv=False)


def slope(u, t):
    return t * np.sum(SLOPES * np.sort(abs(u))[::-1])


def slope_by_sums(u, t):
    """Sorted weights are a sum of sums of the largest k."""
    drops = SLOPES - np.append(SLOPES[1:], 0)
    return t * sum(d * cp.sum_largest(cp.abs(u), k + 1) for k, d in enumerate(drops) if d > 0), []


def log_det(u, t):
    eigenvalues = np.linalg.eigvalsh((u + u.T) / 2)
    return t * np.trace(u) - np.sum(np.log(eigenvalues)) if eigenvalues[0] > 0 else np.inf


def scad(u, t, a=3.7):
    u = abs(u)
    middle = (2 * a * t * u - u**2 - t**2) / (2 * (a - 1))
    return np.sum(np.where(u <= t, t * u, np.where(u <= a * t, middle, (a + 1) * t**2 / 2)))


FUNCTIONS = (
    Operator(
        "L1",
        lambda x, t: prox.L1(t).prox(x, S),
        lambda u, t: t * np.sum(abs(u)),
        {
            "jaxopt": lambda x, t: jaxopt.prox.prox_lasso(x, t * jnp.ones_like(x), S),
            "scico": lambda x, t: scico.L1Norm().prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.L1(t).prox(x, S),
        },
        lambda u, t: (t * cp.norm1(u), []),
    ),
    Operator(
        "NonnegativeL1",
        lambda x, t: prox.NonnegativeL1(t).prox(x, S),
        lambda u, t: t * np.sum(u) if np.min(u) >= 0 else np.inf,
        {"jaxopt": lambda x, t: jaxopt.prox.prox_non_negative_lasso(x, t, S)},
        lambda u, t: (t * cp.sum(u), [u >= 0]),
    ),
    Operator(
        "ElasticNet",
        lambda x, t: prox.ElasticNet(t, 0.5 * t).prox(x, S),
        lambda u, t: t * np.sum(abs(u) + 0.25 * u**2),
        {"jaxopt": lambda x, t: jaxopt.prox.prox_elastic_net(x, (t * jnp.ones_like(x), 0.5), S)},
        lambda u, t: (t * (cp.norm1(u) + 0.25 * cp.sum_squares(u)), []),
    ),
    Operator(
        "SquaredL2, t norm(x)^2",
        lambda x, t: prox.SquaredL2(2 * t).prox(x, S),
        lambda u, t: t * np.sum(u**2),
        {
            "jaxopt": lambda x, t: jaxopt.prox.prox_ridge(x, t, S),
            "scico": lambda x, t: scico.SquaredL2Norm().prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.L2(sigma=2 * t).prox(x.copy(), S),
        },
        lambda u, t: (t * cp.sum_squares(u), []),
        notes={"jaxopt": "prox_ridge: documented as l2reg ||y||^2, computes half of it"},
    ),
    Operator(
        "SquaredL2 where x >= 0",
        lambda x, t: prox.Regularize(prox.Nonnegative(), 2 * t).prox(x, S),
        lambda u, t: t * np.sum(u**2) if np.min(u) >= 0 else np.inf,
        {"jaxopt": lambda x, t: jaxopt.prox.prox_non_negative_ridge(x, t, S)},
        lambda u, t: (t * cp.sum_squares(u), [u >= 0]),
        notes={"jaxopt": "prox_non_negative_ridge: the same factor"},
    ),
    Operator(
        "L2",
        lambda x, t: prox.L2(t).prox(x, S),
        lambda u, t: t * length(u),
        {
            "jaxopt": lambda x, t: jaxopt.prox.prox_group_lasso(x, t, S),
            "scico": lambda x, t: scico.L2Norm().prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.Euclidean(t).prox(x, S),
        },
        lambda u, t: (t * cp.norm2(u), []),
        scale=0.4,
    ),
    Operator(
        "GroupL2",
        lambda x, t: prox.GroupL2(t, axis=0).prox(x, S),
        lambda u, t: t * np.sum(np.sqrt(np.sum(u**2, axis=0))),
        {
            "jaxopt": lambda x, t: jax.vmap(lambda c: jaxopt.prox.prox_group_lasso(c, t, S), 1, 1)(x),
            "scico": lambda x, t: scico.L21Norm(0).prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.L21(4, t).prox(x.ravel(), S).reshape(MATRIX),
        },
        lambda u, t: (t * cp.sum(cp.norm(u, axis=0)), []),
        shape=MATRIX,
        scale=0.4,
    ),
    Operator(
        "L1PlusGroupL2",
        lambda x, t: prox.L1PlusGroupL2(0.4 * t, 0.6 * t, axis=0).prox(x, S),
        lambda u, t: t * (0.4 * np.sum(abs(u)) + 0.6 * np.sum(np.sqrt(np.sum(u**2, axis=0)))),
        {"pyproximal": lambda x, t: pyproximal.L21_plus_L1(t, 0.4).prox(x, S)},
        lambda u, t: (t * (0.4 * cp.sum(cp.abs(u)) + 0.6 * cp.sum(cp.norm(u, axis=0))), []),
        shape=MATRIX,
        scale=0.6,
    ),
    Operator(
        "L0",
        lambda x, t: prox.L0(t).prox(x, S),
        lambda u, t: t * np.count_nonzero(u),
        {
            "scico": lambda x, t: scico.L0Norm().prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.L0(t).prox(x, S),
        },
        notes=dict.fromkeys(("scico", "pyproximal"), "cuts at s w; the minimum is cut at sqrt(2 s w)"),
    ),
    Operator(
        "Huber",
        lambda x, t: prox.Huber(t, 1 / t).prox(x, S),
        huber(np.abs),
        {
            "scico": lambda x, t: scico.HuberNorm(t).prox(x, S / t),
            "pyproximal": lambda x, t: pyproximal.Huber(t).prox(x, S),
        },
        lambda u, t: (cp.sum(cp.huber(u, t)) / (2 * t), []),
        notes={"pyproximal": "takes the linear part from alpha on, not from alpha + s"},
    ),
    Operator(
        "Huber of the norm",
        lambda x, t: prox.Huber(t, 1 / t, radial=True).prox(x, S),
        huber(length),
        {
            "scico": lambda x, t: scico.HuberNorm(t, separable=False).prox(x, S / t),
            "pyproximal": lambda x, t: pyproximal.HuberCircular(t).prox(x, S),
        },
        lambda u, t: (cp.huber(cp.norm2(u), t) / (2 * t), []),
        scale=0.5,
    ),
    Operator(
        "LogSum",
        lambda x, t: prox.LogSum(t / np.log(2.3), 1 / 1.3).prox(x, S),
        lambda u, t: t / np.log(2.3) * np.sum(np.log(1 + 1.3 * abs(u))),
        {"pyproximal": lambda x, t: pyproximal.Log(t, 1.3).prox(x, S)},
    ),
    Operator(
        "SCAD", lambda x, t: prox.SCAD(t).prox(x, S), scad, {"pyproximal": lambda x, t: pyproximal.SCAD(t).prox(x, S)}
    ),
    Operator(
        "LInf",
        lambda x, t: prox.LInf(t).prox(x, S),
        lambda u, t: t * np.max(abs(u)),
        {},
        lambda u, t: (t * cp.norm_inf(u), []),
    ),
    Operator(
        "SquaredLInf",
        lambda x, t: prox.SquaredLInf(t).prox(x, S),
        lambda u, t: t / 2 * np.max(abs(u)) ** 2,
        {},
        lambda u, t: (t / 2 * cp.square(cp.norm_inf(u)), []),
    ),
    Operator(
        "Maximum",
        lambda x, t: prox.Maximum(t).prox(x, S),
        lambda u, t: t * np.max(u),
        {},
        lambda u, t: (t * cp.max(u), []),
    ),
    Operator(
        "SumLargest(3)",
        lambda x, t: prox.SumLargest(3, t).prox(x, S),
        lambda u, t: t * np.sum(np.sort(u)[-3:]),
        {},
        lambda u, t: (t * cp.sum_largest(u, 3), []),
    ),
    Operator("SLOPE", lambda x, t: prox.SLOPE(t * SLOPES).prox(x, S), slope, {}, slope_by_sums),
    Operator(
        "TotalVariation1D",
        lambda x, t: prox.TotalVariation1D(t).prox(x, S),
        lambda u, t: t * np.sum(abs(np.diff(u))),
        {"pyproximal": lambda x, t: pyproximal.TV(x.shape, t, niter=20000, rtol=0.0).prox(x, S)},
        lambda u, t: (t * cp.tv(u), []),
        notes={"pyproximal": "iterative: niter=20000, rtol=0 (default 10, 1e-4)"},
    ),
    Operator(
        "Quadratic",
        lambda x, t: prox.Quadratic(t * P, np.ones(7)).prox(x, S),
        lambda u, t: t / 2 * u @ P @ u + np.sum(u),
        {"pyproximal": lambda x, t: pyproximal.Quadratic(pylops.MatrixMult(t * P), np.ones(7)).prox(x, S)},
        lambda u, t: (t / 2 * cp.quad_form(u, cp.psd_wrap(P)) + cp.sum(u), []),
    ),
    Operator(
        "Entropy",
        lambda x, t: prox.Entropy(t).prox(x, S),
        lambda u, t: t * np.sum(u * np.log(u)) if abs(np.sum(u) - 1) < 1e-9 else np.inf,
        {},
        lambda u, t: (-t * cp.sum(cp.entr(u)), [cp.sum(u) == 1]),
    ),
    Operator(
        "LogBarrier",
        lambda x, t: prox.LogBarrier(t).prox(x, S),
        lambda u, t: -t * np.sum(np.log(u)),
        {},
        lambda u, t: (-t * cp.sum(cp.log(u)), []),
    ),
    Operator(
        "NuclearNorm",
        lambda x, t: prox.NuclearNorm(t).prox(x, S),
        lambda u, t: t * np.sum(singular(u)),
        {
            "scico": lambda x, t: scico.NuclearNorm().prox(x, S * t),
            "pyproximal": lambda x, t: pyproximal.Nuclear(MATRIX, t).prox(x.ravel(), S).reshape(MATRIX),
        },
        lambda u, t: (t * cp.normNuc(u), []),
        shape=MATRIX,
        scale=0.6,
    ),
    Operator(
        "LogDet",
        lambda x, t: prox.LogDet(t * np.eye(4)).prox((x + x.T) / 2, S),
        log_det,
        {},
        lambda u, t: (t * cp.trace(u) - cp.log_det(u), [u == u.T]),
        shape=(4, 4),
    ),
)
