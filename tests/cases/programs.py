"""Programs nobody wrote for this package: JAX's functions, flax, equinox and optax, and control structures.

Every program is a function of pytrees. ``args`` is a generic point, away from every kink; ``at_kinks`` one where
kinks are active. ``kinks`` are the operations a replay has to find, in order, and no others: what is smooth, stopped or
integer has none. ``opaque`` is what it has to keep and list.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi

COVERED = frozenset({"Along", "selections.Along", "with_selection"})


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    kinks: tuple[str, ...] = ()
    at_kinks: tuple[Any, ...] | None = None
    opaque: tuple[str, ...] = ()
    far: bool = False  # no point of the program's is near its kinks
    modes: str = "both"  # or "forward", "reverse"
    ulps: int = 0  # by how much an eager call differs from JAX's own trace of it, equation by equation


def interpolate(x):
    return jnp.interp(x, np.array([-1.0, 0.0, 1.5]), np.array([0.0, 1.0, -1.0]))


def fixed_point(t):
    return nsi.fixed_point(lambda z, t: nsi.relu(z) / 2 + t, 0 * t, t).value


@jax.jit
def nested(x):
    return jax.jit(jax.nn.relu)(x) + jax.jit(jnp.abs)(x - 1)


@jax.vmap
def mapped(x):
    return jax.nn.relu(x) * jnp.max(jnp.stack([x, 1.0 + 0 * x]))


def words(names):
    return tuple(names.split())


X = np.array([0.7, -1.3, 2.1, 0.4])  # distinct, no two of the same size, none an integer
Y = np.array([-0.2, 0.9, 1.7, -2.3])
TIED = np.array([1.0, 0.0, 1.0, -1.0])
ZERO = np.zeros(4)
IMAGE = np.sin(np.arange(16.0)).reshape(4, 4)
KEY = jax.random.key(0)
MESH = jax.make_mesh((1,), ("m",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return scale * centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) + bias


def dropout(x):
    return nnx.Dropout(0.5, deterministic=False)(x, rngs=nnx.Rngs(dropout=KEY))


def attention(q, k, v):
    mask = np.tril(np.ones((2, 2), bool))
    return jax.nn.dot_product_attention(*(z.reshape(1, 2, 1, 2) for z in (q, k, v)), mask=mask)


def adam(grad, params):
    transform = optax.adam(1e-2)
    state = transform.init(params)
    for _ in range(2):
        updates, state = transform.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def layers(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in zip(sizes[1:], sizes[:-1], strict=True)]


def nnx_mlp():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(4, 3, rngs=rngs, param_dtype=jnp.float64)
            self.norm = nnx.LayerNorm(3, rngs=rngs, param_dtype=jnp.float64)
            self.outer = nnx.Linear(3, 2, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x):
            return self.outer(nnx.relu(self.norm(self.inner(x))))

    definition, state = nnx.split(Network(nnx.Rngs(0)))
    return (lambda state, x: nnx.merge(definition, state)(x)), state


def eqx_mlp(activation=jax.nn.relu):
    params, static = equinox.partition(equinox.nn.MLP(4, 2, 3, 2, activation, key=KEY), equinox.is_inexact_array)
    return (lambda params, x: equinox.combine(params, static)(x)), params


def optimality(x, theta):
    """Fixed-point residual of a proximal gradient step, as one writes it for jaxopt's ``custom_root``."""
    moved = x - 0.3 * jnp.tanh(theta * x)
    return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - 0.2, 0) - x


def safe_norm(x):
    """The double-where trick."""
    total = jnp.sum(x**2)
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1.0)), 0.0)


def several_wheres(x, y):
    x = jnp.where(x > y, x, y)
    x = jnp.where(jnp.logical_not(x >= 0), 2 * x, x)
    x = jnp.where((x < 5)[None], x[None], 5.0)[0]
    return jnp.where(1.0 <= x, x, 1.0)


def masks(x, y):
    """Comparisons that bend nothing a derivative passes: with integers, of stopped values, combined, equality."""
    x = jnp.where(jnp.arange(4) > 1, x, 2 * x)
    x = jnp.where(lax.stop_gradient(x) > 0, x, 3 * x)
    x = jnp.where((x > 0) & (y > 0), x, y)
    return jnp.where(x == 0, y, x)


def indexing(x):
    x, i = jnp.asarray(x), jnp.array([2, -1, 0])
    return x[i] * x[1] + x[jnp.argmax(x)] + x.at[1].set(0)[:3] + lax.dynamic_slice(x, (i[0] - 1,), (3,))


