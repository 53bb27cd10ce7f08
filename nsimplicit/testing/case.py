"""A function with a prox, where to look at it, and what is known of it by other means."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._tree import is_float, substitute
from nsimplicit.prox.base import Function


def itself(x: Any) -> Any:
    """x."""
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """An object, points where its prox is smooth, and kinks with the limits of the Jacobians around them.

    Args:
        name: what a failure says.
        make: ``make(*params, selection=...) -> Function``; without ``selection`` where there is none.
        value: ``value(x, *params)``, independent of the object; ``None``: its own value.
        prox: ``prox(x, step, *params)``, independent of the object; ``None``: its own prox.
        points: where the prox is smooth.
        params: differentiated.
        kinks: pairs of a point and the vertices of the Clarke Jacobian of the prox there, as real matrices.
        step: of the prox.
        selection: whether ``make`` takes a selection.
        space: the projection on the space where the function lives (symmetric matrices, say).
        at_bound: positions of parameters that cannot decrease: their derivatives are one-sided.
        curved: the prox is not affine, piece by piece, in point, step and parameters together.
        own_differences: compare derivatives with differences of the object's own prox, not of ``prox``.
    """

    name: str
    make: Callable[..., Function]
    value: Callable[..., Any] | None
    prox: Callable[..., Any] | None
    points: tuple[Any, ...]
    params: tuple[Any, ...] = ()
    kinks: tuple[tuple[Any, list[np.ndarray]], ...] = ()
    step: float = 0.5
    selection: bool = True
    space: Callable[[Any], Any] = itself
    at_bound: tuple[int, ...] = ()
    curved: bool = False
    own_differences: bool = False

    @functools.cached_property
    def function(self) -> Function:
        """The object, with its default selection."""
        return self.make(*self.params)

    @property
    def every_point(self) -> list[Any]:
        """The points and the kinks."""
        return [*self.points, *(x for x, _ in self.kinks)]

    @property
    def is_set(self) -> bool:
        """Whether the function is an indicator."""
        return hasattr(self.function, "project")

    def arguments(self, x: Any) -> tuple[Any, ...]:
        """Point, step and parameters."""
        return (x, np.float64(self.step), *map(np.asarray, self.params))

    def value_at(self, x: Any) -> float:
        """The value by other means, or the object's own."""
        return float(self.function(x) if self.value is None else self.value(x, *self.params))

    def prox_at(self, x: Any) -> Any:
        """The prox by other means, or the object's own."""
        return self.apply(x) if self.prox is None else self.prox(x, self.step, *self.params)

    def apply(self, x: Any) -> Any:
        """The object's prox at x, compiled, with the structure of x."""
        return unpacker(x)(self.evaluate(x)[0])

    def jacobian(self, x: Any, selection: float) -> np.ndarray:
        """The Jacobian of the prox at x with respect to the point alone."""
        return self.evaluate(x, selection)[1][:, : pack(x).size]

    def evaluate(self, x: Any, selection: float = 0.0) -> list[np.ndarray]:
        """Prox, Jacobian in reverse and in forward mode with respect to point, step and parameters."""
        return [np.asarray(out) for out in self.compiled(*self.shape(x))(pack(self.arguments(x)), selection)]

    @staticmethod
    def shape(x: Any) -> tuple[Any, Any]:
        """The structure of x, and the shapes and dtypes of its leaves."""
        leaves, tree = jax.tree.flatten(x)
        return tree, tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)

    @functools.cached_property
    def compiled(self) -> Callable[..., Any]:
        """The prox at one shape of point, and its Jacobians: compiled once, for every selection."""

        @functools.cache
        def of_shape(tree: Any, shapes: Any) -> Callable[..., Any]:
            like = tree.unflatten([np.zeros(shape, dtype) for shape, dtype in shapes])
            unpack = unpacker(self.arguments(like))

            def vector(z: jax.Array, s: Any) -> jax.Array:
                x, step, *params = unpack(z)
                options = {"selection": s} if self.selection else {}
                return pack(self.make(*params, **options).prox(x, step), jnp)

            return jax.jit(lambda z, s: (vector(z, s), jax.jacrev(vector)(z, s), jax.jacfwd(vector)(z, s)))

        return of_shape


def pack(x: Any, xp: Any = np) -> Any:
    """All entries of a tree, real and imaginary parts one after the other, as one real vector."""
    flat = [xp.ravel(leaf) for leaf in jax.tree.leaves(x)]
    return xp.concatenate([part for u in flat for part in ([u.real, u.imag] if xp.iscomplexobj(u) else [u])])


def unpacker(x: Any) -> Callable[[Any], Any]:
    """The way back from :func:`pack`, for NumPy and traced vectors alike."""
    leaves, tree = jax.tree.flatten(x)
    sizes = [np.size(leaf) for leaf in leaves]

    def unpack(v: Any) -> Any:
        out, start = [], 0
        for leaf, n in zip(leaves, sizes, strict=True):
            part = v[start : start + n]
            if np.iscomplexobj(leaf):
                part = part + 1j * v[start + n : start + 2 * n]
            start += n * (1 + np.iscomplexobj(leaf))
            out.append(part.reshape(np.shape(leaf)))
        return tree.unflatten(out)

    return unpack


def floats(tree: Any) -> tuple[list[jax.Array], Callable[[Any], Any]]:
    """The floating-point leaves of a tree, as arrays, and the tree with others in their place."""
    leaves = jax.tree.leaves(tree)
    places = [i for i, x in enumerate(leaves) if is_float(x)]
    return [jnp.asarray(leaves[i]) for i in places], lambda values: substitute(tree, places, values)


def draws(rng: np.random.Generator, case: Case, x: Any, count: int, scale: float = 1.0) -> list[Any]:
    """Points around ``x`` at distances from ``scale`` down to 1e-4 of it."""
    noise = rng.normal(size=(count, pack(x).size))
    sizes = scale * np.logspace(0, -4, count)
    return [unpacker(x)(pack(x) + size * step) for size, step in zip(sizes, noise, strict=True)]
