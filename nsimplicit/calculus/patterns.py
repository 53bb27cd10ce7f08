"""The branches of a program near a point: which 0-1 selections some direction takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nsimplicit._records import record
from nsimplicit.calculus import selected
from nsimplicit.calculus.normal_form import NormalForm


@record
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
                found = _direction(signed, direction, selected.rounding(form))
                if found is not None:
                    longer.append((np.where(np.arange(k) == i, side, s), signed, found))
        prefixes = longer
        if len(prefixes) > 2**selected.MAX_KINKS:
            selected.corners(form, "clarke(form)")
    return _collect(prefixes, complete, k, n)


def realised_by_solution(form: NormalForm, patterns: np.ndarray, num_solution: int) -> Realised:
    """The ``patterns`` that the solution z(θ) of F(z, θ) = 0 passes through: signs are taken along J(s)(dz, dθ) = 0."""
    k, p = form.num_kinks, np.shape(form.base)[1] - num_solution
    kept, complete = [], True
    for s in patterns:
        graph = np.vstack([selected.solve_for(selected.jacobians(form, s), num_solution), np.eye(p)])
        rows = [(i, *_signable(form, s, i, graph)) for i in range(k)]
        if any(kind == "undecided" for *_, kind in rows):
            complete = False
            continue
        signs = [row if s[i] else -row for i, row, kind in rows if kind == "signed"]
        signed = np.reshape(signs, (len(signs), p))
        found = _direction(signed, np.zeros(p), selected.rounding(form))
        if found is not None:
            kept.append((s, signed, found))
    return _collect(kept, complete, k, p)


def _collect(found: list, complete: bool, k: int, n: int) -> Realised:
    patterns = np.reshape([s for s, _, _ in found], (len(found), k))
    return Realised(patterns, np.reshape([d for *_, d in found], (len(found), n)), complete)


def _signable(form: NormalForm, s: np.ndarray, i: int, along: np.ndarray) -> tuple[np.ndarray, str]:
    """The derivative of argument i along some directions (n, p), normed, and whether it has a sign that matters."""
    u, y = selected.through(form, s)
    row, size = _row(form.argument_into, form.argument_coupling, y, i, along)
    if np.linalg.norm(row) > 64 * selected.rounding(form) * size:
        return row / np.linalg.norm(row), "signed"
    _, size = _row(form.into, form.coupling, y, i, along)
    inert = np.linalg.norm(u[i] @ along) <= 64 * selected.rounding(form) * size
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
