"""Directional derivatives at a kink: of a program, and of a solution, which solves a piecewise linear system."""

from __future__ import annotations

from typing import Any

import numpy as np

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit._records import record
from nsimplicit.calculus import hull, selected
from nsimplicit.calculus.normal_form import NormalForm

MAX_STEPS = 100


def direction(form: NormalForm, d: Any) -> np.ndarray:
    """The directional derivative of the program, lim (f(x + t d) - f(x)) / t for t ↓ 0.

    Kinks are taken in order: the argument of each moves as the earlier ones let it. Where it stays 0
    both branches agree, and the one below is taken. Unlike an element of a Jacobian set applied to d, the result
    depends on the function alone and not on how it is coded.

    Args:
        form: the derivative of the program at the point.
        d: array (n,), the direction.

    Returns:
        Array (m,).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.calculus.directional import direction
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> form = normal_form(lambda x: jnp.abs(x) - 2 * jax.nn.relu(x))(0.0)  # -x
        >>> direction(form, [1.0]), direction(form, [-1.0])
        (array([-1.]), array([1.]))
    """
    d = _vector(d, np.shape(form.base)[1], "direction(form, d)")
    into, coupling, gain = (np.asarray(x, np.float64) for x in (form.into, form.coupling, form.gain))
    a, E = np.asarray(form.argument_into, np.float64) @ d, np.asarray(form.argument_coupling, np.float64)
    y = np.zeros(form.num_kinks)
    for i in range(form.num_kinks):
        y[i] = into[i] @ d + coupling[i] @ y if a[i] + E[i] @ y > 0 else 0.0
    return np.asarray(form.base, np.float64) @ d + gain @ y


@record
class ImplicitDirection:
    """A directional derivative of a solution map.

    Args:
        value: array (m,), the derivative dz of the solution.
        pattern: array (k,), the branches taken by (dz, dθ): 1 above, 0 below.
        solutions: array (q, m), every dz that was found, ``value`` first.
        unique: True if ``value`` is the only one; False if there are others; None if that is not known: more than
            16 kinks, or branches with a singular equation.
    """

    value: np.ndarray
    pattern: np.ndarray
    solutions: np.ndarray
    unique: bool | None


def implicit_direction(form: NormalForm, num_solution: int, dtheta: Any) -> ImplicitDirection:
    """The directional derivative of the solution z(θ) of F(z, θ) = 0.

    Formula:
        0 = base (dz, dθ) + gain y  with  y_i = u_i if a_i > 0 and 0 if a_i < 0, where u = into (dz, dθ) + coupling y
        and a likewise is how the switches' arguments move. Semismooth Newton on the pattern of signs; with up to 16
        kinks all patterns are tried, which also tells whether there are more solutions.

    Args:
        form: the derivative of F in (z, θ) at the solution.
        num_solution: the number of entries of z, which come first.
        dtheta: array (p,), the direction.

    Returns:
        The derivative, the branches it takes, and whether there are others: then F does not determine
        one solution near θ, and ``value`` is one of its directions.

    Raises:
        DerivativeError: if there is none: this way the solution ceases to exist, or moves faster than linearly.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.calculus.directional import implicit_direction
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> form = normal_form(lambda z, x: jnp.abs(z) - x)(0.0, 0.0)
        >>> found = implicit_direction(form, 1, [1.0])
        >>> found.solutions.ravel(), found.unique
        (array([-1.,  1.]), False)
    """
    where = "implicit_direction(form, num_solution, dtheta)"
    m, n = np.shape(form.base)
    if m != num_solution:
        raise InputError(
            message(
                where,
                f"num_solution = {num_solution}, and F has {m} entries.",
                "An equation has as many residuals as unknowns.",
            )
        )
    dtheta = _vector(dtheta, n - num_solution, where)
    few = form.num_kinks <= selected.MAX_KINKS
    tried = selected.corners(form, where) if few else np.zeros((0, form.num_kinks))
    newton = _newton(form, num_solution, dtheta)
    if newton is not None:
        tried = np.vstack([newton, tried])
    moves, fits, singular = _try(form, tried, num_solution, dtheta)
    if not fits.any():
        raise DerivativeError(
            message(
                where,
                f"no pattern of the {form.num_kinks} kinks is consistent with its own signs"
                + (
                    f"; {singular.sum()} have a singular equation."
                    if few
                    else " (Newton's method; not all were tried)."
                ),
                "Moving θ this way, the equation has no solution that moves along linearly.",
                "the opposite direction: implicit_direction(form, num_solution, -dtheta)",
                "implicit(form, num_solution), which names a singular selection",
            )
        )
    solutions = moves[fits][hull.distinct(moves[fits], selected.rounding(form) * 64)]
    several = len(solutions) > 1
    unique = None if not several and (not few or singular.any()) else not several
    return ImplicitDirection(moves[fits][0], tried[fits][0], solutions, unique)


def _try(form: NormalForm, s: np.ndarray, m: int, dtheta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For patterns s (v, k): dz (v, m), whether the arguments move as s says, whether B(s) is singular."""
    jacobians, eps = selected.jacobians(form, s), selected.rounding(form)
    sigma = np.linalg.svd(jacobians[..., :m], compute_uv=False)
    singular = sigma[:, -1] <= 64 * eps * m * sigma[:, 0]
    B = np.where(singular[:, None, None], np.eye(m), jacobians[..., :m])
    dz = -np.linalg.solve(B, jacobians[..., m:] @ dtheta[:, None])[..., 0]
    move = np.hstack([dz, np.broadcast_to(dtheta, (len(s), len(dtheta)))])[..., None]
    a = (selected.arguments(form, s) @ move)[..., 0]
    # What an argument's movement is rounded to: the condition of B times the size of the terms.
    size = np.linalg.norm(form.argument_into) + np.linalg.norm(form.argument_coupling)
    slack = (
        64 * eps * m * sigma[:, 0] / np.where(singular, 1.0, sigma[:, -1]) * size * np.linalg.norm(move, axis=(1, 2))
    )
    fits = np.all((2 * s - 1) * a >= -slack[:, None], axis=1) & ~singular
    return dz, fits, singular


def _newton(form: NormalForm, m: int, dtheta: np.ndarray) -> np.ndarray | None:
    """The pattern at which semismooth Newton stops, if it does."""
    s, seen = np.zeros(form.num_kinks), set()
    while len(seen) < MAX_STEPS and s.tobytes() not in seen:
        seen.add(s.tobytes())
        # Where B(s) is singular the step is one with the identity: it leads to another pattern, which is all it has to.
        dz, fits, _ = (x[0] for x in _try(form, s[None], m, dtheta))
        if fits:
            return s
        s = (selected.arguments(form, s) @ np.concatenate([dz, dtheta]) > 0).astype(float)
    return None


def _vector(d: Any, n: int, where: str) -> np.ndarray:
    d = np.asarray(d, np.float64)
    if d.shape == (n,):
        return d
    raise InputError(
        message(
            where, f"the direction has shape {d.shape}.", f"There are {n} inputs, and the direction has shape ({n},)."
        )
    )
