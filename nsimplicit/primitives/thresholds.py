"""Elementwise functions with two kinks: restriction to an interval, and shrinkage.

Restriction is two switches, one at each bound, and a weight is always on x; ``"inside"`` and
``"outside"`` say it without thinking of which side is which. Shrinkage is one switch on the
modulus: two, as in relu(x - t) - relu(-x - t), would meet at t = 0 and lose the identity's derivative.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.primitives.elementwise import at_lower, at_upper, has_kinks
from nsimplicit.primitives.switch import bind, compiled

__all__ = ["clip", "hard_tanh", "relu6", "soft_threshold"]


def clip(x: Any, /, min: Any = None, max: Any = None, *, selection: Any = None) -> jax.Array:
    """Restriction to an interval.

    Formula:
        clip(x, min, max) = minimum(max, maximum(min, x))

    Args:
        x: array.
        min: lower bound, array or ``None`` for none; differentiated.
        max: upper bound, array or ``None`` for none; differentiated.
        selection: weight in [0, 1] on x at each bound, ``"inside"`` (1: x), ``"outside"`` (0: the
            bound), ``"mean"`` (0.5), ``"above"`` or ``"below"`` (the side of the bound that x comes
            from). A tuple (lower, upper) sets the two apart. A traced weight is clipped.

    Returns:
        ``jnp.clip(x, min, max)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x - min and u = max - x, compared, never subtracted. The set at u = 0 for each:
        s·x' + (1-s)·bound', 0 ≤ s ≤ 1. Default 0.5, as in ``jnp.clip``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import clip
        >>> float(jax.grad(lambda x: clip(x, 0.0, 1.0, selection="inside"))(1.0))
        1.0
    """
    lower, upper = selections.pair(selection, 0.5, "clip")
    if not has_kinks("clip", selection, x, min, max):
        return jnp.clip(x, min, max)
    return _clip(x, min, max, lower, upper, selection is not None)


@compiled("explicit")
def _clip(x: Any, min: Any, max: Any, lower: Any, upper: Any, explicit: bool) -> jax.Array:
    params: dict[str, Any] = dict(name="clip", explicit=explicit, at_nan="zero")
    x = jnp.asarray(x)
    if min is not None:
        x = at_lower(x, min, jnp.maximum(*lax.stop_gradient((min, x))), lower, **params)
    if max is not None:
        x = at_upper(x, max, jnp.minimum(*lax.stop_gradient((max, x))), upper, **params)
    return x


def relu6(x: Any, *, selection: Any = None) -> jax.Array:
    """Rectified linear unit that saturates at 6.

    Formula:
        relu6(x) = min(max(x, 0), 6)

    Args:
        x: array.
        selection: weight in [0, 1] on x at each bound, or a name, or a pair, as in :func:`clip`.

    Returns:
        ``jax.nn.relu6(x)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x and u = 6 - x. The set at u = 0: [0, 1]. Default 0 at both, as in ``jax.nn.relu6``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import relu6
        >>> [float(jax.grad(lambda x: relu6(x, selection=(0.25, 0.75)))(x)) for x in (0.0, 6.0)]
        [0.25, 0.75]
    """
    lower, upper = selections.pair(selection, 0.0, "relu6")
    return _relu6(x, lower, upper, selection is not None) if has_kinks("relu6", selection, x) else jax.nn.relu6(x)


@compiled("explicit")
def _relu6(x: Any, lower: Any, upper: Any, explicit: bool) -> jax.Array:
    params: dict[str, Any] = dict(name="relu6", explicit=explicit, at_nan="below")
    x = at_lower(x, 0, jnp.maximum(lax.stop_gradient(x), 0), lower, **params)
    return at_upper(x, 6, jnp.minimum(lax.stop_gradient(x), 6), upper, **params)


def hard_tanh(x: Any, *, selection: Any = None) -> jax.Array:
    """Restriction to [-1, 1].

    Formula:
        hard_tanh(x) = -1 where x < -1, 1 where x > 1, x between

    Args:
        x: array.
        selection: weight in [0, 1] on x at each bound, or a name, or a pair, as in :func:`clip`.

    Returns:
        ``jax.nn.hard_tanh(x)``.

    Raises:
        InputError: a selection that does not fit.

    Kinks:
        u = x + 1 and u = 1 - x. The set at u = 0: [0, 1]. Default 1 at both, as in
        ``jax.nn.hard_tanh``.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import hard_tanh
        >>> float(jax.grad(lambda x: hard_tanh(x, selection="outside"))(1.0))
        0.0
    """
    lower, upper = selections.pair(selection, 1.0, "hard_tanh")
    if not has_kinks("hard_tanh", selection, x):
        return jax.nn.hard_tanh(x)
    return _hard_tanh(x, lower, upper, selection is not None)


@compiled("explicit")
def _hard_tanh(x: Any, lower: Any, upper: Any, explicit: bool) -> jax.Array:
    params: dict[str, Any] = dict(name="hard_tanh", explicit=explicit, at_nan="above")
    plain = lax.stop_gradient(jnp.asarray(x))
    x = at_lower(x, -1, jnp.where(plain < -1, -1, plain), lower, **params)
    return at_upper(x, 1, jax.nn.hard_tanh(plain), upper, **params)


def soft_threshold(x: Any, threshold: Any, *, selection: Any = None) -> jax.Array:
    """Shrinkage towards zero: the prox of threshold·|x|.

    Formula:
        soft_threshold(x, t) = x - t·x/|x| where |x| > t, 0 where |x| <= t

    Args:
        x: array, real or complex (shrinks the modulus).
        threshold: t >= 0, real array or number; the two broadcast; differentiated.
        selection: weight in [0, 1] on the branch x - t·x/|x| at the kink, ``"above"`` (1),
            ``"below"`` (0: the sparse side) or ``"mean"`` (0.5). A traced weight is clipped.

    Returns:
        Array of the broadcast shape. A nan in x or t gives nan.

    Raises:
        InputError: a selection that does not fit, a complex threshold, or one known to be negative.

    Kinks:
        u = |x| - t, where t > 0. The set at u = 0, for real x: s·(x' - t'·sign(x)), 0 ≤ s ≤ 1.
        Default 0, which is what relu(x - t) - relu(-x - t) gives. Where t = 0 the function is the
        identity, without a kink: derivative 1 everywhere, also at x = 0.

    Example:
        >>> import jax
        >>> from nsimplicit.primitives import soft_threshold
        >>> [float(jax.grad(soft_threshold)(x, 1.0)) for x in (-3.0, 0.5, 1.0)]
        [1.0, 0.0, 0.0]
        >>> float(jax.grad(soft_threshold)(0.0, 0.0))
        1.0
    """
    weight = selections.weight(selection, 0.0, "soft_threshold")
    if jnp.iscomplexobj(threshold):
        found = f"the threshold has dtype {jnp.result_type(threshold)}."
    elif not isinstance(threshold, Tracer) and np.any(np.asarray(threshold) < 0):
        found = f"the smallest threshold is {np.min(threshold)}."
    else:
        return _soft_threshold(x, threshold, weight, selection is not None)
    raise InputError(
        message(
            "soft_threshold(threshold=...)",
            found,
            "The threshold is taken off the modulus; below zero it would push x away from 0, with a jump there.",
            "a real threshold >= 0",
            "look at the sign of the weight or the step it was made from",
        )
    )


@compiled("explicit")
def _soft_threshold(x: Any, threshold: Any, weight: Any, explicit: bool) -> jax.Array:
    dtype = jnp.result_type(x, threshold, 0.0)
    x, threshold = jnp.asarray(x, dtype), jnp.asarray(threshold, jnp.finfo(dtype).dtype)
    if jnp.iscomplexobj(x):
        left = lax.abs(x)
        # x over its modulus, in numbers whose squares are in range; 0 where the branch is far from taken
        idle = lax.stop_gradient((2 * left < threshold) | (left < jnp.finfo(dtype).tiny))
        unit = jnp.where(idle, 0, x) / lax.stop_gradient(jnp.where(idle, 1, left))
        above = x - threshold * (unit / lax.abs(jnp.where(unit == 0, 1, unit)))
    else:
        sign = lax.sign(lax.stop_gradient(x))
        left = x * sign
        above = x - threshold * sign
    right = jnp.where(threshold == 0, -1, threshold)
    # x itself where t = 0, for the sign of -0.0.
    # The modulus, not the product with the sign, which XLA's CPU backend does not vectorise.
    value = jnp.where(lax.abs(lax.stop_gradient(x)) <= right, 0, jnp.where(threshold == 0, x, above))
    return bind(left, right, above, 0, weight, value, name="soft_threshold", explicit=explicit)
