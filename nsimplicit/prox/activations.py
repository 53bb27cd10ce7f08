"""Activation functions that are proxes, as functions with a prox for every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Function, add_up, fit, leafwise, real
from nsimplicit.prox.logistic import wide
from nsimplicit.prox.scalar_newton import root

Scalar = Callable[[jax.Array], jax.Array]


def _x_log_x(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, x, 1)), 0)


def _tanh_value(u: jax.Array) -> jax.Array:
    inside = (-1 <= u) & (u <= 1)
    return jnp.where(inside, (_x_log_x(1 + u) + _x_log_x(1 - u) - u * u) / 2, jnp.inf)


def _sigmoid_value(u: jax.Array) -> jax.Array:
    inside = (0 <= u) & (u <= 1)
    return jnp.where(inside, _x_log_x(u) + _x_log_x(1 - u) - u * u / 2, jnp.inf)


def _softplus_value(u: jax.Array) -> jax.Array:
    # The dilogarithm of exp(-u). JAX's own is not imported with the package.
    from jax.scipy.special import spence  # noqa: PLC0415

    inside = u >= 0
    return jnp.where(inside, spence(-jnp.expm1(-jnp.where(inside, u, 1))), jnp.inf)


def _elu(v: jax.Array) -> jax.Array:
    """jax.nn.elu; its pieces meet with the same slope, which is no kink to report."""
    above = lax.stop_gradient(v) > 0
    return jnp.where(above, v, jnp.expm1(jnp.where(above, 0, v)))


def _elu_value(u: jax.Array) -> jax.Array:
    below = _x_log_x(1 + u) - u - u * u / 2
    return jnp.where(u >= 0, 0, jnp.where(u >= -1, below, jnp.inf))


def _interval(low: float, high: float) -> Scalar:
    return lambda u: jnp.where((low <= u) & (u <= high), jnp.zeros_like(u), jnp.inf)


CURVED: dict[str, tuple[Scalar, Scalar, float]] = {
    "tanh": (jnp.tanh, _tanh_value, 0.0),
    "sigmoid": (jax.nn.sigmoid, _sigmoid_value, 3.0),
    "softplus": (jax.nn.softplus, _softplus_value, 0.0),
    "elu": (_elu, _elu_value, 0.0),
}
"""An increasing sigma with slope at most 1, the f with f' = inverse(sigma) - identity, and its strong convexity."""

PIECEWISE: dict[str, tuple[Callable[..., jax.Array], Scalar]] = {
    "relu": (lambda x, step, s: primitives.relu(x, selection=s), _interval(0, jnp.inf)),
    "hard_tanh": (lambda x, step, s: primitives.hard_tanh(x, selection=s), _interval(-1, 1)),
    "soft_threshold": (lambda x, step, s: primitives.soft_threshold(x, step, selection=s), primitives.abs),
}
"""The prox for any step, and the function."""


def _mixtures(name: str) -> Callable[..., jax.Array]:
    sigma = CURVED[name][0]
    return lambda v, x, step: step * v + (1 - step) * sigma(v) - x


EQUATIONS = {name: _mixtures(name) for name in CURVED}


@data
class Activation(Function):
    """What :func:`activation` returns."""

    name: str = static(kw_only=False)
    selection: Any = static(None)

    is_separable = True
    strong_convexity = property(lambda self: CURVED[self.name][2] if self.name in CURVED else 0.0)

    def __post_init__(self) -> None:
        if self.name not in CURVED and self.name not in PIECEWISE:
            names = sorted({*CURVED, *PIECEWISE})
            found, meaning = (
                f"the names are {', '.join(names)}.",
                "An activation is a prox if it is monotone and shrinks.",
            )
            raise InputError(
                message(f"prox.activation({self.name!r})", found, meaning, f"prox.activation({names[0]!r})")
            )
        if self.name in CURVED and self.selection is not None:
            found = f"{self.name} has no kink, and selection is {self.selection!r}."
            meaning = "A selection says what happens at a kink."
            raise InputError(
                message("prox.activation(selection=...)", found, meaning, f"prox.activation({self.name!r})")
            )

    def __call__(self, x: Any) -> jax.Array:
        """The value at x; inf outside the range of the activation."""
        value = CURVED[self.name][1] if self.name in CURVED else PIECEWISE[self.name][1]
        return add_up(leafwise(lambda u: value(wide(real(u, "prox.activation"))).astype(u.dtype), x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""

        def leaf(x: jax.Array) -> jax.Array:
            z = wide(real(x, "prox.activation"))
            s = jnp.broadcast_to(fit(step, z, "prox.activation(...).prox(step=...)"), z.shape)
            if self.name in PIECEWISE:
                return PIECEWISE[self.name][0](z, s, self.selection).astype(x.dtype)
            sigma = CURVED[self.name][0]
            if isinstance(step, int | float) and step == 1:
                return sigma(z).astype(x.dtype)  # nobody takes a derivative in this step
            # u = sigma(v), where s v + (1 - s) sigma(v) = x: with slope at least min(1, s) in v, and v = x for s = 1.
            excess = lax.stop_gradient((s - 1) * (z - sigma(z)) / jnp.where(s < 1, s, 1))
            low, high = (jnp.where((excess > 0) == up, z - excess, z) for up in (True, False))
            return sigma(root(EQUATIONS[self.name], low, high, z, s)).astype(x.dtype)

        return lambda x: leafwise(leaf, x)


def activation(name: str, *, selection: Any = None) -> Activation:
    """The function whose prox with step 1 is a given activation of neural networks.

    Formula: ``prox(x, 1) = sigma(x)``; prox(x, s) = sigma(v), where v is the root of
    s v + (1 - s) sigma(v) = x.

    An equilibrium z = sigma(W z + b) is the solution of a monotone inclusion with this function. A
    splitting with a step other than 1 needs its prox with that step, which is sigma itself only for
    relu and hard_tanh: sigma in its place has another fixed point.

    Args:
        name: ``"relu"``, ``"hard_tanh"``, ``"soft_threshold"`` (with threshold 1), ``"tanh"``,
            ``"sigmoid"``, ``"softplus"`` or ``"elu"``.
        selection: for the first three, what an entry at a kink does, as in the primitive of that
            name. Static.

    Returns:
        An :class:`Activation`: the indicator of [0, inf) or of [-1, 1], the l1 norm, or the convex
        f with f'(u) = inverse(sigma)(u) - u.

    Raises:
        InputError: another name, or a selection for an activation without kinks.

    Kinks:
        Those of the activation, with the same defaults; the others are smooth.

    Cost:
        For the last four, with a step other than 1, some five to ten steps of Newton's method for the
        slowest entry. The derivative is that of the root.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> x = jnp.array([-1.0, 0.5])
        >>> bool((prox.activation("tanh").prox(x, 1.0) == jnp.tanh(x)).all())
        True
        >>> [f"{u:.3f}" for u in prox.activation("tanh").prox(x, 2.0)]
        ['-0.688', '0.437']

    References:
        Combettes, Pesquet, Deep neural network structures solving variational inequalities (2020).
        Winston, Kolter, Monotone operator equilibrium networks (2020).
    """
    return Activation(name, selection=selection)
