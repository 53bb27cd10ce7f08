"""The iterates of a fixed-point iteration and of its derivative, on their way to their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import Space, cast_like, is_float, promote, subtract
from nsimplicit.implicit.equation import FixedPoint
from nsimplicit.implicit.process import Bound
from nsimplicit.implicit.rule import attach
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.solvers.base import Solver
from nsimplicit.solvers.picard import Picard
from nsimplicit.splittings.base import Prepared, Splitting


@data
class History:
    """What :func:`history` saw; entry k of each array is after k steps, entry 0 before the first.

    Args:
        z: the iterates z_k, stacked along a new first axis.
        dz: their derivatives along the tangents, likewise; dz_0 = 0.
        z_limit: the limit of z: the same iteration run on, down to rounding.
        dz_limit: the implicit derivative at the limit, which dz should converge to.
        error: ‖z_k - z_limit‖, shape (steps + 1,), absolute, Euclidean.
        derivative_error: ‖dz_k - dz_limit‖, likewise.
    """

    z: Any
    dz: Any
    z_limit: Any
    dz_limit: Any
    error: jax.Array
    derivative_error: jax.Array

    def rates(self) -> tuple[float, float]:
        """The factors by which the two errors shrink per step, fitted late on the way down.

        The fit is a straight line through the logarithm of the error, where it lies between
        eps^(1/3) and eps^(2/3) of the limit's norm plus 1 (6e-6 and 4e-11 in float64): after what
        a prox sets to zero has been found, before rounding. nan where fewer than 3 errors lie there.
        """
        pairs = (self.error, self.z_limit), (self.derivative_error, self.dz_limit)
        iterate_rate, derivative_rate = (_rate(np.asarray(e), float(Space().norm(limit))) for e, limit in pairs)
        return iterate_rate, derivative_rate


def history(
    T: Callable[..., Any] | Splitting,
    z0: Any,
    *args: Any,
    tangents: Any = None,
    steps: int = 100,
    solver: Solver = Picard(),
) -> History:
    """The iterates z_k, their derivatives dz_k along a direction, and the distances to the limits.

    Formula: z_{k+1} = T(z_k), dz_{k+1} = T'(z_k) (dz_k, tangents), dz_0 = 0: what ``Unrolled`` and
    ``Piggyback`` compute; limit: what ``Implicit`` gives. One compiled program, compiled anew by every call.

    Args:
        T: ``T(z, *args) -> z``, or a splitting.
        z0: where to start; any pytree of floating arrays.
        *args: further arguments of T.
        tangents: the direction the parameters move in: a tuple like ``args``, as in ``jax.jvp``; for
            a splitting, whose parameters are its leaves, another such splitting, as in
            ``T, tangents = jax.jvp(make, (weight,), (1.0,))``. Default: 1, for one number as ``args``.
        steps: number of steps; all iterates are kept.
        solver: the iteration; its governing iterates are what is followed.

    Returns:
        A :class:`History`.

    Raises:
        InputError: no tangents, where there is no one direction to guess.

    Example:
        >>> import nsimplicit as nsi
        >>> seen = nsi.history(lambda z, t: z / 2 + t, 0.0, 1.0, steps=30)
        >>> seen.dz[:4].tolist(), float(seen.dz_limit)
        ([0.0, 1.0, 1.5, 1.75], 2.0)
        >>> seen.rates()
        (0.50, 0.50)

    References:
        J. Bolte, E. Pauwels, S. Vaiter, Automatic differentiation of nonsmooth iterative algorithms, NeurIPS 2022.
    """
    z0 = jax.tree.map(jnp.asarray, z0)
    parameters = T if isinstance(T, Splitting) else args
    tangents = _direction(parameters, tangents)

    def prepare(z: Any, parameters: Any) -> Prepared:
        if isinstance(parameters, Splitting):
            return parameters.prepare(z)
        return Prepared(FixedPoint((lambda z: T(z, *parameters),)), lambda z: z)

    def path(parameters: Any, z0: Any) -> tuple[Any, Any]:
        return _path(prepare, parameters, z0, solver, steps)

    @jax.jit
    def run(parameters: Any, tangents: Any, z0: Any) -> History:
        (z, limit), (dz, dlimit) = jax.jvp(lambda p: path(p, z0), (parameters,), (tangents,))
        distance = jax.vmap(lambda a, b: Space().norm(subtract(a, b)), (0, None))
        return History(z, dz, limit, dlimit, distance(z, limit), distance(dz, dlimit))

    return run(parameters, tangents, z0)


def _path(prepare: Callable[..., Prepared], parameters: Any, z0: Any, solver: Solver, steps: int) -> tuple[Any, Any]:
    """All iterates, and the limit with its implicit derivative."""
    space = Space()
    traced, start, _ = trace_equation(prepare(z0, parameters).equation, z0, space, "history")
    bound = Bound(traced, traced.consts)

    def step(state: Any, _: None) -> tuple[Any, Any]:
        state = solver.step(bound, state, space)
        return state, state.image

    _, images = lax.scan(step, solver.init(bound, start, space), None, length=steps)
    fixed = Bound(traced, lax.stop_gradient(traced.consts))
    last = lax.stop_gradient(jax.tree.map(lambda x: x[-1], images))
    # One unit of rounding is rarely reached, so the number of further steps is what ends this.
    end = solver.iterate(fixed, last, space, tol=0.0, max_steps=10 * steps).z
    # As in a solve, 16-bit states have their derivative solved for in float32.
    rule, _, _ = trace_equation(prepare(promote(z0), promote(parameters)).rule, promote(z0), space, "history")
    limit = cast_like(attach(rule, promote(end)), end)
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start, images), limit


def _direction(parameters: Any, tangents: Any) -> Any:
    leaves = jax.tree.leaves(parameters)
    if tangents is not None:
        return tangents
    if len(leaves) == 1 and is_float(leaves[0]) and jnp.shape(leaves[0]) == ():
        return jax.tree.map(jnp.ones_like, parameters)
    splitting = isinstance(parameters, Splitting)
    raise InputError(
        message(
            "history(tangents=None)",
            f"the parameters have {len(leaves)} leaves, {sum(jnp.size(x) for x in leaves)} numbers.",
            "The derivative is followed along one direction, and only for a single number is it plain which.",
            "T, tangents = jax.jvp(make, (weight,), (1.0,))" if splitting else "tangents=(...), one for each of args",
        )
    )


def _rate(error: np.ndarray, size: float) -> float:
    eps = float(jnp.finfo(error.dtype).eps)
    scale = 1 + size
    # Once among rounding errors an error may come back up: only the way down counts.
    down = np.flatnonzero(error <= eps ** (2 / 3) * scale)
    error = error[: down[0]] if down.size else error
    k = np.flatnonzero(error < eps ** (1 / 3) * scale)
    return math.exp(np.polyfit(k, np.log(error[k].astype(float)), 1)[0]) if k.size >= 3 else math.nan
