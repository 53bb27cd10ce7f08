"""Nonnegative matrices whose rows and columns have given sums."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.primitives.switch import compiled
from nsimplicit.prox.base import Set, concrete, indicator, real, require
from nsimplicit.prox.boundary import change, magnitude, snap
from nsimplicit.prox.hermitian import back, working
from nsimplicit.prox.potentials import positive, potentials, solver


@data
class TransportPolytope(Set):
    """Transport plans: nonnegative matrices whose rows and columns have given sums.

    Formula: ``sum(X, 1) = a``, ``sum(X, 0) = b``, ``X >= 0``;
    ``project(X) = max(X - alpha[:, None] - beta, 0)``, alpha and beta such that the sums are a and b.

    Args:
        a: (n,), the sums of the rows, >= 0.
        b: (m,), the sums of the columns, >= 0, with the same total.
        selection: whether an entry exactly at ``alpha + beta`` counts as support: its weight in
            [0, 1], or ``"above"`` (it does), ``"below"`` (it does not). Static.

    The last two axes of x are the matrix; the others are matrices side by side. Totals that differ in
    a traced program make the result nan; a difference up to rounding is shared, as is one of the
    derivatives of a and b.

    Kinks:
        X = alpha + beta; default 0, as for :class:`Simplex`, of which this is the one with two
        families of sums. With weights q of the entries the Jacobian is that of the weighted
        projection on the matrices without sums, ``dX = q * (dY - dalpha[:, None] - dbeta)``. Where
        the support falls into blocks that share no row and no column, as at a vertex, potentials and
        Jacobian do not depend on each other's blocks; but mass that a and b move from block to block
        has one-sided derivatives only, and in those here the last sum of a block takes the rest.

    Cost:
        Newton's method for the potentials: O(n m) and O(min(n, m)^2 max(n, m)) for each step, mostly
        less than ten; more where the entries of X are much larger than a and b.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> plans = prox.TransportPolytope(jnp.array([1.0, 1.0]), jnp.array([0.5, 1.5]))
        >>> plans.project(jnp.array([[1.0, 0.0], [0.0, 1.0]])).round(5).tolist()
        [[0.5, 0.5], [0.0, 1.0]]

    References:
        Blondel, Seguy, Rolet, Smooth and sparse optimal transport (2018).
        Li, Sun, Toh, On the efficient computation of a generalized Jacobian of the projector over the
        Birkhoff polytope (2020).
    """

    a: Any
    b: Any
    selection: Any = static(None)

    def __post_init__(self) -> None:
        where = "prox.TransportPolytope"
        shapes = jnp.shape(self.a), jnp.shape(self.b)
        if any(len(shape) != 1 for shape in shapes):
            found = f"a has shape {shapes[0]}, b has shape {shapes[1]}."
            meaning = "a has one sum for each row, b one for each column."
            raise InputError(message(f"{where}(a, b)", found, meaning, "two vectors"))
        for name, sums in (("a", self.a), ("b", self.b)):
            require("nonnegative", sums, where, name, "It is a sum of nonnegative entries.")
        a, b = concrete(self.a), concrete(self.b)
        if a is None or b is None:
            return
        totals = np.sum(a, dtype=float), np.sum(b, dtype=float)
        if not _agree(*totals, max(_unit(a), _unit(b))):
            found = f"a adds up to {totals[0]:g}, b to {totals[1]:g}."
            meaning = "Both are the sum of all entries of one matrix: there is none."
            raise InputError(message(f"{where}(a, b)", found, meaning, "TransportPolytope(a, b * sum(a) / sum(b))"))

    def _matrices(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array, float]:
        """x, the sums of its rows and of its columns, and the coarsest rounding unit."""
        wanted = (*jnp.shape(self.a), *jnp.shape(self.b))
        return _matrices(x, self.a, self.b, wanted, "prox.TransportPolytope")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding in the sums; inf elsewhere."""
        return _in_polytope(*self._matrices(x))

    def project(self, x: Any) -> jax.Array:
        """The nearest transport plan; nan where the totals differ."""
        return _project(*self._matrices(x), self.selection, real(x, "prox.TransportPolytope"))


@data
class Birkhoff(Set):
    """Doubly stochastic matrices: square, nonnegative, every row and every column with sum 1.

    Formula: ``project(X) = max(X - alpha[:, None] - beta, 0)``, alpha and beta such that
    ``sum(project(X), 0) = sum(project(X), 1) = 1``.

    Args:
        selection: whether an entry exactly at ``alpha + beta`` counts as support: its weight in
            [0, 1], or ``"above"`` (it does), ``"below"`` (it does not). Static.

    Kinks:
        As for :class:`TransportPolytope`; at a permutation matrix the Jacobian is 0.

    Cost:
        As for :class:`TransportPolytope`: O(n^3) for each step of Newton's method.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Birkhoff().project(jnp.array([[1.0, 0.0], [0.0, 0.5]])).round(5).tolist()
        [[0.875, 0.125], [0.125, 0.875]]

    References:
        Li, Sun, Toh, On the efficient computation of a generalized Jacobian of the projector over the
        Birkhoff polytope (2020).
    """

    selection: Any = static(None)

    def _matrices(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array, float]:
        x = real(x, "prox.Birkhoff")
        if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
            found = f"x has shape {x.shape}."
            meaning = "Rows and columns with sum 1 add up to the same total in a square matrix alone."
            raise InputError(message("prox.Birkhoff()", found, meaning, "prox.TransportPolytope(a, b)"))
        ones = jnp.ones(x.shape[-1], x.dtype)
        return _matrices(x, ones, ones, x.shape[-2:], "prox.Birkhoff")

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding in the sums; inf elsewhere."""
        return _in_polytope(*self._matrices(x))

    def project(self, x: Any) -> jax.Array:
        """The nearest doubly stochastic matrix."""
        return _project(*self._matrices(x), self.selection, real(x, "prox.Birkhoff"))


def _unit(*arrays: Any) -> float:
    """The coarsest rounding unit; that of integers is float64's."""
    types = [jnp.result_type(x) for x in arrays]
    return max(float(jnp.finfo(t if jnp.issubdtype(t, jnp.floating) else jnp.float64).eps) for t in types)


