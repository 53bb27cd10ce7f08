"""Several programs that compute the same thing, timed side by side.

Calls are interleaved, so that a busy moment of the machine hits all entrants; what an entrant raises becomes a row, so
that a loss stays in the table. Times are worth comparing only at equal error: ``at_equal_error`` finds the setting.
"""

import dataclasses
import functools
import logging
import random
import re
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import jax

from benchmarks.report import Table, spread

OURS = "nsimplicit"
DEFAULT = "jaxopt, default (normal CG)"
logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)  # what a peer raises there is in its row
SLOW = 0.1  # seconds; a call slower than this is timed `repeats` times in all, not for every instance


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One program in a race.

    Args:
        name: what the row says.
        call: ``call(*args)``; the harness jits it.
        args: arrays, or trees of arrays.
        error: the output -> its error against the reference.
        products: how many products with the matrix a call makes, where known.
        note: said at the end of the row.
        jitted: False for what JAX cannot compile (torch, say): called as it is.
        others: more instances ``(args, error)`` of the same shapes (other seeds), run by the same compiled program.
        ready: the compiled program, where a search has made it; used when compile times are not asked for.
    """

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    error: Callable[[Any], float] | None = None
    products: float | None = None
    note: str = ""
    jitted: bool = True
    others: Sequence[tuple[tuple[Any, ...], Callable[[Any], float] | None]] = ()
    ready: Callable[..., Any] | None = None

    @property
    def instances(self) -> list[tuple[tuple[Any, ...], Callable[[Any], float] | None]]:
        return [(self.args, self.error), *self.others]

    def worst(self, run: Callable[..., Any]) -> float | None:
        """The largest error over the instances, nan if one is nan; every output is waited for."""
        outputs = [(error, jax.block_until_ready(run(*args))) for args, error in self.instances]
        errors = [float(error(output)) for error, output in outputs if error is not None]
        return next((e for e in errors if e != e), max(errors)) if errors else None


def race(
    entrants: Sequence[Entrant], repeats: int = 9, compiles: int = 2, seconds: float = float("inf")
) -> list[dict[str, Any]]:
    """A row per entrant: compile and warm times in milliseconds, error, memory, products.

    Args:
        entrants: what to time.
        repeats: timed calls of each entrant for each of its instances; at least 7 say what the spread is.
        compiles: the compile time is the smallest of so many, each from empty caches: the first may still import.
            With 0 only what is not ``ready`` is compiled, once.
        seconds: an entrant whose calls have taken so long together is called no more, after three of them.

    Returns:
        Rows with ``entrant``, ``trace ms`` (Python: tracing and lowering), ``compile ms`` (that and XLA), ``median
        ms``, ``quartile 1``, ``quartile 3``, ``error`` (the worst instance), ``MB`` (temporaries and output, by XLA's
        own account), ``products``, ``note``.
    """
    rows, runs, times = [], {}, {}
    for place, entrant in enumerate(entrants):
        row: dict[str, Any] = {"entrant": entrant.name}
        row |= dict.fromkeys(("trace ms", "compile ms", "median ms", "quartile 1", "quartile 3", "error", "MB"), "")
        row |= {"products": "" if entrant.products is None else entrant.products, "note": entrant.note}
        rows.append(row)
        try:
            ready = entrant.ready if not compiles else None if entrant.jitted else entrant.call
            run = ready or _compile(entrant, row, max(1, compiles))
            worst = entrant.worst(run)
            row["error"] = "" if worst is None else worst
            runs[place], times[place] = run, []
        except Exception as failure:  # whatever a peer raises is its result
            row["note"] = _and(entrant.note, _brief(failure))
    for turn in range(repeats):
        # In a new order each time: who comes after a slow one finds cold caches and threads asleep.
        for place in random.Random(turn).sample([*runs], len(runs)):
            if len(times[place]) >= 3 and sum(times[place]) > seconds:
                continue
            run, instances = runs[place], entrants[place].instances
            slow = times[place] and min(times[place]) > SLOW
            for args, _ in [instances[turn % len(instances)]] if slow else instances:
                began = perf_counter()
                jax.block_until_ready(run(*args))
                times[place].append(perf_counter() - began)
    for place, took in times.items():
        few = len(took) < 2
        rows[place] |= spread(took) if not few else {"median ms": statistics.median(took or [float("nan")]) * 1e3}
    return rows


def at_equal_error(
    make: Callable[[Any], Callable[..., Any]],
    settings: Sequence[Any],
    args: tuple[Any, ...],
    error: Callable[[Any], float],
    target: float,
    *,
    name: str = "",
    others: Sequence[tuple[tuple[Any, ...], Callable[[Any], float] | None]] = (),
    traced: bool = False,
    note: str = "",
) -> Entrant:
    """The member of a family that is just accurate enough.

    Args:
        make: setting -> the function to be raced.
        settings: from the loosest to the tightest.
        args: as for :class:`Entrant`.
        error: as for :class:`Entrant`.
        target: the error every instance must meet.
        name: the row's name; default that of ``make``.
        others: as for :class:`Entrant`.
        traced: the settings are numbers that may be traced (a tolerance): the search then compiles once.
        note: as for :class:`Entrant`; what was chosen is added.

    Returns:
        The entrant with the loosest setting whose error is at most ``target``; where none is, the most accurate one,
        with a note that says so. A family that raises at every setting gives an entrant that raises the last error.
    """
    name = name or getattr(make, "__name__", "")
    generic = jax.jit(lambda setting, *args: make(setting)(*args)) if traced else None
    best, failure = (float("inf"), None, None), None
    for setting in settings:
        trial = Entrant(name, make(setting), args, error, others=others)
        try:
            run: Any = jax.jit(trial.call) if generic is None else functools.partial(generic, setting)
            worst = Entrant(name, trial.call, args, error).worst(run)
            if worst is not None and worst <= target and others:
                worst = trial.worst(run)
        except Exception as raised:
            failure = raised
            continue
        if worst is not None and worst <= target:
            return dataclasses.replace(trial, note=_and(note, f"at {_word(setting)}"), ready=run)
        if worst is not None and worst < best[0]:
            best = worst, setting, run
    if best[1] is None:
        return absent(name, failure or ArithmeticError("no finite error at any setting"), args)
    reached = f"at {_word(best[1])}: error {best[0]:.1e}, target not reached"
    return Entrant(name, make(best[1]), args, error, others=others, note=_and(note, reached), ready=best[2])


def absent(name: str, why: Exception, args: tuple[Any, ...] = ()) -> Entrant:
    """An entrant that cannot run: its row says why."""

    def call(*_: Any) -> Any:
        raise why

    return Entrant(name, call, args)


def judge(
    table: Table,
    what: str,
    rows: list[dict[str, Any]],
    target: float,
    promised: tuple[float, float] | None,
    name: str = OURS,
) -> None:
    """Add to each row how many times nsimplicit's time it took; check what is promised.

    Args:
        table: where a broken promise is noted.
        what: the problem, for that note.
        rows: of one race.
        target: the error up to which a row counts.
        promised: how many times faster than jaxopt's default linear solver and than its fastest; None: nothing is.
        name: the row that is ours.
    """
    ours = next(row for row in rows if row["entrant"] == name)
    for row in rows:
        timed = isinstance(row["median ms"], float) and isinstance(ours["median ms"], float)
        row["x nsimplicit"] = row["median ms"] / ours["median ms"] if timed else ""
        row["bound"] = ""
    if promised is None:
        return
    error = ours["error"] if isinstance(ours["error"], float) else float("inf")
    ours["bound"] = "error " + table.bound(f"{what}, error", error, target)
    valid = [r for r in rows if r["entrant"].startswith("jaxopt") and r["x nsimplicit"] != "" and r["error"] <= target]
    default = next((row for row in valid if row["entrant"] == DEFAULT), None)
    if default is not None:
        default["bound"] = table.at_least(f"{what}, against {DEFAULT}", default["x nsimplicit"], promised[0])
        most = min(1000.0, 2 * default["compile ms"])
        ours["bound"] += "; compile " + table.bound(f"{what}, compile ms", ours["compile ms"], most)
    if valid:
        fastest = min(valid, key=lambda row: row["median ms"])
        against = f"{what}, against jaxopt's fastest, {fastest['entrant']}"
        kept = table.at_least(against, fastest["x nsimplicit"], promised[1])
        fastest["bound"] += "; " * bool(fastest["bound"]) + kept


def _compile(entrant: Entrant, row: dict[str, Any], compiles: int) -> Callable[..., Any]:
    traces, totals, compiled = [], [], None
    for _ in range(compiles):
        jax.clear_caches()
        began = perf_counter()
        lowered = jax.jit(lambda *args: entrant.call(*args)).lower(*entrant.args)
        traces.append(perf_counter() - began)
        compiled = lowered.compile()
        totals.append(perf_counter() - began)
    row["trace ms"], row["compile ms"] = min(traces) * 1e3, min(totals) * 1e3
    assert compiled is not None
    if memory := compiled.memory_analysis():
        row["MB"] = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
    return compiled


def _brief(failure: Exception) -> str:
    if isinstance(failure, ImportError) and failure.name:
        return f"not installed: {failure.name.partition('.')[0]}"
    # An error raised in a callback arrives as the traceback of another; what was raised is its last error line.
    lines = [f"{type(failure).__name__}: {failure}", *re.findall(r"^(?:\S*\.)?_?(\w+Error: .*)", str(failure), re.M)]
    return lines[-1].splitlines()[0][:120]


def _word(setting: Any) -> str:
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def _and(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
