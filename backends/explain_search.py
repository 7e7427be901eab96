"""Explaining a search: how often a long rank is walked, and what each walk finds out."""

from __future__ import annotations

from ..ir.mapping import MappedKernel


def search_lines(kernel: MappedKernel) -> tuple[str, ...]:
    """Return what the kernels of a search do, in words; nothing for any other kernel."""
    search = kernel.search
    if search is None:
        return ()
    (rank,) = kernel.ranks("tiled")
    digits = len(search.digits)
    if kernel.searches_rows:
        bits = f", {search.digits[0]} bits of a code at a time" if digits else ""
        return (f"chooses from {rank}, of which a program holds a row{bits}, and sorts nothing",)
    kernels = 2 * digits + 3
    lines = [
        f"chooses from {rank}, which no program holds whole: {kernels} kernels walk it "
        f"{search.traversals} times, tile by tile, and read nothing back"
    ]
    if digits:
        what = "sum values" if search.mass else "count values"
        lines.append(
            f"  {digits} times to {what} by {search.digits[0]} more bits of a code that falls as "
            "they rise; after each one program a list finds where the list ends"
        )
    lines.append("  once to count the members in each tile, from which their places follow")
    lines.append("  once to list them, the lowest coordinate first")
    return tuple(lines)
