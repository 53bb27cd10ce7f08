"""What `import nsimplicit` adds to `import jax`, each time in a fresh process."""

import json
import os
import statistics
import subprocess
import sys

from benchmarks.report import Table, spread

REPEATS = 7
MOST = 1.1
# One process gives both numbers, so that a busy machine slows both alike; CPU time, so that waiting does not count.
CODE = """
from time import process_time as t
began = t()
import jax
middle = t()
import nsimplicit
print([middle - began, t() - began])
"""
# An installed package comes with its byte code; without this the sources would be compiled in every process.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds() -> tuple[float, float]:
    """CPU seconds of `import jax` and of `import nsimplicit` with all it imports, without the interpreter's start."""
    command = [sys.executable, "-c", CODE]
    return tuple(json.loads(subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout))


def measure() -> Table:
    table = Table(f"What does `import nsimplicit` add to `import jax`? CPU time in {REPEATS} fresh processes.")
    seconds()  # the first one writes the byte code and fills the disk cache
    jax, ours = zip(*(seconds() for _ in range(REPEATS)), strict=True)
    ratio = statistics.median(ours) / statistics.median(jax)
    promise = table.bound("import nsimplicit / import jax", ratio, MOST)
    table.rows = [
        {"import": "jax", **spread(jax), "ratio": "", "bound": ""},
        {"import": "nsimplicit", **spread(ours), "ratio": ratio, "bound": promise},
    ]
    return table
