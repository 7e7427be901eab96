"""Tables as pictures. Forward: one panel for each feature size and filter, rates over length.

::

    python -m einfall.examples.benchmarks.plot docs/benchmarks/forward.json docs/benchmarks

writes ``forward.png``, and ``decode.png`` for ``decode.json``, whose panels ``plot_decode.py``
describes. It needs matplotlib (``pip install einfall[viz]``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.plot_decode import draw_decode
from einfall.examples.benchmarks.report import COLOURS, OURS

Rates = dict[str, dict[int, float]]


def panels(data: Mapping[str, Any]) -> dict[str, Rates]:
    """Return TFLOP/s by panel, implementation and length; rows of a single length are left out."""
    found: dict[str, Rates] = {}
    times = {(r["row"], r["who"]): r["milliseconds"] for r in data["results"]}
    for row in data["rows"]:
        kind = row["name"].split("-")[0]
        panel = found.setdefault(f"{kind}, {row['d']} features", {})
        for (name, who), rounds in times.items():
            if name == row["name"] and rounds:
                panel.setdefault(who, {})[row["n"]] = row["flops"] / median(rounds) / 1e9
    return {k: v for k, v in found.items() if any(len(rates) > 1 for rates in v.values())}


def draw(data: Mapping[str, Any], path: Path) -> None:
    """Draw all panels in one picture."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    shown = panels(data)
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(5 * columns, 3 * lines), squeeze=False, sharey=True
    )
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, (title, rates) in zip(axes.flat, shown.items(), strict=False):
        for who, points in rates.items():
            lengths = sorted(points)
            ax.plot(
                range(len(lengths)),
                [points[n] for n in lengths],
                marker="o",
                linewidth=2.5 if who == OURS else 1.5,
                color=COLOURS.get(who),
                label=who,
                zorder=3 if who == OURS else 2,
            )
        ax.set_xticks(range(len(lengths)), [str(n) for n in lengths])
        ax.set_title(title, fontsize=10)
        ax.grid(axis="y", color="#dddddd")
    for ax in axes[:, 0]:
        ax.set_ylabel("TFLOP/s")
    axes.flat[0].set_ylim(bottom=0)  # shared by all, so only when everything is drawn
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    machine = data["machine"]
    figure.suptitle(
        f"Forward, bfloat16, {machine['device']}, torch {machine['torch']}", fontsize=11
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a table and draw it."""
    parser = argparse.ArgumentParser(description="a table as a picture")
    parser.add_argument("table", type=Path, help="forward.json or decode.json")
    parser.add_argument("folder", type=Path, help="where forward.png or decode.png is written")
    options = parser.parse_args(arguments)
    data = json.loads(options.table.read_text())
    decode = all("moved" in row for row in data["rows"])
    path = options.folder / ("decode.png" if decode else "forward.png")
    (draw_decode if decode else draw)(data, path)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
