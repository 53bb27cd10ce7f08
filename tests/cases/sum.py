"""Sums of two functions whose prox is known by other means."""

import numpy as np

from nsimplicit import prox

POINT = np.array([1.3, -0.3, 0.9, -1.7])
LEVEL = np.ones(4)

# name -> the two functions, made of one parameter; the prox by other means
SUMS = {
    "box and hyperplane": (
        lambda t: (prox.Box(-1.0, 1.0), prox.Hyperplane(LEVEL, t)),
        lambda x, s, t: prox.BoxSection(-1.0, 1.0, LEVEL, t).project(x),
    ),
    "group after entries": (  # Yuan et al., 2011
        lambda t: (prox.L2(t), prox.L1(0.2)),
        lambda x, s, t: prox.L2(t).prox(prox.L1(0.2).prox(x, s), s),
    ),
}

COVERED = frozenset({"layers.Sum"})
