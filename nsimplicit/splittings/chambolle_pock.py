"""The primal-dual method of Chambolle and Pock, in the pair (x, y).

    x⁺ = prox_{tau f}(x - tau Aᵀy),   y⁺ = prox_{sigma g*}(y + sigma A (x⁺ + theta (x⁺ - x)))

The x-step goes first, so the pair is all that is remembered. With theta = 1 it is a proximal point step
for the optimality conditions 0 in grad f(x) + Aᵀy, 0 in grad g*(y) - A x, in the norm of

    M = [ 1/tau  -Aᵀ ; -A  1/sigma ],

which is positive definite where tau sigma ‖A‖² < 1 (He, Yuan 2012).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.implicit.equation import FixedPoint
from nsimplicit.prox.base import Function, require
from nsimplicit.prox.conjugate import Conjugate
from nsimplicit.splittings.base import Prepared, Splitting
from nsimplicit.splittings.linear_map import as_pytree, forward_and_adjoint, norm

WHERE = "splittings.ChambollePock"


@data
class ChambollePock(Splitting):
    """x⁺ = prox_{tau·f}(x - tau·Aᵀy), y⁺ = prox_{sigma·g*}(y + sigma·A(x⁺ + theta·(x⁺ - x))).

    For min f(x) + g(A x), with neither a system in A nor a prox of g(A x) to solve. The state is the pair
    (x, y), y a solution of the dual problem; the solution is x. :meth:`start` makes a state from an x.
    It converges for theta in (1/2, 1] and tau·sigma·‖A‖² < 4/(1 + 2·theta).

    Where y is not unique (A has dependent rows at a kink of g) I - T' is singular, though x has a
    derivative. ``Implicit(linear_solvers.GMRES())`` and ``Piggyback()`` give it; the default, which
    factors small matrices, then gives nan by its guard.

    Args:
        f: function with a prox.
        g: convex function with a prox, of A x.
        A: matrix ``(m, n)``, or a linear function of x (a pytree or an array of any shape); JAX
            transposes it. A function is static: define it once, and give arrays that are to be
            differentiated as leading arguments, ``jax.tree_util.Partial(fun, *arrays)``.
        tau: step of x, positive.
        sigma: step of y, positive. ``None``: tau = sigma = 0.99/‖A‖; with the other one given,
            tau·sigma·‖A‖² = 0.99². ‖A‖ of a function comes from power iterations. Steps that are found
            are constants for derivatives, which do not depend on them.
        theta: extrapolation.

    Raises:
        InputError: a step is not positive, g is not convex, A is not linear, or y is not like A x.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> f, g = nsi.prox.Quadratic(1.0, -jnp.array([1.0, 2.0, 6.0])), nsi.prox.L1(1.0)
        >>> T = nsi.splittings.ChambollePock(f, g, jnp.diff)
        >>> nsi.fixed_point(T, T.start(jnp.zeros(3)), tol=1e-6).value.round(3).tolist()
        [2.0, 2.0, 5.0]

    References:
        Chambolle, Pock, A first-order primal-dual algorithm for convex problems with applications to
        imaging (2011), algorithm 1.
        Banert, Upadhyaya, Giselsson, The Chambolle-Pock method converges weakly with theta > 1/2 and
        tau sigma ‖L‖² < 4/(1 + 2 theta) (2023).
    """

    f: Function
    g: Function
    A: Any
    tau: Any = None
    sigma: Any = None
    theta: Any = 1.0

    def __post_init__(self) -> None:
        """Signs that can be seen; a function as a pytree."""
        for name in ("tau", "sigma", "theta"):
            require("positive", getattr(self, name), WHERE, name, "Steps go downhill.")
        if not self.g.is_convex:
            raise InputError(
                message(
                    f"{WHERE}(g=...)",
                    f"g is {type(self.g).__name__}, which is not convex.",
                    "The prox of its conjugate follows from its own for a convex function only.",
                    "ADMM(f, g, A), which takes the prox of g",
                )
            )
        object.__setattr__(self, "A", as_pytree(self.A))

    def start(self, x: Any) -> tuple[Any, Any]:
        """The state (x, 0)."""
        x = jax.tree.map(jnp.asarray, x)
        out = jax.eval_shape(lambda A, x: A(x) if callable(A) else A @ x, self.A, x)
        return x, jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), out)

    def prepare(self, z: Any) -> Prepared:
        """Both resolvents, factored once; the steps."""
        x, y = self._pair(z)
        forward, adjoint = forward_and_adjoint(self.A, x, y, f"{WHERE}(A=...)")
        tau, sigma = self._steps(x, y)
        resolve_f, resolve_g = self.f.prepare(tau), Conjugate(self.g).prepare(sigma)

        def apply(z: Any) -> Any:
            x, y = z
            new = resolve_f(_move(x, -tau, adjoint(y)))
            ahead = jax.tree.map(lambda a, b: a + jnp.asarray(self.theta, a.dtype) * (a - b), new, x)
            return new, resolve_g(_move(y, sigma, forward(ahead)))

        return Prepared(FixedPoint((apply,)), lambda z: z[0])

    def rate(self, z: Any) -> float | None:
        """The factor with which T contracts in the norm of M, where f and g* are strongly convex; else None.

        For theta = 1, a matrix A and tau·sigma·‖A‖² < 1 it is 1/(1 + e) with
        e = min(tau·mu_f, sigma/L_g)/(1 + sqrt(tau·sigma)·‖A‖): a proximal point step for an operator
        whose strong monotonicity is e in that norm (Rockafellar 1976).
        """
        known = self._metric(z)
        return known and known[0]

    def contraction(self, z: Any) -> float | None:
        """:meth:`rate` times sqrt(cond M), the same in the Euclidean norm, where that is below 1.

        It is for weak coupling only: ‖A‖ less than the curvature of f and g*, and short steps.
        """
        known = self._metric(z)
        factor = 1.0 if known is None else known[0] * math.sqrt(known[1])
        return factor if factor < 1 else None

    def _metric(self, z: Any) -> tuple[float, float] | None:
        """The factor in the norm of M, and the condition number of M."""
        if callable(self.A) or self.g.lipschitz is None or not self.f.is_convex or float(self.theta) != 1:
            return None
        x, y = self._pair(z)
        tau, sigma = map(float, self._steps(x, y))
        size = float(norm(self.A, lambda x: x, lambda y: y, x))
        curvature = min(tau * float(self.f.strong_convexity), sigma * float(Conjugate(self.g).strong_convexity))
        if tau * sigma * size**2 >= 1 or curvature <= 0:
            return None
        middle, radius = (1 / tau + 1 / sigma) / 2, math.hypot((1 / tau - 1 / sigma) / 2, size)
        gain = curvature / (1 + math.sqrt(tau * sigma) * size)
        return 1 / (1 + gain), (middle + radius) / (middle - radius)

    def _steps(self, x: Any, y: Any) -> tuple[Any, Any]:
        if self.tau is not None and self.sigma is not None:
            return self.tau, self.sigma
        A = jax.lax.stop_gradient(self.A)
        size = norm(A, *forward_and_adjoint(A, x, y, f"{WHERE}(A=...)"), x)
        longest = 0.99 / jnp.where(size > 0, size, 1)
        if self.tau is not None:
            return self.tau, longest**2 / jax.lax.stop_gradient(self.tau)
        if self.sigma is not None:
            return longest**2 / jax.lax.stop_gradient(self.sigma), self.sigma
        return longest, longest

    def _pair(self, z: Any) -> tuple[Any, Any]:
        if not isinstance(z, tuple) or len(z) != 2:
            raise InputError(
                message(
                    f"{WHERE}: z0",
                    f"the state is a {type(z).__name__}.",
                    "The state is a pair (x, y) with y like A x.",
                    "z0 = splitting.start(x0)",
                )
            )
        return z[0], z[1]


def _move(x: Any, step: Any, direction: Any) -> Any:
    return jax.tree.map(lambda x, d: x + jnp.asarray(step, jnp.finfo(x.dtype).dtype) * d, x, direction)
