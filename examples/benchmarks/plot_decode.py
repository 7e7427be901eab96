"""The decode table as a picture: what each call reads a second, as a share of a long copy's rate.

One panel has the same heads at all lengths, one other heads and features, one pages, one latents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.panels import draw_panels, heading
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
        return "pages of 16 to 128 keys, sequences x keys", f"of {page[1]}\n{size}"
    if row["example"] == "mla_decode":
        title = "one latent cache, 512 + 64 features, sequences x keys"
        return title, f"{row['heads']} heads\n{size}"
    if (row["group"], row["d"]) == (4, 128):
        return "32 heads on 8, 128 features, sequences x keys", size.replace(" x ", " x\n")
    heads = f"{row['heads']} on {row['heads'] // row['group']}"
    return "8 x 8k, heads on key heads, features", f"{heads}\n{row['d']}"


def short(n: int) -> str:
    """Return a number of keys in multiples of 1024 where it is one."""
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


def draw_decode(data: Mapping[str, Any], path: Path) -> None:
    """Draw all panels in one picture."""
    above = heading(data, "float16")
    unit = "% of a long copy's rate"
    draw_panels(decode_panels(data), fill, path, heading=above, unit=unit, size=(6, 3.2))


def fill(ax: Any, shares: Shares) -> dict[str, Any]:
    """Draw a panel's points, of one place side by side; return them by implementation."""
    places = list(dict.fromkeys(place for points in shares.values() for place in points))
    beside = [who for who in shares if who != COPY]
    marks: dict[str, Any] = {}
    for who, points in shares.items():
        aside = 0.0 if who == COPY else 0.2 * (beside.index(who) - (len(beside) - 1) / 2)
        (marks[who],) = ax.plot(
            [places.index(place) + aside for place in points],
            [100 * share for share in points.values()],
            marker="_" if who == COPY else "o",
            markersize=16 if who == COPY else 5,
            linestyle="none",
            color=COLOURS.get(who),
            zorder=3 if who == OURS else 2,
        )
    ax.set_xticks(range(len(places)), places, fontsize=7)
    ax.set_xlim(-0.6, len(places) - 0.4)
    return marks
