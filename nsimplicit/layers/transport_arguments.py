"""The arguments of a transport problem as arrays of one dtype, and errors that say what cannot be one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nsimplicit._errors import InputError, message

NAMES = ("a", "b", "cost", "epsilon", "rho_a", "rho_b")


def prepare(a: Any, b: Any, cost: Any, epsilon: Any, rho_a: Any, rho_b: Any, init: Any) -> tuple[jax.Array, ...]:
    """Check what is known of the arguments of ``sinkhorn``; arrays of the dtype of a, b and cost, at least float32."""
    given = (a, b, cost, epsilon, rho_a, rho_b, 0.0 if init is None else init)
    found = [jnp.asarray(x) for x in given]
    _check_shapes([x.shape for x in found], init is None)
    dtype = jnp.result_type(*found[:3])
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise _error("cost", f"the arguments have dtype {dtype}.", "Weights and costs are real.", "cost.real")
    dtype = jnp.promote_types(dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float), jnp.float32)
    arrays = tuple(x.astype(dtype) for x in found)
    known = {name: None if isinstance(x, Tracer) else x for name, x in zip(NAMES, given, strict=False)}
    with jax.ensure_compile_time_eval():
        _check_values(**known, dtype=dtype)
    return *arrays[:6], jnp.broadcast_to(arrays[6], arrays[0].shape)


def slack(tol: Any, dtype: Any) -> jax.Array:
    """How far the marginals may be off, relative to their sum: masses are compared at the root of eps."""
    least = float(jnp.finfo(dtype).eps) ** 0.5
    return jnp.where(10 * tol > least, 10 * tol, least)


def _check_shapes(shapes: list[tuple[int, ...]], no_init: bool) -> None:
    a, b, cost = shapes[:3]
    if not len(a) == len(b) == 1 or cost != a + b or 0 in cost:
        raise _error(
            "cost",
            f"a has shape {a}, b {b}, cost {cost}.",
            "They must be (n,), (m,) and (n, m), with at least one point on either side.",
            "cost[i, j] from the i-th point of a to the j-th of b",
            "jax.vmap over several problems",
        )
    for name, shape in zip(NAMES[3:], shapes[3:], strict=False):
        if shape != ():
            raise _error(name, f"{name} has shape {shape}.", "It must be one number.", "jax.vmap over several values")
    if not no_init and shapes[6] != a:
        raise _error(
            "init", f"init has shape {shapes[6]}, a {a}.", "It must be a potential f.", "init=answer.potentials[0]"
        )


def _check_values(a: Any, b: Any, cost: Any, epsilon: Any, rho_a: Any, rho_b: Any, dtype: Any) -> None:
    for name, x in (("a", a), ("b", b)):
        if x is not None:
            _check_weights(name, jnp.asarray(x, dtype))
    if cost is not None:
        wrong = int(_unusable(jnp.asarray(cost, dtype)))
        if wrong:
            raise _error(
                "cost",
                f"{wrong} of {np.size(cost)} entries are nan or -inf.",
                "A cost is a number, or inf for a pair that is forbidden.",
                "jnp.where(jnp.isnan(cost), jnp.inf, cost)",
                "a distance without a square root at 0, whose derivative is nan",
            )
    for name, x in (("epsilon", epsilon), ("rho_a", rho_a), ("rho_b", rho_b)):
        if x is not None and not (float(x) > 0 and (name != "epsilon" or float(x) < float("inf"))):
            meaning = "It is the weight of the entropy" if name == "epsilon" else "It is the weight of a marginal"
            raise _error(
                name,
                f"{name} is {float(x):g}.",
                f"{meaning}, and must be positive.",
                "epsilon=0.05 * cost.mean()" if name == "epsilon" else f"{name}=float('inf') for an exact marginal",
            )
    if a is None or b is None or rho_a is None or rho_b is None or min(float(rho_a), float(rho_b)) < float("inf"):
        return
    masses = [float(jnp.asarray(x, dtype).sum()) for x in (a, b)]
    if abs(masses[0] - masses[1]) > float(slack(0.0, dtype)) * max(masses):
        raise _error(
            "a, b",
            f"a sums to {masses[0]:.8g}, b to {masses[1]:.8g}.",
            "A plan with these marginals does not exist.",
            "a / a.sum() and b / b.sum()",
            "rho_a=1.0, rho_b=1.0: marginals that are met approximately",
        )


def _check_weights(name: str, x: jax.Array) -> None:
    low, mass = float(x.min()), float(x.sum())
    if not (low >= 0 and 0 < mass < float("inf")):
        raise _error(
            name,
            f"the smallest entry of {name} is {low:g}, their sum {mass:g}.",
            "Weights must be at least 0, and have a finite sum that is not 0.",
            f"jax.nn.softmax({name})",
            f"{name} / {name}.sum() after removing negative entries",
        )


@jax.jit
def _unusable(cost: jax.Array) -> jax.Array:
    return (jnp.isnan(cost) | (cost == -jnp.inf)).sum()


def _error(name: str, found: str, meaning: str, *tries: str) -> InputError:
    return InputError(message(f"sinkhorn({name}=...)" if name != "a, b" else "sinkhorn(a, b)", found, meaning, *tries))
