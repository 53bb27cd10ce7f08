"""Vectors that are pytrees, and the inner product every reduction of the package goes through.

A :class:`Space` says which vectors are added up together. A plain state is one vector, its inner
product a scalar. With ``batch_axis`` the state is many vectors side by side and every reduction
keeps that axis: one number per lane. With ``axis_name`` one vector is spread over mesh axes and
every reduction ends in a ``psum``; a local norm steering a loop around a collective hangs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from nsimplicit._errors import InputError, message
from nsimplicit._records import config

Tree = Any
HIGHEST = lax.Precision.HIGHEST


def is_float(x: Any) -> bool:
    """Whether a leaf can carry a derivative (real or complex floating point)."""
    if isinstance(x, bool | int | float | complex):
        return isinstance(x, float | complex)
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def partition(tree: Tree) -> tuple[Tree, Callable[[Tree], Tree]]:
    """The vector of a tree's differentiable leaves, and a function that puts them back.

    Where every leaf is real floating point the vector is the tree itself. Otherwise it is a list:
    integer, boolean and key leaves stay inside the function, as they were, and a complex leaf
    becomes a real one with a last axis (real, imaginary): the equations of a solver need not be
    holomorphic, so over the reals is where they are linearised.
    """
    leaves, treedef = jax.tree.flatten(tree)
    floats = [is_float(x) for x in leaves]
    if all(f and not jnp.iscomplexobj(x) for f, x in zip(floats, leaves, strict=True)):
        return jax.tree.map(jnp.asarray, tree), lambda vector: vector

    def combine(vector: Tree) -> Tree:
        new = iter(vector)
        return treedef.unflatten([_restore(next(new), x) if f else x for f, x in zip(floats, leaves, strict=True)])

    return [_realify(jnp.asarray(x)) for f, x in zip(floats, leaves, strict=True) if f], combine


def _realify(x: jax.Array) -> jax.Array:
    return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


def _restore(new: jax.Array, like: Any) -> jax.Array:
    return lax.complex(new[..., 0], new[..., 1]) if jnp.iscomplexobj(like) else new


def moving(tree: Tree, tangents: Tree) -> tuple[list[int], list[jax.Array]]:
    """The places of the leaves that have a tangent, inside a rule with symbolic zeros, and the tangents."""
    leaves, treedef = jax.tree.flatten(tree)
    dots = treedef.flatten_up_to(tangents)
    live = [i for i, d in enumerate(dots) if not isinstance(d, SymbolicZero) and is_float(leaves[i])]
    return live, [dots[i] for i in live]


def substitute(tree: Tree, places: list[int], values: Iterable[Any]) -> Tree:
    """The tree with other leaves at some places."""
    leaves, treedef = jax.tree.flatten(tree)
    filled = dict(zip(places, values, strict=True))
    return treedef.unflatten([filled.get(i, x) for i, x in enumerate(leaves)])


def promote(tree: Tree) -> Tree:
    """The same tree with 16-bit floating leaves in float32; everything else as it was."""

    def up(x: Any) -> Any:
        small = hasattr(x, "dtype") and is_float(x) and jnp.finfo(x.dtype).bits < 32
        return jnp.asarray(x).astype(jnp.float32) if small else x

    return jax.tree.map(up, tree)


def cast_like(tree: Tree, like: Tree) -> Tree:
    """Cast each leaf of ``tree`` to the dtype of the same leaf of ``like``."""

    def cast(x: Any, ref: Any) -> Any:
        dtype = jnp.result_type(ref)
        return x if jnp.result_type(x) == dtype else jnp.asarray(x).astype(dtype)

    return jax.tree.map(cast, tree, like)


def _alike(x: Any, y: Any) -> bool:
    """Whether LAX takes the two as they are. An operation of LAX is traced in a fifth of the time of NumPy's."""
    return isinstance(x, jax.Array) and isinstance(y, jax.Array) and x.dtype == y.dtype and x.shape == y.shape


def _plus(x: Any, y: Any) -> jax.Array:
    return lax.add(x, y) if _alike(x, y) else jnp.add(x, y)


def add(a: Tree, b: Tree) -> Tree:
    """Leafwise a + b."""
    return jax.tree.map(_plus, a, b)


def subtract(a: Tree, b: Tree) -> Tree:
    """Leafwise a - b."""
    return jax.tree.map(lambda x, y: lax.sub(x, y) if _alike(x, y) else jnp.subtract(x, y), a, b)


def _real_product(x: jax.Array, y: jax.Array) -> jax.Array:
    if _alike(x, y) and not jnp.iscomplexobj(x):
        return lax.mul(x, y)
    return jnp.real(jnp.conj(x) * y)


def negative(a: Tree) -> Tree:
    """Leafwise -a."""
    return jax.tree.map(jnp.negative, a)


def blank(x: jax.Array) -> jax.Array:
    """Zeros like ``x`` that inherit its varying mesh axes and depend on it, and stay finite."""
    return lax.select(jnp.zeros_like(x, dtype=bool), x, jnp.zeros_like(x))


def blank_like(tree: Tree) -> Tree:
    """Leafwise :func:`blank`."""
    return jax.tree.map(blank, tree)


