"""Run benchmarks by name: ``python -m benchmarks.run [--smoke] [--only NAME ...]``."""

import argparse
import importlib
import inspect
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="those that are quick, the others at one small size")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=f"some of: {', '.join(ALL)}")
    arguments = parser.parse_args()
    missed, start = [], perf_counter()
    for name in arguments.only or (SMOKE if arguments.smoke else ALL):
        print(f"\n== {name}", flush=True)
        began = perf_counter()
        try:
            measure = importlib.import_module(f"benchmarks.{name}").measure
            sized = "smoke" in inspect.signature(measure).parameters
            table = measure(smoke=arguments.smoke) if sized else measure()
        except Exception as failure:  # the others still have something to say
            traceback.print_exc()
            missed.append(f"{name}: did not run: {type(failure).__name__}")
            continue
        # What one small size says must not take the place of the whole table.
        report.write(f"{name}-smoke" if sized and arguments.smoke else name, table)
        print(f"== {name}: {perf_counter() - began:.0f} s", flush=True)
        missed += [f"{name}: {text}" for text in table.missed]
    print(f"\n{perf_counter() - start:.0f} s in all")
    print("every bound kept" if not missed else "bounds missed:\n  " + "\n  ".join(missed))
    # A smoke run asks whether the benchmarks run; on a busy machine a bound on time says nothing about the code.
    return any("did not run" in text for text in missed) if arguments.smoke else len(missed)


if __name__ == "__main__":
    sys.exit(main())
