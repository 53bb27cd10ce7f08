"""Train a deep equilibrium model on handwritten digits, in flax.nnx, and watch its backward pass.

You learn: a layer that is the fixed point of a cell with dropout and normalisation; one dropout mask for the whole
solve; every image stopping by its own test; and a tap, whose gradient is a report on the backward solve.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nsimplicit as nsi

EPOCHS, BATCH, WIDTH = 10, 64, 64
# The default would build and factor one 64 × 64 matrix for each image. GMRES gets by with a dozen products of the
# whole batch: a step is five times faster. An image whose solve fails is left out of the step, and counted.
IMPLICIT = nsi.derivatives.Implicit(nsi.linear_solvers.GMRES(restart=20), nsi.guards.Solved(on_failure="drop"))


class DEQ(nnx.Module):
    def __init__(self, rngs):
        self.encode = nnx.Linear(64, WIDTH, rngs=rngs)
        self.mix = nnx.Param(jax.random.normal(rngs.params(), (WIDTH, WIDTH)))
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1.0, use_scale=False, rngs=rngs)
        self.decode = nnx.Linear(WIDTH, 10, rngs=rngs)
        self.rngs = rngs

    def __call__(self, images, derivative=IMPLICIT, tap=None):
        x, mix = self.encode(images / 16), self.mix[...]
        mix = 0.7 * mix / jnp.linalg.norm(mix, 2)
        key = self.rngs.dropout()  # drawn here and not in the cell: every iteration sees the same mask

        def cell(z, x):  # contracts: dropout stretches by 1.25, mix by 0.7, relu and a norm with epsilon 1 by at most 1
            return self.norm(nsi.relu(x + self.dropout(z, rngs=key) @ mix))

        solution = nsi.layers.deq(cell, x, derivative=derivative, tap=tap)
        return self.decode(solution.value), solution


def loss_fn(model, tap, images, labels, derivative=IMPLICIT):
    logits, solution = model(images, derivative, tap)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), solution


@nnx.jit
def train_step(model, optimizer, images, labels):
    value_and_grad = nnx.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (loss, solution), (gradient, report) = value_and_grad(model, nsi.tap(lanes=BATCH), images, labels)
    optimizer.update(model, gradient)
    return loss, solution, report


split = train_test_split(*load_digits(return_X_y=True), random_state=0)
images, test_images, labels, test_labels = map(jnp.asarray, split)
model = DEQ(nnx.Rngs(0))
rate = optax.cosine_decay_schedule(1e-2, EPOCHS * (len(images) // BATCH))
optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
predict = nnx.jit(lambda model: model(test_images)[0].argmax(-1))

print("epoch  loss  test accuracy | steps of an image  converged | backward steps  backward error  failed")
for epoch in range(EPOCHS):
    order = jax.random.permutation(jax.random.key(epoch), len(images))
    for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
        loss, solution, report = train_step(model, optimizer, images[batch], labels[batch])
    accuracy = jnp.mean(predict(nnx.view(model, deterministic=True)) == test_labels)
    n, m = solution.num_steps, report.num_steps
    print(f"{epoch:5}{loss:7.3f}{accuracy:13.1%} |{n.min():8}–{n.max():<9}{solution.converged.mean():10.0%} |", end="")
    print(f"{m.min():8.0f}–{m.max():<6.0f}{report.residual.max():15.0e}{report.num_failures.sum():8.0f}", flush=True)

# A clone draws the same mask as the model would.
grad = nnx.grad(lambda model, derivative: loss_fn(model, None, images[batch], labels[batch], derivative)[0])
implicit, unrolled = (grad(nnx.clone(model), d) for d in (IMPLICIT, nsi.derivatives.Unrolled(60)))
error = optax.tree.norm(optax.tree.sub(implicit, unrolled)) / optax.tree.norm(unrolled)
print(f"gradient of the last batch, with dropout: implicit and unrolled differ by {error:.0e}")
assert accuracy > 0.95 and solution.converged.all() and not report.failed.any() and error < 1e-3