@config
class Space:
    """Where vectors live: one state, or a batch of states, possibly spread over a mesh.

    Args:
        batch_axis: axis of every leaf that numbers independent lanes; ``None``: one vector.
        axis_name: mesh axes over which each vector is split; reductions are summed over them.
    """

    batch_axis: int | None = None
    axis_name: tuple[str, ...] = ()

    def dot(self, a: Tree, b: Tree) -> jax.Array:
        """Real inner product Re<a, b>: shape ``()``, or ``(lanes,)`` with a batch axis."""
        products = [self._reduce(_real_product(x, y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
        total = functools.reduce(_plus, products) if products else jnp.zeros(())
        axes = tuple(n for n in self.axis_name)
        return lax.psum(total, axes) if axes else total

    def dots(self, stack: Tree, a: Tree) -> jax.Array:
        """The inner product of a real vector with each of a stack of them: shape ``(k,)`` or ``(k, lanes)``."""
        leaves = zip(jax.tree.leaves(stack), jax.tree.leaves(a), strict=True)
        first, *rest = (self._contract(x, y) for x, y in leaves)
        total = sum(rest, first)
        return lax.psum(total, self.axis_name) if self.axis_name else total

    def combine(self, alpha: jax.Array, stack: Tree) -> Tree:
        """The sum of a stack of vectors, each times its alpha, of shape ``(k,)`` or ``(k, lanes)``."""

        def leaf(x: jax.Array) -> jax.Array:
            if self.batch_axis is None:
                return jnp.tensordot(alpha.astype(x.dtype), x, 1, precision=HIGHEST)
            axis = self.batch_axis % (x.ndim - 1)
            numbers = (((0,), (0,)), ((1,), (axis + 1,)))
            return jnp.moveaxis(lax.dot_general(alpha.astype(x.dtype), x, numbers, precision=HIGHEST), 0, axis)

        return jax.tree.map(leaf, stack)

    def _contract(self, stack: jax.Array, x: jax.Array) -> jax.Array:
        lane = () if self.batch_axis is None else (self.batch_axis % x.ndim,)
        rest = tuple(i for i in range(x.ndim) if i not in lane)
        numbers = ((tuple(i + 1 for i in rest), rest), (tuple(i + 1 for i in lane), lane))
        return lax.dot_general(stack, x, numbers, precision=HIGHEST).T

    def norm(self, a: Tree) -> jax.Array:
        """Euclidean norm: shape ``()`` or ``(lanes,)``."""
        return lax.sqrt(self.dot(a, a))

    def scale(self, alpha: jax.Array | float, a: Tree) -> Tree:
        """alpha·a with one alpha per lane, in the dtypes of ``a``."""
        return jax.tree.map(lambda x: lax.mul(lax.convert_element_type(self._spread(alpha, x), x.dtype), x), a)

    def axpy(self, alpha: jax.Array | float, x: Tree, y: Tree) -> Tree:
        """alpha·x + y with one alpha per lane."""
        return add(self.scale(alpha, x), y)

    def where(self, mask: jax.Array, a: Tree, b: Tree) -> Tree:
        """``a`` in the lanes where ``mask`` holds, ``b`` in the others."""
        return jax.tree.map(lambda x, y: lax.select(self._spread(mask, x), x, y), a, b)

    def _reduce(self, x: jax.Array) -> jax.Array:
        if self.batch_axis is None:
            return jnp.sum(x)
        axis = self.batch_axis % x.ndim
        return jnp.sum(x, axis=tuple(i for i in range(x.ndim) if i != axis))

    def _spread(self, lane: jax.Array | float, x: jax.Array) -> jax.Array:
        lane = jnp.asarray(lane)
        if lane.ndim == 0 or self.batch_axis is None:
            return lane
        return lax.broadcast_in_dim(lane, x.shape, (self.batch_axis % x.ndim,))

    def ravel(self, a: Tree) -> tuple[jax.Array, Callable[[jax.Array], Tree]]:
        """One array ``(n,)`` or ``(lanes, n)`` from a vector, and the way back."""
        leaves, treedef = jax.tree.flatten(a)
        axis = self.batch_axis
        lead = [] if axis is None else [jnp.shape(leaves[0])[axis]]
        fronted = [x if axis is None else jnp.moveaxis(x, axis, 0) for x in leaves]
        flat = [x.reshape([*lead, -1]) for x in fronted]
        ends = list(itertools.accumulate(f.shape[-1] for f in flat))

        def unravel(v: jax.Array) -> Tree:
            parts = [v[..., e - f.shape[-1] : e] for e, f in zip(ends, flat, strict=True)]
            shaped = [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, fronted, strict=True)]
            return treedef.unflatten([x if axis is None else jnp.moveaxis(x, 0, axis) for x in shaped])

        return jnp.concatenate(flat, axis=-1), unravel

    def check(self, state: Tree, where: str) -> None:
        """Raise unless every leaf of ``state`` has the batch axis, with one common size."""
        if self.batch_axis is None:
            return
        shapes = [jnp.shape(x) for x in jax.tree.leaves(state)]
        short = [s for s in shapes if not -len(s) <= self.batch_axis < len(s)]
        sizes = {s[self.batch_axis] for s in shapes if s not in short}
        if short or len(sizes) > 1:
            raise InputError(
                message(
                    f"{where}(batch_axis={self.batch_axis})",
                    f"the state's leaves have shapes {shapes}.",
                    "Every leaf must have the batch axis, with the same number of lanes.",
                    "pass a state whose leaves all carry the lanes on that axis",
                    "leave batch_axis out and use jax.vmap",
                )
            )
