"""Vector norms, with a derivative where the vector is zero.

The Euclidean norm is the switch with the kink sum|x|^2 = 0, between sqrt(sum|x|^2) and the linear
function <v, x>, whose gradient v is the selection. Both are finite everywhere (under the root a zero
is replaced by one before the root is taken), so a zero row of a batch leaves the other rows alone,
and Hessians are finite.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nsimplicit._errors import InputError, message
from nsimplicit.primitives import elementwise, extremes
from nsimplicit.primitives.switch import bind, compiled

__all__ = ["norm"]


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, *, selection: Any = None) -> jax.Array:
    """Norm of a vector, or of all the vectors along some axes.

    Formula:
        norm(x) = sqrt(sum|x_i|^2); with ord=1 sum|x_i|, with ord=inf max|x_i|, with ord=-inf min|x_i|

    Args:
        x: array, real or complex.
        ord: ``None``, 2 or ``"fro"`` for the Euclidean norm; 1, ``inf`` or ``-inf`` for one axis.
        axis: the axis or axes that make up a vector; ``None`` for all of them.
        keepdims: whether to keep those axes, with size 1.
        selection: the gradient at zero, a vector v with norm(v) <= 1 that broadcasts to x, or
            ``"zero"``. A traced v outside the unit ball is divided by its norm. Euclidean only.

    Returns:
        ``jnp.linalg.norm(x, ord, axis, keepdims)``.

    Raises:
        InputError: a selection outside the unit ball or of the wrong kind; an ord that is not one of
            the above.

    Kinks:
        u = sum|x_i|^2 (also where it underflows to 0). The set at u = 0: <v, x'> for v in the unit
        ball. Default v = 0, where JAX has nan. With ord 1, inf and -inf the kinks are those of
        ``abs``, ``max`` and ``min``, with their defaults.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.primitives import norm
        >>> jax.grad(norm)(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
        >>> jax.grad(lambda x: norm(x, selection=jnp.array([1.0, 0.0])))(jnp.zeros(2)).tolist()
        [1.0, 0.0]
    """
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return jnp.linalg.norm(x, ord, axis, keepdims)
    axes = axis if isinstance(axis, tuple) else tuple(range(np.ndim(x))) if axis is None else (axis,)
    if (
        ord is None
        or (isinstance(ord, str) and ord in ("f", "fro") and len(axes) == 2)
        or (ord == 2 and len(axes) == 1)
    ):
        return _norm(x, _gradient(selection, x, axes), ord, axis, keepdims, selection is not None)
    if len(axes) == 1 and selection is None and not isinstance(ord, str):
        if ord == 1:
            return jnp.sum(elementwise.abs(x), axis, keepdims=keepdims)
        if ord == np.inf:
            return extremes.max(elementwise.abs(x), axis, keepdims=keepdims, initial=0)
        if ord == -np.inf:
            return extremes.min(elementwise.abs(x), axis, keepdims=keepdims)
    raise InputError(
        message(
            f"norm(ord={ord!r}, axis={axis!r}, selection={'None' if selection is None else '...'})",
            f"not a norm this function has a derivative rule for; x has shape {np.shape(x)}.",
            "Euclidean norms take a selection; ord 1, inf and -inf are made of abs, max and min, which have their own.",
            "norm(x, axis=...), the Euclidean norm",
            "max(abs(x, selection=...), axis, selection=...), with the functions of this package",
            f"jnp.linalg.norm(x, {ord!r}), JAX's own, with whatever derivative it has",
        )
    )


@compiled("ord", "axis", "keepdims", "explicit")
def _norm(x: Any, gradient: Any, ord: Any, axis: Any, keepdims: bool, explicit: bool) -> jax.Array:
    x = jnp.asarray(x)
    value = jnp.linalg.norm(lax.stop_gradient(x), ord, axis, keepdims)
    squares = jnp.sum(jnp.real(x * jnp.conj(x)), axis, keepdims=keepdims)
    above = jnp.sqrt(jnp.where(squares == 0, 1, squares))
    below = 0
    if gradient is not None:
        gradient = lax.stop_gradient(gradient)
        length = jnp.sqrt(jnp.sum(jnp.real(gradient * jnp.conj(gradient)), axis, keepdims=True))
        gradient = gradient / jnp.where(length > 1, length, 1)
        below = jnp.sum(jnp.real(jnp.conj(gradient) * x), axis, keepdims=keepdims)
    return bind(squares, 0, above, below, 0.0, value, name="norm", explicit=explicit)


def _gradient(selection: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """The gradient at zero that a selection stands for, of the shape of x; None for zero."""
    if selection is None or (isinstance(selection, str) and selection in ("zero", "jax")):
        return None
    if isinstance(selection, str):
        found = f"no name among 'jax', 'zero' is {selection!r}."
    else:
        shape = np.shape(selection)
        try:
            fits = bool(shape) and np.broadcast_shapes(shape, np.shape(x)) == np.shape(x)
        except ValueError:
            fits = False
        if not fits:
            found = f"the selection has shape {shape}, x has shape {np.shape(x)}."
        elif isinstance(selection, Tracer):
            return jnp.broadcast_to(selection, np.shape(x))
        else:
            vector = np.broadcast_to(np.asarray(selection), np.shape(x))
            length = np.sqrt(np.sum(np.abs(vector).astype(np.float64) ** 2, axes))
            # A unit vector that was normalised in float32, or in bfloat16, is one up to rounding.
            slack = 4 * float(jnp.finfo(jnp.result_type(vector, np.float32)).eps)
            if np.all(length <= 1 + slack):
                return vector
            found = f"the selection has norm {np.max(length)}."
    raise InputError(
        message(
            "norm(selection=...)",
            found,
            "The gradients of a norm at zero are the vectors of the unit ball, one for every vector in x.",
            "selection='zero', the default",
            "v / jnp.linalg.norm(v), for the direction of v",
        )
    )
