"""Draw the pictures of docs/catalogue.md: ``python docs/make_pictures.py``, about a minute.

Everything drawn is computed: proxes by the objects, derivatives by ``jax.grad``, kinks by ``nsi.with_selection``.
"""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import nsimplicit as nsi
from nsimplicit import prox

IMAGES = Path(__file__).parent / "images"
DPI = 110
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}

# Parameters put every kink at a multiple of 1/64, a point of the grid.
ON_THE_LINE = {
    "norms": {
        "L1(1)": prox.L1(1.0),
        "NonnegativeL1(1)": prox.NonnegativeL1(1.0),
        "ElasticNet(1, 1)": prox.ElasticNet(1.0, 1.0),
        "SquaredL2(1)": prox.SquaredL2(1.0),
        "Huber(1)": prox.Huber(1.0),
    },
    "losses": {
        "Hinge()": prox.Hinge(),
        "SmoothedHinge(1, ½)": prox.SmoothedHinge(1.0, 0.5),
        "SquaredHinge()": prox.SquaredHinge(),
        "Logistic()": prox.Logistic(),
        "KL(1)": prox.KL(1.0),
        "LogBarrier(1)": prox.LogBarrier(1.0),
    },
    "sets": {
        "Nonnegative()": prox.Nonnegative(),
        "Box(−1, 1)": prox.Box(-1.0, 1.0),
        "DistanceTo\n(Box(−½, ½))": prox.DistanceTo(prox.Box(-0.5, 0.5)),
        "SquaredDistanceTo\n(Box(−½, ½))": prox.SquaredDistanceTo(prox.Box(-0.5, 0.5)),
        "MoreauEnvelope\n(L1(1), 1)": prox.MoreauEnvelope(prox.L1(1.0), 1.0),
    },
    "nonconvex": {
        "L0(½)": prox.L0(0.5),
        "CappedL1(1, 1)": prox.CappedL1(1.0, 1.0),
        "MCP(¾, 3)": prox.MCP(0.75, 3.0),
        "SCAD(½, 4)": prox.SCAD(0.5, 4.0),
        "LogSum(2, 1)": prox.LogSum(2.0, 1.0),
    },
    "activations": {
        name: prox.activation(name)
        for name in ("relu", "hard_tanh", "soft_threshold", "tanh", "sigmoid", "softplus", "elu")
    },
}
SPAN, STEPS = 3, 64  # from -3 to 3, in steps of 1/64


