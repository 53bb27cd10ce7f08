"""Train a monotone equilibrium layer on handwritten digits, beside a multilayer perceptron of its size.

You learn: a layer that has one solution whatever training does to it; parameters that are a plain pytree; the step of
its splitting tuned once an epoch; how many steps both passes take. The picture goes to results/monotone_deq.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nsimplicit as nsi

EPOCHS, BATCH, WIDTH = 30, 64, 60

split = train_test_split(*load_digits(return_X_y=True), random_state=0)
images, test_images, labels, test_labels = map(jnp.asarray, split)
images, test_images = images / 16, test_images / 16


def linear(key, inputs, outputs):
    return jax.random.normal(key, (inputs, outputs)) / inputs**0.5, jnp.zeros(outputs)


def size(parameters):
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


# Both have a hidden layer and a readout; the perceptron's second hidden layer is as wide as W has parameters for.
keys = jax.random.split(jax.random.key(0), 5)
deq = {"hidden": nsi.layers.MonotoneDEQ.init(keys[0], 64, WIDTH), "readout": linear(keys[1], WIDTH, 10)}
second = round((size(deq) - 64 * WIDTH - WIDTH) / (WIDTH + 11))
mlp = [linear(keys[2], 64, WIDTH), linear(keys[3], WIDTH, second), linear(keys[4], second, 10)]


def equilibrium(parameters, images, alpha, tap=None):
    solution = parameters["hidden"](images, alpha=alpha, tap=tap)
    weight, bias = parameters["readout"]
    return solution.value @ weight + bias, solution.num_steps


def perceptron(parameters, images, alpha, tap=None):
    for weight, bias in parameters[:-1]:
        images = nsi.relu(images @ weight + bias)
    weight, bias = parameters[-1]
    return images @ weight + bias, jnp.zeros(len(images))


def train(model, parameters, tune):
    """Both curves of a training run: test accuracy, and the steps of both passes."""
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, EPOCHS * (len(images) // BATCH)))

    def loss(parameters, tap, batch, alpha):
        logits, steps = model(parameters, images[batch], alpha, tap)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean(), steps

    @jax.jit
    def step(state, batch, alpha):
        parameters, memory = state
        slopes = jax.grad(loss, (0, 1), has_aux=True)
        (slope, report), steps = slopes(parameters, nsi.tap(lanes=BATCH), batch, alpha)
        move, memory = optimizer.update(slope, memory)
        seen = jnp.array([steps.mean(), report.num_steps.mean(), report.num_failures.sum()])
        return (optax.apply_updates(parameters, move), memory), seen

    @jax.jit
    def accuracy(parameters):
        return jnp.mean(model(parameters, test_images, None)[0].argmax(-1) == test_labels)

    state, curve = (parameters, optimizer.init(parameters)), []
    for epoch in range(EPOCHS):
        alpha = tune(state[0])
        order = jax.random.permutation(jax.random.key(epoch), len(images))
        seen = []
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            state, numbers = step(state, batch, alpha)
            seen.append(numbers)
        forward, backward, failures = jnp.stack(seen).mean(0)
        assert failures == 0
        curve.append((float(accuracy(state[0])), float(forward), float(backward), alpha))
    return state[0], curve


deq, curve = train(equilibrium, deq, lambda parameters: parameters["hidden"].best_alpha(images[0]))
mlp, peer = train(perceptron, mlp, lambda parameters: None)

print("epoch  equilibrium  perceptron | alpha  steps forward  backward")
for epoch in range(0, EPOCHS, 3):
    (reached, forward, backward, alpha), (other, *_) = curve[epoch], peer[epoch]
    print(f"{epoch:5}{reached:13.1%}{other:12.1%} |{alpha:6.2f}{forward:15.1f}{backward:10.1f}")

# The trained layer: what the two splittings take, and why nothing had to be watched.
layer, sample = deq["hidden"], test_images[:BATCH]
best = {name: layer.best_alpha(sample, splitting=name) for name in ("peaceman-rachford", "forward-backward")}
steps = {
    name: int(layer(sample, splitting=name, alpha=alpha, max_steps=5000).num_steps.max())
    for name, alpha in best.items()
}
W = layer.W(jnp.eye(WIDTH))
print(f"trained: the norm of W is {jnp.linalg.norm(W, 2):.1f}, steps of the slowest sample {steps}")
certificate = nsi.certify(layer)(test_images[0])
print(f"certificate: {certificate.verdict}, {certificate.method}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
for name, run, colour in (("equilibrium", curve, "tab:blue"), ("perceptron", peer, "tab:orange")):
    left.plot([100 * reached for reached, *_ in run], color=colour)
    left.annotate(
        f"{name}, {size(deq if run is curve else mlp)} parameters",
        (EPOCHS - 1, 92.5 if run is curve else 91),
        color=colour,
        ha="right",
    )
left.set_title("Test accuracy, per cent", loc="left", fontsize=10)
left.set_ylim(84, 100)
for name, place, colour in (("forward", 1, "tab:blue"), ("backward", 2, "tab:green")):
    right.plot([row[place] for row in curve], color=colour)
    right.annotate(name, (EPOCHS - 1, curve[-1][place] + 0.8), color=colour, ha="right")
right.set_title("Steps of Peaceman-Rachford, mean over samples", loc="left", fontsize=10)
right.set_ylim(0, 35)
for axis in (left, right):
    axis.set_xlabel("epoch")
    axis.spines[["top", "right"]].set_visible(False)
folder = Path("results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "monotone_deq.png", dpi=125)

assert curve[-1][0] > 0.96 and curve[-1][0] > peer[-1][0] - 0.01
assert max(row[1] for row in curve) < 60 and steps["peaceman-rachford"] < 60 < steps["forward-backward"]
assert certificate.verdict == "regular"
