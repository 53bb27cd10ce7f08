"""What `import nsimplicit` adds to `import jax`, each in fresh processes."""

import statistics
import subprocess
import sys

from benchmarks.report import Table, spread

REPEATS = 7
MOST = 1.1


def seconds(module: str) -> float:
    """The time one import takes in a process of its own, without the start of the interpreter."""
    code = f"from time import perf_counter as t; began = t(); import {module}; print(t() - began)"
    return float(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout)


def measure() -> Table:
    table = Table("What does `import nsimplicit` add to `import jax`? Fresh processes, in turns.")
    modules = ("jax", "nsimplicit")
    for module in modules:
        seconds(module)  # the first one compiles to byte code and fills the disk cache
    times = {module: [] for module in modules}
    for _ in range(REPEATS):
        for module in modules:
            times[module].append(seconds(module))
    ratio = statistics.median(times["nsimplicit"]) / statistics.median(times["jax"])
    table.rows = [{"import": module, **spread(times[module]), "ratio": "", "bound": ""} for module in modules]
    table.rows[1].update(ratio=ratio, bound=table.bound("import nsimplicit / import jax", ratio, MOST))
    return table
