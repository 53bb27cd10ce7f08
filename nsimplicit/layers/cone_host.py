"""Cone programs solved outside of JAX: by SCS, by Clarabel, by any function of NumPy arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit._errors import InputError, message
from nsimplicit.host import host
from nsimplicit.layers.cone_blocks import Block, order, triangle
from nsimplicit.layers.cone_data import WHERE, ConeProgram
from nsimplicit.prox.cones import ZeroCone
from nsimplicit.prox.eigenvalues import PSDCone
from nsimplicit.prox.exponential_cone import DualExponentialCone, ExponentialCone
from nsimplicit.prox.power_cone import DualPowerCone, PowerCone
from nsimplicit.prox.second_order_cone import SecondOrderCone
from nsimplicit.prox.sets import Nonnegative

HostSolver = Callable[..., tuple[Any, Any, Any]]
Solution = tuple[jax.Array, jax.Array, jax.Array]
KEYS = {ZeroCone: "z", Nonnegative: "l", SecondOrderCone: "q", PSDCone: "s", ExponentialCone: "ep"}
KEYS |= {DualExponentialCone: "ed", PowerCone: "p", DualPowerCone: "p"}
ORDER: list[str] = ["z", "l", "q", "s", "ep", "ed", "p"]


def solve_on_host(solver: str | HostSolver, program: ConeProgram) -> Solution:
    """(x, y, s) as the solver gives them; the rows come back in the order of the program."""
    blocks = program.cones.blocks
    unknown = [type(block.cone).__name__ for block in blocks if type(block.cone) not in KEYS]
    if unknown:
        raise _refused(solver, f"a {unknown[0]} has no name there.", "write it with other cones", "leave solver out")
    if solver == "clarabel" and any(isinstance(k.cone, DualExponentialCone | DualPowerCone) for k in blocks):
        raise _refused(solver, "it has no dual exponential or power cones.", "solver='scs'")
    fun: Any = {"scs": scs, "clarabel": clarabel}.get(solver) if isinstance(solver, str) else solver
    if not callable(fun):
        raise _refused(solver, f"{solver!r} is not one of scs, clarabel.", "solver=None for the solver in JAX")
    starts = np.cumsum([0, *(block.rows for block in blocks)])
    places = [i for key in ORDER for i, block in enumerate(blocks) if KEYS[type(block.cone)] == key]
    rows = np.concatenate([[], *(np.arange(starts[i], starts[i + 1]) for i in places)]).astype(int)
    sizes = {key: _sizes(key, [blocks[i] for i in places if KEYS[type(blocks[i].cone)] == key]) for key in ORDER}
    exponents = [_exponents(blocks[i]) for i in places if KEYS[type(blocks[i].cone)] == "p"]

    def run(A: Any, b: Any, c: Any, P: Any, exponents: list[Any]) -> tuple[Any, Any, Any]:
        cones = sizes | {"p": [float(p) for block in exponents for p in np.atleast_1d(block)]}
        arrays = (np.asarray(v, float) for v in (A, b, c, P))
        answer: Any = fun(*arrays, {key: value for key, value in cones.items() if value})
        x, y, s = answer
        return x, np.asarray(y)[np.argsort(rows)], np.asarray(s)[np.argsort(rows)]

    call = host(run, like=lambda A, b, c, P, p: (c, b, b))
    return call(program.A[rows], program.b[rows], program.c, program.P, exponents)


def _sizes(key: str, blocks: list[Block]) -> Any:
    """The value of a key of SCS's dictionary."""
    if key in "zl":
        return sum(block.rows for block in blocks)
    if key in "qs":
        return [order(k.size) if key == "s" else k.size for k in blocks for _ in range(k.count)]
    return sum(block.count for block in blocks)


def _exponents(block: Block) -> jax.Array:
    alpha = jnp.broadcast_to(jnp.asarray(block.cone.alpha), (block.count,))  # pyright: ignore[reportAttributeAccessIssue]
    return -alpha if isinstance(block.cone, DualPowerCone) else alpha


def scs(A: Any, b: Any, c: Any, P: Any, cones: dict[str, Any]) -> tuple[Any, Any, Any]:
    """By SCS, as precisely as it can: what is nan in its answer says what it found."""
    module, sparse = _needs("scs"), _needs("scipy.sparse")
    problem = {"A": sparse.csc_matrix(A), "b": b, "c": c}
    if P.any():
        problem["P"] = sparse.csc_matrix(np.triu(P))
    options = {"eps_abs": 1e-9, "eps_rel": 1e-9, "eps_infeas": 1e-9, "verbose": False}
    found = module.solve(problem, cones, **options)
    return found["x"], found["y"], found["s"]


def clarabel(A: Any, b: Any, c: Any, P: Any, cones: dict[str, Any]) -> tuple[Any, Any, Any]:
    """By Clarabel, whose matrices are laid out by columns of the upper triangle."""
    module, sparse = _needs("clarabel"), _needs("scipy.sparse")
    made, rows, start = [], [], 0
    kinds: list[tuple[Any, Any]] = [(module.ZeroConeT, cones["z"])] if "z" in cones else []
    kinds += [(module.NonnegativeConeT, cones["l"])] if "l" in cones else []
    kinds += [(module.SecondOrderConeT, size) for size in cones.get("q", ())]
    kinds += [(module.PSDTriangleConeT, n) for n in cones.get("s", ())]
    kinds += [(lambda _: module.ExponentialConeT(), 3)] * cones.get("ep", 0)
    kinds += [(module.PowerConeT, alpha) for alpha in cones.get("p", ())]
    for make, size in kinds:
        made.append(make(size))
        semidefinite = make is module.PSDTriangleConeT
        index = triangle(size)[0][np.tril_indices(size)] if semidefinite else np.arange(size if size >= 1 else 3)
        rows.append(start + index)
        start += len(index)
    index = np.concatenate([[], *rows]).astype(int)
    settings = module.DefaultSettings()
    settings.verbose = False
    for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
        setattr(settings, name, 1e-10)
    matrices = sparse.csc_matrix(np.triu(P)), sparse.csc_matrix(A[index])
    found = module.DefaultSolver(matrices[0], c, matrices[1], b[index], made, settings).solve()
    x, y, s = (np.array(v, float) for v in (found.x, found.z, found.s))
    back, status = np.argsort(index), str(found.status)
    if "PrimalInfeasible" in status:
        x, s = np.full_like(x, np.nan), np.full_like(s, np.nan)
    if "DualInfeasible" in status:
        y = np.full_like(y, np.nan)
    return x, y[back], s[back]


def _needs(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise _refused(package, f"{package} is not installed.", f"pip install {package}", "solver=None") from error


def _refused(solver: Any, found: str, *tries: str) -> InputError:
    meaning = "It is the name of a solver or a function (A, b, c, P, cones) -> (x, y, s) of NumPy arrays."
    return InputError(message(f"{WHERE}(solver={solver!r})", found, meaning, *tries))
