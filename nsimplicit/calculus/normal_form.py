"""Switch normal form: the derivative of a program at a point, as a function of its selections.

At a point with k active kinks let ``u_i`` be the tangent of ``above - below`` at kink i, and
``y_i = s_i u_i`` what the selection s_i lets through. Then

    dF = base dz + gain y
    u  = into dz + coupling y          coupling is strictly lower triangular

with ``base`` the derivative where every kink takes its branch below. Eliminating y, with S = diag(s),

    J(s) = base + gain (I - S coupling)^-1 S into.

Everything set-valued about the program is a statement about these four matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.calculus.injection import Kinked, Survey
from nsimplicit.calculus.program import Program, trace
from nsimplicit.primitives.coupled import COUPLED


@data
class NormalForm:
    """The derivative of a program at one point, for every selection of its k active kinks.

    Args:
        base: array (m, n), the Jacobian where every kink takes its branch below.
        gain: array (m, k), the outputs per unit let through by each kink.
        into: array (k, n), the derivative of above - below at each kink, every kink before it below.
        coupling: array (k, k), strictly lower triangular: how a kink moves the later ones.
        argument_into: array (k, n), the derivative of the switch's argument, whose sign picks the branch.
        argument_coupling: array (k, k), strictly lower triangular, likewise.
        names: for each kink, what it is and where: ``"relu at model.py:12"``.
        positions: for each kink, its position in the layout of the program it was read off.
    """

    base: jax.Array
    gain: jax.Array
    into: jax.Array
    coupling: jax.Array
    argument_into: jax.Array
    argument_coupling: jax.Array
    names: tuple[str, ...] = static(())
    positions: tuple[int, ...] = static(())

    @property
    def num_kinks(self) -> int:
        """The number k of active kinks."""
        return self.into.shape[0]

    def jacobian(self, s: Any) -> jax.Array:
        """The Jacobian (m, n) for selections s: array (k,), the weight on the branch above."""
        return self.base + self.gain @ self._through(s)

    def arguments(self, s: Any) -> jax.Array:
        """The derivative (k, n) of each switch's argument, for selections s."""
        return self.argument_into + self.argument_coupling @ self._through(s)

    def _through(self, s: Any) -> jax.Array:
        s = jnp.asarray(s, self.base.dtype)[:, None]
        return jax.scipy.linalg.solve_triangular(
            jnp.eye(self.num_kinks, dtype=self.base.dtype) - s * self.coupling,
            s * self.into,
            lower=True,
            unit_diagonal=True,
        )


def normal_form(fun: Callable[..., Any], *, tolerance: float | None = None) -> Callable[..., NormalForm]:
    """The switch normal form of a function at a point: its derivative for every selection.

    Args:
        fun: function of pytrees of real arrays, returning such a pytree.
        tolerance: a kink is active where its operands differ by at most this times the largest
            operand; default the square root of the dtype's eps. Dimensionless.

    Returns:
        A function of the same arguments, called with concrete values (not inside jit), returning a
        :class:`NormalForm` for the raveled arguments and outputs.

    Raises:
        InputError: called with traced values; or a jump, or a block of more than six ties, is active.

    Cost:
        The number of inputs and active kinks, times the cost of ``fun``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> form = normal_form(lambda x: jnp.abs(x) + 2 * x)(0.0)
        >>> form.num_kinks, form.jacobian([0.0]).item(), form.jacobian([1.0]).item()
        (1, 1.0, 3.0)

    References:
        Griewank, On stable piecewise linearization and generalized algorithmic differentiation (2013).
    """

    def at(*args: Any) -> NormalForm:
        vector, unravel = ravel_pytree(args)
        program = trace(lambda v: ravel_pytree(fun(*unravel(v)))[0], vector)
        return form_at(program, vector, tolerance)

    return at


def form_at(program: Program, vector: jax.Array, tolerance: float | None = None) -> NormalForm:
    """The normal form of a program from one vector to another, at a concrete point."""
    if isinstance(vector, Tracer):
        found = "the point is traced (inside jit, vmap or grad)."
        meaning = "How many kinks are active depends on the point, and decides the shape of the answer."
        raise InputError(message("normal_form(fun)(x)", found, meaning, "call it outside jit, on concrete values"))
    tolerance = float(np.sqrt(jnp.finfo(vector.dtype).eps)) if tolerance is None else tolerance
    kinked = Kinked(program, tolerance=tolerance, live_consts=False)
    survey = jax.jit(lambda v: kinked.survey(program.consts, [v]))(vector)
    index = active_kinks(survey, tolerance)
    _refuse(kinked, survey, index, tolerance)
    return expand_at(kinked, vector, index)


def active_kinks(survey: Survey, tolerance: float) -> np.ndarray:
    """The positions of the kinks whose operands are equal within the tolerance."""
    return np.flatnonzero(np.asarray(survey.distance) <= tolerance * np.asarray(survey.scale))


def expand_at(kinked: Kinked, vector: jax.Array, index: np.ndarray) -> NormalForm:
    """The normal form with the kinks at ``index`` open."""
    active, zero = np.ones(len(index), bool), jnp.zeros(len(index), vector.dtype)

    def opened(vector: jax.Array, y: jax.Array) -> Any:
        outs, difference, argument, _ = kinked.open(kinked.program.consts, [vector], index, active, y)
        return outs[0], difference, argument

    parts = jax.jit(jax.jacfwd(opened, argnums=(0, 1)))(vector, zero)
    (base, gain), (into, coupling), (argument_into, argument_coupling) = parts
    order = _order((np.asarray(coupling) != 0) | (np.asarray(argument_coupling) != 0))
    square = np.ix_(order, order)
    positions = tuple(index[order].tolist())
    names = tuple(map(kinked.name, positions))
    rows = (x[order] for x in (into, argument_into))
    squares = (x[square] for x in (coupling, argument_coupling))
    into, argument_into, coupling, argument_coupling = *rows, *squares
    return NormalForm(
        base, gain[:, order], into, coupling, argument_into, argument_coupling, names=names, positions=positions
    )


def _order(moves: np.ndarray) -> np.ndarray:
    """An order in which no kink moves an earlier one; in the layout a loop comes as one block."""
    order, waiting = [], np.arange(len(moves))
    while len(waiting):
        free = waiting[~moves[np.ix_(waiting, waiting)].any(1)]
        order, waiting = [*order, *free], np.setdiff1d(waiting, free)
    return np.array(order, int)


def _refuse(kinked: Kinked, survey: Survey, index: np.ndarray, tolerance: float) -> None:
    jumps = [i for i in index if survey.gap[i] > 100 * tolerance]
    if jumps:
        found = f"{kinked.name(int(jumps[0]))} jumps here: its branches differ."
        meaning = "A jump has no derivative, whatever the selection."
        raise InputError(
            message("normal_form(fun)(x)", found, meaning, "write it with branches that agree where they meet")
        )
    if shared := [i for i in index if kinked.operation(int(i)) == COUPLED]:
        found = f"{kinked.name(int(shared[0]))} shares its weight with other kinks."
        meaning = "Its derivative is not affine in each selection by itself: there is no switch normal form."
        raise InputError(message("normal_form(fun)(x)", found, meaning, "selection=... of the object, for one element"))
    if np.any(np.asarray(survey.crowd) <= tolerance):
        found = "more than six equal keys meet in a sort or a maximum."
        meaning = "Their orders are too many to be told apart by switches."
        raise InputError(message("normal_form(fun)(x)", found, meaning, "with_selection(fun, ...) for one element"))
