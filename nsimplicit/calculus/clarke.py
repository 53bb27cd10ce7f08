"""Clarke Jacobians: the part of a conservative Jacobian that belongs to the function, not to its program."""

from __future__ import annotations

import dataclasses

import numpy as np

from nsimplicit._errors import DerivativeError, message
from nsimplicit.calculus import patterns, selected
from nsimplicit.calculus.jacobian_set import JacobianSet, conservative
from nsimplicit.calculus.normal_form import NormalForm


def clarke(form: NormalForm, piecewise_linear: bool) -> JacobianSet:
    """The function's Clarke Jacobian: the convex hull of the derivatives at points nearby.

    Vertices are the J(s) for the 0-1 selections that some direction d realises, arguments(s)·d > 0 where
    s is 1 and < 0 where s is 0: along it, the program has this derivative. They are all there are if the program is
    piecewise linear, or if they give every J(s) there is; otherwise they are an inner bound, since branches may meet
    where no direction leads: relu(y) - relu(y - x²) is y on the strip 0 < y < x².

    Args:
        form: the derivative of the program at the point.
        piecewise_linear: whether the program is, near the point.

    Returns:
        The set, labelled "Clarke (exact)" or "Clarke (inner bound)".

    Raises:
        DerivativeError: if first derivatives tell the branches along no direction.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.calculus.clarke import clarke
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> clarke(normal_form(lambda x: jnp.abs(x) - 2 * jax.nn.relu(x))(0.0), piecewise_linear=True).vertices()
        array([[[-1.]]])

    Cost:
        A linear programme for most patterns; there are at most 2^k, and fewer when inputs are fewer than kinks.
    """
    found = _found(patterns.realised(form), "clarke(form)")
    inner = JacobianSet(form, "Clarke (inner bound)", found.patterns)
    exact = (piecewise_linear and found.complete) or _is_all(inner, conservative(form))
    return dataclasses.replace(inner, label="Clarke (exact)") if exact else inner


def implicit_clarke(form: NormalForm, num_solution: int, piecewise_linear: bool) -> JacobianSet:
    """The Clarke Jacobian of the solution z(θ) of F(z, θ) = 0: the hull of its derivatives at θ nearby.

    Smaller than ``implicit(form, num_solution)`` in two ways: only branches of F that occur together count, and
    of these only those that the solution passes through: arguments(s)·(dz, dθ) has the signs of s, dz = -B(s)⁻¹A(s) dθ.

    Args:
        form: the derivative of F in (z, θ) at the solution.
        num_solution: the number of entries of z, which come first.
        piecewise_linear: whether F is, near the point.

    Returns:
        The set, labelled "Clarke (exact)" or "Clarke (inner bound)".

    Raises:
        DerivativeError: if det B is 0 or changes sign among the branches of F that occur.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.calculus.clarke import implicit_clarke
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> equation = normal_form(lambda z, x: jax.nn.relu(z) - jax.nn.relu(-z) - x)  # z = x, coded badly
        >>> implicit_clarke(equation(0.0, 0.0), 1, piecewise_linear=True).vertices()
        array([[[1.]]])
    """
    where = "implicit_clarke(form)"
    near = _found(patterns.realised(form), where)
    selected.check_invertible(form, near.patterns, num_solution, where)
    found = _found(patterns.realised_by_solution(form, near.patterns, num_solution), where)
    inner = JacobianSet(form, "Clarke (inner bound)", found.patterns, num_solution)
    exact = (piecewise_linear and near.complete and found.complete) or _is_all(
        inner, JacobianSet(form, "implicit", None, num_solution)
    )
    return dataclasses.replace(inner, label="Clarke (exact)") if exact else inner


def _found(found: patterns.Realised, where: str) -> patterns.Realised:
    if len(found.patterns):
        return found
    raise DerivativeError(
        message(
            where,
            "first derivatives give no direction along which every kink that matters takes a branch.",
            "The argument of a switch moves by zero to first order while its branches part, as in switch(x³, x, 0).",
            "write the switch with an argument whose derivative is not 0 at the kink",
            "conservative(form), which does not ask where the branches are taken",
        )
    )


def _is_all(inner: JacobianSet, outer: JacobianSet) -> bool:
    """Whether every element of the program's set, which bounds Clarke's from outside, was found near the point."""
    if outer.form.num_kinks > selected.MAX_KINKS:
        return False
    try:
        return len(inner.vertices()) == len(outer.vertices())
    except np.linalg.LinAlgError:
        return False  # a branch that does not occur near the point has no solution map, hence no element to compare
