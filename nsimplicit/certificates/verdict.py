"""The certificate of a square normal form: kernels set apart, idle kinks dropped, minors tested, a witness found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.calculus.selected import jacobians
from nsimplicit.certificates.bounds import hull_bound, smallest_singular_value
from nsimplicit.certificates.certificate import Certificate, certificate
from nsimplicit.certificates.clarke_verdict import clarke_code
from nsimplicit.certificates.decision import decide, witness

MOST_VERTICES = 8
MOST_FLOPS = 2**32
"""Vertices are looked at one by one while 2^k n³ stays below this: seconds."""


def judge(
    form: NormalForm,
    *,
    eps: float,
    max_kinks: int = 16,
    tolerance: float = 0.0,
    is_symmetry: Callable[[np.ndarray], bool] = lambda kernel: False,
    groups: np.ndarray | None = None,
    signs: np.ndarray | None = None,
) -> Certificate:
    """Certify a square normal form.

    Args:
        form: of an equation in its solution; concrete.
        eps: of the dtype the form was computed in: its entries are trusted to a few of these.
        max_kinks: up to this number all principal minors are looked at.
        tolerance: within which kinks were taken to be active; for the report.
        is_symmetry: whether moving along a kernel (n, r), not only by a little, keeps the equation solved.
        groups: kinks with one argument up to ``signs``, as in :func:`clarke_code`; default: none.
        signs: see ``groups``.

    Returns:
        The certificate. A verdict other than undecided holds for every matrix within rounding of the form.
    """
    groups = np.arange(form.num_kinks) if groups is None else groups
    signs = np.ones(form.num_kinks) if signs is None else signs
    form, kept = _without_idle(_double(form))
    n, k = len(form.base), form.num_kinks
    _, groups = np.unique(groups[kept], return_inverse=True)
    shown: dict[str, Any] = {"names": form.names, "tolerance": tolerance}
    if not all(np.all(np.isfinite(x)) for x in (form.base, form.gain, form.into, form.coupling)):
        return certificate(0, n, k, "none", reason="a derivative of the equation is nan or infinite", **shown)
    rounding = 64 * max(n, 1) * eps
    deflated, kernel = _without_kernel(form, eps)
    if kernel.shape[1] and not is_symmetry(kernel):
        shown |= {"reason": "the derivative has a kernel, whatever the selection: solutions are not isolated here"}
        shown |= {"sigma_min": 0.0, "bound": "exact", "clarke": -1}
        return certificate(-1, n, k, "base system", witness=np.zeros(k), **shown)
    found = _decide(deflated, shown, eps, rounding, max_kinks)
    if kernel.shape[1]:
        if int(found.code) != 1:
            return found
        return dataclasses.replace(found, code=np.int32(2), clarke=np.int32(0), kernel=kernel, reason=_named(kernel))
    if int(found.code) == 1 and not form.coupling.any():  # the set of all selections is convex, and holds Clarke's
        return dataclasses.replace(found, clarke=np.int32(1))
    code = clarke_code(form, groups, signs[kept], rounding)
    told = "the branches that make it singular never occur together: with_selection(equation, Along(...)) avoids them"
    reason = "; ".join(x for x in (found.reason, told if code == 1 and int(found.code) < 1 else "") if x)
    return dataclasses.replace(found, clarke=np.int32(code), reason=reason)


def _decide(form: NormalForm, shown: dict[str, Any], eps: float, rounding: float, max_kinks: int) -> Certificate:
    n, k = len(form.base), form.num_kinks
    values = np.linalg.svd(form.base, compute_uv=False)
    size, least = float(np.max(values, initial=0)), float(np.min(values, initial=np.inf))
    if least <= 8 * max(n, 1) * eps * size:
        text = f"the system with every kink below is singular: smallest singular value {least:.1e}"
        singular = dict(sigma_min=0.0, bound="exact", witness=np.zeros(k), reason=text)
        return certificate(-1, n, k, "base system", **singular, **shown)
    through = np.linalg.solve(form.base, form.gain)
    q = form.coupling - form.into @ through
    decision = decide(q, _error(form, through, 8 * max(n, 1) * eps * size / least, eps), max_kinks=max_kinks)
    shown = {"margin": decision.margin, **shown}
    affordable = int(np.log2(MOST_FLOPS / (n**3 + 1)))
    bound, kind = smallest_singular_value(form, max_kinks=min(MOST_VERTICES, max(affordable, 0)))
    if decision.code == 1:
        return certificate(1, n, k, decision.method, sigma_min=bound, bound=kind, **shown)
    at = witness(decision.subset, q, rounding)
    if at is not None and _relative(form, at) <= rounding:
        return certificate(-1, n, k, decision.method, sigma_min=0.0, bound="exact", witness=at, **shown)
    if k <= MOST_VERTICES:
        hull = hull_bound(jacobians(form, np.array(list(np.ndindex(*[2] * k)), float)))
        if hull > 0:
            shown["margin"] = np.nan
            return certificate(1, n, k, "hull of all vertices", sigma_min=hull, bound="lower bound", **shown)
    reason = decision.reason or "a minor is negative, but no selection was found that is singular to rounding"
    return certificate(0, n, k, decision.method or "none", reason=reason, **shown)


def _double(form: NormalForm) -> NormalForm:
    fields = [f.name for f in dataclasses.fields(form) if f.name not in ("names", "positions")]
    return dataclasses.replace(form, **{name: np.asarray(getattr(form, name), np.float64) for name in fields})


def _without_idle(form: NormalForm) -> tuple[NormalForm, np.ndarray]:
    """Without kinks that nothing moves or that move nothing; again, until none is left."""
    kept = np.arange(form.num_kinks)
    while True:
        coupling = form.coupling[np.ix_(kept, kept)]
        moved = (form.into[kept] != 0).any(1) | (coupling != 0).any(1)
        moves = (form.gain[:, kept] != 0).any(0) | (coupling != 0).any(0)
        if (moved & moves).all():
            break
        kept = kept[moved & moves]
    return subform(form, kept), kept


def subform(form: NormalForm, kept: Sequence[int] | np.ndarray) -> NormalForm:
    """The normal form with some kinks kept and the others below."""
    kept = np.asarray(kept, int)
    square = np.ix_(kept, kept)
    return NormalForm(
        form.base,
        form.gain[:, kept],
        form.into[kept],
        form.coupling[square],
        form.argument_into[kept],
        form.argument_coupling[square],
        names=tuple(form.names[i] for i in kept) if form.names else (),
    )


def _without_kernel(form: NormalForm, eps: float) -> tuple[NormalForm, np.ndarray]:
    """The form beside what no selection sees: a right and a left kernel shared by all of them."""
    n = len(form.base)
    scale = max(float(np.max(np.abs(x), initial=0)) for x in (form.base, form.gain, form.into))
    left, values, right = np.linalg.svd(form.base)
    null = values <= 8 * max(n, 1) * eps * max(scale, float(np.max(values, initial=0)))
    if not null.any():
        return form, np.zeros((n, 0))
    tiny = 64 * max(n, 1) * eps * max(scale, 1e-300)
    unseen = np.max(np.abs(form.into @ right[null].T), initial=0) <= tiny
    unmoved = np.max(np.abs(left[:, null].T @ form.gain), initial=0) <= tiny
    if not (unseen and unmoved):
        return form, np.zeros((n, 0))
    rows, columns = left[:, ~null].T, right[~null].T
    into, argument = form.into @ columns, form.argument_into @ columns
    base, gain = rows @ form.base @ columns, rows @ form.gain
    return dataclasses.replace(form, base=base, gain=gain, into=into, argument_into=argument), right[null].T


def _named(kernel: np.ndarray) -> str:
    constant = np.allclose(np.abs(kernel), np.abs(kernel).max(), rtol=1e-6) if kernel.shape[1] == 1 else False
    some = "some unknowns up and the others down" if constant and np.ptp(np.sign(kernel)) else "all unknowns"
    return f"kernel of dimension {kernel.shape[1]}" + (f": a shift of {some} by one number" if constant else "")


def _error(form: NormalForm, through: np.ndarray, relative: float, eps: float) -> np.ndarray:
    """A bound on the error of Q, from rounding in the form and in the solve with its base."""
    n = max(len(form.base), 1)
    sizes = np.linalg.norm(form.into, axis=1)[:, None] * np.linalg.norm(through, axis=0)
    return (2 * relative + 8 * n * eps) * sizes + 8 * eps * np.abs(form.coupling)


def _relative(form: NormalForm, s: np.ndarray) -> float:
    """The smallest singular value at a selection, next to the size of the terms its matrix is the sum of."""
    size = np.linalg.norm(form.base, 2) + np.linalg.norm(form.gain, 2) * np.linalg.norm(form.into, 2)
    return float(np.linalg.svd(jacobians(form, s), compute_uv=False)[-1] / size)
