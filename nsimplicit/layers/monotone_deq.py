"""Monotone equilibrium layers: z = sigma(W z + U x + b), with one solution whatever the parameters are."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.certificates.bounds import monotone_bound
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.fixed_point import Solution
from nsimplicit.implicit.equation import FixedPoint, Problem
from nsimplicit.implicit.tap import Report
from nsimplicit.layers.monotone_operator import MonotoneConv, MonotoneDense
from nsimplicit.layers.monotone_solve import PEACEMAN_RACHFORD, SPLITTINGS, WHERE, as_real, best_step, solve
from nsimplicit.linear_solvers.fixed_point_adjoint import FixedPointAdjoint
from nsimplicit.prox.activations import activation as activation_named
from nsimplicit.prox.base import Function, require
from nsimplicit.solvers.base import Solver
from nsimplicit.solvers.picard import Picard

_compiled = jax.jit(solve, static_argnums=(7,))


@functools.partial(jax.jit, static_argnums=1)
def _distance(W: MonotoneDense | MonotoneConv, shape: tuple[int, ...]) -> jax.Array:
    """The matrices of I - W, on states of a shape."""
    matrices = W.matrices(shape)
    return jnp.eye(W.features, dtype=matrices.dtype) - matrices


@data
class MonotoneDEQ(Problem):
    """The layer z = sigma(W z + U x + b), W = (1 - m) I - AᵀA + B - Bᵀ: one solution, whatever the parameters are.

    A pytree of its parameters, made by :meth:`init` and called with an input or a batch of inputs. It is regular by
    construction: for every Jacobian J of sigma, at kinks and elsewhere, ‖(I - J W)⁻¹‖ <= ‖2I - W‖/m, which is what
    ``nsi.certify(layer)(x)`` says. No step size, norm of W or penalty has to be watched.

    Args:
        W: :class:`MonotoneDense` or :class:`MonotoneConv`.
        U: ``(features, inputs)``; of a convolution, which wraps around, ``(height, width, inputs, features)``.
        b: ``(features,)``.
        activation: a convex function whose prox is sigma, such as ``prox.activation("relu")``, ``prox.L1(0.1)``,
            ``prox.Box(0, 1)``. What it has for array leaves is differentiated, and trained, like A and B.

    Kinks:
        Those of sigma at W z + U x + b, with the selection of ``activation``; they do not depend on the splitting.

    Cost:
        One inverse a call, n³, shared by a batch and by the backward pass (two more products of its size there); of a
        convolution one of size c for half the pixels. Then a product with n² numbers a step, and two Fourier transforms
        for a convolution. Memory is that of a few states, whatever the number of steps.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> layer = nsi.layers.MonotoneDEQ.init(jax.random.key(0), inputs=3, features=20)
        >>> solution = layer(jnp.ones((5, 3)))
        >>> solution.value.shape, bool(solution.converged.all())
        ((5, 20), True)
        >>> gradient = jax.grad(lambda layer: layer(jnp.ones(3)).value.sum())(layer)
        >>> gradient.W.A.shape, nsi.certify(layer)(jnp.ones(3)).verdict
        ((20, 20), 'regular')

    References:
        E. Winston, J. Z. Kolter, Monotone operator equilibrium networks, NeurIPS 2020.
    """

    W: MonotoneDense | MonotoneConv
    U: Any
    b: Any
    activation: Function = activation_named("relu")

    def __post_init__(self) -> None:
        if not isinstance(self.W, MonotoneDense | MonotoneConv):
            found = f"W is a {type(self.W).__name__}."
            meaning = "Any matrix is not enough: I - W must be at least m > 0 whatever the parameters are."
            tries = "MonotoneDense(A, B, m)", "layers.deq(cell, x) for a cell of any kind"
            raise InputError(message(f"{WHERE}(W=...)", found, meaning, *tries))
        if not isinstance(self.activation, Function):
            found = f"activation is a {type(self.activation).__name__}."
            meaning = "It must be a function whose prox is sigma: a splitting needs its prox for other steps, too."
            tries = 'prox.activation("relu")', "MonotoneDEQ.init(..., activation='relu')"
            raise InputError(message(f"{WHERE}(activation=...)", found, meaning, *tries))
        U, b, W = jnp.shape(self.U), jnp.shape(self.b), self.W
        if len(U) != W.rank + 1 or 0 in U or U[W.output_axis] != W.features or b != (W.features,):
            expected = "(n, inputs)" if W.rank == 1 else "(height, width, inputs, n)"
            found = f"U has shape {U}, b {b}, and W has {W.features} features."
            meaning = f"They must be {expected} and (n,) for n features."
            raise InputError(message(f"{WHERE}(U, b)", found, meaning, "MonotoneDEQ.init(key, inputs, features)"))

    @classmethod
    def init(
        cls,
        key: jax.Array,
        inputs: int,
        features: int,
        *,
        kernel_size: tuple[int, int] | None = None,
        m: float = 1.0,
        activation: str | Function = "relu",
    ) -> MonotoneDEQ:
        """A layer with random parameters.

        Args:
            key: of the random numbers.
            inputs: length of the last axis of x.
            features: length of the last axis of z.
            kernel_size: (height, width) of three convolutions; ``None``: three matrices.
            m: how far I - W is from 0; smaller lets the layer say more, and takes more steps. Static.
            activation: a name of :func:`nsimplicit.prox.activation`, or a function whose prox is sigma.

        Raises:
            InputError: sizes that are not positive, m that is not.

        Example:
            >>> import jax, nsimplicit as nsi
            >>> layer = nsi.layers.MonotoneDEQ.init(jax.random.key(0), inputs=1, features=4, kernel_size=(3, 3))
            >>> layer(jax.numpy.ones((8, 8, 1))).value.shape
            (8, 8, 4)
        """
        area = () if kernel_size is None else tuple(kernel_size)
        if len(area) not in (0, 2) or not all(isinstance(n, int) and n > 0 for n in (inputs, features, *area)):
            found = f"inputs is {inputs!r}, features {features!r}, kernel_size {kernel_size!r}."
            meaning = "They are positive integers, kernel_size two of them or None."
            raise InputError(message(f"{WHERE}.init(...)", found, meaning, "init(key, inputs=64, features=100)"))
        fan, keys = math.prod(area), jax.random.split(key, 3)
        A, B = (jax.random.normal(k, (*area, features, features)) / (3 * features * fan) ** 0.5 for k in keys[:2])
        U = jax.random.normal(keys[2], (*area, inputs, features) if area else (features, inputs))
        W = (MonotoneConv if area else MonotoneDense)(A, B, m=m)
        sigma = activation_named(activation) if isinstance(activation, str) else activation
        return cls(W, U / (inputs * fan) ** 0.5, jnp.zeros(features), sigma)

    def cell(self, z: Any, x: Any) -> jax.Array:
        """sigma(W z + U x + b)."""
        return self.activation.prepare(1.0)(self.W(z) + self.inject(x))

    def inject(self, x: Any) -> jax.Array:
        """U x + b."""
        W = self.W
        return W.multiply(W.matrices_of(self.U, W.sample_shape(x)), jnp.asarray(x)) + self.b

    def __call__(
        self,
        x: Any,
        *,
        z0: Any = None,
        splitting: str = PEACEMAN_RACHFORD,
        alpha: Any = None,
        solver: Solver = Picard(),
        derivative: Derivative = Implicit(FixedPointAdjoint(Picard(), max_steps=10_000)),
        tol: Any = None,
        max_steps: Any = 1000,
        tap: Report | None = None,
    ) -> Solution:
        """Solve for z.

        Args:
            x: ``(inputs,)`` or, of a convolution, ``(height, width, inputs)``; with one axis before for a batch, each
                sample of which stops by itself.
            z0: where to start, like the value; without derivative.
            splitting: ``"peaceman-rachford"`` or ``"forward-backward"``, which needs no inverse and many more steps.
            alpha: its step, positive; ``None``: 1, and m/L² for forward-backward. :meth:`best_alpha` finds a better
                one. The answer and its derivatives do not depend on it. May be traced.
            solver: what iterates the splitting, ``solvers.Anderson()`` say.
            derivative: how z is differentiated; the default solves the tangent system by Peaceman-Rachford with
                alpha = 1. Where W is large, ‖I - W‖ > 50 say, ``Implicit(BiCGStab())`` takes fewer products.
            tol: a sample stops when ‖step‖ <= tol·(1 + ‖v‖); default eps^(2/3): 3.7e-11 in float64, 2.4e-5 in float32.
            max_steps: largest number of steps.
            tap: :func:`nsimplicit.tap`, the probe of the backward pass; ``tap(lanes=...)`` for a batch.

        Returns:
            A :class:`nsimplicit.Solution`: ``value`` is z, and ``z`` is W z + U x + b. A sample with a number that is
            not finite is nan and has not converged; the others do not notice.

        Raises:
            InputError: shapes that do not fit, complex numbers, another splitting, alpha <= 0.
        """
        _check(splitting, alpha)
        return _compiled(self, x, z0, alpha, tol, max_steps, tap, (splitting, solver, derivative))

    def best_alpha(self, x: Any, *, splitting: str = PEACEMAN_RACHFORD) -> float:
        """The step with which the splitting is known to contract most, whatever the input: for concrete parameters.

        Args:
            x: an input; of a convolution its size matters.
            splitting: as in a call.

        Cost: some thirty inverses and singular value decompositions, in NumPy: once in an epoch, say.

        Example:
            >>> import jax, jax.numpy as jnp, nsimplicit as nsi
            >>> layer, x = nsi.layers.MonotoneDEQ.init(jax.random.key(0), inputs=3, features=20), jnp.ones(3)
            >>> bool(layer(x, alpha=layer.best_alpha(x)).num_steps < layer(x).num_steps)
            True
        """
        _check(splitting, None)
        return best_step(np.asarray(_distance(self.W, self.W.sample_shape(x))), self.W.m, splitting)

    def formulate(self, x: Any, **options: Any) -> tuple[Any, FixedPoint]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """z and the equation z = sigma(W z + U x + b)."""
        return lax.stop_gradient(self(x, **options).value), FixedPoint((lambda z: self.cell(z, x),))

    def guarantee(self, z: Any) -> tuple[float, str] | None:
        """m/‖2I - W‖, for every convex activation."""
        if not self.activation.is_convex:
            return None
        F = _distance(self.W, self.W.sample_shape(z))
        rounding = 8 * (F.shape[-1] + 1) * float(jnp.finfo(F.dtype).eps)
        stack = np.asarray(as_real(F)).reshape(-1, *as_real(F).shape[-2:])
        eye = np.eye(stack.shape[-1])
        m = self.W.m - rounding * float(np.max(np.linalg.norm(stack, axis=(-2, -1))))
        bound = min(monotone_bound(eye - f, m) for f in stack)
        return bound, f"by construction: I - W is at least {self.W.m:g}, whatever the parameters are"


def _check(splitting: str, alpha: Any) -> None:
    if splitting not in SPLITTINGS:
        found, meaning = f"{splitting!r} is not one of {', '.join(SPLITTINGS)}.", "It says how z is found."
        raise InputError(message(f"{WHERE}(...)(x, splitting=...)", found, meaning, f"splitting={SPLITTINGS[0]!r}"))
    if alpha is not None:
        require("positive", alpha, f"{WHERE}(...)", "alpha", "It is the step of the splitting.")
