"""Plots of what the last run left in ``results/benchmarks``: ``python -m benchmarks.plots``.

Every table whose rows have an entrant, a time and a size becomes one picture: time against size on logarithmic axes,
the bars from quartile to quartile, the worst error next to each name. An entrant that missed the error the others met
has open markers.
"""

import io
import itertools
import json
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

SIZES = ("p", "n", "size", "unknowns")
LOOSE = 1e-6  # an error above this is not what the others answer
SHOWN = 12  # lines in a panel; the slowest at the largest size are left out first


def panels(rows: list[dict[str, Any]]) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """The column that is the size, and the timed rows of each problem that has more than one of it."""
    timed = [r for r in rows if isinstance(r.get("median ms"), float) and "entrant" in r]
    size = next((c for c in SIZES if timed and all(isinstance(r.get(c), int) for r in timed)), "")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in timed if size else ():
        groups.setdefault(str(row.get("problem", "")), []).append(row)
    return size, {name: group for name, group in groups.items() if len({r[size] for r in group}) > 1}


def panel(axes: Any, title: str, size: str, rows: list[dict[str, Any]]) -> None:
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(row["entrant"], []).append(row)
    last = {name: max(line, key=lambda r: r[size]) for name, line in lines.items() if len(line) > 1}
    shown = sorted(last, key=lambda name: (-last[name][size], last[name]["median ms"]))[:SHOWN]
    marks = itertools.cycle("osD^v<>PX*hd")
    for name in sorted(shown, key=lambda name: last[name]["median ms"], reverse=True):
        line = sorted(lines[name], key=lambda r: r[size])
        middle = [r["median ms"] for r in line]
        low = [max(0.0, r["median ms"] - r.get("quartile 1", r["median ms"])) for r in line]
        high = [max(0.0, r.get("quartile 3", r["median ms"]) - r["median ms"]) for r in line]
        errors = [r["error"] for r in line if isinstance(r.get("error"), float)]
        label = f"{name} ({max(errors):.0e})" if errors else name
        ours = name == "nsimplicit"
        axes.errorbar(
            [r[size] for r in line],
            middle,
            yerr=[low, high],
            label=label,
            marker=next(marks),
            markersize=5,
            fillstyle="none" if errors and not max(errors) <= LOOSE else "full",
            linewidth=2.5 if ours else 1,
            color="black" if ours else None,
            capsize=2,
        )
    axes.set(title=title, xlabel=size, ylabel="milliseconds", xscale="log", yscale="log")
    ticks = sorted({r[size] for r in rows})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="(worst relative error)", title_fontsize=7)


def plot(record: dict[str, Any], path: Path) -> bool:
    """Draw one table; False if it has no sizes."""
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size, groups = panels(record["rows"])
    if not groups:
        return False
    figure, axes = plt.subplots(1, len(groups), figsize=(6 * len(groups), 5.2), squeeze=False, layout="constrained")
    for axis, (name, rows) in zip(axes[0], groups.items(), strict=True):
        panel(axis, name, size, rows)
    found = record["environment"]
    figure.suptitle(f"{record['name']}: {found['cores']} cores, JAX {found['jax']}, {found['date'][:10]}", fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    plt.close(figure)
    # 64 colours are enough for lines, in a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    return True


def main() -> None:
    for source in sorted(RESULTS.glob("*.json")):
        target = source.with_suffix(".png")
        if plot(json.loads(source.read_text(encoding="utf-8")), target):
            print(f"{target}: {target.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
