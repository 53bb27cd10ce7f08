"""Sets described by bounds on each entry."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit import primitives
from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import Set, add_up, concrete, fit, leafwise, real


@data
class Box(Set):
    """Entries between two bounds, either of which may be infinite; a hypercube where they are numbers.

    Formula: ``project(x) = clip(x, lo, hi)``.

    Args:
        lo: lower bound: one number, an array that broadcasts to the shape of x, or a pytree of
            those with the structure of x; ``-inf`` for none.
        hi: upper bound >= lo, likewise; ``inf`` for none.
        selection: what an entry exactly at a bound does: the weight in [0, 1] on x, ``"inside"``
            (1), ``"outside"`` (0), or a pair, one for each bound. Static.

    Kinks:
        x = lo and x = hi, where the derivative is in [0, 1]; default 1/2, as in ``jnp.clip``. Where
        lo = hi the entry is fixed: derivative 0 in x, 1/2 in each bound.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Box(0.0, jnp.inf).project(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.2.4.
    """

    lo: Any = -np.inf
    hi: Any = np.inf
    selection: Any = static(None)

    is_separable = True

    def __post_init__(self) -> None:
        lo, hi = ([concrete(leaf) for leaf in jax.tree.leaves(bound)] for bound in (self.lo, self.hi))
        if len(lo) != len(hi):
            lo, hi = (one * len(other) if len(one) == 1 else one for one, other in ((lo, hi), (hi, lo)))
        for low, high in zip(lo, hi, strict=False):
            if low is not None and high is not None and np.any(low > high):
                gap = np.max(np.subtract(*np.broadcast_arrays(low, high)))
                raise InputError(
                    message(
                        "prox.Box(lo, hi)",
                        f"lo exceeds hi by up to {gap:g}.",
                        "The box is empty, and there is nothing to project on.",
                        "prox.Box(hi, lo)",
                        "prox.Box(lo) for a lower bound alone",
                    )
                )

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""

        def leaf(x: jax.Array, lo: Any, hi: Any) -> jax.Array:
            inside = (fit(lo, x, "prox.Box(lo=...)") <= x) & (x <= fit(hi, x, "prox.Box(hi=...)"))
            return jnp.where(inside, jnp.zeros_like(x), jnp.inf)

        return add_up(leafwise(leaf, x, self.lo, self.hi))

    def project(self, x: Any) -> Any:
        """``x`` with each entry moved to the nearer bound if it lies outside."""

        def leaf(x: jax.Array, lo: Any, hi: Any) -> jax.Array:
            lo, hi = fit(lo, x, "prox.Box(lo=...)"), fit(hi, x, "prox.Box(hi=...)")
            clipped = primitives.clip(real(x, "prox.Box"), lo, hi, selection=self.selection)
            # Two kinks meet where the bounds are equal, and clip would answer 1/4. The entry is a constant.
            fixed = lo == hi
            return jnp.where(fixed, jnp.where(fixed, lo, 0) / 2 + jnp.where(fixed, hi, 0) / 2, clipped)

        return leafwise(leaf, x, self.lo, self.hi)


@data
class Nonnegative(Set):
    """Entries that are at least zero.

    Formula: ``project(x) = max(x, 0)``.

    Args:
        selection: what an entry exactly at zero does: the weight in [0, 1] on x, ``"inside"`` (1)
            or ``"outside"`` (0). Static.

    Kinks:
        x = 0, where the derivative is in [0, 1]; default 1/2, the same as ``Box(0, inf)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nsimplicit import prox
        >>> prox.Nonnegative().project(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    References:
        Parikh, Boyd, Proximal Algorithms (2014), section 6.2.1.
    """

    selection: Any = static(None)

    is_separable = True

    def __call__(self, x: Any) -> jax.Array:
        """The value at x."""
        return add_up(leafwise(lambda x: jnp.where(x >= 0, jnp.zeros_like(x), jnp.inf), x))

    def project(self, x: Any) -> Any:
        """``x`` with negative entries replaced by zero."""
        return leafwise(lambda x: primitives.clip(real(x, "prox.Nonnegative"), 0, selection=self.selection), x)
