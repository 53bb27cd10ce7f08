"""Whether a selection costs anything after XLA: kernels and memory traffic of forward and backward."""

import re

import jax
import jax.numpy as jnp

import nsimplicit as nsi
from benchmarks.report import Table

SIZE = 1 << 20
MOST = 1.05
# What XLA does for nothing: it names a value, it does not run a kernel.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def kernels(compiled: str) -> int:
    """The number of instructions in the entry computation that do work."""
    entry = re.search(r"^ENTRY .*?^}", compiled, re.MULTILINE | re.DOTALL).group()
    operations = re.findall(r"^  (?:ROOT )?%?[\w.-]+ = .*? ([\w-]+)\(", entry, re.MULTILINE)
    return sum(operation not in FREE for operation in operations)


def cost(fun, *shapes) -> tuple[int, float]:
    """Kernels and bytes accessed of the compiled value and vector-Jacobian product of an elementwise function."""

    def both(cotangent, *args):
        value, pull = jax.vjp(fun, *args)
        return value, pull(cotangent)

    compiled = jax.jit(both).lower(shapes[0], *shapes).compile()
    return kernels(compiled.as_text()), compiled.cost_analysis()["bytes accessed"]


def measure() -> Table:
    table = Table(f"Forward and backward on {SIZE} numbers, compiled: XLA's own count of kernels and bytes.")
    pairs = [("relu", nsi.relu, jax.nn.relu, 1), ("maximum", nsi.maximum, jnp.maximum, 2)]
    for name, ours, theirs, arity in pairs:
        for dtype in (jnp.float32, jnp.bfloat16):
            shapes = [jax.ShapeDtypeStruct((SIZE,), dtype)] * arity
            reference = cost(theirs, *shapes)
            for selection in (None, 0.25):
                found = cost(lambda *args, f=ours, s=selection: f(*args, selection=s), *shapes)
                row = {"function": name, "dtype": dtype.__name__, "selection": str(selection)}
                row |= {
                    "kernels": found[0],
                    "JAX's": reference[0],
                    "MB": found[1] / 1e6,
                    "JAX's MB": reference[1] / 1e6,
                }
                worst = max(found[0] / reference[0], found[1] / reference[1])
                promised = selection is None
                row["bound"] = table.bound(f"{name} {dtype.__name__}", worst, MOST) if promised else ""
                table.rows.append(row)
    return table
