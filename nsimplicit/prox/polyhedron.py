"""Polyhedra: the solutions of linear equations and inequalities."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.primitives.coupled import coupled_switch
from nsimplicit.primitives.switch import compiled
from nsimplicit.prox.active_set import dependent, length, nearest, span, stretch
from nsimplicit.prox.base import Set, as_float, concrete, indicator, matmul, real
from nsimplicit.prox.boundary import change, inside, magnitude, snap
from nsimplicit.prox.hermitian import back, linear_solve, working


@data
class Polyhedron(Set):
    """The solutions of linear equations and inequalities; either may be left out.

    Formula: ``A @ x = b``, ``G @ x <= h``; ``project(x) = x - A.T @ nu - G.T @ lam`` with
    ``lam >= 0``, zero where ``G @ p < h`` in the result p.

    Args:
        A: (p, n). Rows may depend on each other if the equations agree.
        b: (p,).
        G: (m, n), rows not zero.
        h: (m,); ``inf`` for no bound.
        selection: what an inequality does that holds with equality and has multiplier 0: the weight
            in [0, 1] of leaving it out, ``"inside"`` (1) or ``"outside"`` (0); or one for each. Static.

    The last axis of x is the vector; the others are vectors side by side. One that has no nearest
    point, because the set is empty, is nan, without harm to the others.

    Kinks:
        An inequality where both the multiplier and ``h - G @ p`` are 0 up to rounding; default 0:
        it is held, and the Jacobian is the projection on the null space of A and of all rows of G
        that hold with equality. That is a limit of Jacobians nearby, whatever the rows (Han and Sun);
        the weight 1 gives one where these rows are independent. With weights q of the rows of G,
        of unit length, the Jacobian is the average of the projections on the null spaces of all
        choices of rows, a row being taken with probability q and a choice weighted by the squared
        volume of its rows. Where rows that are held depend on each other, b and h have one-sided
        derivatives: those here hold the equations, then what has a positive multiplier, then the
        rest, and leave out what depends on earlier ones.

    Cost:
        As many rounds of O((p + m) n) as inequalities are active, mostly, by products alone. The
        derivative: O((n + m) (p + m)) for each row that is active, once.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> G, h = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, 1.0])
        >>> prox.Polyhedron(G=G, h=h).project(jnp.array([2.0, 1.0])).round(5).tolist()
        [1.0, 0.0]

    References:
        Goldfarb, Idnani, A numerically stable dual method for solving strictly convex quadratic programs (1983).
        Han, Sun, Newton and quasi-Newton methods for normal maps with polyhedral sets (1997).
        Ben-Tal, Teboulle, A geometric property of the least squares solution of linear equations (1990).
    """

    A: Any = None
    b: Any = None
    G: Any = None
    h: Any = None
    selection: Any = static(None)

    def __post_init__(self) -> None:
        for matrix, vector, names in ((self.A, self.b, "A, b"), (self.G, self.h, "G, h")):
            if matrix is None and vector is None:
                continue
            M, v = (None if p is None else jnp.shape(p) for p in (matrix, vector))
            if M is None or v is None or len(M) != 2 or v != M[:1]:
                first, second = names.split(", ")
                found = f"{first} has shape {M}, {second} has shape {v}."
                meaning = f"{second} has one entry for each row of the matrix {first}."
                raise InputError(message(f"prox.Polyhedron({names})", found, meaning, f"both, or neither of {names}"))
            numbers = concrete(matrix)
            if numbers is not None and not np.all(np.any(numbers, axis=1)):
                found = f"row {int(np.argmin(np.any(numbers, axis=1)))} of {names[0]} is zero."
                meaning = "It is the normal vector of no plane: the row says nothing about x, or that there is none."
                raise InputError(message(f"prox.Polyhedron({names})", found, meaning, "leave that row out"))
        shapes = [jnp.shape(p) for p in (self.A, self.G) if p is not None]
        if len({shape[1] for shape in shapes}) != 1:
            found = "there is no A and no G." if not shapes else f"A has shape {shapes[0]}, G has shape {shapes[1]}."
            meaning = "Both have one column for each entry of x."
            raise InputError(message("prox.Polyhedron(A, b, G, h)", found, meaning, "prox.Polyhedron(G=G, h=h)"))

    def _rows(self, x: Any) -> tuple[jax.Array, jax.Array, jax.Array, int, tuple[float, float]]:
        """x; the rows with length 1 and their bounds; how many are equations; the rounding units of rows and of all."""
        x = real(x, "prox.Polyhedron")
        given = [p for p in (self.A, self.G, self.b, self.h) if p is not None]
        n = jnp.shape(given[0])[1]
        if x.ndim == 0 or x.shape[-1] != n:
            found = f"the matrix has shape {jnp.shape(given[0])}, x has shape {x.shape}."
            meaning = f"The last axis of x must have {n} entries, one for each column."
            raise InputError(message("prox.Polyhedron(A, b, G, h)", found, meaning, f"x of shape ({n},)"))
        units = [float(jnp.finfo(as_float(p).dtype).eps) for p in (x, *given)]
        x, *given = working(x, *(real(p, "prox.Polyhedron") for p in given))
        # To 16 bits no two rows are independent: they are taken as they are.
        unit = max([u for u in units[1:] if u < 1e-6] + [float(jnp.finfo(x.dtype).eps)])
        k, c = (jnp.concatenate(part) for part in (given[: len(given) // 2], given[len(given) // 2 :]))
        square = jnp.sum(k * k, axis=1)
        size = jnp.sqrt(jnp.where(square > 0, square, 1))
        bounded = c < jnp.inf
        c = jnp.where(bounded, jnp.where(bounded, c, 0) / size, jnp.inf)
        return x, k / size[:, None], c, 0 if self.A is None else jnp.shape(self.A)[0], (unit, max(units))

    def __call__(self, x: Any) -> jax.Array:
        """0 on the set, up to rounding; inf elsewhere."""
        x, k, c, equations, (_, eps) = self._rows(x)
        gap = matmul(x, k.T) - c
        size = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + jnp.where(c < jnp.inf, magnitude(c), 0)
        gap = jnp.where(jnp.arange(len(c)) < equations, magnitude(gap), gap)
        # At an acute vertex a projection was 26 eps off, by how XLA had ordered the sums.
        on = jnp.all(gap <= 8 * (x.shape[-1] + 2) * eps * size)
        return indicator(on, x)

    def project(self, x: Any) -> jax.Array:
        """The nearest point of the set; nan where the set is empty."""
        y, k, c, equations, eps = self._rows(x)
        selection = inside(self.selection, "prox.Polyhedron")
        out = _project(y, k, c, selection, equations=equations, units=eps)
        return back(out, real(x, "prox.Polyhedron"))


@compiled("equations", "units")
def _project(y: jax.Array, k: jax.Array, c: jax.Array, selection: Any, *, equations: int, units: Any) -> jax.Array:
    """The nearest points to the vectors of y."""
    return jnp.vectorize(lambda y: _nearest(y, k, c, selection, equations, units), signature="(n)->(n)")(y)


def _nearest(y: jax.Array, k: jax.Array, c: jax.Array, selection: Any, equations: int, units: Any) -> jax.Array:
    """The nearest point to one vector.

    With weights q in [0, 1] of the rows k (1: held, 0: free), W = sqrt(q) k and D = sqrt(1 - q), what
    is not along the rows satisfies dx = dy - W^T mu, (W W^T + D^2) mu = W dy + dW x - d(sqrt(q) c): the
    part of (dy, 0) orthogonal to the columns of [W^T; D]. Its multipliers lam = sqrt(q) mu go through
    the switch, which multiplies mu / sqrt(q) by q. Only rows with q = 1 can depend on each other, for
    D has full rank on the others; of those, some that span the rest keep their weight.
    """
    fixed = lax.stop_gradient((y, k, c))
    found = nearest(*fixed, equations, units[0])
    x, basis = found.x, found.basis
    row = jnp.arange(len(c))
    # How close to zero multipliers and distances can be told from it.
    coarse, far = units[1] / jnp.finfo(y.dtype).eps, length(x) + length(fixed[0])
    bounded = fixed[2] < jnp.inf
    c = jnp.where(bounded, c, 0)
    size = jnp.where(found.held, jnp.sqrt(jnp.sum(basis.made**2, axis=1)) * far, stretch(basis) * (far + magnitude(c)))
    slack = lax.stop_gradient(jnp.where(bounded, c - matmul(k, x), jnp.inf))
    sign = jnp.where(found.held, -found.multipliers, slack)
    margin = snap(sign, coarse * size)
    # A multiplier has one sign, and a distance the other.
    margin = jnp.where(found.held == (margin > 0), 0, margin)

    zero = jnp.zeros_like(c)

    def hold(multipliers: jax.Array, value: jax.Array) -> jax.Array:
        """The multipliers of inequalities that are held, 0 for those that are not."""
        u, above, below, value = (v[equations:] for v in (margin, zero, multipliers, value))
        held = coupled_switch(u, above, below, selection=selection, value=value)
        return jnp.concatenate([multipliers[:equations], held])

    _, q = jax.jvp(lambda m: hold(m, zero), (zero,), (zero + 1,))
    columns = jnp.concatenate([jnp.sqrt(q)[:, None] * fixed[1], jnp.diag(jnp.sqrt(1 - q))], axis=1)
    order = jnp.argsort(jnp.where(row < equations, 0, jnp.where(q == 0, 3, jnp.where(margin < 0, 1, 2))), stable=True)
    basis, kept = span(columns, order, jnp.sum(q > 0), dependent(len(y), units[0]))
    q = jnp.where(kept, q, 0)
    w, inactive = jnp.sqrt(q), 1 - q

    def system(mu: jax.Array, k: jax.Array) -> jax.Array:
        return w * matmul(k, matmul(w * mu, k)) + inactive * mu

    def solve(r: jax.Array, made: jax.Array, k: jax.Array, kept: jax.Array) -> jax.Array:
        def inverse(r: jax.Array) -> jax.Array:
            return matmul(made, matmul(r, made)) + jnp.where(kept, 0, r)

        mu = inverse(r)
        return mu + inverse(r - system(mu, k))  # the square of a condition number is in the first residual

    mu = linear_solve(
        system, w * (matmul(k, y) - c), k, solve=solve, constants=(basis.made, fixed[1], kept), like=fixed[0]
    )
    known = jnp.where(found.held, found.multipliers, 0)
    formula = y - matmul(hold(change(mu / jnp.where(w > 0, w, 1)) + known, known), k)
    return x + change(formula * jnp.where(jnp.isnan(x), jnp.nan, 1))
