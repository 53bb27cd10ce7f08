"""One row per primitive: the JAX function it stands for, special values, kinks and what each selection gives there.

A row's functions take one array. Where the primitive has several arguments they are stacked along the first axis, so
a gradient has one entry per argument, and every law is written once.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi


@dataclasses.dataclass(frozen=True)
class Kink:
    """A point, and the Jacobian each selection gives there (``None``: the default)."""

    at: Any
    jacobians: tuple[tuple[Any, Any], ...]
    limits: tuple[Any, ...] = ()  # the limits of Jacobians around the point


@dataclasses.dataclass(frozen=True)
class Row:
    """A primitive, JAX's function, and where to look."""

    name: str
    ours: Callable[..., Any]
    jaxs: Callable[[Any], Any]
    special: Callable[[Any], np.ndarray]
    kinks: tuple[Kink, ...]
    selection: Any  # one that is not the default, for the laws about transformations
    wrong: tuple[tuple[Any, str], ...]
    primitive: str = "switch"
    arguments: int = 1  # stacked along the first axis
    empty: tuple[int, ...] = (0,)  # the shape of an empty argument
    ulps: float = 0.0  # by how much a derivative may differ from JAX's; 0: not at all


def grid(dtype):
    """Zeros, subnormals, neighbours of the kinks one ulp away, infinities, nan."""
    info = jnp.finfo(dtype)
    one = np.ones((), dtype)
    centres = np.array([0, 1, 6], dtype)
    around = [np.nextafter(c, c + way * one, dtype=dtype) for c in centres for way in (-1, 1)]
    positive = np.array([*centres, *around, info.tiny, 0.5, 3, 7, info.max, np.inf], dtype)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype)])


def pairs(dtype):
    """All pairs of a shorter list, stacked."""
    info = jnp.finfo(dtype)
    one = np.ones((), dtype)
    values = [0.0, -0.0, 1, np.nextafter(one, 2 * one, dtype=dtype), -1, info.tiny, info.smallest_subnormal]
    values = np.array([*values, -info.smallest_subnormal, info.max, np.inf, -np.inf, np.nan], dtype)
    return np.stack([x.ravel() for x in np.meshgrid(values, values)])


def triples(dtype):
    """x and all pairs of bounds, the infinite ones, the crossed ones and nan among them."""
    values = np.array([-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan], dtype)
    return np.stack([x.ravel() for x in np.meshgrid(values, values, values)])


def finite(dtype):
    """The grid without infinities and nan, for functions that JAX only has as a composition."""
    values = grid(dtype)
    return values[abs(np.nan_to_num(values.astype(float), nan=np.inf)) < 10]


def thresholds(dtype):
    """x and positive thresholds."""
    return np.stack([x.ravel() for x in np.meshgrid(finite(dtype), np.array([0.5, 1, 6], dtype))])


def ties(dtype):
    """Rows with ties of every kind: none, two blocks, zeros of both signs, all equal, infinities, nans."""
    rows = [[3, 1, 2, 5, -4, 0], [2, 2, 1, 1, 2, 0], [-0.0, 0.0, -0.0, 0.0, -1, -1], [7, 7, 7, 7, 7, 7]]
    rows += [[np.inf, 1, np.inf, -np.inf, 1, -np.inf], [1, np.nan, 2, 2, np.nan, 1], [np.nan] * 6]
    return np.array(rows, dtype)


def no_nans(dtype):
    return ties(dtype)[:5]


def distinct(dtype):
    """No ties: JAX 0.12 finds medians by a sort that is not stable, so there its derivative is any of the tied."""
    rows = [np.roll(np.arange(6) * 5 % 7, i) for i in range(5)]
    return np.array([*rows, [1, np.nan, 2, 0, 3, 4]], dtype)


def images(dtype):
    """A batch of two small images with many ties, and many windows below the zeros that padding must not add."""
    return (np.arange(2 * 5 * 6 * 2) * 7 % 4 - 2.5).reshape(2, 5, 6, 2).astype(dtype)


def vectors(dtype):
    return np.array([[3, 4, 0], [1, 1, 1], [-0.5, 0.25, 2], [1e-3, 0, 0]], dtype)