def rounding(x):
    return x * jnp.floor(x) + jnp.round(x) * jnp.sign(x) + jnp.ceil(x)


def scan(x):
    def step(c, a):
        c = jax.nn.relu(c * a - 2)
        return c, jnp.maximum(c, a)

    return lax.scan(step, x, jnp.stack([x + 1, x - 2, 2 * x]), unroll=2)


def fori(x):
    return lax.fori_loop(0, 3, lambda i, z: jnp.abs(z - 0.5) * (i + 1), x)


def while_loop(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jax.nn.relu(c[1] - 0.2)), (0, x))[1]


def smooth_loop(x):
    """A stopping test is no kink."""
    return lax.while_loop(lambda z: jnp.max(jnp.abs(z)) > 0.5, lambda z: 0.5 * jnp.sin(z), x)


def cond(x):
    return lax.cond(x[0] > 0.5, lambda x: jax.nn.relu(x - 0.9), lambda x: jnp.sin(x), x)


def switch(i, x):
    return lax.switch(i, [jnp.sin, lambda x: jnp.abs(x), lambda x: jnp.minimum(x, 1.0)], x)


@jax.checkpoint
def remat(x):
    return jax.nn.relu(jnp.sin(x)) ** 2


def remat_policy(x):
    policy = jax.checkpoint_policies.dots_saveable
    return jax.checkpoint(lambda x: jax.nn.relu(jnp.outer(x, x) @ x), policy=policy)(x)


@jax.custom_vjp
def clipped_gradient(x):
    return jnp.maximum(x, 0.0)


clipped_gradient.defvjp(lambda x: (clipped_gradient(x), x), lambda x, g: (jnp.clip(g, -0.1, 0.1) * jnp.cos(x),))


@jax.custom_jvp
def straight_through(x):
    return jnp.maximum(x, 0.0)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


def split(x):
    return jax.shard_map(lambda x: jax.nn.relu(x) + jnp.abs(x), mesh=MESH, in_specs=P("m"), out_specs=P("m"))(x)


def pool(x):
    return nnx.max_pool(x[None, :, :, None], (2, 2), (2, 2))


def window(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (3,), (1,), "SAME")


