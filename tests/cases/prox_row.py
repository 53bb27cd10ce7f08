"""What the table of proxes is made of: a row, and lists of Jacobians."""

import dataclasses
import itertools

import numpy as np

from nsimplicit.testing.case import Case


@dataclasses.dataclass(frozen=True, eq=False)
class Row(Case):
    """A case of the table; ``formula`` names the parameters in the formula of the docstring."""

    formula: str = ""


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
