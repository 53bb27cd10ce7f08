"""The alternating direction method of multipliers, in one variable.

For min f(u) + g(v) subject to A u + B v = c, with step a and multiplier nu, one round is

    u⁺ = argmin f(u) + <nu, A u> + a/2 ‖A u + B v - c‖²
    v⁺ = argmin g(v) + <nu, B v> + a/2 ‖A u⁺ + B v - c‖²
    nu⁺ = nu + a (A u⁺ + B v⁺ - c)

All of it is a function of t = A u - c + nu/a, the point at which v is chosen:

    v = argmin g(v) + a/2 ‖B v + t‖²,   nu/a = t + B v,
    u = argmin f(u) + a/2 ‖A u + 2 B v + t - c‖²,   T(t) = A u - c + t + B v.

T is Douglas-Rachford on the dual problem. Differentiating (v, nu) instead would double the system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.implicit.equation import FixedPoint, Map, StepAfterProx
from nsimplicit.prox.base import Function, concrete
from nsimplicit.prox.hermitian import hermitian_solver
from nsimplicit.prox.rules import Translate
from nsimplicit.splittings.base import Prepared, Splitting, gradient_step, step_hessian


@data
class ADMM(Splitting):
    """min f(u) + g(v) subject to A u + B v = c; the governing iterate is t = A u - c + nu/step.

    The solution is u. With f mu-strongly convex with L-Lipschitz gradient, A of full row rank and
    B = -I it contracts like Douglas-Rachford with the spectrum of A (f'')⁻¹ Aᵀ; without full row
    rank the multiplier need not be unique, though u is.

    Args:
        f: function of u; with a matrix A it must be quadratic (``as_quadratic``).
        g: function of v; with a matrix B it must be quadratic.
        A: matrix ``(m, n)``, or ``None`` for the identity.
        B: matrix ``(m, k)``, or ``None`` for minus the identity.
        c: array ``(m,)``, or ``None`` for zero.
        step: the penalty a, positive.
        strongly_convex: whether f is, for a matrix A: the tangent system is then that of the dual
            problem, symmetric enough for ``ProxCG``. By default seen only where the Hessian of f is a
            number or a diagonal; a wrong True gives nan. Static.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> T = nsi.splittings.ADMM(nsi.prox.LeastSquares(jnp.eye(2), jnp.array([3.0, 0.5])), nsi.prox.L1(1.0))
        >>> nsi.fixed_point(T, jnp.zeros(2), tol=1e-12).value.round(9).tolist()
        [2.0, 0.0]
    """

    f: Function
    g: Function
    A: Any = None
    B: Any = None
    c: Any = None
    step: Any = 1.0
    strongly_convex: bool | None = static(None)

    def __post_init__(self) -> None:
        """See whether f is strongly convex, where that costs nothing."""
        if self.strongly_convex is None:
            object.__setattr__(self, "strongly_convex", self.A is not None and _has_positive_diagonal(self.f))

    def prepare(self, z: Any) -> Prepared:
        """Both minimisations, factored once."""
        choose_u = _minimiser(self.f, self.A, self.step, "f", "A")
        choose_v = _minimiser(self.g, self.B, self.step, "g", "B")
        c = 0.0 if self.c is None else self.c
        optimality = self._optimality(z, choose_v, c) if self.B is None else None

        def left(u: Any) -> Any:
            return u if self.A is None else self.A @ u

        def split(t: Any) -> tuple[Any, Any, Any]:
            v = choose_v(t) if self.B is None else choose_v(-t)
            b = -v if self.B is None else self.B @ v
            return choose_u(c - t - 2 * b), v, b

        def apply(t: Any) -> Any:
            if self.A is None and self.B is None:
                t = self.f.subspace(self.g.subspace(t))
            u, _, b = split(t)
            return left(u) - c + t + b

        return Prepared(FixedPoint((apply,)), lambda t: split(t)[0], optimality)

    def _optimality(self, t: Any, prox: Map, c: Any) -> StepAfterProx | None:
        """The same t from a gradient step after a prox, where f allows it; v = prox(t).

            A = I:               t = v - grad f(v + c)/a
            f strongly convex:   t = w + A u - c,   w = t - v,   grad f(u) = -a Aᵀ w

        The second is the gradient step of the dual problem: its Jacobian is I - a A (f'')⁻¹ Aᵀ, that of
        t - prox(t) is I - D. Otherwise T itself is all there is, and its Jacobian has no symmetry.
        """
        if self.A is None and self.f.is_smooth:
            moved = Translate(self.f, -jnp.asarray(c)) if self.c is not None else self.f
            step = 1.0 / self.step
            return StepAfterProx((prox, gradient_step(moved, step)), step_hessian(moved, self.g, step, t, prox))
        if self.A is None or not self.strongly_convex:
            return None
        quadratic: Any = self.f.as_quadratic
        A, solve = self.A, _linear_solve(quadratic.dense(self.A.shape[1]))

        def forward(w: Any) -> Any:
            return w + A @ solve(-quadratic.q - self.step * (A.T @ w)) - c

        return StepAfterProx((lambda t: t - prox(t), forward))

    def variables(self, t: Any) -> tuple[Any, Any, Any]:
        """(u, v, nu) at a governing iterate t."""
        choose_v = _minimiser(self.g, self.B, self.step, "g", "B")
        v = choose_v(t) if self.B is None else choose_v(-t)
        b = -v if self.B is None else self.B @ v
        return self.solution(t), v, self.step * (t + b)


def _has_positive_diagonal(f: Function) -> bool:
    """Whether the Hessian of f is known to be a positive number, or a diagonal of such."""
    shape: Any = jax.eval_shape(lambda: f.as_quadratic)
    if shape is None or len(jnp.shape(shape.P)) > 1:
        return False
    quadratic: Any = f.as_quadratic
    diagonal = concrete(quadratic.P)
    return diagonal is not None and bool(np.all(diagonal > 0))


def _minimiser(h: Function, matrix: Any, step: Any, name: str, letter: str) -> Callable[[Any], Any]:
    """r -> argmin h(u) + step/2 ‖matrix u - r‖²."""
    if matrix is None:
        return h.prepare(1.0 / step)
    quadratic = h.as_quadratic
    if quadratic is None:
        raise InputError(
            message(
                f"splittings.ADMM({letter}=...)",
                f"{name} is {type(h).__name__}, which is not quadratic, and {letter} is a matrix.",
                f"The step in the variable of {name} minimises {name} plus a quadratic in {letter}: a linear solve.",
                f"move the matrix to the quadratic function, leaving {letter}=None",
                f"pass {name} as prox.LeastSquares or prox.Quadratic",
            )
        )
    penalty = jnp.asarray(step, matrix.dtype)
    solve = _linear_solve(quadratic.dense(matrix.shape[1]) + penalty * matrix.T @ matrix)
    return lambda r: solve(penalty * (matrix.T @ r) - quadratic.q)


def _linear_solve(hessian: Any) -> Callable[[Any], Any]:
    solve = hermitian_solver(hessian)
    return lambda b: solve(lambda u, h: h @ u, b, hessian)
