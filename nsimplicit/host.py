"""Solvers that live outside JAX: NumPy, SciPy, scikit-learn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit.calculus.program import vary, varying


def host(
    fun: Callable[..., Any], like: Callable[..., Any] | Any = None, vmap_method: str = "sequential"
) -> Callable[..., Any]:
    """Make a NumPy function callable under jit, vmap and grad (with zero derivative of its own).

    Args:
        fun: takes and returns trees of NumPy arrays. A 0-dimensional array arrives as a NumPy
            scalar, a PRNG key as its key data; what is no array arrives as it is.
        like: what ``fun`` returns: a tree of arrays or ``jax.ShapeDtypeStruct``, or a function of
            the arguments giving one; default the first argument (a starting point).
        vmap_method: as in ``jax.pure_callback``: "sequential" calls once per lane, "expand_dims" and
            "broadcast_all" call once with leading lane axes.

    Returns:
        A JAX function. Its result is cast to the dtypes of ``like``; a wrong shape is named.

    Raises:
        InputError: ``fun`` returned another structure or shape than ``like`` announced.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, nsimplicit as nsi
        >>> solve = nsi.host(np.linalg.solve, like=lambda A, b: b)
        >>> jax.jit(solve)(jnp.eye(2) * 2, jnp.ones(2)).tolist()
        [0.5, 0.5]
    """

    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        arrays, rest = _split((args, kwargs))
        given_args, given_kwargs = rest(arrays)
        template = given_args[0] if like is None else like(*given_args, **given_kwargs) if callable(like) else like
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), template)
        arrays = [lax.stop_gradient(_data(x)) for x in arrays]
        ndims = [x.ndim for x in arrays]

        def run(*values: Any) -> Any:
            a, k = rest([np.asarray(v)[()] for v in values])
            lanes = [np.shape(v)[: np.ndim(v) - n] for v, n in zip(values, ndims, strict=True)]
            return _conform(fun(*a, **k), shapes, np.broadcast_shapes(*lanes), getattr(fun, "__name__", "fun"))

        out = jax.pure_callback(run, shapes, *arrays, vmap_method=vmap_method)
        # JAX types a callback's result as equal on every device of a mesh; it is so where its arguments are.
        return vary(out, varying(*arrays))

    return call


def _split(tree: Any) -> tuple[list[jax.Array], Callable[[list[Any]], Any]]:
    """The array leaves, and the tree with others in their place; what is no array stays."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [hasattr(x, "dtype") for x in leaves]

    def rest(values: list[Any]) -> Any:
        new = iter(values)
        return treedef.unflatten([next(new) if a else x for a, x in zip(arrays, leaves, strict=True)])

    return [jnp.asarray(x) for a, x in zip(arrays, leaves, strict=True) if a], rest


def _data(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _conform(out: Any, shapes: Any, lanes: tuple[int, ...], name: str) -> Any:
    expected = [(*lanes, *s.shape) for s in jax.tree.leaves(shapes)]
    if jax.tree.structure(out) != jax.tree.structure(shapes) or [np.shape(x) for x in jax.tree.leaves(out)] != expected:
        got = jax.tree.map(np.shape, out)
        raise InputError(
            message(
                f"host({name})",
                f"the function returned {got}, expected {jax.tree.map(lambda s: (*lanes, *s.shape), shapes)}.",
                "The shape of a host function's result must be known before it runs.",
                "like=lambda *args: an array of the right shape",
                "reshape the result in the function",
            )
        )
    return jax.tree.map(lambda x, s: np.asarray(x, s.dtype), out, shapes)
