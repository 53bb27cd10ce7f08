"""A normal form on the host: its Jacobians for many selections at once, and the selections for a Jacobian.

Arrays here are NumPy's, in float64, with leading axes for many selections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit.calculus.normal_form import NormalForm

MAX_KINKS = 16


def rounding(form: NormalForm) -> float:
    """The relative rounding error of the form's entries."""
    return float(jnp.finfo(form.base.dtype).eps)


def generator(key: jax.Array) -> np.random.Generator:
    """Randomness on the host, from a JAX key: it compiles once, not once for each shape."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


def through(form: NormalForm, s: Any) -> tuple[np.ndarray, np.ndarray]:
    """For selections s (..., k): u, how each kink's above - below moves, and y = s u, both (..., k, n)."""
    s, into, coupling = _float(s), _float(form.into), _float(form.coupling)
    u = np.broadcast_to(into, s.shape[:-1] + into.shape).copy()
    y = np.zeros_like(u)
    for i in range(len(into)):
        u[..., i, :] += np.einsum("j,...jn->...n", coupling[i, :i], y[..., :i, :])
        y[..., i, :] = s[..., i, None] * u[..., i, :]
    return u, y


def jacobians(form: NormalForm, s: Any) -> np.ndarray:
    """The Jacobians (..., m, n) for selections s (..., k)."""
    return _float(form.base) + _float(form.gain) @ through(form, s)[1]


def arguments(form: NormalForm, s: Any) -> np.ndarray:
    """The derivatives (..., k, n) of the switches' arguments for selections s (..., k)."""
    return _float(form.argument_into) + _float(form.argument_coupling) @ through(form, s)[1]


def corners(form: NormalForm, where: str) -> np.ndarray:
    """All 0-1 selections (2^k, k), refused beyond 2^16 of them."""
    k = form.num_kinks
    if k > MAX_KINKS:
        raise InputError(
            message(
                where,
                f"{k} active kinks, that is 2^{k} selections of one branch each.",
                f"Every one of them has to be looked at, and more than 2^{MAX_KINKS} are refused.",
                "move to a point where fewer kinks are active, or use a smaller tolerance for what counts as active",
                "look at some of the set: .sample(key, n)",
            )
        )
    return ((np.arange(2**k)[:, None] >> np.arange(k)[::-1]) & 1).astype(float)


def solve_for(jacobian: np.ndarray, num_solution: int) -> np.ndarray:
    """Of [B A] (..., m, m + p), with B the first ``num_solution`` columns: -B⁻¹A."""
    return -np.linalg.solve(jacobian[..., :num_solution], jacobian[..., num_solution:])


def check_invertible(form: NormalForm, patterns: np.ndarray, num_solution: int, where: str) -> None:
    """Raise unless B(s), the first ``num_solution`` columns of J(s), is invertible, det B(s) with one sign."""
    m, n = np.shape(form.base)
    if not m == num_solution < n:
        raise InputError(
            message(
                where,
                f"num_solution = {num_solution}, and the Jacobian is {m} × {n}.",
                "An equation has as many residuals as unknowns, which come first; after them come parameters.",
            )
        )
    B = jacobians(form, patterns)[..., :num_solution]
    sigma = np.linalg.svd(B, compute_uv=False)
    worst = int(np.argmin(sigma[:, -1] - 64 * rounding(form) * m * sigma[:, 0]))
    if sigma[worst, -1] <= 64 * rounding(form) * m * sigma[worst, 0]:
        _refuse(where, f"B(s) is singular at s = {patterns[worst].tolist()}: σ_min = {sigma[worst, -1]:.1e}.")
    sign = np.linalg.slogdet(B)[0]
    if sign.min() < sign.max():
        plus, minus = patterns[np.argmax(sign)], patterns[np.argmin(sign)]
        ends = [plus, minus]
        for _ in range(60):
            middle = (ends[0] + ends[1]) / 2
            ends[int(np.linalg.slogdet(jacobians(form, middle)[:, :num_solution])[0] <= 0)] = middle
        _refuse(
            where,
            f"det B(s) is positive at s = {plus.tolist()}, negative at {minus.tolist()}, "
            f"and zero at s = {np.round(ends[0], 6).tolist()}.",
        )


def _refuse(where: str, found: str) -> None:
    raise DerivativeError(
        message(
            where,
            found,
            "The implicit function theorem asks for an invertible B in the whole set; here it gives no derivative.",
            "look at the equation with these selections: form.jacobian(s)",
            "implicit_clarke(form, ...), if some branches never occur together, as in relu(x) - relu(-x)",
            "form the equation so that it determines its solution: regularise it, remove redundant unknowns",
        )
    )


def candidates(form: NormalForm, matrix: np.ndarray, num_solution: int | None) -> Iterator[np.ndarray]:
    """Selections that may give a matrix T: those that solve J(s) W = V best.

    For a program W = I and V = T; for a solution -B(s)⁻¹A(s) = T reads J(s) W = 0 with W = [T; I].
    Either way this is affine in s when no kink acts on another, whatever B⁻¹ does.
    """
    from scipy.optimize import least_squares, lsq_linear

    k = form.num_kinks
    W, V = np.eye(matrix.shape[-1]), matrix
    if num_solution is not None:
        W, V = np.vstack([matrix, W]), np.zeros_like(matrix)

    def residual(s: np.ndarray) -> np.ndarray:
        return (jacobians(form, s) @ W - V).ravel()

    def slope(s: np.ndarray) -> np.ndarray:
        # dy = (I - S E)⁻¹ e_i u_i for a change of s_i.
        u, _ = through(form, s)
        gain = np.linalg.solve((np.eye(k) - s[:, None] * np.asarray(form.coupling)).T, np.asarray(form.gain).T).T
        return np.einsum("mi,in->mni", gain, u @ W).reshape(-1, k)

    middle = np.full(k, 0.5)
    if k == 0:
        yield middle
    elif not np.any(form.coupling):
        fit = lsq_linear(
            slope(middle), slope(middle) @ middle - residual(middle), (0, 1), method="bvls", max_iter=99 * k
        )
        yield np.clip(fit.x, 0, 1)
    else:
        for start in (middle, *np.random.default_rng(0).random((4 * k, k))):
            options: Any = dict(jac=slope, bounds=(0, 1), xtol=1e-15, ftol=1e-15, gtol=1e-15)
            yield least_squares(residual, start, **options).x


def _float(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
