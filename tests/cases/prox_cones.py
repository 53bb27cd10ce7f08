"""Rows of cones. Oracles: a quadrant in a rotated plane; bisection in extended precision."""

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row


def in_cone(u):
    """The indicator of u >= 0, up to rounding."""
    return 0.0 if np.all(np.asarray(u) >= -1e-12) else np.inf


def lorentz(x, step=None):
    """In the plane of the axis and x the cone is a quadrant, turned by 45 degrees."""
    del step
    t, z = x[..., :1], x[..., 1:]
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    up, down = np.maximum(t + length, 0) / 2, np.maximum(t - length, 0) / 2
    return np.concatenate([up + down, (up - down) / np.maximum(length, 1e-300) * z], axis=-1)


def in_lorentz(x):
    return in_cone(x[..., 0] - np.linalg.norm(x[..., 1:], axis=-1))


def lorentz_middle(x):
    """The Jacobian between the cone and its negative."""
    t, z = x[0], x[1:]
    length = np.linalg.norm(z)
    lower = (t + length) * np.eye(len(z)) - t * np.outer(z, z) / length**2
    return np.block([[np.full((1, 1), length), z[None]], [z[:, None], lower]]) / (2 * length)


def nearest_on_rays(v, ray, slope):
    """The best multiple of the best of a family of rays: its angle is maximised on a grid, then by bisection."""
    v, grid = np.asarray(v, np.longdouble), np.linspace(np.longdouble(-200), 200, 2001)

    def rises(u):
        """The sign of the derivative of the cosine of the angle with v."""
        p, q = ray(u), slope(u)
        return (v @ q) * (p @ p) > (v @ p) * (p @ q)

    rays = ray(grid)
    best = np.argmax(v @ rays / np.sqrt(np.sum(rays * rays, axis=0)))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) else (low, middle)
    p = ray(low)
    return np.asarray(p * (v @ p) / (p @ p), float)


def exponential(v, step=None):
    del step
    r, s, t = v
    if in_exponential(v) == 0:
        return v
    if r <= 0 and s <= 0:
        return np.array([r, 0.0, max(t, 0.0)])
    if in_dual_exponential(-v) == 0:
        return 0 * v
    return nearest_on_rays(
        v,
        lambda u: np.stack([u, np.ones_like(u), np.exp(u)]),
        lambda u: np.stack([np.ones_like(u), np.zeros_like(u), np.exp(u)]),
    )


def in_exponential(v):
    r, s, t = v
    return in_cone(t - s * np.exp(r / s) if s > 1e-13 else [-r, s, t])


def in_dual_exponential(v):
    u, v, w = v
    return in_cone(w + u * np.exp(v / u - 1) if u < -1e-13 else [-u, v, w])


def power(v, step, alpha):
    del step
    x, y, z = v
    a = 1 - alpha
    if in_power(v, alpha) == 0:
        return v
    if z == 0:
        return np.maximum(v, 0)
    if in_dual_power(-v, alpha) == 0:
        return 0 * v
    out = nearest_on_rays(
        [x, y, abs(z)],
        lambda u: np.stack([np.exp(a * u), np.exp(-alpha * u), np.ones_like(u)]),
        lambda u: np.stack([a * np.exp(a * u), -alpha * np.exp(-alpha * u), np.zeros_like(u)]),
    )
    return out * [1, 1, np.sign(z)]


def in_power(v, alpha):
    x, y = np.maximum(v[:2], 0)
    return in_cone([v[0], v[1], x**alpha * y ** (1 - alpha) - abs(v[2])])


def in_dual_power(v, alpha):
    return in_power(v / np.array([alpha, 1 - alpha, 1]), alpha)


def off(n):
    """The projection on the plane that n is normal to."""
    return np.eye(len(n)) - np.outer(n, n) / (n @ n)


def on(n):
    return np.eye(len(n)) - off(n)


# A ray of each cone, and the orthogonal one of its polar.
EXP_RAY, EXP_NORMAL = np.array([0.5, 1.0, np.exp(0.5)]), np.array([1.0, 0.5, -np.exp(-0.5)])
POWER_RAY = np.array([np.exp(0.7 * 0.4), np.exp(-0.3 * 0.4), 1.0])
POWER_NORMAL = np.array([-0.3 * np.exp(-0.7 * 0.4), -0.7 * np.exp(0.3 * 0.4), 1.0])
EXP_POINTS = (np.array([0.3, 0.8, -0.5]), np.array([1.0, -0.5, 0.7]), np.array([-0.6, 0.9, 0.1]))
POWER_POINTS = (np.array([0.3, 0.8, -1.5]), np.array([-0.5, 0.6, 0.7]), np.array([0.9, -0.4, 0.5]))
EXP_KINKS = (
    (2 * EXP_RAY, [np.eye(3), off(EXP_NORMAL)]),
    (2 * EXP_NORMAL, [np.zeros((3, 3)), on(EXP_RAY)]),
    (np.array([-1.0, -0.5, 0.0]), [np.diag([1.0, 0.0, 0.0]), np.diag([1.0, 0.0, 1.0])]),
    (np.array([-1.0, 0.0, 0.5]), [np.diag([1.0, 0.0, 1.0]), np.eye(3)]),
    (np.array([0.0, -1.0, 0.5]), [np.diag([0.0, 0.0, 1.0]), np.diag([1.0, 0.0, 1.0])]),
)
POWER_KINKS = (
    (2 * POWER_RAY, [np.eye(3), off(POWER_NORMAL)]),
    (2 * POWER_NORMAL, [np.zeros((3, 3)), on(POWER_RAY)]),
)


