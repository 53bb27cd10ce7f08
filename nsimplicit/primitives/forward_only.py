"""An identity that may not be transposed: how a forward-only derivative says so.

``jax.custom_derivatives.linear_call`` could raise at transposition too, but cannot be vmapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax._src.core import Primitive  # jax.extend.core would import Pallas with it
from jax.interpreters import ad, batching, mlir

from nsimplicit._errors import DerivativeError

forward_only_p = Primitive("forward_only")
forward_only_p.def_impl(lambda x, *, reason: x)
forward_only_p.def_abstract_eval(lambda x, *, reason: x)
mlir.register_lowering(forward_only_p, lambda ctx, x, *, reason: [x])
batching.defvectorized(forward_only_p)


def _transpose(cotangent: Any, x: Any, *, reason: str) -> Any:
    raise DerivativeError(reason)


ad.deflinear2(forward_only_p, _transpose)


def forward_only(fun: Callable[..., Any], reason: str) -> Callable[..., Any]:
    """``fun``, a linear map; transposing it (reverse mode) raises ``reason``."""

    def wrapped(*args: Any) -> Any:
        return jax.tree.map(lambda x: forward_only_p.bind(x, reason=reason), fun(*args))

    return wrapped
