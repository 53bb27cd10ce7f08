"""Certificates: is the derivative of an equation invertible for every selection of its kinks?"""

from nsimplicit.certificates.bounds import contraction_bound, hull_bound, monotone_bound, smallest_singular_value
from nsimplicit.certificates.decision import Decision, decide, witness
from nsimplicit.certificates.p_matrix import PTest, p_test, symmetrised

__all__ = [
    "Decision",
    "PTest",
    "contraction_bound",
    "decide",
    "hull_bound",
    "monotone_bound",
    "p_test",
    "smallest_singular_value",
    "symmetrised",
    "witness",
]
