"""Piecewise linear programs, written once: run on numbers, or read off as the normal form at the origin.

A program is a function of ``ops`` (its relu, abs and switch) and its inputs, all scalars. On numbers, `Numbers` is
NumPy; in `ByHand` a scalar is its row of coefficients in the inputs and in what each kink before it lets through.
"""

import jax.numpy as jnp
import numpy as np

from nsimplicit.calculus.normal_form import NormalForm

ROOM = 24  # kinks


class Numbers:
    relu = staticmethod(lambda t: np.maximum(t, 0.0))
    abs = staticmethod(np.abs)


class ByHand:
    def __init__(self, num_inputs):
        self.n = num_inputs
        self.kinks = []

    def inputs(self):
        return list(np.eye(self.n, self.n + ROOM))

    def switch(self, argument, above, below):
        self.kinks.append((argument, above - below))
        return below + np.eye(self.n + ROOM)[self.n + len(self.kinks) - 1]

    def relu(self, t):
        return self.switch(t, t, 0 * t)

    def abs(self, t):
        return self.switch(t, t, -t)

    def form(self, outputs, dtype=float):
        k, n = len(self.kinks), self.n
        arguments, into = np.reshape(self.kinks, (k, 2, n + ROOM)).swapaxes(0, 1)
        outputs = np.reshape(outputs, (-1, n + ROOM))
        matrices = [outputs[:, :n], outputs[:, n : n + k]]
        matrices += [into[:, :n], into[:, n : n + k], arguments[:, :n], arguments[:, n : n + k]]
        return NormalForm(*(jnp.asarray(m, dtype) for m in matrices), names=tuple(f"kink {i}" for i in range(k)))


def normal_form(program, num_inputs, dtype=float):
    """Of ``program(ops, *inputs)``, which returns a scalar or a list of them."""
    ops = ByHand(num_inputs)
    return ops.form(program(ops, *ops.inputs()), dtype)


def random_program(seed, num_inputs, num_outputs, widths, size=1.0):
    """Layers of relu and abs, each of all that came before it; ``size`` scales what the kinks add to the outputs."""
    rng = np.random.default_rng(seed)
    total = num_inputs + sum(widths)
    layers = [rng.normal(size=(w, num_inputs + sum(widths[:i]))) for i, w in enumerate(widths)]
    smooth = rng.normal(size=(num_outputs, num_inputs))
    kinked = size * rng.normal(size=(num_outputs, total - num_inputs)) / total

    def program(ops, *inputs):
        values = list(inputs)
        for layer in layers:
            sums = [sum(w * v for w, v in zip(row, values, strict=True)) for row in layer]
            values += [(ops.relu if i % 2 else ops.abs)(t) for i, t in enumerate(sums)]
        rows = np.hstack([smooth, kinked])
        return [sum(w * v for w, v in zip(row, values, strict=True)) for row in rows]

    return program


def clarke_map(ops, x, y, u=0.0, v=0.0):
    """Clarke's example of an inverse, as the equation F(x, y) = (u, v)."""
    return [ops.abs(x) + y - u, 2 * x + ops.abs(y) - v]


def clarke_inverse(u, v):
    """Its solution: the formula of each piece on its cone."""
    if v <= 2 * u and v >= u:  # x, y >= 0
        return np.array([v - u, 2 * u - v])
    if v >= 2 * u and v >= -u:  # x >= 0 >= y
        return np.array([u + v, 2 * u - v]) / 3
    if v <= u and v >= -2 * u:  # x <= 0 <= y
        return np.array([v - u, 2 * u + v]) / 3
    return np.array([u + v, 2 * u + v])


CLARKE_INVERSES = np.array(
    [
        [[-1, 1], [2, -1]],  # x, y > 0
        [[1 / 3, 1 / 3], [2 / 3, -1 / 3]],  # x > 0 > y
        [[1, 1], [2, 1]],  # x, y < 0
        [[-1 / 3, 1 / 3], [2 / 3, 1 / 3]],  # x < 0 < y
    ]
)
