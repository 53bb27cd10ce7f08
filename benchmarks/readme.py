"""Write the tables of the last ``make bench`` into ``benchmarks/README.md``: ``python -m benchmarks.readme``.

What the tables say is what the results say; what is said about them is written by hand, and stays.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- from here on written by benchmarks.readme -->\n", "<!-- up to here -->\n"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """Some rows and columns of a result.

    Args:
        title: in bold above the table.
        name: of the result.
        columns: the key of each column in the result, and what stands above it.
        keep: the rows.
        aside: after the title; ``{column}`` is taken from the first row.
    """

    title: str
    name: str
    columns: dict[str, str]
    keep: Callable[[Row], bool] = lambda row: True
    aside: str = ""


TIMES = {"entrant": "", "median ms": "ms", "x nsimplicit": "x nsimplicit", "error": "error"}
FULL = TIMES | {"compile ms": "compile ms", "MB": "MB"}
SIZES = {"unknowns": (1e5, 1e6), "batch": (16, 4096), "no kinks": (0,), "kinks": (16,)}
SECTIONS = (
    *(
        Section(
            f"Hypergradient, {problem}, 500 x 2000, float64, error at most 1e-8",
            "hypergradients",
            FULL,
            lambda row, problem=problem: (row["problem"], row["m"], row["p"]) == (problem, 500, 2000),
            "support {support}",
        )
        for problem in ("Lasso", "elastic net")
    ),
    Section("The same Lasso known by its products", "matrix_free", TIMES | {"MB": "MB"}, lambda row: row["p"] == 2000),
    Section(
        "Lasso, 500 x 20 000, float32 (a p x p matrix would take 1600 MB)",
        "matrix_free",
        TIMES | {"MB": "MB"},
        lambda row: row["p"] == 20_000,
    ),
    Section(
        "A training step of an equilibrium layer, batch 64, width 512, float32",
        "deq",
        {"method": "", "entrant": "", "median ms": "ms", "times by hand": "by hand = 1", "error": "error"}
        | {"compile ms": "compile ms"},
        lambda row: row["cell"] == "tanh",
    ),
    Section(
        "Gradients through quadratic programs, optimal transport, smooth roots",
        "programs",
        {"problem": "", "n": "n"} | TIMES | {"compile ms": "compile ms", "off": "off by 1e-3"},
        lambda row: row["problem"] != "root" or row["n"] == 800,
    ),
    Section(
        "Growth, and the ratio to a floor",
        "scale",
        {"problem": "", "size": "size", "entrant": "", "median ms": "ms", "times floor": "times floor"},
        lambda row: row["size"] in SIZES.get(row["problem"], ()) and "floor of" not in row["entrant"],
        "one product a step, or bytes over the bandwidth of a copy",
    ),
    Section(
        "Products saved by warm starts in 50 steps of Adam on a hyperparameter",
        "warm_starts",
        {k: k for k in ("fit", "linear solver", "rtol", "rate", "cold", "warm", "saved", "in the last ten")},
        aside="`tap(like=x)`",
    ),
    Section(
        "Temporaries of a gradient, z = tanh(z W + b), 64 x 1000, float32, in MB",
        "memory",
        {"program": "", "50 steps": "50 steps", "500 steps": "500 steps"},
        lambda row: row["in"] == "weight",
    ),
    Section(
        "Float32 gradients of 20 random systems of 50 unknowns per condition number",
        "accuracy",
        {"program": "", "condition": "condition", "median error": "median error", "largest error": "largest"}
        | {"flagged": "flagged", "missed": "missed"},
        lambda row: row["program"] in ("nsimplicit, default", "jaxopt, default") and row["condition"] != "all",
    ),
    Section(
        "What `Auto` is read off: milliseconds of one solve, float64",
        "auto",
        {k: k for k in ("system", "n", "support")}
        | {"kappa": "condition"}
        | {k: k for k in ("RestrictedCholesky", "ProxCG", "Dense", "GMRES", "BiCGStab", "Auto takes")},
        lambda row: row["dtype"] == "float64",
    ),
)


def show(value: Any) -> str:
    return str(value) if not isinstance(value, float) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def written(section: Section, result: dict[str, Any]) -> str:
    rows = [row for row in result["rows"] if section.keep(row)]
    lines = [section.columns.values(), ["---"] * len(section.columns)]
    lines += [[show(row.get(key, "")) for key in section.columns] for row in rows]
    title = f"**{section.title}**" + (f" ({section.aside.format(**rows[0])})" if section.aside else "")
    return "\n".join([title, "", *(f"| {' | '.join(cells)} |" for cells in lines)]) + "\n"


def main() -> None:
    names = dict.fromkeys(section.name for section in SECTIONS)
    results = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    found = results["hypergradients"]["environment"]
    packages = ("jax", "jaxopt", "optimistix", "lineax", "qpax", "ott-jax", "cvxpylayers")
    versions = ", ".join(f"{name} {found[name]}" for name in packages if name in found)
    head = (
        f"`make bench`, {found['date'][:10]}, {found['cores']} cores ({found['processor']}), Python "
        f"{found['python']}, {versions}.\nMilliseconds are medians; error is relative, the worst of three seeds. Every "
        "row, with quartiles, is in what the command writes.\n"
    )
    missed = [f"- {name}: {text}" for name, result in results.items() for text in result["missed"]]
    last = "\n".join(["**Bounds missed in that run**", "", *(missed or ["none"])]) + "\n"
    text = "\n".join([head, *(written(section, results[section.name]) for section in SECTIONS), last])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
