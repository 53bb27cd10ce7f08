"""The limit set of derivatives carried along by an iteration, which can be larger than the derivative of its limit.

Iterating z ← T(z, θ) with its derivative X ← A X + B, [A B] in the Jacobian set J of T at the fixed point, ends in the
one compact set K with K = {A X + B : [A B] ∈ J, X ∈ K}, if some product of the A is a contraction. It contains
(I - A)⁻¹B for every [A B] and, where the A change from step to step, more.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit._records import record
from nsimplicit.calculus import hull, selected
from nsimplicit.calculus.jacobian_set import conservative
from nsimplicit.calculus.normal_form import NormalForm

MAX_PIECES = 4096  # branches considered at once: of products of A, and of the search for a support
MAX_STEPS = 12


@record
class Attractor:
    """The compact set K of matrices (num_state, p) with K = {A X + B : [A B] ∈ J, X ∈ K}. Made by :func:`attractor`.

    Args:
        form: the derivative of T in (z, θ) at the fixed point.
        num_state: the number of entries of z, which come first.
        steps: of how many steps the contraction was found.
        rate: the largest spectral norm of a product of that many A, below 1.
    """

    form: NormalForm
    num_state: int
    steps: int
    rate: float

    def bounds(self, direction: Any, tolerance: float = 1e-9) -> tuple[float, float]:
        """The least and the greatest <direction, X> over K.

        Formula:
            h(d) = max over X in K of <d, X> satisfies h(d) = max over vertices [A B] of h(Aᵀd) + <d, B>.
            The maximum over long products is searched breadth first, dropping what cannot win: K lies in
            a ball.

        Args:
            direction: array (num_state, p).
            tolerance: absolute, for a direction of norm 1.

        Returns:
            Two floats, off by at most ``tolerance``·‖direction‖, outwards.

        Raises:
            DerivativeError: if more than 4096 products stay in the race before the tolerance is reached.
        """
        d = np.asarray(direction, np.float64)
        if d.shape != self._maps[1].shape[1:]:
            raise InputError(
                message(
                    "Attractor.bounds(direction)",
                    f"direction has shape {d.shape}.",
                    f"The set holds matrices of shape {self._maps[1].shape[1:]}, and so must the direction be.",
                )
            )
        return -self._support(-d, tolerance), self._support(d, tolerance)

    def interval(self, tolerance: float = 1e-9) -> tuple[float, float]:
        """The interval K spans, for one state and one parameter."""
        return self.bounds(np.ones((1, 1)), tolerance)

    def sample(self, key: jax.Array, n: int) -> np.ndarray:
        """Random elements (n, num_state, p): a chaos game, half of its steps at corners of the selections."""
        length = self.steps * int(min(1000, np.ceil(np.log(1e-4) / np.log(max(self.rate, 1e-8)))))
        rng = selected.generator(key)
        X = np.broadcast_to(self._centre, (n, *self._centre.shape))
        for _ in range(length):
            s = rng.random((n, self.form.num_kinks))
            jacobians = selected.jacobians(self.form, np.where(rng.random((n, 1)) < 0.5, np.round(s), s))
            X = jacobians[..., : self.num_state] @ X + jacobians[..., self.num_state :]
        return X

    @functools.cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        """A (v, n, n) and B (v, n, p) at the vertices."""
        return _vertices(self.form, self.num_state)

    @functools.cached_property
    def _centre(self) -> np.ndarray:
        """An element of K: the fixed point of one map."""
        A, B = self._maps
        return np.linalg.solve(np.eye(self.num_state) - A[0], B[0])

    @functools.cached_property
    def _ball(self) -> tuple[np.ndarray, float]:
        """A ball around K: ‖A X + B - c‖ <= rate ‖X - c‖ + ‖A c + B - c‖ for every composition of ``steps`` maps."""
        A, B = self._maps
        fixed = np.linalg.solve(np.eye(self.num_state) - A, B)
        centre = (fixed.min(axis=0) + fixed.max(axis=0)) / 2
        moved = centre[None]
        for _ in range(self.steps):
            moved = (np.einsum("vij,wjk->vwik", A, moved) + B[:, None]).reshape(-1, *centre.shape)
        return centre, float(np.max(np.linalg.norm(moved - centre, axis=(1, 2)))) / (1 - self.rate)

    def _support(self, d: np.ndarray, tolerance: float) -> float:
        A, B = self._maps
        centre, radius = self._ball
        size = float(np.linalg.norm(d))
        ends, values, best = d[None], np.zeros(1), -np.inf
        while True:
            # <d, X> = value + <end, X'> for some X' in K, which is in the ball and contains self._centre.
            upper = values + np.tensordot(ends, centre, 2) + radius * np.linalg.norm(ends, axis=(1, 2))
            best = max(best, float(np.max(values + np.tensordot(ends, self._centre, 2))))
            if np.max(upper) <= best + tolerance * size:
                return max(best, float(np.max(upper)))
            # Of products with one and the same end, the one with the largest value.
            racing = np.flatnonzero(upper > best)
            racing = racing[np.argsort(-values[racing], kind="stable")]
            racing = racing[hull.distinct(ends[racing], selected.rounding(self.form))]
            ends, values = ends[racing], values[racing]
            if len(ends) > MAX_PIECES:
                gap = (np.max(upper) - best) / size
                raise DerivativeError(
                    message(
                        f"Attractor.bounds(direction, tolerance={tolerance:g})",
                        f"{len(ends)} products of Jacobians still compete, with bounds {gap:.1e} apart.",
                        "The support of the set cannot be told to this tolerance.",
                        f"tolerance={2 * gap:.0e}",
                        "look at points of the set: .sample(key, n)",
                    )
                )
            values = (values[:, None] + np.tensordot(ends, B, ([1, 2], [1, 2]))).reshape(-1)
            ends = np.einsum("vij,eik->evjk", A, ends).reshape(-1, *d.shape)

    def __repr__(self) -> str:
        n, p = self._centre.shape
        product = "a Jacobian" if self.steps == 1 else f"a product of {self.steps} Jacobians"
        return f"Attractor of {n} × {p} matrices: {len(self._maps[0])} vertices, {product} has norm <= {self.rate:.4g}"


def attractor(form: NormalForm, num_state: int) -> Attractor:
    """Where derivatives carried along by an iteration end: the attractor of the Jacobian set of its map.

    Args:
        form: the derivative of T in (z, θ) at the fixed point.
        num_state: the number of entries of z, which come first.

    Returns:
        The set. It contains the implicit Jacobian (I - A)⁻¹B for every [A B], in general strictly.

    Raises:
        InputError: if no product of up to 12 Jacobians (4096 products in all) is a contraction.

    Example:
        >>> import jax
        >>> from nsimplicit.calculus.normal_form import normal_form
        >>> from nsimplicit.calculus.piggyback import attractor
        >>> T = lambda x, theta: theta - x / 4 - jax.nn.relu(x) / 4
        >>> attractor(normal_form(T)(0.0, 0.0), 1).interval()  # the fixed point's slopes are [2/3, 4/5]
        (0.571428, 0.857142)

    References:
        Bolte, Pauwels & Vaiter, Automatic differentiation of nonsmooth iterative algorithms, 2022.
    """
    m, n = np.shape(form.base)
    if not m == num_state < n:
        raise InputError(
            message(
                f"attractor(form, num_state={num_state})",
                f"the Jacobian is {m} × {n}.",
                "A map of the state has as many results as states, which come first; after them come parameters.",
            )
        )
    A, _ = _vertices(form, num_state)
    products, least, steps = A, np.inf, 0
    while True:
        steps += 1
        # A norm is convex and a product is affine in each factor: its maximum over the set is at vertices.
        norm = float(np.max(np.linalg.norm(products, 2, axis=(1, 2))))
        if norm < 1 - 64 * selected.rounding(form):
            return Attractor(form, num_state, steps, norm)
        least = min(least, norm ** (1 / steps))
        if steps == MAX_STEPS or len(products) * len(A) > MAX_PIECES:
            break
        products = np.einsum("vij,wjk->vwik", A, products).reshape(-1, *A.shape[1:])
    raise InputError(
        message(
            f"attractor(form, num_state={num_state})",
            f"products of up to {steps} Jacobians have norms up to {least:.4g} per step.",
            "Derivatives carried along need not stay bounded: no product was found to be a contraction.",
            "implicit(form of T(z, θ) - z, num_state), which needs an invertible I - A only",
            "a smaller step or no momentum: heavy ball fails this on piecewise quadratic functions",
        )
    )


def _vertices(form: NormalForm, num_state: int) -> tuple[np.ndarray, np.ndarray]:
    jacobians = conservative(form).vertices()
    return jacobians[..., :num_state], jacobians[..., num_state:]
