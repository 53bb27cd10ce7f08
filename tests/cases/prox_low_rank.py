"""The nonconvex sets of matrices: what they must refuse. Their laws are in ``tests/test_prox_spectral_edges.py``."""

import numpy as np

from nsimplicit import prox
from tests.cases.prox_row import Row

ROWS: dict[str, Row] = {}

WRONG = {
    "RankBall, rank": (lambda: prox.RankBall(0), r"rank is 0"),
    "RankBall, vector": (lambda: prox.RankBall(1).project(np.ones(3)), r"x has shape \(3,\)"),
    "Stiefel, wide": (lambda: prox.Stiefel().project(np.ones((2, 3))), r"x has shape \(2, 3\)"),
}

COVERED = frozenset({"prox.RankBall", "prox.Stiefel"})
