"""Rows for `compare` and `history`: a contraction whose derivative every mode gets wrong by a known amount."""

import jax.numpy as jnp

import nsimplicit as nsi

COVERED = frozenset({"compare", "history"})

RATE = 0.5


def halve(z, t):
    """z = z/2 + t has the solution 2 t; from z = 0 the iterates are 2 t (1 - 2^-k)."""
    return RATE * z + t


def solve(t, derivative):
    """The solution to rounding, as a fixed point."""
    return nsi.fixed_point(halve, jnp.zeros_like(t), t, derivative=derivative, tol=1e-15).value


D = nsi.derivatives

# derivative, mode that `compare` finds, relative error of the derivative: what a geometric series leaves out
MODES = {
    "Implicit()": (D.Implicit(), "reverse", 0.0),
    "Unrolled(steps=10)": (D.Unrolled(10), "reverse", RATE**10),
    "Unrolled(steps=10, checkpoint=True)": (D.Unrolled(10, checkpoint=True), "reverse", RATE**10),
    "Piggyback()": (D.Piggyback(), "forward", 0.0),
    "OneStep()": (D.OneStep(), "reverse", RATE),
    "Truncated(k=3)": (D.Truncated(3), "reverse", RATE**3),
    "Neumann(k=7)": (D.Neumann(7), "reverse", RATE**7),
}