WEIGHT = (
    (1.5, r"selection=1\.5.*weight in \[0, 1\] or one of 'jax', 'above', 'below', 'mean'"),
    (-0.25, "outside"),
    (np.array([0.5, 2.0]), "selection=ndarray.*weight in"),
    (float("nan"), "selection=nan"),
    (True, "selection=True"),
    (1j, "selection=1j"),
    ("first", "selection='first'.*Try: "),
)
BOUND = (*WEIGHT[1:4], ("first", "or one of 'jax', 'inside', 'outside'"), ((0.5, 2.0), "selection=2"))
TIE = (("above", "='above'.*'jax', 'first', 'last', 'mean'"), (0.5, "=0.5"))
UNIT = np.eye(4)


def scalar(at, above, below, default, *more):
    """A kink of one number: each selection mixes the derivatives of the branches above and below."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    weights = [(None, default), ("jax", default), ("above", 1), ("below", 0), ("mean", 0.5), (0.25, 0.25), (1, 1)]
    weights += [(np.float32(0.75), 0.75), *more]
    return Kink(at, tuple((s, w * above + (1 - w) * below) for s, w in weights), (above, below))


def bound(at, inside, outside, default, side):
    """A kink at a bound: the names say which branch is x."""
    inside, outside = np.asarray(inside, float), np.asarray(outside, float)
    weights = [(None, default), ("inside", 1), ("outside", 0), ("mean", 0.5), (0.25, 0.25)]
    weights += [("above", int(side == "lower")), ("below", int(side == "upper"))]
    weights += [((0.25, 0.75), 0.25 if side == "lower" else 0.75)]
    return Kink(at, tuple((s, w * inside + (1 - w) * outside) for s, w in weights), (inside, outside))


def tied(at, first, last, mean, default, limits):
    """A tie: three names, the default, and the limits of Jacobians around."""
    choices = {"first": first, "last": last, "mean": mean}
    named = [*choices.items(), (None, choices[default]), ("jax", choices[default])]
    return Kink(at, tuple((s, np.asarray(j, float)) for s, j in named), tuple(np.asarray(x, float) for x in limits))


def permutations(blocks):
    """Permutation matrices of sorted positions, one for each order of each block: blocks list positions in order."""
    orders = itertools.product(*(itertools.permutations(block) for block in blocks))
    return [np.eye(sum(map(len, blocks)))[list(itertools.chain(*order))] for order in orders]


def with_arguments(fun):
    """A function of several arguments as one of a stacked array."""
    return lambda x, **kwargs: fun(*x, **kwargs)


def where_branches(x):
    return jnp.where(x > 0, 2 * x + x**2, 3 * x)


def switched(x, **kwargs):
    return nsi.switch(x, 2 * x + x**2, 3 * x, **kwargs)


def by_two_relus(x, t):
    return jax.nn.relu(x - t) - jax.nn.relu(-x - t)


SORTED = np.array([2.0, 1.0, 2.0, 2.0])  # ascending: 1, then a block of three
FIRST, LAST = UNIT[[1, 0, 2, 3]], UNIT[[1, 3, 2, 0]]
MEAN = np.stack([UNIT[1]] + 3 * [(UNIT[0] + UNIT[2] + UNIT[3]) / 3])
ORDERS = permutations([[1], [0, 2, 3]])

ROWS = (
    Row("relu", nsi.relu, jax.nn.relu, grid, (scalar(0.0, 1, 0, 0), scalar(-0.0, 1, 0, 0)), 0.25, WEIGHT),
    Row("abs", nsi.abs, jnp.abs, grid, (scalar(0.0, 1, -1, 1), scalar(-0.0, 1, -1, 1)), 0.25, WEIGHT),
    Row(
        "leaky_relu",
        with_arguments(nsi.leaky_relu),
        with_arguments(jax.nn.leaky_relu),
        pairs,
        (scalar([0.0, 0.125], [1, 0], [0.125, 0], 1),),
        0.25,
        WEIGHT,
        arguments=2,
    ),
    Row(
        "maximum",
        with_arguments(nsi.maximum),
        with_arguments(jnp.maximum),
        pairs,
        (scalar([1.0, 1.0], [1, 0], [0, 1], 0.5), scalar([0.0, -0.0], [1, 0], [0, 1], 0.5)),
        0.25,
        WEIGHT,
        arguments=2,
    ),
    Row(
        "minimum",
        with_arguments(nsi.minimum),
        with_arguments(jnp.minimum),
        pairs,
        (scalar([1.0, 1.0], [1, 0], [0, 1], 0.5), scalar([0.0, -0.0], [1, 0], [0, 1], 0.5)),
        0.25,
        WEIGHT,
        arguments=2,
    ),
    Row(
        "clip",
        with_arguments(nsi.clip),
        with_arguments(jnp.clip),
        triples,
        (
            bound([0.0, 0.0, 1.0], [1, 0, 0], [0, 1, 0], 0.5, "lower"),
            bound([1.0, 0.0, 1.0], [1, 0, 0], [0, 0, 1], 0.5, "upper"),
        ),
        (0.25, 0.75),
        BOUND,
        arguments=3,
    ),
    Row(
        "relu6",
        nsi.relu6,
        jax.nn.relu6,
        grid,
        (bound(0.0, 1, 0, 0, "lower"), bound(6.0, 1, 0, 0, "upper")),
        0.25,
        BOUND,
    ),
    Row(
        "hard_tanh",
        nsi.hard_tanh,
        jax.nn.hard_tanh,
        grid,
        (bound(-1.0, 1, 0, 1, "lower"), bound(1.0, 1, 0, 1, "upper")),
        0.25,
        BOUND,
    ),
    Row(
        "soft_threshold",
        with_arguments(nsi.soft_threshold),
        with_arguments(by_two_relus),
        thresholds,
        (scalar([1.0, 1.0], [1, -1], [0, 0], 0), scalar([-1.0, 1.0], [1, 1], [0, 0], 0)),
        0.25,
        WEIGHT,
        arguments=2,
    ),
    Row("switch", switched, where_branches, finite, (scalar(0.0, 2, 3, 0),), 0.25, WEIGHT),
    Row(
        "max",
        lambda x, **s: nsi.max(x, -1, **s),
        lambda x: jnp.max(x, -1),
        ties,
        (tied(SORTED, UNIT[0], UNIT[3], (UNIT[0] + UNIT[2] + UNIT[3]) / 3, "mean", UNIT[[0, 2, 3]]),),
        "first",
        TIE,
        "ordering",
        empty=(0, 3),
    ),
    Row(
        "min",
        lambda x, **s: nsi.min(x, -1, **s),
        lambda x: jnp.min(x, -1),
        ties,
        (tied(-SORTED, UNIT[0], UNIT[3], (UNIT[0] + UNIT[2] + UNIT[3]) / 3, "mean", UNIT[[0, 2, 3]]),),
        "last",
        TIE,
        "ordering",
        empty=(0, 3),
    ),
    Row("sort", nsi.sort, jnp.sort, ties, (tied(SORTED, FIRST, LAST, MEAN, "first", ORDERS),), "mean", TIE, "ordering"),
    Row(
        "sort",
        lambda x, **s: nsi.sort(x, descending=True, **s),
        lambda x: jnp.sort(x, descending=True),
        ties,
        # JAX reverses the ascending order, so among equal entries the latest comes first.
        (tied(SORTED, UNIT[[0, 2, 3, 1]], FIRST[[3, 2, 1, 0]], MEAN[::-1], "last", [x[::-1] for x in ORDERS]),),
        "first",
        TIE,
        "ordering",
    ),
    Row(
        "top_k",
        lambda x, **s: nsi.top_k(x, 2, **s)[0],
        lambda x: jax.lax.top_k(x, 2)[0],
        ties,
        (
            tied(
                SORTED,
                UNIT[[0, 2]],
                UNIT[[3, 2]],
                MEAN[[1, 1]],
                "first",
                [UNIT[list(i)] for i in itertools.permutations([0, 2, 3], 2)],
            ),
        ),
        "mean",
        TIE,
        "ordering",
        empty=(0, 3),
    ),
    Row(
        "median",
        lambda x, **s: nsi.median(x, -1, **s),
        lambda x: jnp.median(x, -1),
        distinct,
        (
            tied(
                SORTED,
                [0.5, 0, 0.5, 0],
                [0, 0, 0.5, 0.5],
                [1 / 3, 0, 1 / 3, 1 / 3],
                "first",
                [(UNIT[i] + UNIT[j]) / 2 for i, j in itertools.combinations([0, 2, 3], 2)],
            ),
            tied(SORTED[:3], [1, 0, 0], [0, 0, 1], [0.5, 0, 0.5], "first", np.eye(3)[[0, 2]]),
        ),
        "last",
        TIE,
        "ordering",
        empty=(0, 3),
    ),
    Row(
        "max_pool",
        lambda x, **s: nsi.max_pool(x if x.ndim > 1 else x[:, None], (2,) * max(x.ndim - 2, 1), **s),
        lambda x: flax.linen.max_pool(x if x.ndim > 1 else x[:, None], (2,) * max(x.ndim - 2, 1)),
        images,
        (tied([3.0, 3.0], [[[1, 0]]], [[[0, 1]]], [[[0.5, 0.5]]], "first", [[[[1, 0]]], [[[0, 1]]]]),),
        "mean",
        TIE,
        "ordering",
        empty=(0, 4, 4, 2),
    ),
    Row(
        "ordering",
        lambda x, selection="first": nsi.ordering(x, x, tie=selection),
        jnp.sort,
        no_nans,
        (tied(SORTED, FIRST, LAST, MEAN, "first", ORDERS),),
        "mean",
        TIE,
        "ordering",
    ),
    Row(
        "norm",
        lambda x, **s: nsi.norm(x, axis=-1, **s),
        lambda x: jnp.linalg.norm(x, axis=-1),
        vectors,
        (
            Kink(
                np.zeros(3),
                (
                    (None, np.zeros(3)),
                    ("zero", np.zeros(3)),
                    (np.array([1.0, 0, 0]), np.array([1.0, 0, 0])),
                    (np.array([0.1, 0.2, -0.3]), np.array([0.1, 0.2, -0.3])),
                ),
            ),
        ),
        np.array([0.6, 0, 0.8]),
        (
            (np.array([1.0, 0.1, 0]), r"the selection has norm 1\.00.*unit ball.*v / jnp\.linalg\.norm"),
            (np.ones(2), "shape"),
            (0.5, "shape"),
            ("mean", "'mean'"),
        ),
        empty=(0, 3),
        # JAX's rule and ours multiply the same factors in another order.
        ulps=4,
    ),
)


def variant(name, ours, jaxs, special=ties, **kwargs):
    """A call of a primitive with other arguments than in its row; only values and derivatives are compared."""
    return Row(name, ours, jaxs, special, (), None, (), **kwargs)


def broadcast(x):
    return x[:, None], x[None, :4]


VARIANTS = (
    variant("maximum", lambda x: nsi.maximum(*broadcast(x)), lambda x: jnp.maximum(*broadcast(x)), grid),
    variant("maximum", lambda x: nsi.maximum(x, 1), lambda x: jnp.maximum(x, 1), grid),
    variant("minimum", lambda x: nsi.minimum(1.0, x), lambda x: jnp.minimum(1.0, x), grid),
    variant("minimum", lambda x: nsi.minimum(*broadcast(x)), lambda x: jnp.minimum(*broadcast(x)), grid),
    variant("clip", lambda x: nsi.clip(x, 0, 1), lambda x: jnp.clip(x, 0, 1), grid),
    variant("clip", lambda x: nsi.clip(x, None, 1), lambda x: jnp.clip(x, None, 1), grid),
    variant("clip", lambda x: nsi.clip(x, min=0), lambda x: jnp.clip(x, min=0), grid),
    variant("clip", lambda x: nsi.clip(x), lambda x: jnp.clip(x), grid),
    variant("clip", lambda x: nsi.clip(x, 1, 0), lambda x: jnp.clip(x, 1, 0), grid),
    variant("clip", lambda x: nsi.clip(x, -np.inf, np.inf), lambda x: jnp.clip(x, -np.inf, np.inf), grid),
    variant("leaky_relu", nsi.leaky_relu, jax.nn.leaky_relu, grid),
    variant("max", lambda x: nsi.max(x), lambda x: jnp.max(x), no_nans),
    variant("max", lambda x: nsi.max(x, 0), lambda x: jnp.max(x, 0)),
    variant("max", lambda x: nsi.max(x, (0, 1), keepdims=True), lambda x: jnp.max(x, (0, 1), keepdims=True), no_nans),
    variant("max", lambda x: nsi.max(x, (-1,), None, True), lambda x: jnp.max(x, (-1,), None, True)),
    variant("max", lambda x: nsi.max(x, ()), lambda x: jnp.max(x, ())),
    variant("max", lambda x: nsi.max(x, (0, 3)), lambda x: jnp.max(x, (0, 3)), images),
    variant("max", lambda x: nsi.max(x, 1, initial=2), lambda x: jnp.max(x, 1, initial=2)),
    variant(
        "max",
        lambda x: nsi.max(x, 1, initial=-9.0, where=x < 3),
        lambda x: jnp.max(x, 1, initial=-9.0, where=x < 3),
    ),
    variant("min", lambda x: nsi.min(x), lambda x: jnp.min(x), no_nans),
    variant("min", lambda x: nsi.min(x, 0, keepdims=True), lambda x: jnp.min(x, 0, keepdims=True)),
    variant("min", lambda x: nsi.min(x, -1, initial=1), lambda x: jnp.min(x, -1, initial=1)),
    variant("sort", lambda x: nsi.sort(x, None), lambda x: jnp.sort(x, None)),
    variant("sort", lambda x: nsi.sort(x, 0), lambda x: jnp.sort(x, 0)),
    variant("sort", lambda x: nsi.sort(x, -2, descending=True), lambda x: jnp.sort(x, -2, descending=True)),
    variant("top_k", lambda x: nsi.top_k(x, 6)[0], lambda x: jax.lax.top_k(x, 6)[0]),
    variant("top_k", lambda x: nsi.top_k(x, 3, axis=0)[0], lambda x: jax.lax.top_k(x, 3, axis=0)[0]),
    variant("median", lambda x: nsi.median(x), lambda x: jnp.median(x), lambda d: distinct(d)[0]),
    variant(
        "median",
        lambda x: nsi.median(x, 0, keepdims=True),
        lambda x: jnp.median(x, 0, keepdims=True),
        lambda d: distinct(d)[:, :4].T,
    ),
    variant(
        "median",
        lambda x: nsi.median(x, (0, 2)),
        lambda x: jnp.median(x, (0, 2)),
        lambda d: np.arange(24.0).reshape(2, 3, 4).astype(d),
    ),
    variant(
        "max_pool",
        lambda x: nsi.max_pool(x, (2, 3), (2, 1), "SAME"),
        lambda x: flax.linen.max_pool(x, (2, 3), (2, 1), "SAME"),
        images,
    ),
    variant(
        "max_pool",
        lambda x: nsi.max_pool(x[0], (3, 2), (1, 2), ((1, 0), (0, 1))),
        lambda x: flax.linen.max_pool(x[0], (3, 2), (1, 2), ((1, 0), (0, 1))),
        images,
    ),
    variant("norm", nsi.norm, jnp.linalg.norm, vectors, ulps=4),
    variant("norm", lambda x: nsi.norm(x, "fro"), lambda x: jnp.linalg.norm(x, "fro"), vectors, ulps=4),
    variant("norm", lambda x: nsi.norm(x, 2, 0, True), lambda x: jnp.linalg.norm(x, 2, 0, True), vectors, ulps=4),
    variant("norm", lambda x: nsi.norm(x, 1, -1), lambda x: jnp.linalg.norm(x, 1, -1), vectors),
    variant("norm", lambda x: nsi.norm(x, np.inf, -1), lambda x: jnp.linalg.norm(x, np.inf, -1), vectors),
    variant("norm", lambda x: nsi.norm(x, -np.inf, -1), lambda x: jnp.linalg.norm(x, -np.inf, -1), vectors),
)

COVERED = frozenset(row.name for row in ROWS) | {"selections.jax", "selections.torch"}
