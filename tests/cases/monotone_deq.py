"""One row per kind of monotone equilibrium layer, and W from its definition, entry by entry, in NumPy."""

import jax
import numpy as np

import nsimplicit as nsi

COVERED = frozenset({"layers.MonotoneDEQ", "layers.MonotoneDense", "layers.MonotoneConv"})

N, SAMPLES = 5, 2


def soft(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - t, 0)


# name -> (activation, image or None, sigma in NumPy)
ROWS = {
    "relu": ("relu", None, lambda u: np.maximum(u, 0)),
    "tanh": ("tanh", None, np.tanh),
    "trained threshold": (nsi.prox.L1(np.float64(0.3)), None, lambda u: soft(u, 0.3)),
    "convolution": ("relu", (3, 4), lambda u: np.maximum(u, 0)),
}


def make(name, dtype=float):
    """A layer and two inputs."""
    activation, image, _ = ROWS[name]
    key = jax.random.key(3)
    if image is None:
        layer, shape = nsi.layers.MonotoneDEQ.init(key, 3, N, m=0.5, activation=activation), (3,)
    else:
        layer = nsi.layers.MonotoneDEQ.init(key, 2, 2, m=0.5, activation=activation, kernel_size=(2, 3))
        shape = (*image, 2)
    x = 2 * jax.random.normal(jax.random.key(4), (SAMPLES, *shape))
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), (layer, x))


def matrix(kernel, image):
    """The matrix of a kernel on raveled states: y[p, o] = sum over d, i of kernel[d, i, o] x[p + d - centre, i]."""
    kernel = np.asarray(kernel)
    if image is None:
        return kernel
    (h, w), (kh, kw, inputs, outputs) = image, kernel.shape
    out = np.zeros((h, w, outputs, h, w, inputs))
    for p, q, a, b in np.ndindex(h, w, kh, kw):
        out[p, q, :, (p + a - (kh - 1) // 2) % h, (q + b - (kw - 1) // 2) % w, :] += kernel[a, b].T
    return out.reshape(h * w * outputs, h * w * inputs)


def dense(layer, image):
    """W and U as matrices on raveled states, and b at every pixel."""
    A, B, U = (matrix(k, image) for k in (layer.W.A, layer.W.B, layer.U))
    W = (1 - layer.W.m) * np.eye(len(A)) - A.T @ A + B - B.T
    return W, U, np.tile(layer.b, len(A) // len(layer.b))
