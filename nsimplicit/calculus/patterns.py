"""The branches of a program near a point: which 0-1 selections are there, and what the derivative is for each.

Host-level: arrays here are NumPy's, in float64, with leading axes for many selections at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nsimplicit._errors import DerivativeError, InputError, message
from nsimplicit.calculus.normal_form import NormalForm

MAX_KINKS = 16


def rounding(form: NormalForm) -> float:
    """The relative rounding error of the form's entries."""
    return float(np.finfo(form.base.dtype).eps)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Realised:
    """The 0-1 selections that occur near the point.

    Args:
        patterns: array (v, k), the selections.
        directions: array (v, n): moving a little along it, every kink that matters takes that branch.
        complete: False if, for some, first derivatives do not tell the branch of a kink that matters.
    """

    patterns: np.ndarray
    directions: np.ndarray
    complete: bool


def realised(form: NormalForm) -> Realised:
    """The selections s for which some direction d has arguments(s)·d > 0 where s is 1 and < 0 where s is 0.

    Kinks are decided in order, since an argument depends on earlier kinks only: a prefix that no direction
    realises is not continued. There are at most 2 Σ_j C(k-1, j), j < n, of them: far fewer than 2^k
    when k is larger than n.

    A kink with u = 0 along every direction lets nothing through: it is left below.
    """
    k, n = np.shape(form.into)
    prefixes = [(np.zeros(k), np.zeros((0, n)), np.zeros(n))]
    complete = True
    for i in range(k):
        longer = []
        for s, rows, direction in prefixes:
            row, kind = _signable(form, s, i, np.eye(n))
            if kind == "inert":
                longer.append((s, rows, direction))
            complete &= kind != "undecided"
            if kind != "signed":
                continue
            for side in (0.0, 1.0):
                signed = np.vstack([rows, row if side else -row])
                found = _direction(signed, direction, rounding(form))
                if found is not None:
                    longer.append((np.where(np.arange(k) == i, side, s), signed, found))
        prefixes = longer
        if len(prefixes) > 2**MAX_KINKS:
            corners(form, "clarke(form)")
    return _collect(prefixes, complete, k, n)


def realised_by_solution(form: NormalForm, patterns: np.ndarray, num_solution: int) -> Realised:
    """The ``patterns`` that the solution z(θ) of F(z, θ) = 0 passes through: signs are taken along J(s)(dz, dθ) = 0."""
    k, p = form.num_kinks, np.shape(form.base)[1] - num_solution
    kept, complete = [], True
    for s in patterns:
        graph = np.vstack([solve_for(jacobians(form, s), num_solution), np.eye(p)])
        rows = [(i, *_signable(form, s, i, graph)) for i in range(k)]
        if any(kind == "undecided" for *_, kind in rows):
            complete = False
            continue
        signs = [row if s[i] else -row for i, row, kind in rows if kind == "signed"]
        signed = np.reshape(signs, (len(signs), p))
        found = _direction(signed, np.zeros(p), rounding(form))
        if found is not None:
            kept.append((s, signed, found))
    return _collect(kept, complete, k, p)


def _collect(found: list, complete: bool, k: int, n: int) -> Realised:
    patterns = np.reshape([s for s, _, _ in found], (len(found), k))
    return Realised(patterns, np.reshape([d for *_, d in found], (len(found), n)), complete)


def _signable(form: NormalForm, s: np.ndarray, i: int, along: np.ndarray) -> tuple[np.ndarray, str]:
    """The derivative of argument i along some directions (n, p), normed, and whether it has a sign that matters."""
    u, y = through(form, s)
    row, size = _row(form.argument_into, form.argument_coupling, y, i, along)
    if np.linalg.norm(row) > 64 * rounding(form) * size:
        return row / np.linalg.norm(row), "signed"
    _, size = _row(form.into, form.coupling, y, i, along)
    inert = np.linalg.norm(u[i] @ along) <= 64 * rounding(form) * size
    return row, "inert" if inert else "undecided"


def _row(into: Any, coupling: Any, y: np.ndarray, i: int, along: np.ndarray) -> tuple[np.ndarray, float]:
    """A row of into + coupling y along some directions, and the size of what was added up in it."""
    into, coupling = _float(into)[i], _float(coupling)[i]
    size = np.linalg.norm(np.abs(into) @ np.abs(along)) + np.linalg.norm(np.abs(coupling) @ np.abs(y) @ np.abs(along))
    return (into + coupling @ y) @ along, float(size)


def _direction(rows: np.ndarray, guess: np.ndarray, rounding: float) -> np.ndarray | None:
    """A direction d with rows d > 0, or None; rows have norm 1."""
    if not len(rows):
        return guess
    # Where it was going already; where independent rows send it; the one farthest from every boundary.
    for find in (lambda: guess, lambda: np.linalg.lstsq(rows, np.ones(len(rows)))[0], lambda: _deepest(rows)):
        d = find()
        size = np.max(np.abs(d), initial=0.0)
        # Judged here and not by the linear programme, which tolerates 1e-7.
        if size > 0 and np.min(rows @ d) > 64 * rounding * size:
            return d / size
    return None


def _deepest(rows: np.ndarray) -> np.ndarray:
    """max t  subject to  rows d >= t, |d| <= 1, t <= 1."""
    from scipy.optimize import linprog

    n = rows.shape[1]
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.hstack([-rows, np.ones((len(rows), 1))]),
        b_ub=np.zeros(len(rows)),
        bounds=[(-1, 1)] * n + [(None, 1)],
    )
    return found.x[:n] if found.x is not None else np.zeros(n)


def _float(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
