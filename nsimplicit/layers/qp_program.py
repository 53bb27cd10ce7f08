"""The data of a quadratic program: read, checked, brought to one dtype."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import is_float
from nsimplicit.layers.layer import require_convex, require_finite


@data
class Program:
    """min ½ xᵀP x + qᵀx subject to A x = b, G x <= h, lo <= x <= hi; a bound that is ``None`` is not there."""

    P: jax.Array
    q: jax.Array
    A: jax.Array
    b: jax.Array
    G: jax.Array
    h: jax.Array
    lo: jax.Array | None
    hi: jax.Array | None


def read(P: Any, q: Any, eq: Any, ineq: Any, bounds: Any) -> Program:
    """The program of a call of ``layers.qp``; mistakes raise."""
    pairs = {"eq": eq, "ineq": ineq, "bounds": bounds}
    for name, pair in pairs.items():
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            found = f"{name} is a {type(pair).__name__}."
            usage = {"eq": "eq=(A, b)", "ineq": "ineq=(G, h)", "bounds": "bounds=(lo, hi), either of them None"}
            raise InputError(message(f"layers.qp({name}=...)", found, f"{name} is a pair.", usage[name]))
    P = _matrix(P, q, "P")
    eq, ineq = (pair and (_matrix(pair[0], q, f"{name}[0]"), pair[1]) for name, pair in list(pairs.items())[:2])
    pairs = {"eq": eq, "ineq": ineq, "bounds": bounds}
    _check_numbers((P, q, *pairs.values()))
    dtype = _dtype((P, q, *pairs.values()))
    P, q = jnp.asarray(P, dtype), jnp.asarray(q, dtype)
    n = q.shape[0] if q.ndim == 1 else -1
    if n < 1 or P.shape != (n, n):
        raise InputError(
            message(
                "layers.qp(P, q)",
                f"P has shape {P.shape}, q has shape {q.shape}.",
                "q is a vector of at least one number, P a square matrix of its size.",
                "P of shape (n, n) and q of shape (n,)",
                "jax.vmap(nsi.layers.qp) for a batch of programs",
                "P = jnp.zeros((n, n)) for a linear program",
            )
        )
    A, b = _rows("eq", "A", "b", eq, n, dtype)
    G, h = _rows("ineq", "G", "h", ineq, n, dtype)
    lo, hi = (_bound(side, bound, n, dtype) for side, bound in zip(("lo", "hi"), bounds or (None, None), strict=True))
    program = Program(P, q, A, b, G, h, lo, hi)
    _check_values(program)
    half = P / 2
    return Program(half + half.T, q, A, b, G, h, lo, hi)


def _matrix(M: Any, q: Any, name: str) -> Any:
    """A matrix; of a function ``v -> M v`` the one whose columns are the images of the unit vectors."""
    if not callable(M):
        return M
    n = jnp.size(q)
    unit = jnp.eye(n, dtype=jnp.result_type(q, jnp.float32))
    columns: Any = jax.vmap(M)(unit) if n else unit
    if getattr(columns, "ndim", 0) != 2:
        found = f"{name} is a function whose images of {n} vectors have the shape {jax.tree.map(jnp.shape, columns)}."
        meaning = f"It maps vectors of {n} numbers, as many as q has, to vectors."
        raise InputError(message("layers.qp(...)", found, meaning, "lambda v: M @ v"))
    return columns.T


def _check_numbers(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if np.dtype(jnp.result_type(leaf)).kind not in "biuf" and not is_float(leaf) or jnp.iscomplexobj(leaf):
            found = f"an argument has dtype {jnp.result_type(leaf)}."
            raise InputError(message("layers.qp(...)", found, "A quadratic program is over the reals.", "real arrays"))


def _dtype(tree: Any) -> Any:
    """The common floating dtype, at least float32."""
    return jnp.result_type(*map(jnp.result_type, jax.tree.leaves(tree)), jnp.float32)


def _rows(name: str, matrix: str, side: str, pair: Any, n: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    if pair is None:
        return jnp.zeros((0, n), dtype), jnp.zeros(0, dtype)
    left, right = jnp.asarray(pair[0], dtype), jnp.asarray(pair[1], dtype)
    if left.ndim != 2 or left.shape[1] != n or right.shape != left.shape[:1]:
        raise InputError(
            message(
                f"layers.qp({name}=({matrix}, {side}))",
                f"{matrix} has shape {left.shape}, {side} has shape {right.shape}, q has shape ({n},).",
                f"{matrix} has one column for each variable, and {side} one entry for each of its rows.",
                f"{matrix} of shape (m, {n}) and {side} of shape (m,)",
            )
        )
    return left, right


def _bound(side: str, bound: Any, n: int, dtype: Any) -> jax.Array | None:
    if bound is None:
        return None
    bound = jnp.asarray(bound, dtype)
    if bound.shape not in ((), (n,)):
        raise InputError(
            message(
                "layers.qp(bounds=(lo, hi))",
                f"{side} has shape {bound.shape}, q has shape ({n},).",
                "A bound is a number, or one for each variable; plus or minus infinity is no bound.",
                f"{side} of shape ({n},)",
                f"{side}=None",
            )
        )
    return jnp.broadcast_to(bound, (n,))


def _check_values(program: Program) -> None:
    """Raise on nan, on infinity where it has no meaning, and on a P that is not convex, as far as values are known."""
    infinite = {"h": (np.inf,), "hi": (np.inf,), "lo": (-np.inf,)}
    for name in ("P", "q", "A", "b", "G", "h", "lo", "hi"):
        instead = "; h and hi may be +inf, lo may be -inf: no constraint there"
        require_finite("layers.qp", name, getattr(program, name), infinite.get(name, ()), instead)
    require_convex("layers.qp", program.P)
