"""Functions of a linear map of x, where the prox is still a formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit.prox.base import Function, as_float, concrete, extreme, fit, leafwise, matmul, require_function
from nsimplicit.prox.rules import inherited


@data
class PrecomposeDiagonal(Function):
    """A separable function of x with every entry scaled by its own number.

    Formula: ``g(x) = f(d * x)``; ``prox(x, s) = f.prox(d * x, s * d**2) / d``.

    Args:
        fun: f, separable: its prox takes a step for each entry.
        diagonal: d, without zeros: an array that broadcasts to the shape of x.

    Kinks:
        Those of the prox of f at d * x.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.PrecomposeDiagonal(prox.L1(1.0), jnp.array([2.0, -1.0])).prox(jnp.array([3.0, 3.0]), 1.0).tolist()
        [1.0, 2.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 2.2.
    """

    fun: Function
    diagonal: Any

    is_separable = True
    is_convex, is_smooth = inherited("is_convex"), inherited("is_smooth")

    def __post_init__(self) -> None:
        require_function(self.fun, "PrecomposeDiagonal")
        if not self.fun.is_separable:
            raise InputError(
                message(
                    "prox.PrecomposeDiagonal(fun, diagonal)",
                    f"{type(self.fun).__name__} is not separable.",
                    "Only where each entry is on its own does the prox see one scale at a time.",
                    "prox.PreScale(fun, scale), one number for all entries",
                    "prox.PrecomposeOrthogonal(fun, A) where A @ A.T is a multiple of the identity",
                )
            )
        d = concrete(self.diagonal)
        if d is not None and not np.all(np.isfinite(d) & (d != 0)):
            found = f"{np.sum(~np.isfinite(d) | (d == 0))} entries of diagonal are 0 or not finite."
            meaning = "Of such an entry there is no function, and the prox divides by it."
            raise InputError(
                message("prox.PrecomposeDiagonal(fun, diagonal)", found, meaning, "leave those entries out")
            )

    @property
    def strong_convexity(self) -> Any:
        """The smallest d^2 times that of f."""
        return extreme(jnp.min, jnp.square(self.diagonal)) * self.fun.strong_convexity

    @property
    def lipschitz(self) -> Any:
        """The largest d^2 times that of f."""
        lipschitz = self.fun.lipschitz
        return None if lipschitz is None else extreme(jnp.max, jnp.square(self.diagonal)) * lipschitz

    def _scale(self, x: Any) -> Any:
        return leafwise(lambda x: fit(self.diagonal, x, "prox.PrecomposeDiagonal(diagonal=...)") * x, x)

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.fun(self._scale(x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        inner = self.fun.prepare(step * jnp.square(self.diagonal))

        def prox(x: Any) -> Any:
            d = "prox.PrecomposeDiagonal(diagonal=...)"
            return leafwise(lambda u: u / fit(self.diagonal, u, d), inner(self._scale(x)))

        return prox


@data
class PrecomposeOrthogonal(Function):
    """A function of a linear map whose rows are orthogonal and of one length, plus a shift.

    Formula: ``g(x) = f(y)``; ``prox(x, s) = x + A.T @ (f.prox(y, s * nu) - y) / nu``, with
    y = A @ x + b and A @ A.T = nu I.

    Args:
        fun: f.
        A: (m, n) with m <= n, real; (x, y) of shapes (n,) and (m,), or (n, k) and (m, k). nu is
            taken from it. Derivatives in A are those along matrices of this kind.
        b: what is added: one number, or an array that broadcasts to the shape of y.

    Kinks:
        Those of the prox of f at A x + b.

    Cost:
        Two products with A.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> g = prox.PrecomposeOrthogonal(prox.L1(1.0), jnp.array([[1.0, -1.0]]))
        >>> g.prox(jnp.array([3.0, 0.0]), 1.0).tolist()
        [2.0, 1.0]

    References:
        Combettes, Pesquet, A Douglas-Rachford splitting approach to nonsmooth convex variational
        signal recovery (2007), proposition 11.
    """

    fun: Function
    A: Any
    b: Any = 0.0

    is_convex, is_smooth = inherited("is_convex"), inherited("is_smooth")

    def __post_init__(self) -> None:
        require_function(self.fun, "PrecomposeOrthogonal")
        shape = jnp.shape(self.A)
        where, tries = "prox.PrecomposeOrthogonal(fun, A)", ("the rows of jnp.linalg.qr(A.T)[0].T",)
        if len(shape) != 2 or shape[0] > shape[1]:
            meaning = "Its rows must be orthogonal, so there are no more of them than columns."
            raise InputError(message(where, f"A has shape {shape}.", meaning, *tries))
        A = concrete(self.A)
        if A is None:
            return
        A = A.astype(np.float64) if not np.iscomplexobj(A) else A
        gram = A @ A.T
        nu = np.trace(gram) / len(A)
        error = np.max(np.abs(gram - nu * np.eye(len(A))))
        slack = 10 * shape[1] * float(jnp.finfo(as_float(self.A).dtype).eps)
        if np.iscomplexobj(A) or not error <= slack * nu or not nu > 0:
            found = f"A @ A.T differs from {nu:.3g} times the identity by up to {error:.1e}."
            meaning = "For other matrices the prox is not a formula."
            raise InputError(message(where, found, meaning, *tries, "splittings.ADMM, which takes any matrix"))

    @property
    def strong_convexity(self) -> Any:
        """nu times that of f where A is square, 0 otherwise."""
        m, n = jnp.shape(self.A)
        return self._norm() * self.fun.strong_convexity if m == n else 0.0

    @property
    def lipschitz(self) -> Any:
        """nu times that of f."""
        lipschitz = self.fun.lipschitz
        return None if lipschitz is None else self._norm() * lipschitz

    def _norm(self) -> jax.Array:
        return jnp.sum(jnp.square(as_float(self.A))) / jnp.shape(self.A)[0]

    def _map(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x, A and A x + b, in the dtype of x."""
        x = as_float(x)
        if x.ndim == 0 or x.shape[0] != jnp.shape(self.A)[1]:
            raise InputError(
                message(
                    "prox.PrecomposeOrthogonal(fun, A)",
                    f"A has shape {jnp.shape(self.A)}, x has shape {x.shape}.",
                    "The first axis of x must have one entry for each column of A.",
                    f"x of shape ({jnp.shape(self.A)[1]},)",
                )
            )
        A = jnp.asarray(self.A, jnp.finfo(x.dtype).dtype)
        y = matmul(A, x)
        return x, A, y + fit(self.b, y, "prox.PrecomposeOrthogonal(b=...)")

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return self.fun(self._map(x)[2])

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The prox for this step."""
        nu = self._norm()
        inner = self.fun.prepare(step * nu)

        def prox(x: Any) -> jax.Array:
            x, A, y = self._map(x)
            return x + matmul(A.T, inner(y) - y) / fit(nu, x, "prox.PrecomposeOrthogonal(A=...)")

        return prox
