"""Pictures of several panels, two in a row, with one scale and one legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Shown = TypeVar("Shown")


def heading(data: Mapping[str, Any], dtype: str) -> str:
    """Return a table's name, and what it was measured in and on, as one line."""
    machine = data["machine"]
    return f"{data['table'].capitalize()}, {dtype}, {machine['device']}, torch {machine['torch']}"


def draw_panels(
    panels: Mapping[str, Shown],
    fill: Callable[[Any, Shown], Mapping[str, Any]],
    path: Path,
    *,
    heading: str,
    unit: str,
    size: tuple[float, float],
) -> None:
    """Draw a panel for each title; all share the vertical axis, which begins at 0.

    ::

        {"full": rates, "causal": rates}  -->  two panels side by side, one legend below

    Parameters
    ----------
    fill : draws one panel into its axes, and returns what stands in the legend by name.
    heading, unit : above all panels, and beside each row of them.
    size : inches of one panel, width and height.

    Needs matplotlib, and raises ImportError without it.
    """
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    width, height = size[0] * columns, size[1] * lines
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(width, height), squeeze=False, sharey=True
    )
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    names: dict[str, Any] = {}
    for ax, (title, shown) in zip(axes.flat, panels.items(), strict=False):
        names |= fill(ax, shown)
        ax.set_title(title, fontsize=10)
        ax.grid(axis="y", color="#dddddd")
        ax.set_axisbelow(True)
    for ax in axes[:, 0]:
        ax.set_ylabel(unit)
    axes.flat[0].set_ylim(bottom=0)  # shared by all, so only when everything is drawn
    figure.legend(names.values(), names, loc="lower center", ncols=len(names), frameon=False)
    figure.suptitle(heading, fontsize=11)
    figure.tight_layout(rect=(0, 0.35 / height, 1, 1))  # a line of words for the legend
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
