"""Sets of derivatives: at a kink a program has many Jacobians. Look at all of them, and at what becomes of them.

You learn: the Jacobians of a map and of its inverse (the second set is larger than the inverses of the first), and
that derivatives carried along by an iteration can end outside the derivative of what it converges to.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import nsimplicit as nsi
from nsimplicit.calculus.clarke import implicit_clarke

jax.config.update("jax_enable_x64", True)
zero, key = jnp.zeros(2), jax.random.key(0)


def clarke_map(z):
    """Clarke's example: an invertible map of the plane with four linear pieces, which meet at 0."""
    return jnp.array([jnp.abs(z[0]) + z[1], 2 * z[0] + jnp.abs(z[1])])


def equation(z, theta):
    """Its inverse: z for which the map gives θ."""
    return clarke_map(z) - theta


def T(z, theta):
    """A contraction of the plane, linear where z[0] > 0 and where z[0] < 0; its fixed point for θ = 0 is 0."""
    turn = jnp.array([[0.55, -0.45], [0.45, 0.55]])
    return turn @ z - jnp.array([0.9, 0.35]) * jax.nn.relu(z[0]) + jnp.array([1.0, 0.3]) * theta


forward = nsi.calculus.conservative_jacobian(clarke_map)(zero)
inverses = nsi.calculus.implicit_jacobian(equation)(zero, zero)
of_inverse = implicit_clarke(nsi.calculus.normal_form(equation)(zero, zero), 2, piecewise_linear=True)
print(forward, "", of_inverse, sep="\n")

carried = nsi.calculus.piggyback_jacobian(T)(zero, 0.0)
settled = nsi.calculus.implicit_jacobian(lambda z, theta: T(z, theta) - z)(zero, 0.0)
print("", carried, sep="\n")

# Jacobians have four entries: shown are two of them. `bounds` in every direction gives the outline of a set.
figure, axes = plt.subplots(1, 3, figsize=(11, 4.3), constrained_layout=True)
for axis, made, (i, j), title in [
    (axes[0], forward, ((0, 0), (1, 1)), "map: Jacobians at 0"),
    (axes[1], of_inverse, ((0, 0), (1, 0)), "inverse: Clarke Jacobian at 0"),
]:
    cloud, corners = made.sample(key, 4000), made.vertices()
    axis.plot(cloud[:, *i], cloud[:, *j], ".", ms=2, color="0.75", label="all of the set")
    axis.plot(corners[:, *i], corners[:, *j], "o", color="#d55e00", label="Jacobians of the pieces")
    axis.set(title=title, xlabel=f"entry {i}", ylabel=f"entry {j}")
product = inverses.sample(key, 2000)
axes[1].plot(product[:, 0, 0], product[:, 1, 0], ".", ms=2, color="#0072b2", label="inverses of Jacobians of the map")

angles = np.linspace(0, 2 * np.pi, 361)
outline = np.array([[carried.bounds([[np.cos(a)], [np.sin(a)]], 1e-4)[1], a] for a in angles])
h, a, slope = outline[:, 0], outline[:, 1], np.gradient(outline[:, 0], angles)
cloud, segment = carried.sample(key, 8000)[..., 0], settled.sample(key, 500)[..., 0]
axes[2].plot(*cloud.T, ".", ms=1.5, color="0.6", label="derivatives carried along")
axes[2].plot(*segment.T, ".", ms=4, color="#d55e00", label="derivatives of the fixed point")
axes[2].plot(h * np.cos(a) - slope * np.sin(a), h * np.sin(a) + slope * np.cos(a), lw=0.8, color="k", label="bounds")
axes[2].set(title="iteration: its attractor", xlabel="dz₀/dθ", ylabel="dz₁/dθ")
for axis in axes:
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8, markerscale=1.5, frameon=False)
folder = Path("results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "derivative_sets.png", dpi=125)

witness = inverses.vertices().mean(axis=0)
assert of_inverse.contains(witness) and not forward.contains(np.linalg.inv(witness))
assert (forward.dimension(), of_inverse.dimension()) == (2, 3)
assert nsi.calculus.excess(settled, carried.sample(key, 2000)) < 0.02
assert nsi.calculus.excess(carried.sample(key, 2000), settled) > 0.1
