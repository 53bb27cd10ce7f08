"""Set-valued derivatives of functions: what the sets of a normal form are to a function at a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from nsimplicit.calculus import clarke, directional, jacobian_set, piggyback
from nsimplicit.calculus.directional import ImplicitDirection
from nsimplicit.calculus.jacobian_set import JacobianSet
from nsimplicit.calculus.normal_form import normal_form
from nsimplicit.calculus.piggyback import Attractor


def conservative_jacobian(fun: Callable[..., Any], *, tolerance: float | None = None) -> Callable[..., JacobianSet]:
    """The set of derivatives of a program at a point: one for every selection of its active kinks.

    Args:
        fun: function of pytrees of real arrays, returning such a pytree.
        tolerance: a kink is active where its operands differ by at most this times the largest
            operand; default the square root of the dtype's eps. Dimensionless.

    Returns:
        A function of the same arguments, returning the :class:`JacobianSet` of raveled Jacobians. It
        belongs to the program: another program of the same function may have another set.

    Raises:
        InputError: traced arguments; an active jump, or more than six equal keys in a sort.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> zero = lambda x: jnp.abs(x) - jnp.abs(x)
        >>> nsi.calculus.conservative_jacobian(zero)(0.0).vertices().ravel().tolist()
        [0.0, -2.0, 2.0]
    """
    at = normal_form(fun, tolerance=tolerance)
    return lambda *args: jacobian_set.conservative(at(*args))


def clarke_jacobian(
    fun: Callable[..., Any], *, piecewise_linear: bool = False, tolerance: float | None = None
) -> Callable[..., JacobianSet]:
    """The Clarke Jacobian of a function: the convex hull of its derivatives at points nearby.

    Args:
        fun: function of pytrees of real arrays.
        piecewise_linear: whether the function is, near the point; then the set is exact.
        tolerance: as in :func:`conservative_jacobian`.

    Returns:
        A function returning a :class:`JacobianSet`. Its ``label`` says whether it is exact or only
        what first derivatives prove to be inside.

    Raises:
        DerivativeError: first derivatives tell the branches along no direction.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> zero = lambda x: jnp.abs(x) - jnp.abs(x)
        >>> nsi.calculus.clarke_jacobian(zero, piecewise_linear=True)(0.0).vertices().ravel().tolist()
        [0.0]
    """
    at = normal_form(fun, tolerance=tolerance)
    return lambda *args: clarke.clarke(at(*args), piecewise_linear)


def directional_derivative(fun: Callable[..., Any], *, tolerance: float | None = None) -> Callable[..., Any]:
    """The one-sided derivative along a direction, lim (fun(x + t d) - fun(x)) / t for t ↓ 0.

    Args:
        fun: function of one pytree of real arrays.
        tolerance: as in :func:`conservative_jacobian`.

    Returns:
        A function ``(x, d)`` returning the derivative, like the output of ``fun``.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> slope = nsi.calculus.directional_derivative(jnp.abs)
        >>> float(slope(0.0, 1.0)), float(slope(0.0, -1.0))
        (1.0, 1.0)
    """
    at = normal_form(fun, tolerance=tolerance)

    def along(x: Any, d: Any) -> Any:
        flat, unravel = ravel_pytree(fun(x))
        found = directional.direction(at(x), np.asarray(ravel_pytree(d)[0]))
        return unravel(jnp.asarray(found, flat.dtype))

    return along


def implicit_jacobian(
    optimality_fun: Callable[..., Any], *, tolerance: float | None = None
) -> Callable[..., JacobianSet]:
    """The conservative Jacobian of the solution z(θ) of F(z, θ) = 0: {-B⁻¹A : [B A] in the set of F}.

    Args:
        optimality_fun: F(z, *theta), with as many outputs as z has entries.
        tolerance: as in :func:`conservative_jacobian`.

    Returns:
        A function ``(z, *theta)`` returning the :class:`JacobianSet` of dz/dθ, raveled.

    Raises:
        DerivativeError: B is singular for some selection, which the message names.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> found = nsi.calculus.implicit_jacobian(lambda z, x: 2 * z + jnp.abs(z) - x)(0.0, 0.0)
        >>> found.vertices().ravel().round(4).tolist()
        [1.0, 0.3333]
    """
    at = normal_form(optimality_fun, tolerance=tolerance)
    return lambda z, *theta: jacobian_set.implicit(at(z, *theta), ravel_pytree(z)[0].size)


def implicit_directional_derivative(
    optimality_fun: Callable[..., Any], *, tolerance: float | None = None
) -> Callable[..., ImplicitDirection]:
    """The one-sided derivative of the solution z(θ) of F(z, θ) = 0 as θ moves along a direction.

    Args:
        optimality_fun: F(z, theta), with as many outputs as z has entries.
        tolerance: as in :func:`conservative_jacobian`.

    Returns:
        A function ``(z, theta, dtheta)`` returning an :class:`ImplicitDirection`: ``value``, raveled
        like z, the branches taken, and whether there are other answers.

    Raises:
        DerivativeError: no branches are consistent: the solution ceases to exist this way.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> along = nsi.calculus.implicit_directional_derivative(lambda z, x: 2 * z + jnp.abs(z) - x)
        >>> [along(0.0, 0.0, d).value.round(4).tolist() for d in (1.0, -1.0)]
        [[0.3333], [-1.0]]
    """
    at = normal_form(optimality_fun, tolerance=tolerance)

    def along(z: Any, theta: Any, dtheta: Any) -> ImplicitDirection:
        return directional.implicit_direction(at(z, theta), ravel_pytree(z)[0].size, ravel_pytree(dtheta)[0])

    return along


def piggyback_jacobian(
    fixed_point_map: Callable[..., Any], *, tolerance: float | None = None
) -> Callable[..., Attractor]:
    """Where derivatives carried along by an iteration z ← T(z, θ) end: the attractor of its Jacobians.

    It contains the implicit Jacobian, in general strictly: at a kink an unrolled derivative may keep
    swinging between points that are not derivatives of the solution.

    Args:
        fixed_point_map: T(z, *theta), a contraction.
        tolerance: as in :func:`conservative_jacobian`.

    Returns:
        A function ``(z, *theta)`` returning an :class:`Attractor`.

    Raises:
        InputError: no product of Jacobians was found to be a contraction.

    Example:
        >>> import jax, nsimplicit as nsi
        >>> T = lambda x, theta: theta - x / 4 - jax.nn.relu(x) / 4
        >>> nsi.calculus.piggyback_jacobian(T)(0.0, 0.0).interval()
        (0.571428, 0.857142)
    """
    at = normal_form(fixed_point_map, tolerance=tolerance)
    return lambda z, *theta: piggyback.attractor(at(z, *theta), ravel_pytree(z)[0].size)
