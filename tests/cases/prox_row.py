"""What the table of proxes is made of: a row, and lists of Jacobians."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """An object, points where its prox is smooth, and kinks with the limits of the Jacobians around them."""

    name: str
    make: Callable[..., Any]
    value: Callable[..., float]
    prox: Callable[..., Any]
    points: tuple[Any, ...]
    params: tuple[Any, ...] = ()
    kinks: tuple[tuple[Any, list[np.ndarray]], ...] = ()
    step: float = 0.5
    selection: bool = True
    formula: str = ""  # names of the parameters in the docstring's formula
    space: Callable[..., Any] = lambda x: x  # the projection on the space where the function lives
    at_bound: tuple[int, ...] = ()  # parameters that cannot decrease: their derivative is one-sided
    curved: bool = False  # the prox is not affine, piece by piece, in point, step and parameters together


def diagonals(*entries):
    """Diagonal matrices, one for each choice of one number per entry."""
    return [np.diag(d).astype(float) for d in itertools.product(*entries)]


def ray(x):
    """The projection on the direction of x."""
    return np.outer(x, x) / np.dot(x, x)


def block(matrix, group, n):
    """An n x n matrix with ``matrix`` at the positions of a group, 0 elsewhere."""
    out = np.zeros((n, n))
    out[np.ix_(group, group)] = matrix
    return out


def simplex_vertices(n, sure, maybe):
    """The Jacobian for each support between ``sure`` and ``sure`` plus ``maybe``."""
    out = []
    for size in range(len(maybe) + 1):
        for extra in itertools.combinations(maybe, size):
            support = [*sure, *extra]
            out.append(block(np.eye(len(support)) - 1 / len(support), support, n))
    return out


COVERED = frozenset()
