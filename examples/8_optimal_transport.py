"""Optimal transport: a cloud that flows into a shape, far points left out, and a cost read off a plan.

You learn: the gradient of the value of `nsi.layers.sinkhorn` in the points, which takes no linear solve; relaxed
marginals; the derivative of its plan, which is implicit, in forward mode. The picture goes to
results/optimal_transport.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)


def squared_distances(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def transport(a, b, cost, epsilon):
    return nsi.layers.sinkhorn(a, b, cost, epsilon, solver=nsi.solvers.Anderson(), tol=1e-6)


# A cloud flows to two half moons, down the gradient of the transport between them. What points of one cloud
# pay among themselves is subtracted, half of it each: at the target the gradient is then zero.
n = 200
uniform = jnp.full(n, 1 / n)
moons = jnp.asarray(make_moons(n, noise=0.04, random_state=0)[0])
cloud = jnp.asarray(np.random.default_rng(0).normal(size=(n, 2)) * 0.25 + np.array([0.5, 1.6]))


def divergence(x, y, epsilon=0.02):
    """Of x from y, less what depends on y alone."""
    between = transport(uniform, uniform, squared_distances(x, y), epsilon).value
    return between - transport(uniform, uniform, squared_distances(x, x), epsilon).value / 2


@jax.jit
def flow(x):
    def step(x, _):
        value, slope = jax.value_and_grad(divergence)(x, moons)
        return x - 0.15 * n * slope, (x, value)

    return jax.lax.scan(step, x, None, length=40)[1]


clouds, values = flow(cloud)
apart = float(values[-1] - divergence(moons, moons))
print(
    f"a cloud of {n} points: divergence {float(values[0] - divergence(moons, moons)):.3f}, after the flow {apart:.5f}"
)

# Who goes where, with three points far off: exact marginals send all of them, relaxed ones leave them out.
left = moons[:40].at[:3].add(jnp.array([-1.6, 1.2]))
right = moons[40:80] + jnp.array([0.3, 0.5])
even, cost = jnp.full(40, 1 / 40), squared_distances(left, right)
cases = {"epsilon 0.3": (0.3, jnp.inf), "epsilon 0.02": (0.02, jnp.inf), "epsilon 0.02, rho 0.1": (0.02, 0.1)}
plans = {
    name: nsi.layers.sinkhorn(even, even, cost, epsilon, rho_a=rho, rho_b=rho, tol=1e-6).plan
    for name, (epsilon, rho) in cases.items()
}
sent = {name: float(plan[:3].sum() / even[:3].sum()) for name, plan in plans.items()}
print(
    "of the mass of the three far points is sent:", ", ".join(f"{share:.2f} ({name})" for name, share in sent.items())
)

# Which cost made this plan? Distances count differently along the two axes; Gauss-Newton steps on the derivative of the
# plan in the two weights find by how much.
x, y = cloud[:40], moons[:40]
u = jnp.full(40, 1 / 40)


def plan(weights):
    return nsi.layers.sinkhorn(u, u, squared_distances(x * weights, y * weights), 0.1).plan


@jax.jit
def gauss_newton(weights, observed):
    jacobian = jax.jacfwd(plan)(weights).reshape(-1, 2)
    return weights - jnp.linalg.lstsq(jacobian, (plan(weights) - observed).ravel())[0]


truth, weights = jnp.array([1.0, 0.6]), jnp.array([0.8, 0.8])
observed = plan(truth)
for _ in range(6):
    weights = gauss_newton(weights, observed)
error = float(jnp.abs(weights - truth).max())
print(f"weights of the axes from a plan: {weights[0]:.6f}, {weights[1]:.6f}; error {error:.1e}")

figure = plt.figure(figsize=(10, 5.4), constrained_layout=True)
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.1), squeeze=False)[:, 0]
for axis, k in zip(top.subplots(1, 4, sharex=True, sharey=True), (0, 4, 12, 39), strict=True):
    axis.scatter(*moons.T, s=5, color="0.8")
    axis.scatter(*clouds[k].T, s=7, c=cloud[:, 0], cmap="viridis")
    axis.set_title(f"step {k}", loc="left", fontsize=10)
    axis.set_aspect("equal")
    axis.set_axis_off()
top.suptitle("A cloud flows to two half moons", x=0.01, ha="left")
for axis, (name, matched) in zip(bottom.subplots(1, 3, sharex=True, sharey=True), plans.items(), strict=True):
    heaviest = float(matched.max())
    for i, j in np.argwhere(np.asarray(matched) > 0.02 * heaviest):
        axis.plot(*np.stack([left[i], right[j]]).T, color="0.4", alpha=float(matched[i, j]) / heaviest, linewidth=0.8)
    axis.scatter(*left.T, s=9, color="tab:blue", zorder=2)
    axis.scatter(*right.T, s=9, color="tab:orange", zorder=2)
    axis.set_title(name, loc="left", fontsize=10)
    axis.set_aspect("equal")
    axis.set_axis_off()
bottom.suptitle("Who goes where", x=0.01, ha="left")
folder = Path("results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "optimal_transport.png", dpi=125)

assert 0 <= apart < 2e-3
assert sent["epsilon 0.02"] > 0.999 and sent["epsilon 0.02, rho 0.1"] < 0.2
assert error < 1e-8
