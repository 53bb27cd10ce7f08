"""The form every benchmark answers in: a table, the bounds it missed, and what it ran on."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

RESULTS = Path("results/benchmarks")
PACKAGES = (
    "nsimplicit",
    "jax",
    "jaxlib",
    "numpy",
    "jaxopt",
    "optimistix",
    "lineax",
    "qpax",
    "ott-jax",
    "celer",
    "scikit-learn",
    "pyproximal",
    "scico",
    "cvxpy",
    "cvxpylayers",
    "scs",
    "clarabel",
    "diffcp",
)


@dataclasses.dataclass
class Table:
    """Rows that share their columns; ``missed`` names every promised bound that does not hold."""

    question: str
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    missed: list[str] = dataclasses.field(default_factory=list)

    def bound(self, what: str, value: float, most: float) -> str:
        """Check a promise and say how it went."""
        kept = value <= most
        if not kept:
            self.missed.append(f"{what}: {value:.4g}, promised at most {most:.4g}")
        return f"≤ {most:g}: {'kept' if kept else 'MISSED'}"

    def at_least(self, what: str, value: float, least: float) -> str:
        """Check a promise of being that many times better, and say how it went."""
        kept = value >= least
        if not kept:
            self.missed.append(f"{what}: {value:.4g}, promised at least {least:g}")
        return f"{value:.3g}x, ≥ {least:g}: {'kept' if kept else 'MISSED'}"


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"median ms": middle * 1e3, "quartile 1": low * 1e3, "quartile 3": high * 1e3}


def clock(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` calls, every one waited for."""
    import jax

    def once() -> float:
        began = perf_counter()
        jax.block_until_ready(call())
        return perf_counter() - began

    return [once() for _ in range(repeats)]


def environment() -> dict[str, Any]:
    """What a number depends on besides the code."""
    import jax

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "device": str(jax.devices()[0].device_kind),
        **{package: found for package in PACKAGES if (found := version(package))},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(table: Table) -> str:
    columns = list(dict.fromkeys(column for row in table.rows for column in row))
    lines = [
        columns,
        ["---"] * len(columns),
        *([show(row.get(column, "")) for column in columns] for row in table.rows),
    ]
    return "\n".join(["**" + table.question + "**", "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def write(name: str, table: Table) -> None:
    """Print the table and leave it, with the environment, in ``results/benchmarks``."""
    found = environment()
    text = markdown(table)
    print(text, *(f"MISSED {missed}" for missed in table.missed), sep="\n", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {"name": name, **dataclasses.asdict(table), "environment": found}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    versions = ", ".join(f"{key} {value}" for key, value in found.items())
    (RESULTS / f"{name}.md").write_text(f"{text}\n\n{versions}\n", encoding="utf-8")
