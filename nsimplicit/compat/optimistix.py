"""An adjoint for optimistix: its solvers, this package's derivative of the solution.

    from nsimplicit.compat.optimistix import ImplicitAdjoint
    optimistix.fixed_point(fn, solver, y0, args, adjoint=ImplicitAdjoint())

It goes wherever optimistix takes an adjoint: ``root_find``, ``fixed_point``, ``minimise``, ``least_squares``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._errors import message
from nsimplicit.custom_root import custom_root
from nsimplicit.derivatives import Implicit
from nsimplicit.implicit.guards import Guard, Solved
from nsimplicit.linear_solvers import Auto, LinearSolver

try:
    import equinox
    import equinox.internal
    import optimistix
except ImportError as error:
    raise ImportError(
        message(
            "import nsimplicit.compat.optimistix",
            f"{error}.",
            "This module has an adjoint for optimistix, which must be installed.",
            "pip install 'nsimplicit[optimistix]'",
            "nsimplicit.fixed_point and nsimplicit.root, which need nothing else",
        )
    ) from error

__all__ = ["ImplicitAdjoint"]


class ImplicitAdjoint(optimistix.AbstractAdjoint):
    """The implicit function theorem at the solution, with a choice of linear solver and a guard.

    Beside optimistix's own: a singular system gives what ``guard`` says, lane by lane under ``vmap``, instead
    of an error or silence; kinks have the selections that the function names; a Jacobian is built only
    while it is small; no flag of the solve (``throw``, ``tags``) changes the derivative.

    Args:
        linear_solver: solves the tangent system; the default chooses by size.
        guard: checks each solve and says what a failed one gives.

    Example:
        >>> import jax, jax.numpy as jnp, optimistix
        >>> from nsimplicit.compat.optimistix import ImplicitAdjoint
        >>> def solve(t):
        ...     solver = optimistix.FixedPointIteration(rtol=1e-6, atol=1e-6)
        ...     return optimistix.fixed_point(
        ...         lambda y, t: jnp.cos(y) * t, solver, jnp.array(1.0), t, adjoint=ImplicitAdjoint()
        ...     ).value
        >>> round(float(jax.grad(solve)(1.0)), 3)
        0.442
    """

    linear_solver: LinearSolver = Auto()
    guard: Guard = Solved()

    def apply(self, primal_fn: Any, rewrite_fn: Any, inputs: Any, tags: Any) -> Any:
        """Run the loop without derivative, and give its root that of ``rewrite_fn(root, residual, inputs) = 0``."""
        del tags
        inputs = (*inputs, _while_loop)
        moving, fixed = equinox.partition(inputs, equinox.is_inexact_array)
        root, residual = jax.tree.map(_cut, primal_fn(equinox.combine(_cut_all(moving), fixed)))

        def solver(moving: Any) -> Any:
            del moving
            return root

        def equation(root: Any, moving: Any) -> Any:
            return rewrite_fn(root, residual, equinox.combine(moving, fixed))

        derivative = Implicit(self.linear_solver, self.guard)
        return custom_root(equation, derivative=derivative, init_argnum=None)(solver)(moving), residual


def _while_loop(*args: Any, **kwargs: Any) -> Any:
    return equinox.internal.while_loop(*args, kind="lax", **kwargs)


def _cut(x: Any) -> jax.Array:
    return jax.lax.stop_gradient(jnp.asarray(x))


def _cut_all(tree: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, tree)
