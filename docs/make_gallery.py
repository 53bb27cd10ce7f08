"""Draw the pictures of docs/gallery.md: ``python docs/make_gallery.py``, about a minute.

Everything drawn is computed: derivatives by ``jax.jacobian``, bars at kinks by the two ends of a selection.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from make_pictures import BLUE, GREEN, IMAGES, ORANGE, STYLE, save

import nsimplicit as nsi
from nsimplicit import prox

PURPLE, GREY = "#cc79a7", "0.6"
COLOURS = (BLUE, PURPLE, GREEN)


def three(ratios):
    """Three panels."""
    return plt.subplots(1, 3, figsize=(8.9, 2.3), width_ratios=ratios)


def thumbnail(figure, name):
    """The first panel alone."""
    figure.canvas.draw()
    box = figure.axes[0].get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
    figure.savefig(IMAGES / name, dpi=75, bbox_inches=box.padded(0.04))


def slopes(axis, t, ends, colour, lift):
    """A derivative along t; where two selections differ, a bar for what lies between."""
    low, high = (jax.vmap(end)(t) + lift for end in ends)
    kinks = np.flatnonzero(np.asarray(low != high))
    axis.plot(t, low.at[kinks].set(np.nan), color=colour, lw=1.6)
    for k in kinks:
        axis.plot([t[k]] * 2, [low[k], high[k]], color=ORANGE, lw=2.6, solid_capstyle="butt")


def soft_rank(x, epsilon):
    """As in the gallery."""
    order, ranks = jnp.argsort(-x), jnp.arange(x.size, 0.0, -1.0)
    excess = prox.Isotonic(decreasing=True).project(x[order] / epsilon - ranks)
    return x / epsilon - excess[jnp.argsort(order)]


def sort():
    """An entry crosses two others: its path through the places, its derivatives, its rank."""
    figure, (left, middle, right) = three((1, 1, 1))
    t = jnp.arange(-64, 129) / 64

    def place(k, selection=None):
        return lambda t: nsi.sort(jnp.stack([t, 0.0 * t, 1.0 + 0.0 * t]), selection=selection)[k]

    for k, colour in enumerate(COLOURS):
        left.plot(t, jax.vmap(place(k))(t), color=colour, lw=1.6, label=("smallest", "middle", "largest")[k])
        slopes(middle, t, [jax.grad(place(k, s)) for s in ("first", "last")], colour, 1.5 * (2 - k))
        middle.text(2.05, 1.5 * (2 - k) + 0.1, ("smallest", "middle", "largest")[k], color=colour, ha="right")
    left.set(title="(t, 0, 1) sorted", xlabel="t", xticks=(-1, 0, 1, 2), yticks=(-1, 0, 1, 2))
    left.legend(frameon=False, handlelength=1)
    middle.set(title="derivative of each place in t", xlabel="t", xticks=(-1, 0, 1, 2))
    middle.set_yticks([0, 1, 1.5, 2.5, 3, 4], ["0", "1"] * 3)
    hard = np.asarray(1.0 + (t > 0) + (t > 1))
    right.plot(t, np.where(np.isin(t, (0, 1)), np.nan, hard), color="black", lw=1.2, label="rank")
    for epsilon, colour in zip((0.25, 0.5, 1.0), COLOURS, strict=True):
        ranks = jax.vmap(lambda t, e=epsilon: soft_rank(jnp.stack([t, 0.0 * t, 1.0 + 0.0 * t]), e)[0])(t)
        right.plot(t, ranks, color=colour, lw=1.6, label=f"soft, ε = {epsilon:g}")
    right.set(title="the rank of t", xlabel="t", xticks=(-1, 0, 1, 2), yticks=(1, 2, 3))
    right.legend(frameon=False, handlelength=1)
    return figure


def top_k():
    """An entry grows into the two largest."""
    figure, (left, middle, right) = three((1, 1, 1))
    t = jnp.arange(-32, 193) / 64
    others = jnp.array([0.0, 1.0, 2.0])

    def largest(t, selection=None):
        return nsi.top_k(jnp.append(t, others), 2, selection=selection)[0]

    for k, colour in enumerate((GREEN, BLUE)):
        left.plot(t, jax.vmap(largest)(t)[:, k], color=colour, lw=1.6, label=("largest", "second")[k])
    for level in others:
        left.axhline(level, color="0.88", lw=0.8, zorder=0)
    left.plot(t, t, color=GREY, lw=0.8, ls=":", label="t")
    left.set(title="top 2 of (t, 0, 1, 2)", xlabel="t", yticks=(0, 1, 2, 3))
    left.legend(frameon=False, handlelength=1)
    sums = {"largest": (GREEN, [0]), "second": (BLUE, [1]), "their sum": (PURPLE, [0, 1])}
    for lift, (name, (colour, rows)) in zip((3.0, 1.5, 0.0), sums.items(), strict=True):
        ends = (jax.grad(lambda t, s=s, rows=rows: largest(t, s)[np.array(rows)].sum()) for s in ("last", "first"))
        slopes(middle, t, ends, colour, lift)
        middle.text(-0.5, lift + 0.1, name, color=colour)
    middle.set(title="derivatives in t", xlabel="t")
    middle.set_yticks([0, 1, 1.5, 2.5, 3, 4], ["0", "1"] * 3)
    right.plot(t, np.where(t == 1, np.nan, np.asarray(t > 1)), color="black", lw=1.2, label="hard")
    for epsilon, colour in zip((0.25, 1.0, 2.0), COLOURS, strict=True):
        shares = jax.vmap(lambda t, e=epsilon: prox.CappedSimplex(2.0).project(jnp.append(t, others) / e)[0])(t)
        right.plot(t, shares, color=colour, lw=1.6, label=f"ε = {epsilon:g}")
    right.set(title="mask of t", xlabel="t", yticks=(0, 0.5, 1))
    right.legend(frameon=False, handlelength=1)
    return figure


def isotonic():
    """A fit with its blocks, the Jacobian that averages over them, and how blocks form."""
    figure, (left, middle, right) = three((1.25, 0.8, 1))
    rng = np.random.default_rng(1)
    at = np.arange(24)
    x = jnp.asarray(np.round(3 / (1 + np.exp(-(at - 11) / 3)) + 0.45 * rng.normal(size=24), 2))
    project = jax.jit(prox.Isotonic().project)
    fit, jacobian = np.asarray(project(x)), np.asarray(jax.jacobian(project)(x))
    blocks = np.split(at, np.flatnonzero(np.diff(fit) > 1e-9) + 1)
    left.plot(at, x, "o", color=GREY, ms=3, label="x")
    for k, block in enumerate(blocks):
        ends = [block[0] - 0.4, block[-1] + 0.4]
        left.plot(ends, fit[block[[0, -1]]], color=BLUE, lw=2.4, label=None if k else "isotonic fit")
        left.plot(np.stack([block, block]), np.stack([x[block], fit[block]]), color="0.8", lw=0.8, zorder=0)
    left.set(title="data and fit", xlabel="position", yticks=(0, 1, 2, 3))
    left.legend(frameon=False, handlelength=1)
    middle.imshow(jacobian, cmap="Blues", vmin=0, vmax=1)
    middle.set(title="the Jacobian of the fit", xticks=[], yticks=[], xlabel="entry of x", ylabel="entry of the fit")
    middle.spines[:].set_visible(True)
    for block in blocks:
        corner, size = block[0], len(block)
        middle.text(corner + size / 2 - 0.5, corner + size / 2 - 0.5, f"1/{size}" if size > 2 else "", fontsize=6,
                    ha="center", va="center", color="black")  # fmt: skip
    t = jnp.arange(-64, 321) / 64
    paths = jax.vmap(lambda t: project(jnp.stack([t, 0 * t, 0 * t + 1, 0 * t + 2])))(t)
    for k, colour in enumerate((ORANGE, BLUE, PURPLE, GREEN)):
        right.plot(t, paths[:, k], color=colour, lw=2.8 - 0.5 * k, label=("t", "0", "1", "2")[k])
    right.plot(t, t, color=GREY, lw=0.8, ls=":")
    for place, text in (((-0.35, -0.75), "slope 1"), ((0.9, 0.1), "1/2"), ((3.6, 1.25), "1/3")):
        right.text(*place, text, color="0.3")
    right.set(title="fit of (t, 0, 1, 2)", xlabel="t", ylim=(-1, 2.9), yticks=(-1, 0, 1, 2))
    right.legend(frameon=False, handlelength=1, ncols=2, loc="lower right")
    return figure


def total_variation():
    """A denoised signal, how the weight moves it, and the weight that is best."""
    figure, (left, middle, right) = three((1.25, 1.25, 1))
    rng = np.random.default_rng(3)
    truth = np.repeat([0.0, 2.0, 1.2, 2.6, 0.6], (14, 12, 16, 8, 14))
    x = jnp.asarray(truth + 0.4 * rng.normal(size=truth.size))
    denoise = jax.jit(lambda w: prox.TotalVariation1D(w).prox(x, 1.0))

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def error(w):
        return jnp.mean((denoise(w) - truth) ** 2)

    weights = jnp.linspace(0.0, 3.0, 301)
    errors, derivative = error(weights)
    best = weights[jnp.argmin(errors)]
    at = np.arange(truth.size)
    left.plot(at, x, "o", color=GREY, ms=2.2, label="x")
    left.step(at, truth, color="black", lw=0.9, where="mid", label="truth")
    left.step(at, denoise(best), color=BLUE, lw=1.8, where="mid", label=f"prox, w = {best:.2f}")
    left.set(title="a signal denoised", xlabel="position", ylim=(-1.4, 4.4), yticks=(0, 1, 2, 3))
    left.legend(frameon=False, handlelength=1, loc="upper left", ncols=3, columnspacing=1)
    middle.axhline(0, color="0.85", lw=0.8)
    middle.step(at, jax.jacfwd(denoise)(best), color=GREEN, lw=1.6, where="mid")
    middle.set(title="its derivative in w", xlabel="position")
    right.plot(weights, errors, color=BLUE, lw=1.6, label="mean squared error")
    right.plot(weights, derivative, color=GREEN, lw=1.6, label="its derivative in w")
    right.axhline(0, color="0.85", lw=0.8, zorder=0)
    right.axvline(best, color=ORANGE, lw=0.8, ls=":")
    right.set(title="how much to denoise", xlabel="w", ylim=(-0.25, 0.35))
    right.legend(frameon=False, handlelength=1)
    return figure


def codes(D, y, w):
    """As in the gallery."""
    T = nsi.splittings.ForwardBackward(prox.LeastSquares(D, y), prox.L1(w))
    return nsi.fixed_point(T, jnp.zeros(D.shape[1]), solver=nsi.solvers.Nesterov(), tol=1e-9).value


def mixtures():
    """Four shapes on sixteen points; two hundred sparse amounts of each, and their noisy sums."""
    t = np.linspace(0, 1, 16)
    shapes = np.stack([np.exp(-(((t - 0.25) / 0.1) ** 2)), t > 0.6, np.sin(4 * np.pi * t), 1 - t], axis=1)
    shapes = shapes / np.linalg.norm(shapes, axis=0)
    rng = np.random.default_rng(0)
    amounts = 3 * rng.normal(size=(200, 4)) * (rng.random((200, 4)) < 0.3)
    return t, shapes, amounts, amounts @ shapes.T + 0.6 * rng.normal(size=(200, 16)), rng.normal(size=(16, 4)) / 4


def sparse_coding():
    """A dictionary and a weight, learned so that codes are the amounts of four shapes in a mixture."""
    figure, (left, middle, right) = three((1, 1.25, 1.25))
    t, shapes, amounts, signals, start = mixtures()
    learn, test = slice(50, None), slice(50)

    def found(parameters, rows):
        D, log_w = parameters
        return jax.vmap(lambda y: codes(D, y, jnp.exp(log_w)))(signals[rows])

    def loss(parameters, rows):
        return jnp.mean((found(parameters, rows) - amounts[rows]) ** 2)

    @jax.jit
    def train(parameters):
        def step(parameters, _):
            slope = jax.grad(loss)(parameters, learn)
            return jax.tree.map(lambda p, s: p - 0.1 * s, parameters, slope), loss(parameters, test)

        return jax.lax.scan(step, parameters, None, length=200)

    learned, errors = train((jnp.asarray(start), jnp.log(0.3)))
    linear = np.linalg.lstsq(signals[learn], amounts[learn])[0]
    straight = {"least squares, true shapes": np.linalg.pinv(shapes).T, "best linear map": linear}
    D, weight = learned[0], jnp.exp(learned[1])
    print(f"weight {weight:.2f}, error {errors[-1]:.3f}")
    lines = {"start": (start, GREY, 0.8, "-"), "learned": (D, BLUE, 2.0, "-"), "true": (shapes, "black", 0.9, ":")}
    for name, (atoms, colour, width, style) in lines.items():
        shown = atoms / np.linalg.norm(atoms, axis=0) - 1.3 * np.arange(4)
        left.plot(t, shown, style, color=colour, lw=width, label=[name, *["_"] * 3])
    left.set(title="four atoms", xticks=[], yticks=[], ylim=(-4.6, 1.9))
    left.legend(frameon=False, handlelength=1.2, ncols=3, columnspacing=1, loc="upper center")
    z = np.asarray(found(learned, test))
    middle.plot(amounts[test], z, "o", color=BLUE, ms=2.6)
    middle.axline((0, 0), slope=1, color="0.8", lw=0.8, zorder=0)
    middle.set(title=f"held out: {np.mean(z[amounts[test] == 0] == 0):.0%} of zeros are zero", xlabel="amount")
    middle.set_ylabel("code")
    right.plot(errors, color=BLUE, lw=1.6, label="sparse codes")
    for (name, matrix), style in zip(straight.items(), (":", "--"), strict=True):
        error = np.mean((signals[test] @ matrix - amounts[test]) ** 2)
        print(f"{name} {error:.3f}")
        right.axhline(error, color="black", lw=0.9, ls=style, label=name)
    right.set(title="squared error, held out", xlabel="step of gradient descent", ylim=(0, 2))
    right.legend(frameon=False, handlelength=1.5)
    return figure


def main():
    """All pictures."""
    jax.config.update("jax_enable_x64", True)
    with plt.rc_context(STYLE):
        for draw in (sort, top_k, isotonic, total_variation, sparse_coding):
            figure = draw()
            thumbnail(figure, f"gallery_{draw.__name__}_small.png")
            save(figure, f"gallery_{draw.__name__}")


if __name__ == "__main__":
    main()
