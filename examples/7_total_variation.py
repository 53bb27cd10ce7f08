"""Total variation denoising of a photograph: the picture, and its derivative in the weight of the penalty.

You learn: `ChambollePock` for a penalty of a linear map of x, here the lengths of the gradient of an image;
`DavisYin` for three functions, here a penalty of the columns and one of the rows, each with its exact prox. Then
forward mode through each, an image of derivatives, and a weight tuned with it. The picture goes to
results/total_variation.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)

# A photograph in grey, each pixel the mean of 5 x 5, with noise of a tenth of the range from black to white.
photo = load_sample_image("china.jpg")[:425].mean(axis=2) / 255
clean = jnp.asarray(photo.reshape(85, 5, 128, 5).mean(axis=(1, 3)))
noisy = clean + 0.1 * np.random.default_rng(0).normal(size=clean.shape)
fit = nsi.prox.Translate(nsi.prox.SquaredL2(1.0), noisy)  # ½‖x - noisy‖²


def gradient(x):
    """Differences with the pixel below and the pixel to the right; across the border there is none."""
    down = jnp.pad(jnp.diff(x, axis=0), ((0, 1), (0, 0)))
    right = jnp.pad(jnp.diff(x, axis=1), ((0, 0), (0, 1)))
    return jnp.stack([down, right], axis=-1)


def isotropic(weight, z, steps):
    """½‖x - noisy‖² + weight·Σ|gradient of x|, the same for edges in every direction.

    In flat parts the dual variable is not unique and I - T' is singular. The derivative carried along with the
    iteration does not mind, and forward mode is all that one weight needs.
    """
    problem = nsi.splittings.ChambollePock(fit, nsi.prox.GroupL2(weight, axis=-1), gradient, tau=0.1)
    return nsi.fixed_point(problem, z, tol=0.0, max_steps=steps, derivative=nsi.derivatives.Piggyback())


def columns_and_rows(weight):
    """½‖x - noisy‖² + weight·Σ|differences along columns| + weight·Σ|differences along rows|."""
    g, h = (nsi.prox.TotalVariation1D(weight, axis=axis) for axis in (0, 1))
    problem = nsi.splittings.DavisYin(fit, g, h, relaxation=1.4)
    derivative = nsi.derivatives.Implicit(nsi.linear_solvers.BiCGStab())
    return nsi.fixed_point(problem, noisy, solver=nsi.solvers.Anderson(), derivative=derivative, tol=1e-13).value


@jax.jit
def with_slope(weight, z, steps):
    """The image, its derivative in the weight, and the state to go on from."""

    def solve(weight):
        solution = isotropic(weight, z, steps)
        return solution.value, solution.z

    (x, z), (slope, _) = jax.jvp(solve, (weight,), (1.0,))
    return x, slope, z


def psnr(x):
    return float(-10 * jnp.log10(jnp.mean((x - clean) ** 2)))


# The weight for which the result is nearest to the clean photograph: secant steps on the derivative of the error in
# the logarithm of the weight. Each solve goes on where the one before stopped; 300 steps give three digits.
print("  weight     PSNR   d(mean squared error)/d(log weight)")
z, seen = (noisy, jnp.zeros((*noisy.shape, 2))), []
log_weight, move = np.log(0.04), 0.3
for _ in range(5):
    x, slope, z = with_slope(np.exp(log_weight), z, 300)
    seen.append((log_weight, float(2 * jnp.mean((x - clean) * slope) * np.exp(log_weight))))
    print(f"{np.exp(log_weight):8.5f}{psnr(x):9.3f}{seen[-1][1]:14.2e}")
    if len(seen) > 1:
        (a, at_a), (b, at_b) = seen[-2:]
        move = -at_b * (b - a) / (at_b - at_a)
    log_weight += float(np.clip(move, -0.5, 0.5))
weight = round(float(np.exp(seen[-1][0])), 4)

# The derivative of the whole image there, against a central difference.
x, slope, z = with_slope(weight, z, 1000)
ahead, behind = (with_slope(weight * (1 + h), z, 1000)[0] for h in (1e-3, -1e-3))
difference = (ahead - behind) / (2e-3 * weight)
error = float(jnp.linalg.norm(slope - difference) / jnp.linalg.norm(difference))

# The other penalty. Its solution is linear in the weight while no two neighbours merge or part, and a difference over
# such a stretch is exact.
rows_with_slope = jax.jit(lambda weight: jax.jvp(columns_and_rows, (weight,), (1.0,)))
rows, rows_slope = rows_with_slope(weight)
ahead, behind = (rows_with_slope(weight + h)[0] for h in (1e-7, -1e-7))
rows_difference = (ahead - behind) / 2e-7
rows_error = float(jnp.linalg.norm(rows_slope - rows_difference) / jnp.linalg.norm(rows_difference))

print(f"\nPSNR: noisy {psnr(noisy):.2f}, isotropic {psnr(x):.2f}, columns and rows {psnr(rows):.2f}")
print("derivative of the image in the weight, in forward mode, against a central difference:")
print(f"  isotropic, Chambolle-Pock, carried along   {error:.1e} of its norm")
print(f"  columns and rows, Davis-Yin, implicit      {rows_error:.1e}")

limit = float(jnp.quantile(jnp.abs(slope), 0.99))
pictures = [
    (clean, "photograph, 85 x 128"),
    (noisy, f"with noise: PSNR {psnr(noisy):.1f} dB"),
    (x, f"denoised, isotropic: {psnr(x):.1f} dB"),
    (rows, f"denoised, columns and rows: {psnr(rows):.1f} dB"),
    (slope, "derivative in the weight, isotropic"),
    (rows_slope, "derivative in the weight, columns and rows"),
]
figure, axes = plt.subplots(3, 2, figsize=(9, 9.4), constrained_layout=True)
for axis, (image, title) in zip(axes.flat, pictures, strict=True):
    grey = not title.startswith("derivative")
    options = dict(cmap="gray", vmin=0, vmax=1) if grey else dict(cmap="RdBu_r", vmin=-limit, vmax=limit)
    shown = axis.imshow(image, **options)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_axis_off()
figure.suptitle(f"Total variation denoising at weight {weight:.4f}", x=0.01, ha="left")
figure.colorbar(shown, ax=axes[2], shrink=0.9, label="grey (0 to 1) per unit of weight")
folder = Path("results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "total_variation.png", dpi=125)

assert psnr(x) > psnr(noisy) + 5 and abs(seen[-1][1]) < 1e-2 * abs(seen[0][1])
assert psnr(x) > max(psnr(with_slope(weight * scale, z, 300)[0]) for scale in (0.9, 1.1))
assert error < 0.03 and rows_error < 1e-4
