"""The sparse table as a picture: FlexAttention's time over ours, and what an executed tile costs.

Both are ratios, and share a scale. A tile costs what the causal kernel's costs where it is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.panels import draw_panels, heading
from einfall.examples.benchmarks.plot_decode import short
from einfall.examples.benchmarks.report import COLOURS, OURS
from einfall.examples.benchmarks.sparse import DENSE

Ratios = dict[str, float]
"""Ratios by the words under a place."""

FLEX = "FlexAttention's time / ours"
TILE = "time of an executed point / that of the causal kernel"


def sparse_panels(data: Mapping[str, Any]) -> dict[str, Ratios]:
    """Return the ratios of both panels, rows in the order of the table."""
    found: dict[str, Ratios] = {FLEX: {}, TILE: {}}
    results = {(r["row"], r["who"]): r for r in data["results"] if r["milliseconds"]}
    for row in data["rows"]:
        ours, flex, dense = (results.get((row["name"], who)) for who in (OURS, "flex", DENSE))
        place = placed(row)
        if ours and flex:
            found[FLEX][place] = median(flex["milliseconds"]) / median(ours["milliseconds"])
        if ours and dense and ours["points"] and dense["points"]:
            found[TILE][place] = of_point(ours) / of_point(dense)
    return {title: ratios for title, ratios in found.items() if ratios}


def of_point(result: Mapping[str, Any]) -> float:
    """Return the milliseconds of an executed point."""
    return float(median(result["milliseconds"]) / result["points"])


def placed(row: Mapping[str, Any]) -> str:
    """Return what is written under a row's place: its name, the number of keys in a line below."""
    kind = row["name"].removesuffix(f"-n{row['n']}").replace("-", " ")
    return f"{kind}\n{short(row['n'])}"


def draw_sparse(data: Mapping[str, Any], path: Path) -> None:
    """Draw both panels in one picture."""
    above = heading(data, "bfloat16")
    draw_panels(sparse_panels(data), fill, path, heading=above, unit="ratio", size=(6.5, 4))


def fill(ax: Any, ratios: Ratios) -> dict[str, Any]:
    """Draw a panel's points and a line at 1; return them by what they are of."""
    (mark,) = ax.plot(
        range(len(ratios)), list(ratios.values()), marker="o", linestyle="none", color=COLOURS[OURS]
    )
    level = ax.axhline(1, color="#444444", linewidth=1)
    ax.set_xticks(range(len(ratios)), list(ratios), fontsize=7, rotation=60, ha="right")
    ax.set_xlim(-0.6, len(ratios) - 0.4)
    ax.margins(y=0.1)
    return {OURS: mark, "equal": level}
