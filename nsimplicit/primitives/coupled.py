"""A switch whose selection also enters elsewhere: the weights of a threshold, of a block of equal eigenvalues.

Where several kinks share one number, a threshold say, the derivative is not affine in each selection
by itself, and which program computed it cannot be told from the switches alone. The derivative for
the selection an object was given is right; analyses of every selection do not look behind it: a
certificate is undecided where such a kink is active, ``with_selection`` leaves it as it is.
"""

from __future__ import annotations

from typing import Any

import jax

from nsimplicit import selections
from nsimplicit.primitives.switch import switch_as

COUPLED = "coupled"
"""The name of the operation."""


def coupled_switch(u: Any, above: Any, below: Any, *, selection: Any = None, value: Any = None) -> jax.Array:
    """``primitives.switch`` under another name."""
    weight = selections.weight(selection, 0.0, "switch")
    return switch_as(u, above, below, weight, value, selection is not None, COUPLED)
