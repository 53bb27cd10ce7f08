"""The same function, its kinks differentiated by a selection of your choice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit import selections
from nsimplicit._errors import InputError, message
from nsimplicit.calculus.along import Entered, Pass, decide, is_near
from nsimplicit.calculus.cell import Cell
from nsimplicit.calculus.kink import Ordering, Switch, Treatment
from nsimplicit.calculus.liveness import is_float
from nsimplicit.calculus.program import trace
from nsimplicit.calculus.replay import Replay

ORDERINGS = frozenset("max min sort top_k median max_pool ordering".split())
SWITCHES = frozenset((selections.jax.keys() | {"where", "clamp", "cummax", "cummin"}) - ORDERINGS)
ARRAYS = (jax.Array, np.ndarray, np.generic)  # everything else stays what it is, Python numbers too
BOUNDED = frozenset("clip clamp relu6 hard_tanh".split())


class Selected(Treatment):
    """Rebind every kink with the selection its operation is given."""

    def __init__(self, chosen: Mapping[str, Any], everywhere: Any, override: bool, tolerance: float) -> None:
        self.chosen, self.everywhere, self.override, self.tolerance = dict(chosen), everywhere, override, tolerance
        try:
            self.key: Any = (frozenset(self.chosen.items()), everywhere, override, tolerance)
            hash(self.key)
        except TypeError:
            self.key = id(self)
        self.is_static = self.key != id(self)

    def __hash__(self) -> int:
        """By the selections."""
        return hash(self.key)

    def __eq__(self, other: Any) -> bool:
        """By the selections."""
        return isinstance(other, Selected) and self.key == other.key

    def wants(self, name: str, is_ordering: bool) -> bool:
        """Whether a selection was given for this operation."""
        return name in self.chosen or (self.everywhere is not None and not is_ordering)

    def switch(self, kink: Switch, feed: Any) -> tuple[Any, Any]:
        """The switch with another weight."""
        selection = self.chosen.get(kink.name, self.everywhere)
        if kink.name in BOUNDED and isinstance(selection, tuple | list):
            selection = selection[kink.flipped]
        if kink.explicit and not self.override:
            return kink.bind(), None
        names = selections.BOUNDS[kink.flipped] if kink.name in BOUNDED else selections.BRANCHES
        weight = selections.weight(selection, kink.weight, f"with_selection: {kink.name}", names)
        return kink.bind(weight=weight, explicit=True, **self._near(kink)), None

    def ordering(self, kink: Ordering, feed: Any) -> tuple[Any, Any]:
        """The ordering with another way to break ties."""
        if kink.explicit and not self.override:
            return kink.bind(), None
        tie = selections.tie(self.chosen[kink.name], kink.tie, f"with_selection: {kink.name}")
        return kink.bind(tie=tie, explicit=True), None

    def _near(self, kink: Switch) -> dict[str, Any]:
        """Operands within the tolerance count as equal."""
        if not self.tolerance:
            return {}
        left, right = jnp.broadcast_arrays(kink.left, kink.right)
        return {"left": jnp.where(is_near(left, right, self.tolerance), right, left)}


def with_selection(
    fun: Callable[..., Any], selection: Any, *, override: bool = False, tolerance: float = 0.0
) -> Callable[..., Any]:
    """The same function, with another derivative at its kinks.

    The kinks are those of this package's primitives and of JAX's own max, min, abs, clip, sort,
    ``where(x > 0, ...)`` and so on, wherever they are in ``fun``: inside jit, scan, cond, remat,
    ``shard_map``, while loops, and inside the equations of implicit layers. Custom derivative rules are kept,
    except that of ``jax.nn.relu`` and ``relu6``.

    Args:
        fun: function of pytrees of arrays.
        selection: a number in [0, 1] or ``"above"``, ``"below"``, ``"mean"``, for scalar kinks; a
            mapping from operation to selection, such as :data:`nsimplicit.selections.torch`; or
            :class:`Along`. Operations: those of the presets, and ``"where"``, ``"clamp"``
            (``jax.lax.clamp``), ``"cummax"``, ``"cummin"``. A selection may be an array, one weight
            for each entry of the kink.
        override: whether this also replaces a selection given by name inside ``fun``.
        tolerance: entries closer to the kink than ``tolerance`` times the largest operand count as
            at the kink; dimensionless.

    Returns:
        A function with the same values, as jittable and differentiable as ``fun``. Called eagerly
        it is traced anew each time: jit it.

    Raises:
        InputError: an operation that is not known, a selection that does not fit.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> f = lambda x: jnp.abs(x) + jax.nn.relu(x)
        >>> float(jax.grad(f)(0.0)), float(jax.grad(nsi.with_selection(f, "mean"))(0.0))
        (1.0, 0.5)
        >>> float(jax.grad(nsi.with_selection(f, {"abs": 0.75}))(0.0))
        0.5
    """
    along = isinstance(selection, selections.Along)
    treatment = Entered(override, tolerance) if along else _treatment(selection, override, tolerance)

    @functools.wraps(fun)
    def selected(*args: Any, **kwargs: Any) -> Any:
        leaves, treedef = jax.tree.flatten((args, kwargs))
        is_array = [isinstance(x, ARRAYS) or (along and isinstance(x, float | complex)) for x in leaves]
        arrays = [x for x, flag in zip(leaves, is_array, strict=True) if flag]

        def flat(*arrays: Any) -> Any:
            rest = iter(arrays)
            args, kwargs = treedef.unflatten([next(rest) if f else x for x, f in zip(leaves, is_array, strict=True)])
            return fun(*args, **kwargs)

        program = trace(flat, *arrays)
        cells = [Cell(x, is_float(v)) for x, v in zip(arrays, program.jaxpr.invars, strict=True)]
        captured = [Cell(c, is_float(v)) for c, v in zip(program.consts, program.jaxpr.constvars, strict=True)]
        decided = decide(program, captured, cells, selection, Pass(override, tolerance)) if along else None
        replay = Replay(treatment, decided)
        return program.out_tree.unflatten([c.value for c in replay.run(program.jaxpr, captured, cells)])

    return selected


def _treatment(selection: Any, override: bool, tolerance: float) -> Selected:
    if not isinstance(selection, Mapping):
        selections.weight(selection, 0.0, "with_selection")
        return Selected({}, selection, override, tolerance)
    if unknown := selection.keys() - SWITCHES - ORDERINGS:
        raise InputError(
            message(
                f"with_selection(fun, {{{', '.join(map(repr, sorted(unknown)))}: ...}})",
                f"no operation is called {', '.join(map(repr, sorted(unknown)))}.",
                "A mapping says, for each operation by name, what its kinks do.",
                "one of " + ", ".join(sorted(SWITCHES | ORDERINGS)),
            )
        )
    return Selected(selection, None, override, tolerance)
