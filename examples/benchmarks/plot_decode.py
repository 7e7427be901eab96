"""The decode table as a picture: what each call reads a second, as a share of a long copy's rate.

One panel has the same heads at all lengths, one other heads and features, one pages, one latents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.report import COLOURS, COPY, OURS

Shares = dict[str, dict[str, float]]
"""Shares of a long copy's rate by implementation, then by the words under a place."""


def decode_panels(data: Mapping[str, Any]) -> dict[str, Shares]:
    """Return shares by panel, rows in the order of the table."""
    times = {(r["row"], r["who"]): r["milliseconds"] for r in data["results"]}
    found: dict[str, Shares] = {}
    for row in data["rows"]:
        title, place = placed(row)
        for (name, who), rounds in times.items():
            if name == row["name"] and rounds and row["long"]:
                share = row["moved"] / median(rounds) / 1e9 / row["long"]
                found.setdefault(title, {}).setdefault(who, {})[place] = share
    return found


def placed(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the panel of a row, and what is written under its place."""
    size = f"{row['batch']} x {short(row['n'])}"
    page = re.match(r"pages(\d+)-", row["name"])
    if page:
        return "pages of a paged cache", f"{page[1]}\n{size}"
    if row["example"] == "mla_decode":
        return "one latent cache, 512 + 64 features", f"{row['heads']} heads\n{size}"
    if (row["group"], row["d"]) == (4, 128):
        return "32 heads on 8, 128 features", size.replace(" x ", " x\n")
    heads = f"{row['heads']} on {row['heads'] // row['group']}"
    return "8 caches of 8192, other heads and features", f"{heads}\n{row['d']}"


def short(n: int) -> str:
    """Return a number of keys in multiples of 1024 where it is one."""
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


def draw_decode(data: Mapping[str, Any], path: Path) -> None:
    """Draw all panels in one picture."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    panels = decode_panels(data)
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(6 * columns, 3.2 * lines), squeeze=False, sharey=True
    )
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    names: dict[str, Any] = {}
    for ax, (title, shares) in zip(axes.flat, panels.items(), strict=False):
        places = list(dict.fromkeys(place for points in shares.values() for place in points))
        for who, points in shares.items():
            (names[who],) = ax.plot(
                [places.index(place) for place in points],
                [100 * share for share in points.values()],
                marker="_" if who == COPY else "o",
                markersize=14 if who == COPY else 6,
                linestyle="none",
                color=COLOURS.get(who),
                zorder=3 if who == OURS else 2,
            )
        ax.set_xticks(range(len(places)), places, fontsize=7)
        ax.set_title(title, fontsize=10)
        ax.grid(axis="y", color="#dddddd")
    for ax in axes[:, 0]:
        ax.set_ylabel("% of a long copy")
    axes.flat[0].set_ylim(bottom=0)  # shared by all, so only when everything is drawn
    figure.legend(names.values(), names, loc="lower center", ncols=len(names), frameon=False)
    machine = data["machine"]
    figure.suptitle(f"Decode, float16, {machine['device']}, torch {machine['torch']}", fontsize=11)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