def dual(kinks):
    """By Moreau's decomposition."""
    return tuple((-x, [np.eye(3) - J for J in vertices]) for x, vertices in kinks)


R = np.eye(4)
R[:2, :2] = np.sqrt(0.5) * np.array([[1, 1], [1, -1]])
SOC_ON, SOC_NEGATIVE = np.array([5.0, 3.0, -4.0]), np.array([-5.0, 3.0, -4.0])
ROTATED_ON = np.array([3.0, 3.0, 3.0, 3.0])


ROWS = {
    "ZeroCone": Row(
        "ZeroCone",
        prox.ZeroCone,
        lambda x: 0.0 if np.all(x == 0) else np.inf,
        lambda x, s: 0 * x,
        (np.array([0.9, -1.7, 0.4]),),
        selection=False,
    ),
    "FreeCone": Row(
        "FreeCone", prox.FreeCone, lambda x: 0.0, lambda x, s: x, (np.array([0.9, -1.7, 0.4]),), selection=False
    ),
    "SecondOrderCone": Row(
        "SecondOrderCone",
        prox.SecondOrderCone,
        in_lorentz,
        lorentz,
        (np.array([0.3, 1.2, -0.7]), np.array([1.5, 0.0, 0.0]), np.array([-1.5, 0.0, 0.0])),
        (),
        (
            (SOC_ON, [np.eye(3), lorentz_middle(SOC_ON)]),
            (SOC_NEGATIVE, [np.zeros((3, 3)), lorentz_middle(SOC_NEGATIVE)]),
        ),
        curved=True,
    ),
    "SecondOrderCone, points side by side": Row(
        "SecondOrderCone",
        prox.SecondOrderCone,
        in_lorentz,
        lorentz,
        (np.array([[0.3, 1.2, -0.7], [-0.5, 0.0, 0.0]]),),
    ),
    "RotatedSecondOrderCone": Row(
        "RotatedSecondOrderCone",
        prox.RotatedSecondOrderCone,
        lambda x: in_cone([x[0], x[1], 2 * x[0] * x[1] - x[2] ** 2 - x[3] ** 2]),
        lambda x, s: R @ lorentz(R @ x),
        (np.array([0.3, 1.2, -0.7, 2.0]),),
        (),
        ((ROTATED_ON, [np.eye(4), R @ lorentz_middle(R @ ROTATED_ON) @ R]),),
        curved=True,
    ),
    "ExponentialCone": Row(
        "ExponentialCone", prox.ExponentialCone, in_exponential, exponential, EXP_POINTS, (), EXP_KINKS, curved=True
    ),
    "DualExponentialCone": Row(
        "DualExponentialCone",
        prox.DualExponentialCone,
        in_dual_exponential,
        lambda x, s: x + exponential(-x),
        tuple(-x for x in EXP_POINTS),
        (),
        dual(EXP_KINKS[:2]),
    ),
    "PowerCone": Row("PowerCone", prox.PowerCone, in_power, power, POWER_POINTS, (0.3,), POWER_KINKS, curved=True),
    "DualPowerCone": Row(
        "DualPowerCone",
        prox.DualPowerCone,
        in_dual_power,
        lambda x, s, alpha: x + power(-x, s, alpha),
        tuple(-x for x in POWER_POINTS),
        (0.3,),
        dual(POWER_KINKS),
    ),
}

WRONG = {
    "ExponentialCone, entries": (
        lambda: prox.ExponentialCone().project(np.ones(4)),
        r"x has shape \(4,\).*\(r, s, t\)",
    ),
    "DualExponentialCone, entries": (lambda: prox.DualExponentialCone()(np.ones(2)), r"x has shape \(2,\)"),
    "PowerCone, alpha": (lambda: prox.PowerCone(1.0), r"alpha is 1.0.*both positive"),
    "PowerCone, entries": (lambda: prox.PowerCone(0.5).project(np.ones(4)), r"x has shape \(4,\).*\(x, y, z\)"),
    "PowerCone, alpha for each": (
        lambda: prox.PowerCone(np.array([0.5, 0.2])).project(np.ones((3, 3))),
        r"PowerCone\(alpha=...\).*\(2,\)",
    ),
    "DualPowerCone, alpha": (lambda: prox.DualPowerCone(-1.0), r"alpha is -1.0"),
    "SecondOrderCone, number": (lambda: prox.SecondOrderCone().project(1.0), r"x has shape \(\)"),
    "SecondOrderCone, complex": (lambda: prox.SecondOrderCone().project(np.ones(3) * 1j), "complex128"),
    "SecondOrderCone, selection": (
        lambda: prox.SecondOrderCone(selection=2.0).project(np.ones(3)),
        r"prox.SecondOrderCone\(selection=2.0\)",
    ),
    "RotatedSecondOrderCone, one entry": (
        lambda: prox.RotatedSecondOrderCone().project(np.ones(1)),
        r"x has shape \(1,\).*\(a, b, z\)",
    ),
}

COVERED = frozenset({f"prox.{row.name}" for row in ROWS.values()})
