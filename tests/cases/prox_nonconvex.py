"""Rows for functions that are not convex, and whose prox may jump.

Their oracle is one: among 0, x, the points where the penalty has a corner and every stationary point that a grid finds
between, refined by bisection, the one that costs least.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from nsimplicit import prox


@dataclasses.dataclass(frozen=True)
class Nonconvex:
    """A penalty of each entry: its value and slope for u > 0, where its prox is continuous and where it jumps.

    ``kinks`` are pairs (abs(x), the derivatives on both sides), ``jumps`` numbers abs(x).
    """

    name: str
    make: Callable[..., Any]
    value: Callable[..., Any]
    slope: Callable[..., Any]
    params: tuple[float, ...]
    step: float
    points: tuple[float, ...]
    kinks: tuple[tuple[float, tuple[float, float]], ...] = ()
    jumps: tuple[float, ...] = ()
    corners: Callable[..., tuple[float, ...]] = lambda *params: ()

    def prox(self, x, step, *params):
        """The minimiser for one number x."""
        a = abs(x)

        def descent(u):
            return u - a + step * self.slope(u, *params)

        grid = np.linspace(1e-12, a, 4001)
        rising = np.flatnonzero((descent(grid)[:-1] < 0) & (descent(grid)[1:] >= 0))
        low, high = grid[rising], grid[rising + 1]
        for _ in range(60):
            middle = (low + high) / 2
            up = descent(middle) < 0
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        corners = [u for u in self.corners(*params) if u < a]
        candidates = np.array([0.0, a, *corners, *((low + high) / 2)])
        costs = [step * self.value(u, *params) + (u - a) ** 2 / 2 for u in candidates]
        return np.sign(x) * candidates[np.argmin(costs)]


def mcp(u, w, gamma):
    return w * u - u**2 / (2 * gamma) if u <= gamma * w else gamma * w**2 / 2


def scad(u, w, a):
    if u <= w:
        return w * u
    return w**2 * (a + 1) / 2 if u > a * w else (2 * a * w * u - u**2 - w**2) / (2 * (a - 1))


ROWS = {
    "L0": Nonconvex(
        "L0",
        prox.L0,
        lambda u, w: w * (u != 0),
        lambda u, w: 0 * u,
        (1.0,),
        0.5,
        (1.7, 0.3, -2.5),
        jumps=(1.0,),
    ),
    "CappedL1": Nonconvex(
        "CappedL1",
        prox.CappedL1,
        lambda u, w, c: w * min(u, c),
        lambda u, w, c: w * (u < c),
        (1.5, 1.0),
        0.5,
        (1.2, -2.0, 0.3, 1.5),
        kinks=((0.75, (0, 1)),),
        jumps=(1.375,),
        corners=lambda w, c: (c,),
    ),
    "CappedL1, low cap": Nonconvex(
        "CappedL1",
        prox.CappedL1,
        lambda u, w, c: w * min(u, c),
        lambda u, w, c: w * (u < c),
        (4.0, 0.5),
        0.5,
        (1.2, -2.0, 1.5),
        jumps=(np.sqrt(2.0),),
        corners=lambda w, c: (c,),
    ),
    "MCP": Nonconvex(
        "MCP",
        prox.MCP,
        mcp,
        lambda u, w, gamma: np.maximum(w - u / gamma, 0),
        (1.0, 2.0),
        0.5,
        (1.2, -1.7, 0.3, -3.0),
        kinks=((0.5, (0, 4 / 3)), (2.0, (4 / 3, 1))),
    ),
    "MCP, large step": Nonconvex(
        "MCP",
        prox.MCP,
        mcp,
        lambda u, w, gamma: np.maximum(w - u / gamma, 0),
        (1.0, 0.25),
        0.5,
        (0.5, -1.7),
        jumps=(np.sqrt(0.125),),
    ),
    "SCAD": Nonconvex(
        "SCAD",
        prox.SCAD,
        scad,
        lambda u, w, a: np.where(u <= w, w, np.maximum(a * w - u, 0) / (a - 1)),
        (1.0, 3.0),
        0.5,
        (1.2, -2.0, 0.3, 4.0),
        kinks=((0.5, (0, 1)), (1.5, (1, 4 / 3)), (3.0, (4 / 3, 1))),
    ),
    "SCAD, large step": Nonconvex(
        "SCAD",
        prox.SCAD,
        scad,
        lambda u, w, a: np.where(u <= w, w, np.maximum(a * w - u, 0) / (a - 1)),
        (1.0, 3.0),
        2.5,
        (3.0, -2.8, -4.0, 1.0),
        kinks=((2.5, (0, 1)),),
        jumps=(3.25,),
    ),
    "SCAD, huge step": Nonconvex(
        "SCAD",
        prox.SCAD,
        scad,
        lambda u, w, a: np.where(u <= w, w, np.maximum(a * w - u, 0) / (a - 1)),
        (1.0, 3.0),
        6.25,
        (4.0, -6.0),
        jumps=(5.0,),
    ),
    "LogSum": Nonconvex(
        "LogSum",
        prox.LogSum,
        lambda u, w, e: w * np.log1p(u / e),
        lambda u, w, e: w / (e + u),
        (1.0, 1.0),
        0.5,
        (1.2, -2.0, 0.3),
        kinks=((0.5, (0, 2)),),
    ),
    "LogSum, large step": Nonconvex(
        "LogSum",
        prox.LogSum,
        lambda u, w, e: w * np.log1p(u / e),
        lambda u, w, e: w / (e + u),
        (1.0, 0.25),
        0.5,
        (1.5, -2.0, 0.3),
        jumps=(1.2964662536793619,),  # by bisection on the difference of the two costs
    ),
}

WRONG = {
    "L0": (lambda: prox.L0(-1.0), ": weight is -1"),
    "L0Ball, none": (lambda: prox.L0Ball(0), "k is 0"),
    "L0Ball, fraction": (lambda: prox.L0Ball(1.5), "k is 1.5"),  # pyright: ignore[reportArgumentType]
    "CappedL1, weight": (lambda: prox.CappedL1(-1.0, 1.0), ": weight is -1"),
    "CappedL1, cap": (lambda: prox.CappedL1(1.0, 0.0), ": cap is 0"),
    "MCP, weight": (lambda: prox.MCP(-1.0), ": weight is -1"),
    "MCP, gamma": (lambda: prox.MCP(1.0, 0.0), ": gamma is 0"),
    "SCAD, weight": (lambda: prox.SCAD(-1.0), ": weight is -1"),
    "SCAD, a": (lambda: prox.SCAD(1.0, 1.0), ": a - 1 is 0"),
    "LogSum, weight": (lambda: prox.LogSum(-1.0), ": weight is -1"),
    "LogSum, epsilon": (lambda: prox.LogSum(1.0, 0.0), ": epsilon is 0"),
}

COVERED = frozenset({f"prox.{row.name}" for row in ROWS.values()} | {"prox.L0Ball"})
