"""Run benchmarks by name: ``python -m benchmarks.run [--smoke] [--only NAME ...]``.

Several at full size run each in a process of its own, which is stopped and tried again if it hangs: LAPACK calls of a
batch inside a loop, which some peers make, can stop for ever on a CPU.
"""

import argparse
import importlib
import inspect
import json
import subprocess
import sys
import traceback
from pathlib import Path
from time import perf_counter

from benchmarks import report

QUICK = ("import_time", "kernels", "eager", "guard_cost")
PEERS = ("hypergradients", "matrix_free", "deq", "programs", "scale", "accuracy", "warm_starts", "memory", "auto")
PEERS += ("agreement", "proxes", "sinkhorn", "cone_programs")
ALL = tuple(name for name in QUICK + PEERS if Path(__file__).with_name(f"{name}.py").exists())
SMOKE = (*QUICK, "hypergradients", "matrix_free", "sinkhorn")
LIMIT, TRIES = 600, 3  # seconds for one of them, and how often it is tried


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="those that are quick, the others at one small size")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=f"some of: {', '.join(ALL)}")
    arguments = parser.parse_args()
    names = arguments.only or (SMOKE if arguments.smoke else ALL)
    missed, start = [], perf_counter()
    for name in names:
        alone = arguments.smoke or len(names) == 1
        missed += [f"{name}: {text}" for text in (here(name, arguments.smoke) if alone else apart(name))]
    print(f"\n{perf_counter() - start:.0f} s in all")
    print("every bound kept" if not missed else "bounds missed:\n  " + "\n  ".join(missed))
    # A smoke run asks whether the benchmarks run; on a busy machine a bound on time says nothing about the code.
    return any("did not run" in text for text in missed) if arguments.smoke else len(missed)


def here(name: str, smoke: bool) -> list[str]:
    """Run one, and write its table; the bounds it missed."""
    print(f"\n== {name}", flush=True)
    began = perf_counter()
    try:
        measure = importlib.import_module(f"benchmarks.{name}").measure
        sized = "smoke" in inspect.signature(measure).parameters
        table = measure(smoke=smoke) if sized else measure()
    except Exception as failure:  # the others still have something to say
        traceback.print_exc()
        return [f"did not run: {type(failure).__name__}"]
    # What one small size says must not take the place of the whole table.
    report.write(f"{name}-smoke" if sized and smoke else name, table)
    print(f"== {name}: {perf_counter() - began:.0f} s", flush=True)
    return table.missed


def apart(name: str) -> list[str]:
    """The same at full size, in a process of its own."""
    written = report.RESULTS / f"{name}.json"
    written.unlink(missing_ok=True)
    for _ in range(TRIES):
        try:
            subprocess.run([sys.executable, "-u", "-m", "benchmarks.run", "--only", name], check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"== {name}: hangs; stopped after {LIMIT} s", flush=True)
            continue
        return json.loads(written.read_text(encoding="utf-8"))["missed"] if written.exists() else ["did not run"]
    return [f"did not run: hung {TRIES} times"]


if __name__ == "__main__":
    sys.exit(main())
