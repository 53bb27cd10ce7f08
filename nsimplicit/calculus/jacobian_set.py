"""Sets of Jacobians: of a program (one for each selection), of its function (Clarke), of a solution map.

The derivative J(s) of a normal form is affine in each selection s_i by itself, and so is the solution's,
X(s) = -B(s)⁻¹A(s) for J = [B A], up to a change of speed: a rank-one update moves X along a line.
Hence the corners s ∈ {0, 1}^k span the convex hull of the set, and det B(s) != 0 on the whole box exactly
where it has one sign at the corners.
"""

from __future__ import annotations

import collections
import functools
import html
from typing import Any

import jax
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import record
from nsimplicit.calculus import hull, selected
from nsimplicit.calculus.normal_form import NormalForm


@record
class JacobianSet:
    """A set of matrices (m, n): one for every selection, or the convex hull of a few of them.

    Made by :func:`conservative`, :func:`implicit`, ``clarke`` and ``implicit_clarke``; prints as one screen.
    An object to look at on the host: NumPy, float64, not for use under ``jit``.

    Args:
        form: the derivative of the program at the point.
        label: "formal product" (every selection in the box), "implicit" (the same, of the solution),
            "Clarke (exact)" or "Clarke (inner bound)" (the convex hull of what occurs near the point).
        patterns: None for the whole box, or array (v, k) of the 0-1 selections whose hull this is.
        num_solution: None, or the number of columns B of [B A] = J(s); the element is then -B⁻¹A.
    """

    form: NormalForm
    label: str
    patterns: np.ndarray | None = None
    num_solution: int | None = None

    def select(self, s: Any) -> np.ndarray:
        """The element (m, n) for selections s (k,), 1 for the branch above. A Clarke set takes only its patterns."""
        s = np.asarray(s, np.float64)
        k = self.form.num_kinks
        if s.shape != (k,) or np.any((s < 0) | (s > 1)):
            raise InputError(
                message(
                    "JacobianSet.select(s)",
                    f"s = {s.tolist()}, shape {s.shape}.",
                    f"There are {k} active kinks, so s has shape ({k},), each entry a weight in [0, 1].",
                )
            )
        if self.patterns is not None and not np.any(np.all(self.patterns == s, axis=1)):
            raise InputError(
                message(
                    "JacobianSet.select(s)",
                    f"s = {s.tolist()} is none of the {len(self.patterns)} patterns of this Clarke set.",
                    "No direction takes these branches, so their derivative need not belong to the function.",
                    "one of .patterns",
                    "conservative(form).select(s), the derivative of the program",
                )
            )
        return self._elements(s)

    def vertices(self) -> np.ndarray:
        """The elements (v, m, n) for 0-1 selections, without repetition: the set lies in their convex hull.

        Raises:
            InputError: with more than 16 kinks, if all 2^k selections would have to be looked at.
        """
        return self._vertices.copy()

    @functools.cached_property
    def _vertices(self) -> np.ndarray:
        s = selected.corners(self.form, "JacobianSet.vertices()") if self.patterns is None else self.patterns
        elements = self._elements(s)
        return elements[hull.distinct(elements, self._rounding)]

    def sample(self, key: jax.Array, n: int) -> np.ndarray:
        """Random elements (n, m, n_in): uniform selections, or for a Clarke set uniform convex weights."""
        rng = selected.generator(key)
        if self.patterns is None:
            return self._elements(rng.random((n, self.form.num_kinks)))
        return np.tensordot(rng.dirichlet(np.ones(len(self._vertices)), n), self._vertices, 1)

    def contains(self, matrix: Any, tolerance: float | None = None) -> bool:
        """Whether some selection (Clarke: some convex combination) gives this matrix.

        Args:
            matrix: array (m, n).
            tolerance: absolute, on the Frobenius distance. None: 1 + ‖matrix‖ times the root of the dtype's rounding.

        Returns:
            A bool. Exact to the tolerance, except when kinks act on kinks (``form.coupling`` is not 0): then the
            selection is looked for from several starts, and False means that it was not found.
        """
        matrix = np.asarray(matrix, np.float64)
        default = self._rounding**0.5 * (1 + float(np.linalg.norm(matrix)))
        close = default if tolerance is None else tolerance
        if self.patterns is not None:
            return hull.distance(matrix, self._vertices) <= close
        if self.form.num_kinks <= 8 and hull.distance(matrix, self._vertices) > close:
            return False  # soon told, where the search below would try every start
        return any(
            float(np.linalg.norm(self._elements(s) - matrix)) <= close
            for s in selected.candidates(self.form, matrix, self.num_solution)
        )

    def dimension(self) -> int:
        """The dimension of the smallest affine space that contains the set."""
        return hull.dimension(self._vertices, self._rounding)

    @property
    def _rounding(self) -> float:
        return selected.rounding(self.form)

    def _elements(self, s: Any) -> np.ndarray:
        jacobians = selected.jacobians(self.form, s)
        return jacobians if self.num_solution is None else selected.solve_for(jacobians, self.num_solution)

    def __str__(self) -> str:
        """One screen."""
        m, n = self._elements(np.zeros(self.form.num_kinks)).shape
        names = [name + f" ({n})" * (n > 1) for name, n in collections.Counter(self.form.names).items()]
        rows = [f"JacobianSet of {m} × {n} matrices, {self.label}"]
        rows += [f"  kinks      {self.form.num_kinks}" + "".join(f"\n    {name}" for name in names[:6])]
        if len(names) > 6:
            rows += [f"    and {len(names) - 6} more"]
        if self.form.num_kinks > selected.MAX_KINKS and self.patterns is None:
            return "\n".join([*rows, "  vertices   too many to look at"])
        rows += [f"  vertices   {len(self._vertices)}", f"  dimension  {self.dimension()}"]
        cells = self._ranges()
        width = max((len(cell) for line in cells for cell in line), default=0)
        body = ["  ".join(cell.rjust(width) for cell in line) for line in cells]
        return "\n".join([*rows, *(f"  {'entries' if i == 0 else '':9}  {line}" for i, line in enumerate(body))])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _ranges(self, most: int = 6) -> list[list[str]]:
        low, high = self._vertices.min(axis=0), self._vertices.max(axis=0)
        same = high - low <= 64 * self._rounding * np.max(np.abs(self._vertices), initial=0.0)
        cells = [
            [f"{a:.4g}" if e else f"[{a:.4g}, {b:.4g}]" for a, b, e in zip(*line, strict=True)]
            for line in zip(low[:most, :most] + 0.0, high[:most, :most] + 0.0, same[:most, :most], strict=True)
        ]
        if low.shape[1] > most:
            cells = [[*line, "…"] for line in cells]
        return cells + [["…"]] if low.shape[0] > most else cells


