"""Run benchmarks by name: ``python -m benchmarks.run [--smoke] [--only NAME ...]``."""

import argparse
import importlib
import sys
from time import perf_counter

from benchmarks import report

SMOKE = ("import_time", "kernels", "eager", "guard_cost")
ALL = SMOKE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only those that are quick and need no peer")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=f"some of: {', '.join(ALL)}")
    arguments = parser.parse_args()
    missed = []
    for name in arguments.only or (SMOKE if arguments.smoke else ALL):
        print(f"\n== {name}", flush=True)
        began = perf_counter()
        table = importlib.import_module(f"benchmarks.{name}").measure()
        report.write(name, table)
        print(f"== {name}: {perf_counter() - began:.0f} s", flush=True)
        missed += [f"{name}: {text}" for text in table.missed]
    print("\nevery bound kept" if not missed else "\nbounds missed:\n  " + "\n  ".join(missed))
    # A smoke run asks whether the benchmarks run; on a busy machine a bound on time says nothing about the code.
    return 0 if arguments.smoke else len(missed)


if __name__ == "__main__":
    sys.exit(main())
