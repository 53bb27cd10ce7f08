"""Finite sets of points and their convex hulls, on the host, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np


def distinct(points: np.ndarray, rounding: float) -> np.ndarray:
    """The indices of one representative of every point, in order; ``rounding`` is relative to the largest entry.

    A coordinate counts as equal along a chain of values that rounding could have parted. Rounding to
    a grid instead would part two equal values that lie on either side of one of its lines.
    """
    flat = points.reshape(len(points), -1)
    if flat.size == 0:
        return np.arange(min(1, len(flat)))
    order = np.argsort(flat, axis=0)
    steps = np.diff(np.take_along_axis(flat, order, axis=0), axis=0, prepend=flat.min(axis=0)[None])
    group = np.cumsum(steps > 64 * rounding * np.max(np.abs(flat)), axis=0)
    labels = np.empty_like(group)
    np.put_along_axis(labels, order, group, axis=0)
    return np.sort(np.unique(labels, axis=0, return_index=True)[1])


def dimension(points: np.ndarray, rounding: float) -> int:
    """The dimension of the smallest affine space through all points (v, ...)."""
    flat = points.reshape(len(points), -1)
    sigma = np.linalg.svd(flat - flat[:1], compute_uv=False)
    return int(np.sum(sigma > 64 * rounding * len(flat) ** 0.5 * np.max(np.abs(flat), initial=0.0)))


def distance(point: Any, points: np.ndarray) -> float:
    """The Euclidean distance from a point (...) to the convex hull of points (v, ...).

    With the points of the hull as columns of P, the point at the origin: the w >= 0 that minimises
    ‖P w‖² + (Σw - 1)² is, after division by its sum, the convex combination nearest to the origin.
    For w = t v with Σv = 1 the least value over t is ‖P v‖² / (1 + ‖P v‖²), increasing in ‖P v‖.
    """
    from scipy.optimize import nnls

    shifted = (points - np.asarray(point)).reshape(len(points), -1).T
    scale = np.max(np.abs(shifted), initial=0.0)
    if scale == 0.0:
        return 0.0
    shifted = shifted / scale
    weights, _ = nnls(np.vstack([shifted, np.ones(len(points))]), np.append(np.zeros(len(shifted)), 1.0))
    return float(scale * np.linalg.norm(shifted @ (weights / weights.sum())))
