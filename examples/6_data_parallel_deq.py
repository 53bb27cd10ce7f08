"""Train an equilibrium model on eight devices, and differentiate a Lasso whose features lie on eight devices.

You learn: data parallelism needs no change, the arrays say where they lie; inside ``shard_map`` the loss is averaged
and nothing else; where one solution is split over devices, ``axis_name`` names the axis over which norms are summed.
"""

import functools
import os

# Eight devices on any machine. Leave this line out where there are real ones.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_diabetes, load_digits

import nsimplicit as nsi

mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(AxisType.Auto,))
SAME, SPLIT = P(), P("d")


def place(tree, spec):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def apart(one, other):
    """The largest relative difference of two trees."""
    pairs = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (one, other)), strict=True)
    return np.max([np.linalg.norm(x - y) / np.linalg.norm(x) for x, y in pairs if x.any()])  # nan if one is nan


# A deep equilibrium model on handwritten digits. Every image stops by its own test, so devices do different work.
images, labels = (np.asarray(x)[:256] for x in load_digits(return_X_y=True))
batch = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
keys = jax.random.split(jax.random.key(0), 3)
shapes = {"encode": (64, 32), "mix": (32, 32), "decode": (32, 10)}
params = {name: jax.random.normal(k, shape) / 8 for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
optimizer = optax.adam(1e-2)
IMPLICIT = nsi.derivatives.Implicit(nsi.linear_solvers.GMRES(restart=20))


def loss_fn(params, images, labels):
    x, mix = images @ params["encode"], params["mix"]
    mix = 0.9 * mix / jnp.linalg.norm(mix)
    z = nsi.fixed_point(lambda z: nsi.relu(z @ mix + x), 0 * x, tol=1e-6, batch_axis=0, derivative=IMPLICIT).value
    return optax.softmax_cross_entropy_with_integer_labels(z @ params["decode"], labels).mean()


def train_step(params, state, images, labels, loss_fn=loss_fn):
    loss, gradient = jax.value_and_grad(loss_fn)(params, images, labels)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, loss


def mapped_loss(params, images, labels):  # what a device sees of it: its images, and the mean over all of them
    return jax.lax.pmean(loss_fn(params, images, labels), "d")


start = params, optimizer.init(params)
step = jax.jit(train_step)
mapped = jax.shard_map(
    functools.partial(train_step, loss_fn=mapped_loss), mesh=mesh, in_specs=(SAME, SAME, SPLIT, SPLIT), out_specs=SAME
)
on_one = step(*start, *batch)
by_jit = step(*place(start, SAME), *place(batch, SPLIT))
by_map = jax.jit(mapped)(*place(start, SAME), *place(batch, SPLIT))
print(f"a training step on {jax.device_count()} devices: jit {apart(on_one, by_jit):.0e}, "
      f"shard_map {apart(on_one, by_map):.0e} from one device")  # fmt: skip

state, losses = place(start, SAME), []
for _ in range(30):
    *state, loss = step(*state, *place(batch, SPLIT))
    losses.append(float(loss))
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f} in 30 steps")

# A Lasso whose features lie on the devices: each holds some columns of A and the entries of x that go with them.
A, b = map(np.asarray, load_diabetes(return_X_y=True))
A = np.hstack([A, A[:, 2:8] * A[:, 3:9]])  # 16 features
A, b = (A - A.mean(0)) / A.std(0) / np.sqrt(len(b)), (b - b.mean()) / b.std() / np.sqrt(len(b))
data = [jnp.asarray(x, jnp.float32) for x in (A[::2], b[::2], A[1::2], b[1::2])]
rate = 1 / np.linalg.norm(A, 2) ** 2


def test_error(log_weight, A, b, A_test, b_test, axis_name=()):
    def over_features(v):
        return jax.lax.psum(v, axis_name) if axis_name else v

    def fit(x, A):
        return 0.5 * jnp.sum((over_features(A @ x) - b) ** 2)

    T = nsi.splittings.ForwardBackward(nsi.smooth(fit, A), nsi.prox.L1(jnp.exp(log_weight)), rate)
    x = nsi.fixed_point(T, 0 * A[0], tol=1e-6, max_steps=5000, axis_name=axis_name).value
    return jnp.sum((over_features(A_test @ x) - b_test) ** 2)


hypergradient = jax.value_and_grad(test_error)
COLUMNS = (P(None, "d"), SAME, P(None, "d"), SAME)
placed = [place(x, spec) for x, spec in zip(data, COLUMNS, strict=True)]
log_weight = jnp.log(jnp.float32(0.02))
mapped = jax.shard_map(
    functools.partial(hypergradient, axis_name="d"), mesh=mesh, in_specs=(SAME, *COLUMNS), out_specs=SAME
)
lasso_on_one = jax.jit(hypergradient)(log_weight, *data)
lasso_by_jit = jax.jit(hypergradient)(log_weight, *placed)
lasso_by_map = jax.jit(mapped)(log_weight, *placed)
print(f"a hypergradient of {lasso_on_one[1]:.4f}: jit {apart(lasso_on_one, lasso_by_jit):.0e}, "
      f"shard_map {apart(lasso_on_one, lasso_by_map):.0e} from one device")  # fmt: skip

assert losses[-1] < 0.1 * losses[0]
assert len(by_jit[0]["mix"].sharding.device_set) == jax.device_count()
for one, others in ((on_one, (by_jit, by_map)), (lasso_on_one, (lasso_by_jit, lasso_by_map))):
    assert all(apart(one, other) < 1e-4 for other in others)
