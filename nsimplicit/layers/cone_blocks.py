"""A product of cones: which rows belong to which cone, and the projection on all of them.

Matrices of a semidefinite cone are laid out as SCS does: the lower triangle column by column, entries off the diagonal
times sqrt(2), so that products of vectors are those of matrices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._records import data, static
from nsimplicit.prox.base import Set
from nsimplicit.prox.boundary import magnitude
from nsimplicit.prox.cones import FreeCone, ZeroCone
from nsimplicit.prox.eigenvalues import PSDCone
from nsimplicit.prox.exponential_cone import DualExponentialCone, ExponentialCone
from nsimplicit.prox.power_cone import DualPowerCone, PowerCone
from nsimplicit.prox.second_order_cone import RotatedSecondOrderCone, SecondOrderCone
from nsimplicit.prox.sets import Nonnegative

EACH_ROW = (ZeroCone, FreeCone, Nonnegative)
WHOLE = (SecondOrderCone, RotatedSecondOrderCone, PSDCone)
TRIPLES = (ExponentialCone, DualExponentialCone, PowerCone, DualPowerCone)


@data
class Block:
    """Cones of one kind and size that follow each other.

    Args:
        cone: an object of :mod:`nsimplicit.prox`; its projection takes points side by side.
        size: rows of one cone; of cones that take each row by itself, all rows.
        count: how many cones.
    """

    cone: Set
    size: int = static()
    count: int = static()

    @property
    def rows(self) -> int:
        """Rows of the block."""
        return self.size * self.count

    def points(self, v: jax.Array) -> jax.Array:
        """The points whose rows are v: vectors, or symmetric matrices."""
        v = v.reshape(self.count, self.size)
        if not isinstance(self.cone, PSDCone):
            return v
        index, weight, _ = triangle(order(self.size))
        return (v / jnp.asarray(weight, v.dtype))[:, index]

    def vector(self, points: jax.Array) -> jax.Array:
        """The rows of points: the inverse of :meth:`points`."""
        if isinstance(self.cone, PSDCone):
            _, weight, (row, column) = triangle(order(self.size))
            points = points[:, row, column] * jnp.asarray(weight, points.dtype)
        return points.reshape(-1)

    def project(self, v: jax.Array) -> jax.Array:
        """The nearest point of the cones."""
        return self.vector(self.cone.project(self.points(v)))

    def per_cone(self, v: jax.Array) -> jax.Array:
        """The mean over each cone, so that as a scale it maps cones onto themselves; some take each row by itself."""
        if isinstance(self.cone, EACH_ROW):
            return v
        return jnp.repeat(v.reshape(self.count, self.size).mean(1), self.size)


def order(rows: int) -> int:
    """n, where rows = n (n + 1) / 2; or -1."""
    n = (int((8 * rows + 1) ** 0.5) - 1) // 2
    return n if n * (n + 1) // 2 == rows else -1


def triangle(n: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Which row each entry of an n x n matrix is; the weight of each row; its place in the matrix."""
    column, row = np.triu_indices(n)
    index = np.zeros((n, n), int)
    index[row, column] = index[column, row] = np.arange(len(row))
    return index, np.where(row == column, 1.0, np.sqrt(2)), (row, column)


@data
class Product:
    """A product of cones, in the order of the rows."""

    blocks: tuple[Block, ...]

    def each(self, fun: Any, *vectors: jax.Array) -> jax.Array:
        """``fun(block, rows, ...)`` of every block, in one vector."""
        out, start = [vectors[0][:0]], 0
        for block in self.blocks:
            out.append(fun(block, *(v[start : start + block.rows] for v in vectors)))
            start += block.rows
        return jnp.concatenate(out)

    def project(self, v: jax.Array) -> jax.Array:
        """The nearest point of the product."""
        return self.each(Block.project, v)

    def project_dual(self, v: jax.Array) -> jax.Array:
        """The nearest point of the dual cone (Moreau)."""
        return v + self.project(-v)

    def per_cone(self, v: jax.Array) -> jax.Array:
        """A scale of the rows, made constant on each cone."""
        return self.each(Block.per_cone, v)

    def equations(self) -> np.ndarray:
        """Which rows are equations."""
        return np.concatenate([[], *(np.full(b.rows, isinstance(b.cone, ZeroCone)) for b in self.blocks)]).astype(bool)

    def tied(self, v: jax.Array, near: jax.Array) -> jax.Array:
        """v, exactly at a kink where it is no further from one than ``near``."""
        return v - lax.stop_gradient(self.each(lambda block, v: _excess(block, v, near), lax.stop_gradient(v)))


def _excess(block: Block, v: jax.Array, near: jax.Array) -> jax.Array:
    """What is taken off v to put it on a kink: entries, eigenvalues, or whole points that are nearly zero."""
    points = block.points(v)
    if isinstance(block.cone, EACH_ROW):
        return block.vector(_small(points, near))
    if isinstance(block.cone, SecondOrderCone):
        t, z = points[:, :1], points[:, 1:]
        length = jnp.sqrt(jnp.sum(z * z, 1, keepdims=True))
        axis = z / jnp.where(length > 0, length, 1)
        low, high = _small(t - length, near) / 2, _small(t + length, near) / 2
        return block.vector(jnp.concatenate([low + high, (high - low) * axis], 1))
    if isinstance(block.cone, PSDCone):
        lam, V = jnp.linalg.eigh(points)
        return block.vector(jnp.einsum("bij,bj,bkj->bik", V, _small(lam, near), V))
    largest = jnp.max(magnitude(points), 1, keepdims=True)
    return block.vector(jnp.where(largest <= near, points, 0))


def _small(x: jax.Array, near: jax.Array) -> jax.Array:
    return jnp.where(magnitude(x) <= near, x, 0)


def merge(blocks: list[Block]) -> tuple[Block, ...]:
    """The same cones, those that are alike and follow each other as one block: one projection for all of them."""
    merged: list[Block] = []
    for block in blocks:
        last = merged[-1] if merged else None
        alike = last is not None and jax.tree.structure(last.cone) == jax.tree.structure(block.cone)
        if last is not None and alike and last.size == block.size and not jax.tree.leaves(block.cone):
            merged[-1] = Block(block.cone, size=block.size, count=last.count + block.count)
        else:
            merged.append(block)
    return tuple(merged)