def _agree(a: Any, b: Any, unit: float) -> Any:
    """Whether two totals are equal up to what rounding may do to marginals."""
    return magnitude(jnp.asarray(a - b)) <= unit**0.5 * (a + b)


def _matrices(x: Any, a: Any, b: Any, wanted: tuple[int, ...], where: str) -> tuple[Any, Any, Any, float]:
    x = real(x, where)
    if x.shape[-2:] != wanted:
        found = f"x has shape {x.shape}, a has shape {wanted[:1]}, b has shape {wanted[1:]}."
        meaning = "The last two axes of x are the rows, of which a has the sums, and the columns, of which b has."
        raise InputError(message(f"{where}(a, b)", found, meaning, f"x of shape {wanted}"))
    unit = _unit(x, a, b)
    x, a, b = working(x, real(a, where), real(b, where))
    return x, a, b, unit


def _in_polytope(x: jax.Array, a: jax.Array, b: jax.Array, unit: float) -> jax.Array:
    slack = 4 * sum(x.shape[-2:]) * unit * jnp.max(a, initial=0)
    gaps = magnitude(jnp.sum(x, -1) - a), magnitude(jnp.sum(x, -2) - b)
    on = jnp.all(x >= 0) & jnp.all(gaps[0] <= slack) & jnp.all(gaps[1] <= slack)
    return indicator(on, x)


def _project(x: jax.Array, a: jax.Array, b: jax.Array, unit: float, selection: Any, like: jax.Array) -> jax.Array:
    if selection is not None:
        selection = selections.weight(selection, 0.0, "switch")
    return back(_nearest(x, a, b, selection, unit=unit), like)


@compiled("unit")
def _nearest(x: jax.Array, a: jax.Array, b: jax.Array, selection: Any, *, unit: float) -> jax.Array:
    total, other = jnp.sum(a), jnp.sum(b)
    mean = (total + other) / 2
    # Half of a difference each: what is left of it has a matrix with these sums.
    a, b = (sums * (mean / jnp.where(t > 0, t, 1)) for sums, t in ((a, total), (b, other)))
    agree = _agree(*lax.stop_gradient((total, other)), unit)
    one = jnp.vectorize(lambda y: _one(y, a, b, unit, selection), signature="(n,m)->(n,m)")
    return one(x) * jnp.where(agree, 1, jnp.nan)


def _one(y: jax.Array, a: jax.Array, b: jax.Array, unit: float, selection: Any) -> jax.Array:
    """The nearest plan to one matrix.

    The potentials are found for constants, and have the derivatives of their equations with the
    weights q of the entries: ``sum(q * (dY - dalpha - dbeta), axis) = da`` and db.
    """
    fixed, sums, others = lax.stop_gradient((y, a, b))
    alpha, beta, value, solved = potentials(fixed, sums, others)
    top, left = magnitude(alpha), magnitude(beta)
    coarse = unit / jnp.finfo(y.dtype).eps
    size = magnitude(fixed) + jnp.max(top) + jnp.max(left)
    excess = snap(fixed - alpha[:, None] - beta, coarse * size)
    # A row with sum 0 has no kink in x: all is below, but the entry that takes what the sum gains.
    excess = jnp.where(value > 0, positive(excess), jnp.where(excess > 0, 0, excess))
    empty, bare = (sums <= 0)[:, None], others <= 0
    first = _first(jnp.where(bare, -jnp.inf, excess), 1), _first(jnp.where(empty, -jnp.inf, excess), 0)
    takes = (empty & ~bare & first[0]) | (bare & ~empty & first[1])
    excess = jnp.where(takes, 1, jnp.where(empty | bare, -1, excess))

    def keep(above: jax.Array, value: jax.Array) -> jax.Array:
        return coupled_switch(excess, above, jnp.zeros_like(above), selection=selection, value=value)

    zero = jnp.zeros_like(y)
    _, q = jax.jvp(lambda above: keep(above, zero), (zero,), (zero + 1,))
    moves = keep(change(y), zero)
    rows, columns = solver(q)(jnp.sum(moves, axis=1) - change(a), jnp.sum(moves, axis=0) - change(b))
    moved = value + change(y) - rows[:, None] - columns
    return keep(moved, jnp.where(solved, value, jnp.nan))


def _first(x: jax.Array, axis: int) -> jax.Array:
    """Where the first of the largest entries is."""
    at = jnp.argmax(x, axis=axis, keepdims=True)
    return jnp.arange(x.shape[axis]).reshape([-1 if k == axis else 1 for k in range(2)]) == at