def save(figure, name):
    """64 colours are enough for lines, in a third of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    plt.close(figure)
    path = IMAGES / f"{name}.png"
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB")


def on_the_line(functions):
    """A column for each function of one number: its value, its prox with step 1, the derivative of that."""
    width = min(1.42, 8.6 / len(functions))
    size = (width * len(functions) + 0.35, 3.7)
    figure, axes = plt.subplots(3, len(functions), figsize=size, sharex=True, sharey="row", squeeze=False)
    x = np.arange(-SPAN * STEPS, SPAN * STEPS + 1) / STEPS
    for column, (name, g) in zip(axes.T, functions.items(), strict=True):
        column[0].set_title(name)
        value(column[0], x, np.asarray(jax.vmap(g)(x)))
        column[1].axline((0, 0), slope=1, color="0.85", lw=1)
        after_prox(column[1], column[2], x, lambda u, g=g: g.prox(u, 1.0))
        column[2].set(xticks=(-2, 0, 2), ylim=(-0.12, 1.7), yticks=(0, 1))
        column[1].set(ylim=(-SPAN, SPAN), yticks=(-2, 0, 2))
        column[0].set(ylim=(-1, 3), yticks=(0, 2))
    for axis, text in zip(axes[:, 0], ("g(x)", "prox(x, 1)", "its derivative"), strict=True):
        axis.set_ylabel(text)
    figure.align_ylabels(axes[:, 0])
    return figure


def value(axis, x, g):
    """The value; a wall where the domain ends; a dot where one point is apart."""
    inside, level, step = np.isfinite(g), np.where(np.isfinite(g), g, 9.0), 0.3
    rises = abs(np.diff(level)) > step
    for k in np.flatnonzero(rises[1:] & rises[:-1] & inside[1:-1]) + 1:
        axis.plot(x[k], g[k], "o", color="black", ms=3)
        inside[k] = False
    axis.plot(x, np.where(inside, g, np.nan), color="black", lw=1.6)
    for k in np.flatnonzero(np.isfinite(g[1:]) != np.isfinite(g[:-1])):
        edge = k + 1 if inside[k + 1] else k
        axis.plot([x[edge]] * 2, [g[edge], 3], color="black", lw=0.8, ls=(0, (2, 2)))


def after_prox(upper, lower, x, fun):
    """The prox, its derivative, and at each kink the segment of derivatives with the one taken."""
    p, slope = map(np.asarray, jax.vmap(jax.value_and_grad(fun))(x))
    low, high = (np.asarray(jax.vmap(jax.grad(nsi.with_selection(fun, s)))(x)) for s in (0.0, 1.0))
    jumps = np.flatnonzero(abs(np.diff(p)) > 0.15)
    near = {k for j in jumps for k in (j, j + 1)}
    kinks = [k for k in np.flatnonzero(low != high) if k not in near]
    shown = slope.copy()
    shown[kinks] = np.nan
    for j in jumps:
        upper.plot([x[j], x[j + 1]], [p[j], p[j + 1]], color=BLUE, lw=0.8, ls=":")
        lower.plot([x[j]] * 2, [-0.12, 1.7], color="0.6", lw=0.8, ls=":")
    for curve, axis, colour in ((p, upper, BLUE), (shown, lower, GREEN)):
        axis.plot(np.insert(x, jumps + 1, x[jumps]), np.insert(curve, jumps + 1, np.nan), color=colour, lw=1.6)
    for k in kinks:
        lower.plot([x[k]] * 2, [low[k], high[k]], color=ORANGE, lw=2.6, solid_capstyle="butt")
        lower.plot(x[k], slope[k], "o", color=ORANGE, ms=4.5)


def in_the_plane():
    """Sets, points, and an arrow from each point to its projection."""
    ring = np.linspace(0, 2 * np.pi, 200)
    disk = np.stack([np.cos(ring), np.sin(ring)])
    far, one = 9.0, np.ones(2)
    a = np.array([1.0, 2.0])
    G, h = np.array([[1.0, 2.0], [-1.0, 1.0], [0.0, -1.0], [1.0, 0.0]]), np.array([1.0, 1.0, 0.5, 1.0])
    diamond = np.array([[1, 0, -1, 0], [0, 1, 0, -1]], float)
    square = np.array([[1, -1, -1, 1], [1, 1, -1, -1]], float)
    axes_of_plane = np.array([[-far, far, np.nan, 0, 0], [0, 0, np.nan, -far, far]])

    def beside(lo, hi):
        """The corners of lo <= a x <= hi."""
        along = np.array([2.0, -1.0])
        return np.stack([lo * a / 5 - far * along, lo * a / 5 + far * along, hi * a / 5 + far * along,
                         hi * a / 5 - far * along], axis=1)  # fmt: skip

    return {
        "L1Ball(1)": (prox.L1Ball(1.0), diamond, True),
        "L2Ball(1)": (prox.L2Ball(1.0), disk, True),
        "LInfBall(1)": (prox.LInfBall(1.0), square, True),
        "Nonnegative()": (prox.Nonnegative(), np.array([[0, far, far, 0], [0, 0, far, far]]), True),
        "Halfspace(a, 1)": (prox.Halfspace(a, 1.0), beside(-40.0, 1.0), True),
        "Hyperslab(a, −1, 1)": (prox.Hyperslab(a, -1.0, 1.0), beside(-1.0, 1.0), True),
        "Simplex(1)": (prox.Simplex(1.0), np.array([[0, 1], [1, 0]], float), False),
        "BoxSection(−1, 1, a, 1)": (prox.BoxSection(-one, one, a, 1.0), np.array([[-1, 1], [1, 0]], float), False),
        "Hyperplane(a, 1)": (prox.Hyperplane(a, 1.0), np.array([[-far, far], [(1 + far) / 2, (1 - far) / 2]]), False),
        "Polyhedron(G=G, h=h)": (
            prox.Polyhedron(G=G, h=h),
            np.array([[-1 / 3, 1, 1, -1.5], [2 / 3, 0, -0.5, -0.5]]),
            True,
        ),
        "SecondOrderCone()": (prox.SecondOrderCone(), np.array([[0, far, far], [0, -far, far]]), True),
        "Isotonic()": (prox.Isotonic(), np.array([[-far, far, -far], [-far, far, far]]), True),
        "L2Sphere(1)": (prox.L2Sphere(1.0), disk, False),
        "L0Ball(1)": (prox.L0Ball(1), axes_of_plane, False),
    }


def projections():
    """One small plane for each set."""
    sets = in_the_plane()
    figure, axes = plt.subplots(2, 7, figsize=(8.9, 2.95))
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.13
    points = np.concatenate([1.75 * np.stack([np.cos(angles), np.sin(angles)], 1), [[0.15, 0.45], [-0.3, -0.35]]])
    for axis, (name, (g, shape, filled)) in zip(axes.flat, sets.items(), strict=True):
        if filled:
            axis.fill(*shape, color=BLUE, alpha=0.22, lw=0)
            axis.plot(*np.append(shape, shape[:, :1], axis=1), color=BLUE, lw=1)
        else:
            axis.plot(*shape, color=BLUE, lw=2)
        nearest = np.asarray(jax.vmap(g.project)(jnp.asarray(points)))
        moved = np.linalg.norm(nearest - points, axis=1) > 1e-9
        axis.plot(*points.T, "o", color="0.35", ms=2.6, lw=0)
        for start, end in zip(points[moved], nearest[moved], strict=True):
            arrow = dict(arrowstyle="-|>", color=ORANGE, lw=0.9, shrinkA=0, shrinkB=0, mutation_scale=6)
            axis.annotate("", end, start, arrowprops=arrow)
        axis.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])
        axis.set_title(name, fontsize=7.2)
        axis.axhline(0, color="0.88", lw=0.6, zorder=0)
        axis.axvline(0, color="0.88", lw=0.6, zorder=0)
        axis.spines[:].set_visible(False)
    return figure


def vectors():
    """What the proxes of ordered entries make of a vector."""
    rng = np.random.default_rng(3)
    steps = np.repeat([0.2, 1.6, 0.9, 2.2], 8) + 0.3 * rng.normal(size=32)
    few = np.array([2.6, 0.5, 1.9, -0.4, 2.1, 1.2, -1.5, 0.9, 2.4, -2.0])
    panels = {
        "TotalVariation1D(1)": (prox.TotalVariation1D(1.0), steps),
        "Isotonic()": (prox.Isotonic(), steps),
        "SLOPE(2¼, 2, …, 0)": (prox.SLOPE(np.linspace(2.25, 0, 10)), few),
        "SumLargest(3)": (prox.SumLargest(3), few),
        "Maximum(2)": (prox.Maximum(2.0), few),
        "LInf(2)": (prox.LInf(2.0), few),
    }
    figure, axes = plt.subplots(1, 6, figsize=(8.9, 1.75))
    for axis, (name, (g, x)) in zip(axes, panels.items(), strict=True):
        at, p = np.arange(len(x)), np.asarray(g.prox(x, 1.0))
        axis.bar(at, x, color="0.82", width=0.8)
        axis.plot(at, p, "o", color=BLUE, ms=2.4 if len(x) > 12 else 4)
        axis.axhline(0, color="0.4", lw=0.6)
        axis.set(title=name, xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def main():
    """All pictures."""
    jax.config.update("jax_enable_x64", True)
    with plt.rc_context(STYLE):
        for name, functions in ON_THE_LINE.items():
            save(on_the_line(functions), f"prox_{name}")
        save(vectors(), "prox_order")
        save(projections(), "projections")


if __name__ == "__main__":
    main()
