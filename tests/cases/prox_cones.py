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
}

WRONG = {
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
