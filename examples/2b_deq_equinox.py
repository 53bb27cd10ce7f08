"""The deep equilibrium model of the last example in equinox, where a module is a pytree and a model sees one image.

You learn: nothing is declared. The cell closes over an `eqx.Module`, and gradients reach its arrays. Under `vmap`
every image stops by its own test, has a dropout mask of its own and, with one tap for each, a report of its own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nsimplicit as nsi

EPOCHS, BATCH, WIDTH = 10, 64, 64
IMPLICIT = nsi.derivatives.Implicit(nsi.linear_solvers.GMRES(restart=20), nsi.guards.Solved(on_failure="drop"))


class DEQ(eqx.Module):
    encode: eqx.nn.Linear
    mix: jax.Array
    dropout: eqx.nn.Dropout
    norm: eqx.nn.LayerNorm
    decode: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.encode = eqx.nn.Linear(64, WIDTH, key=keys[0])
        self.mix = jax.random.normal(keys[1], (WIDTH, WIDTH))
        self.dropout = eqx.nn.Dropout(0.2)
        self.norm = eqx.nn.LayerNorm(WIDTH, eps=1.0, use_weight=False)
        self.decode = eqx.nn.Linear(WIDTH, 10, key=keys[2])

    def __call__(self, image, key=None, tap=None, derivative=IMPLICIT):
        x, mix = self.encode(image / 16), 0.7 * self.mix / jnp.linalg.norm(self.mix, 2)

        def cell(z):  # contracts: dropout stretches by 1/0.8, mix by 0.7, relu and a norm with epsilon 1 by 1 at most
            return self.norm(nsi.relu(x + mix @ self.dropout(z, key=key)))  # one key: one mask for all iterations

        solution = nsi.fixed_point(cell, 0 * x, solver=nsi.solvers.Anderson(), derivative=derivative, tap=tap)
        return self.decode(solution.value), solution


def loss_fn(model_and_taps, images, labels, keys, derivative=IMPLICIT):
    model, taps = model_and_taps
    logits, solution = jax.vmap(model, in_axes=(0, 0, 0, None))(images, keys, taps, derivative)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), solution


@eqx.filter_jit
def train_step(model, optimizer, state, batch):
    differentiate = eqx.filter_value_and_grad(loss_fn, has_aux=True)
    (loss, solution), (gradient, report) = differentiate((model, nsi.tap(lanes=BATCH)), *batch)
    updates, state = optimizer.update(gradient, state)
    return eqx.apply_updates(model, updates), state, loss, solution, report


split = train_test_split(*load_digits(return_X_y=True), random_state=0)
images, test_images, labels, test_labels = map(jnp.asarray, split)
model = DEQ(jax.random.key(0))
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, EPOCHS * (len(images) // BATCH)))
state = optimizer.init(eqx.filter(model, eqx.is_array))

print("epoch   loss | most steps  converged | backward: most steps  largest error  failed")
for epoch in range(EPOCHS):
    order = jax.random.permutation(jax.random.key(epoch), len(images))
    for i, rows in enumerate(order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)):
        batch = images[rows], labels[rows], jax.random.split(jax.random.key(1000 * epoch + i), BATCH)
        model, state, loss, solution, report = train_step(model, optimizer, state, batch)
    print(f"{epoch:5}{loss:7.3f} |{solution.num_steps.max():11}{solution.converged.mean():11.0%} |", end="")
    print(f"{report.num_steps.max():21.0f}{report.residual.max():15.0e}{report.num_failures.sum():8.0f}", flush=True)

accuracy = jnp.mean(jax.vmap(eqx.nn.inference_mode(model))(test_images)[0].argmax(-1) == test_labels)
grad = eqx.filter_grad(lambda model, derivative: loss_fn((model, None), *batch, derivative)[0])
implicit, unrolled = (grad(model, derivative) for derivative in (IMPLICIT, nsi.derivatives.Unrolled(60)))
error = optax.tree.norm(optax.tree.sub(implicit, unrolled)) / optax.tree.norm(unrolled)
print(f"test accuracy {accuracy:.1%}; implicit and unrolled gradient of the last batch differ by {error:.0e}")
assert accuracy > 0.95 and solution.converged.all() and not report.failed.any() and error < 1e-3