def conservative(form: NormalForm) -> JacobianSet:
    """What automatic differentiation may return: every kink with a weight of its own in [0, 1].

    It belongs to the program: two programs of one function may have different sets here, and both
    are conservative Jacobians of the function.

    Args:
        form: the derivative of the program at the point.

    Returns:
        The set {J(s) : s ∈ [0, 1]^k}, labelled "formal product".

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nsimplicit.calculus.jacobian_set import conservative
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> conservative(normal_form(lambda x: jnp.abs(x) - 2 * jax.nn.relu(x))(jnp.zeros(1)))
        JacobianSet of 1 × 1 matrices, formal product
          kinks      2
            abs at ...
            relu at ...
          vertices   3
          dimension  1
          entries    [-3, 1]
    """
    return JacobianSet(form, "formal product")


def implicit(form: NormalForm, num_solution: int) -> JacobianSet:
    """The conservative Jacobian of the solution z(θ) of F(z, θ) = 0.

    Args:
        form: the derivative of F in (z, θ) at the solution.
        num_solution: the number of entries of z, which come first.

    Returns:
        The set {-B(s)⁻¹A(s) : s ∈ [0, 1]^k} with [B A] = J(s), labelled "implicit".

    Raises:
        DerivativeError: if B(s) is singular for some s, which the message gives.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit.calculus.jacobian_set import implicit
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> found = implicit(normal_form(lambda z, x: 2 * z + jnp.abs(z) - x)(0.0, 0.0), 1)
        >>> found.vertices().ravel(), found.contains([[0.5]])
        (array([1.        , 0.3333333]), True)

    References:
        Bolte, Le, Pauwels & Silveti-Falls, Nonsmooth implicit differentiation for machine learning and
        optimization, 2021.
    """
    selected.check_invertible(form, selected.corners(form, "implicit(form)"), num_solution, "implicit(form)")
    return JacobianSet(form, "implicit", None, num_solution)


def excess(X: Any, Y: Any) -> float:
    """The one-sided gap sup over x in X of the Frobenius distance from x to the convex hull of Y.

    0 if and only if X lies in that hull. Not symmetric; the larger of both ways is the Hausdorff distance
    of the hulls.

    Args:
        X: a :class:`JacobianSet`, or points as an array (n, ...).
        Y: likewise, with elements of the same shape.

    Returns:
        The gap. For a set X it is taken at the vertices, where the distance to a convex set is largest.

    Example:
        >>> from nsimplicit.calculus.jacobian_set import excess
        >>> excess([0.0, 3.0], [1.0, 2.0]), excess([1.0, 2.0], [0.0, 3.0])
        (1.0, 0.0)
    """
    X, Y = (set.vertices() if isinstance(set, JacobianSet) else np.asarray(set, np.float64) for set in (X, Y))
    return max(hull.distance(x, Y) for x in X)
