"""The pictures of the main job."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

DPI = 125
COLOURS = {"forward-backward": "#0072b2", "Douglas-Rachford": "#d55e00", "ADMM": "#009e73"}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def draw(result, folder, readme=None):
    with plt.rc_context(STYLE):
        save(convergence(result["convergence"]), folder / "convergence.png")
        save(tuning(result["tuning"], result["scan"]), folder / "tuning.png")
        picture = breakpoint_picture(result["breakpoint"])
        if readme is not None:
            readme.parent.mkdir(parents=True, exist_ok=True)
            picture.savefig(readme, dpi=DPI)
        save(picture, folder / "breakpoint.png")


def save(figure, path):
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def convergence(seen):
    """One panel for each splitting: both errors fall along one slope, that of the Jacobian at the solution."""
    figure, axes = plt.subplots(1, len(seen), figsize=(8, 3.2), sharey=True)
    for axis, (name, data) in zip(axes, seen.items(), strict=True):
        k = np.arange(len(data["error"]))
        options = dict(color=COLOURS[name])
        axis.semilogy(k, data["error"], lw=1.2, ls=(0, (4, 2)), label=rated("iterate", data["iterate_rate"]), **options)
        axis.semilogy(
            k, data["derivative_error"], lw=2.2, label=rated("derivative", data["derivative_rate"]), **options
        )
        if data["local_rate"] is not None:
            # Drawn above the data, from where the straight part begins.
            begin = int(np.argmax(data["derivative_error"] < 1e-2))
            line = 30 * data["derivative_error"][begin] * data["local_rate"] ** (k[begin:] - begin)
            label = rated("theory", data["local_rate"])
            axis.semilogy(k[begin:], np.maximum(line, 1e-13), color="0.4", lw=1.2, ls=":", label=label)
        axis.set_title(name)
        axis.set_xlabel("iteration")
        axis.set_ylim(1e-16, 1e2)
        axis.set_yticks(10.0 ** np.arange(-16, 3, 4))
        axis.grid(axis="y", color="0.9", lw=0.6)
        axis.legend(loc="lower left", handlelength=1.8, title="factor per iteration", alignment="left")
    axes[0].set_ylabel("distance to the limit, relative")
    return figure


def rated(what, rate):
    return f"{what} {rate:.3f}"


def tuning(paths, scan):
    """Where the steps go on the curve of held-out errors, and both against the step."""
    figure, axes = plt.subplot_mosaic([["curve", "weight"], ["curve", "error"]], figsize=(8, 4))
    curve = axes["curve"]
    curve.semilogx(scan["weight"], scan["held_out_error"], color="0.65", lw=3, label="scikit-learn, on a grid")
    for size, (name, path) in zip((9, 6, 3), paths.items(), strict=True):
        weights = [row["weight"] for row in path]
        errors = [row["held_out_error"] for row in path]
        options = dict(color=COLOURS[name], marker="o", ms=size, lw=1)
        curve.plot(weights, errors, label=f"steps through {name}", ls="", **{**options, "lw": 0})
        axes["weight"].semilogy(weights, **options)
        axes["error"].plot(errors, **options)
    last, first = path[-1], path[0]
    curve.annotate("start", (first["weight"], first["held_out_error"]), (-34, 4), textcoords="offset points")
    curve.annotate(
        f"end: {last['weight']:.2f}",
        (last["weight"], last["held_out_error"]),
        (0, -22),
        textcoords="offset points",
        ha="center",
        arrowprops={"arrowstyle": "-", "color": "0.4"},
    )
    low, high = curve.get_ylim()
    curve.set_ylim(low - 0.12 * (high - low), high)
    curve.set_xlabel("weight of the l1 norm")
    curve.set_ylabel("held-out error, in variances of y")
    curve.legend(loc="upper left")
    for axis in (curve.xaxis, axes["weight"].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes["weight"].set_ylabel("weight")
    axes["weight"].tick_params(labelbottom=False)
    axes["error"].set_ylabel("held-out error")
    axes["error"].set_xlabel("step of gradient descent")
    return figure


def breakpoint_picture(seen):
    """The path around the knot for the coefficient that enters and for one that is there already."""
    knot = seen["knot"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), width_ratios=(1.4, 1))
    for axis, column in zip(axes, (knot.entering, 0), strict=True):
        path_and_slopes(axis, seen, column)
        axis.set_xlabel("weight of the l1 norm")
    name = [feature_name(knot.columns[c]) for c in (knot.entering, 0)]
    axes[0].set_ylabel("coefficient (standardised data)")
    axes[0].set_title(f"{name[0]} leaves zero at weight {knot.weight:.2f}")
    axes[1].set_title(f"{name[1]} bends there")
    return figure


def path_and_slopes(axis, seen, column):
    knot = seen["knot"]
    value, x = knot.beta[column], seen["weights"]
    tangent = {q: value + slope[column] * (x - knot.weight) for q, slope in seen["selected"].items()}
    axis.fill_between(x, tangent[0.0], tangent[1.0], color="0.93", lw=0)
    axis.plot(x, seen["path"][:, column], color="0.6", lw=5, solid_capstyle="butt")
    for q, colour in ((0.0, "#d55e00"), (1.0, "#0072b2"), (0.5, "#009e73")):
        axis.plot(x, tangent[q], color=colour, lw=1.8, ls="-" if q == 0.5 else (0, (5, 2)))
    axis.plot([knot.weight], [value], "o", color="black", ms=6)
    if column != knot.entering:
        return
    names = {0.0: ("selection 0:\nright derivative", "#d55e00"), 0.5: ("selection 0.5", "#009e73")}
    names[1.0] = ("selection 1:\nleft derivative", "#0072b2")
    beyond = {1.0: "bottom", -1.0: "top"}[knot.signs[column]]  # the flat side: away from the other two
    for q, (text, colour) in names.items():
        place = dict(textcoords="offset points", ha="left", va=beyond if q == 0.0 else "center")
        axis.annotate(text, (x[-1], tangent[q][-1]), (6, 0), color=colour, **place)
    start = seen["path"][0, column]
    axis.annotate("the solution", (x[0], start), (22, 0), textcoords="offset points", color="0.35", va="center")
    axis.set_xticks([tick for tick in axis.get_xticks() if x[0] <= tick <= x[-1]])
    axis.set_xlim(x[0] - 0.05 * np.ptp(x), x[-1] + 0.45 * np.ptp(x))
    axis.margins(y=0.12)


def feature_name(column):
    names = ("age", "sex", "body mass", "blood pressure", "s1", "s2", "s3", "s4", "s5", "s6")
    return names[column] if column < len(names) else f"cosine {column}"
