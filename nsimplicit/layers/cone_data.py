"""The data of a cone program: read, checked, brought to one dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit._records import data
from nsimplicit._tree import is_float
from nsimplicit.layers.cone_blocks import EACH_ROW, TRIPLES, WHOLE, Block, Product, merge, order
from nsimplicit.layers.layer import require_convex, require_finite
from nsimplicit.prox.base import Set, concrete
from nsimplicit.prox.cones import ZeroCone
from nsimplicit.prox.eigenvalues import PSDCone
from nsimplicit.prox.exponential_cone import DualExponentialCone, ExponentialCone
from nsimplicit.prox.power_cone import DualPowerCone, PowerCone
from nsimplicit.prox.second_order_cone import SecondOrderCone
from nsimplicit.prox.sets import Nonnegative

WHERE = "layers.cone_program"
KEYS = {
    "z": "rows that are zero",
    "f": "the same",
    "l": "rows that are not negative",
    "q": "sizes of second-order cones",
    "s": "orders of semidefinite cones",
    "ep": "how many exponential cones",
    "ed": "how many dual ones",
    "p": "exponents of power cones, negative for a dual one",
}


@data
class ConeProgram:
    """min ½ xᵀP x + cᵀx subject to A x + s = b, s in the product of cones."""

    A: jax.Array
    b: jax.Array
    c: jax.Array
    P: jax.Array
    cones: Product


def read(A: Any, b: Any, c: Any, cones: Any, P: Any) -> ConeProgram:
    """The program of a call of ``layers.cone_program``; mistakes raise."""
    given = [A, b, c] if P is None else [A, b, c, P]
    for leaf in given:
        kind = np.dtype(jnp.result_type(leaf)).kind
        if kind == "c" or (kind not in "biuf" and not is_float(leaf)):
            found = f"an argument has dtype {jnp.result_type(leaf)}."
            raise InputError(message(f"{WHERE}(...)", found, "A cone program is over the reals.", "real arrays"))
    dtype = jnp.result_type(*map(jnp.result_type, given), jnp.float32)
    A, b, c = (jnp.asarray(x, dtype) for x in (A, b, c))
    n = c.shape[0] if c.ndim == 1 else -1
    if n < 1 or A.ndim != 2 or A.shape[1] != n or b.shape != A.shape[:1]:
        raise InputError(
            message(
                f"{WHERE}(A, b, c, cones)",
                f"A has shape {A.shape}, b has shape {b.shape}, c has shape {c.shape}.",
                "A has one column for each variable and one row for each entry of b; there is at least one variable.",
                "A of shape (m, n), b of shape (m,), c of shape (n,)",
                f"jax.vmap(lambda A, b, c: nsi.{WHERE}(A, b, c, cones)) for a batch of programs",
            )
        )
    P = jnp.zeros((n, n), dtype) if P is None else jnp.asarray(P, dtype)
    if P.shape != (n, n):
        found = f"P has shape {P.shape}, c has shape {c.shape}."
        raise InputError(message(f"{WHERE}(P=...)", found, "P is a square matrix.", f"P of shape ({n}, {n})"))
    product = Product(merge(_blocks(cones)))
    rows = sum(block.rows for block in product.blocks)
    if rows != len(b):
        sizes = ", ".join(f"{type(k.cone).__name__} {k.rows}" for k in product.blocks) or "none"
        raise InputError(
            message(
                f"{WHERE}(A, b, c, cones)",
                f"A has {len(b)} rows, the cones have {rows}: {sizes}.",
                "Every row belongs to one cone; a semidefinite cone of order n has n (n + 1) / 2, an exponential 3.",
                "count the rows of each constraint",
            )
        )
    for name, array in {"A": A, "b": b, "c": c, "P": P}.items():
        require_finite(WHERE, name, array)
    require_convex(WHERE, P)
    half = P / 2
    return ConeProgram(A, b, c, half + half.T, product)


def _blocks(cones: Any) -> list[Block]:
    if isinstance(cones, Mapping):
        return _from_sizes(cones)
    if not isinstance(cones, list | tuple):
        raise _not_cones(f"cones is a {type(cones).__name__}.")
    blocks = []
    for pair in cones:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], Set)):
            raise _not_cones(f"cones has the entry {pair!r}.")
        cone, rows = pair
        if not isinstance(cone, (*EACH_ROW, *WHOLE, *TRIPLES)):
            raise _not_cones(f"{type(cone).__name__} is not a cone it knows.")
        if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 0:
            raise _not_cones(f"a {type(cone).__name__} has {rows!r} rows.")
        blocks += _block(cone, int(rows))
    return blocks


def _block(cone: Set, rows: int) -> list[Block]:
    """The block of a cone with so many rows; of none there is none."""
    if rows == 0:
        return []
    if isinstance(cone, TRIPLES):
        if rows % 3:
            raise _not_cones(f"a {type(cone).__name__} has {rows} rows, not a multiple of 3.")
        return [Block(cone, size=3, count=rows // 3)]
    if isinstance(cone, PSDCone) and order(rows) < 0:
        raise _not_cones(f"a PSDCone has {rows} rows, which is no n (n + 1) / 2.")
    if isinstance(cone, SecondOrderCone) and rows == 1:
        return [Block(Nonnegative(selection=cone.selection), size=1, count=1)]
    return [Block(cone, size=rows, count=1)]


def _from_sizes(sizes: Mapping[str, Any]) -> list[Block]:
    """The blocks of a dictionary in the form of SCS."""
    for key, value in sizes.items():
        if key not in KEYS:
            raise _not_cones(f"cones has the key {key!r}.")
        numbers = concrete(value)
        if numbers is None or (key != "p" and (numbers.dtype.kind not in "iu" and numbers.size or (numbers < 0).any())):
            raise _not_cones(f"cones[{key!r}] is {value!r}.")
    get = {key: np.atleast_1d(np.asarray(sizes.get(key, 0 if key not in "qsp" else []))) for key in KEYS}
    blocks = _block(ZeroCone(), int(get["z"].sum() + get["f"].sum())) + _block(Nonnegative(), int(get["l"].sum()))
    for size in get["q"]:
        blocks += _block(SecondOrderCone(), int(size))
    for n in get["s"]:
        blocks += _block(PSDCone(), int(n * (n + 1) // 2))
    blocks += _block(ExponentialCone(), 3 * int(get["ep"].sum())) + _block(
        DualExponentialCone(), 3 * int(get["ed"].sum())
    )
    exponents = get["p"].astype(float)
    for signs in np.split(exponents, np.flatnonzero(np.diff(exponents < 0)) + 1):
        if signs.size:
            cone = DualPowerCone(-signs) if signs[0] < 0 else PowerCone(signs)
            blocks += _block(cone, 3 * signs.size)
    return blocks


def _not_cones(found: str) -> InputError:
    keys = ", ".join(f"{key!r} ({what})" for key, what in KEYS.items())
    return InputError(
        message(
            f"{WHERE}(..., cones)",
            found,
            f"cones says to which cone the rows of A belong, in order: pairs, or sizes in the form of SCS: {keys}.",
            "[(nsi.prox.ZeroCone(), 2), (nsi.prox.SecondOrderCone(), 3)]: pairs of a cone and its number of rows",
            "{'z': 2, 'q': [3]}",
        )
    )
