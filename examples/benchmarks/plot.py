"""Tables as pictures. Forward: one panel for each feature size and filter, rates over length.

::

    python -m einfall.examples.benchmarks.plot docs/benchmarks/forward.json docs/benchmarks

writes ``forward.png``. ``backward.json`` is drawn in the same way; what is drawn of ``decode.json``
and ``sparse.json`` stands in ``plot_decode.py`` and ``plot_sparse.py``. It needs matplotlib (``pip
install einfall[viz]``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.panels import draw_panels, heading
from einfall.examples.benchmarks.plot_decode import draw_decode
from einfall.examples.benchmarks.plot_sparse import draw_sparse
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
    above = heading(data, "bfloat16")
    draw_panels(panels(data), fill, path, heading=above, unit="TFLOP/s", size=(5, 3))


def fill(ax: Any, rates: Rates) -> dict[str, Any]:
    """Draw a panel's lines, lengths side by side; return them by implementation."""
    lengths = sorted({n for points in rates.values() for n in points})
    lines: dict[str, Any] = {}
    for who, points in rates.items():
        (lines[who],) = ax.plot(
            [k for k, n in enumerate(lengths) if n in points],
            [points[n] for n in lengths if n in points],
            marker="o",
            linewidth=2.5 if who == OURS else 1.5,
            color=COLOURS.get(who),
            zorder=3 if who == OURS else 2,
        )
    ax.set_xticks(range(len(lengths)), [str(n) for n in lengths])
    ax.set_xlabel("queries and keys", fontsize=8)
    return lines


DRAW = {"forward": draw, "backward": draw, "decode": draw_decode, "sparse": draw_sparse}
"""Who draws a table, by its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a table and draw it; return 1, with a reason, where it is none of ours."""
    parser = argparse.ArgumentParser(description="a table as a picture")
    parser.add_argument("table", type=Path, help="forward.json, backward.json, sparse.json ...")
    parser.add_argument("folder", type=Path, help="where the picture is written, forward.png, say")
    options = parser.parse_args(arguments)
    try:
        data = json.loads(options.table.read_text())
    except (OSError, ValueError) as error:
        print(f"{options.table} cannot be read: {error}", file=sys.stderr)
        return 1
    name = data.get("table") if isinstance(data, dict) else None
    if name not in DRAW:
        print(
            f'{options.table} is no table that can be drawn: its "table" is {name!r}, and not '
            f"{', '.join(DRAW)}; the commands of these names write such files with --out",
            file=sys.stderr,
        )
        return 1
    path = options.folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    DRAW[name](data, path)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