PROGRAMS = (
    # smooth
    Row("softmax", jax.nn.softmax, (X,), (), (TIED,)),
    Row("log_softmax", jax.nn.log_softmax, (X,), (), (TIED,)),
    Row("logsumexp", jax.nn.logsumexp, (X,), words("abs"), (TIED,), far=True),
    Row("softplus", jax.nn.softplus, (X,), (), (ZERO,), words("custom_jvp_call")),
    Row("silu", jax.nn.silu, (X,), (), (ZERO,)),
    Row("gelu", jax.nn.gelu, (X,), (), (ZERO,)),
    Row("logistic", optax.losses.sigmoid_binary_cross_entropy, (X, Y), (), (ZERO, Y), words("custom_jvp_call") * 2),
    Row("LayerNorm", layer_norm, (X, Y, Y), (), (TIED, Y, Y)),
    Row("dropout", dropout, (X,), (), (ZERO,)),
    Row("attention", attention, (X, Y, X), (), (ZERO, Y, X)),
    Row("adam", adam, (X, Y), (), (TIED, Y)),
    Row("indexing", indexing, (X,), (), (TIED,)),
    Row("rounding", rounding, (X,), (), (X,)),
    Row("masks", masks, (X, Y), (), (TIED, Y)),
    Row("argsort", lambda x: x[jnp.argsort(lax.stop_gradient(x))], (X,), (), (TIED,)),
    Row("permutation", lambda x: jax.random.permutation(KEY, x), (X,), (), (TIED,)),
    Row("stopped", lambda x: x * lax.stop_gradient(jnp.abs(jnp.sort(x))), (X,), (), (TIED,)),
    Row("gumbel", lambda x: x[lax.top_k(jax.random.gumbel(KEY, (4,)), 2)[1]], (X,), (), (TIED,)),
    Row("smooth loop", smooth_loop, (X,), (), None, modes="forward"),
    # pieces
    Row("relu", jax.nn.relu, (X,), words("relu"), (TIED,)),
    Row("relu6", jax.nn.relu6, (3 * X,), words("relu6 relu6"), (6 * TIED,)),
    Row("leaky_relu", jax.nn.leaky_relu, (X,), words("where"), (TIED,)),
    Row("hard_tanh", jax.nn.hard_tanh, (X,), words("where where"), (TIED,)),
    Row("elu", jax.nn.elu, (X,), words("where where"), (TIED,)),
    Row("selu", jax.nn.selu, (X,), words("where where"), (TIED,)),
    Row("abs", jnp.abs, (X,), words("abs"), (TIED,)),
    Row("clip", lambda x: jnp.clip(x, -0.5, 1.0), (X,), words("maximum minimum"), (TIED,)),
    Row("clamp", lambda x: lax.clamp(-0.5, x, 1.0), (X,), words("clamp clamp"), (TIED,)),
    Row("maximum", jnp.maximum, (X, Y), words("maximum"), (TIED, np.abs(TIED))),
    Row("minimum", jnp.minimum, (X, Y), words("minimum"), (TIED, np.abs(TIED))),
    Row("max", lambda x: jnp.max(x, 0), (IMAGE,), words("max"), (np.tile(TIED, (2, 1)),)),
    Row("min", lambda x: jnp.min(x), (IMAGE,), words("min"), (np.tile(TIED, (2, 1)),)),
    Row("amax", lambda x: jnp.amax(x, (0, -1), keepdims=True), (IMAGE,), words("max"), (np.tile(TIED, (2, 1)),)),
    Row("sort", lambda x: jnp.sort(x, 0), (IMAGE,), words("sort"), (np.tile(TIED, (2, 1)),)),
    Row("sort descending", lambda x: jnp.sort(x, descending=True), (X,), words("sort"), (TIED,)),
    Row("top_k", lambda x: lax.top_k(x, 2)[0], (X,), words("top_k"), (TIED,)),
    Row("cummax", lambda x: lax.cummax(x, 0), (X,), words("cummax") * 4, (TIED,)),
    Row("cummin", lambda x: lax.cummin(x, 0, reverse=True), (X,), words("cummin") * 4, (abs(TIED),)),
    Row("max_pool", pool, (IMAGE,), words("max_pool"), (np.ones((4, 4)),)),
    Row("reduce_window", window, (X,), words("max_pool"), (TIED,)),
    Row("median", jnp.median, (X,), words("sort"), None),
    Row("percentile", lambda x: jnp.percentile(x, 30.0), (X,), words("sort"), None),
    Row("interp", interpolate, (X,), words("where where"), (np.array([-1.0, 1.5, 0.2, 0.3]),)),
    Row("norm", jnp.linalg.norm, (X,)),
    Row("norm, 1", lambda x: jnp.linalg.norm(x, 1), (X,), words("abs"), (TIED,)),
    Row("norm, inf", lambda x: jnp.linalg.norm(x, jnp.inf), (X,), words("abs max maximum"), (TIED,)),
    Row("safe norm", safe_norm, (X,), words("where where"), (ZERO,)),
    Row("huber", optax.losses.huber_loss, (X, Y), words("abs minimum"), (TIED, ZERO)),
    Row("hinge", optax.losses.hinge_loss, (X, np.sign(Y)), words("maximum"), (TIED, TIED)),
    Row("where", several_wheres, (X, Y), words("where where where where"), (TIED, ZERO)),
    Row("soft threshold", optimality, (X, Y), words("abs maximum"), (0.2 * TIED, ZERO)),
    # networks
    Row("nnx MLP", *(lambda f, p: (f, (p, X)))(*nnx_mlp()), words("maximum relu"), ulps=8),
    Row("equinox MLP", *(lambda f, p: (f, (p, X)))(*eqx_mlp()), words("relu relu")),
    # control
    Row("scan", scan, (X,), words("relu maximum"), (np.ones(4),)),
    Row("fori_loop", fori, (X,), words("abs"), (TIED / 2,)),
    Row("while_loop", while_loop, (X,), words("relu"), (TIED / 5,), modes="forward"),
    Row("cond", cond, (X,), words("relu"), (np.array([0.6, 0.9, 1, 0.9]),), words("cond")),
    Row("switch", switch, (1, X), words("abs minimum"), (2, TIED)),
    Row("checkpoint", remat, (X,), words("relu"), (ZERO,)),
    Row("checkpoint policy", remat_policy, (X,), words("relu"), (ZERO,)),
    Row("nested jit", nested, (X,), words("relu abs"), (TIED,)),
    Row("vmap", mapped, (X,), words("relu max"), (TIED,)),
    Row("shard_map", jax.jit(split), (X,), words("relu abs"), (TIED,)),
    # rules of their own
    Row("custom_vjp", clipped_gradient, (X,), (), (TIED,), words("custom_vjp_call"), modes="reverse"),
    Row("straight through", straight_through, (X,), (), (TIED,), words("custom_jvp_call")),
    # this package's own
    Row("fixed point", fixed_point, (X,), words("relu"), (ZERO,)),
)  # fmt: skip
