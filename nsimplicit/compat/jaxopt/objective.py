"""jaxopt's objectives: losses of a linear model, some of them with the parts that coordinate descent asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = [
    "CompositeLinearFunction",
    "LinearOperator",
    "binary_logreg",
    "l2_multiclass_logreg",
    "l2_multiclass_logreg_with_intercept",
    "least_squares",
    "multiclass_linear_svm_dual",
    "multiclass_logreg",
    "multiclass_logreg_with_intercept",
    "ridge_regression",
]


class LinearOperator:
    """x -> A x, and what coordinate descent needs of it.

    Args:
        A: a matrix.
    """

    def __init__(self, A: Any) -> None:
        self.A = jnp.asarray(A)

    def matvec(self, x: Any) -> jax.Array:
        """A x."""
        return self.A @ x

    def rmatvec(self, y: Any) -> jax.Array:
        """Aᵀ y."""
        return self.A.T @ y

    def rmatvec_element(self, y: Any, i: Any) -> jax.Array:
        """Entry i of Aᵀ y."""
        return self.A[:, i] @ y

    def update_matvec(self, product: jax.Array, change: jax.Array, i: Any) -> jax.Array:
        """A x after ``change`` was added to x[i]."""
        return product + jnp.multiply.outer(self.A[:, i], change)

    def column_l2_norms(self, squared: bool = False) -> jax.Array:
        """The norm of each column."""
        square = jnp.sum(self.A**2, 0)
        return square if squared else jnp.sqrt(square)


class CompositeLinearFunction:
    """``fun(x, *theta) = subfun(A x, *theta) + sum(b * x)``, where A and b are functions of theta.

    Args:
        subfun: ``subfun(predictions, *theta)``.
        make_linop: ``make_linop(*theta)``, a :class:`LinearOperator`.
        curvature: bound on the second derivative of ``subfun`` in one prediction: ``curvature(*theta)``.
        b: ``b(*theta)``, or None.
    """

    def __init__(
        self,
        subfun: Callable[..., Any],
        make_linop: Callable[..., LinearOperator],
        curvature: Callable[..., Any],
        b: Callable[..., Any] | None = None,
    ) -> None:
        self.subfun, self.make_linop = subfun, make_linop
        self._curvature, self._b = curvature, b

    def b(self, *args: Any, **kwargs: Any) -> Any:
        """The linear term, or None."""
        return None if self._b is None else self._b(*args, **kwargs)

    def columnwise_lipschitz_const(self, *args: Any, **kwargs: Any) -> jax.Array:
        """A Lipschitz constant of the derivative in each row of x."""
        norms = self.make_linop(*args, **kwargs).column_l2_norms(squared=True)
        return norms * self._curvature(*args, **kwargs)

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> Any:
        """The value."""
        value = self.subfun(self.make_linop(*args, **kwargs).matvec(params), *args, **kwargs)
        b = self.b(*args, **kwargs)
        return value if b is None else value + jnp.vdot(params, b)


def _binary(logit: Any, label: Any) -> jax.Array:
    return jax.nn.softplus(jnp.where(label, -logit, logit))


def _multiclass(logits: Any, labels: Any) -> jax.Array:
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], -1)[:, 0]


def _design(data: Any) -> LinearOperator:
    return LinearOperator(data[0])


def _mean_of(bound: float) -> Callable[[Any], float]:
    return lambda data: bound / jnp.size(data[1])


least_squares = CompositeLinearFunction(
    lambda predictions, data: 0.5 * jnp.mean((predictions - data[1]) ** 2), _design, _mean_of(1.0)
)
least_squares.__doc__ = "``0.5 * mean((X @ W - y)**2)``, with ``data = (X, y)``."
binary_logreg = CompositeLinearFunction(
    lambda predictions, data: jnp.mean(_binary(predictions, data[1])), _design, _mean_of(0.25)
)
binary_logreg.__doc__ = "The mean logistic loss of labels 0 and 1, with ``data = (X, y)``."
multiclass_logreg = CompositeLinearFunction(
    lambda predictions, data: jnp.mean(_multiclass(predictions, data[1])), _design, _mean_of(0.5)
)
multiclass_logreg.__doc__ = "The mean logistic loss of labels 0, 1, ..., with ``data = (X, y)``."
multiclass_linear_svm_dual = CompositeLinearFunction(
    lambda predictions, l2reg, data: 0.5 / l2reg * jnp.sum((jnp.asarray(data[0]).T @ data[1] - predictions) ** 2),
    lambda l2reg, data: LinearOperator(jnp.asarray(data[0]).T),
    lambda l2reg, data: 1 / l2reg,
    lambda l2reg, data: data[1] - 1,
)
multiclass_linear_svm_dual.__doc__ = "The dual of a multiclass linear SVM, with ``data = (X, Y)``, Y one-hot."


def ridge_regression(params: Any, l2reg: Any, data: Any) -> jax.Array:
    """``least_squares(params, data) + 0.5 * l2reg * sum(params**2)``."""
    return least_squares(params, data) + 0.5 * l2reg * jnp.sum(params**2)


def multiclass_logreg_with_intercept(params: Any, data: Any) -> jax.Array:
    """The mean logistic loss of ``X @ W + b``, with ``params = (W, b)``."""
    W, b = params
    return jnp.mean(_multiclass(jnp.asarray(data[0]) @ W + b, data[1]))


def l2_multiclass_logreg(W: Any, l2reg: Any, data: Any) -> jax.Array:
    """``multiclass_logreg(W, data) + 0.5 * l2reg * sum(W**2)``."""
    return multiclass_logreg(W, data) + 0.5 * l2reg * jnp.sum(W**2)


def l2_multiclass_logreg_with_intercept(params: Any, l2reg: Any, data: Any) -> jax.Array:
    """``multiclass_logreg_with_intercept(params, data) + 0.5 * l2reg * sum(W**2)``; b is free."""
    return multiclass_logreg_with_intercept(params, data) + 0.5 * l2reg * jnp.sum(params[0] ** 2)
