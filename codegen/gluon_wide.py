"""Consumers of eight warps: what both halves read lies in shared memory.

Where a program's sums are more than four warps can hold, eight share the same 64 rows: four have
the first half of a tile's columns, and of a sum's features, and four the last. A row is reduced
across them, and an operand that was computed is needed by both, so that it is laid in shared
memory::

    a_left = a.to(float16), in registers     -->     a_laid.store(a.to(float16))
    O += a_left @ v                                  O += a_laid @ v

There a tile that is fetched may be cut by a limit within a tensor. Its rows behind that have no
part in anything, whatever memory holds, so zeros are written over them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gluon_values import GluonPrinter
    from .loop_nest import Load
    from .schedule import Late

PIECE = 64
"""Columns of a tile that zeros are written over at a time, which fill few registers."""

PIECES = {
    "blank": '''@gluon.jit
def blank(tile, live, PIECE: gl.constexpr):
    """Write zeros over the rows of a fetched tile that are not live, some columns at a time."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [8, 1], [1, 0])
    there = gl.convert_layout(live.to(gl.int8), gl.SliceLayout(1, LAYOUT))[:, None] != 0
    for i in gl.static_range(tile.shape[1] // PIECE):
        piece = tile.slice(i * PIECE, PIECE, dim=1)
        piece.store(gl.where(there, piece.load(LAYOUT), 0.0))
    fence_async_shared()''',
}
"""The functions that these kernels bring along."""


def laid(printer: GluonPrinter, x: Late) -> str:
    """Return the name of the shared memory in which the operand of a late product is laid.

    All sections lay their operand of the same product in the same place.
    """
    section = next(s for s in printer.plan.sections if x in s.late)
    first = printer.plan.late[section.late.index(x)]
    return f"{first.operand.name}_laid"


def lay_down(printer: GluonPrinter, x: Late) -> list[str]:
    """Return the lines that lay down an operand; a barrier stands ahead of the product."""
    value = f"{x.operand.name}.to(tl.{x.dtype})"
    return [f"{laid(printer, x)}.store({value})", "fence_async_shared()"]


def operands_of(printer: GluonPrinter) -> dict[str, str]:
    """Return the shared memory in which operands are laid, by name, with the call that makes it."""
    if not printer.crew.wide:
        return {}
    shape = f"[ROWS, {printer.extent(printer.columns)}]"
    made: dict[str, str] = {}
    for x in printer.plan.late:
        layout = f"gl.NVMMASharedLayout.get_default_for({shape}, gl.{x.dtype})"
        call = f"gl.allocate_shared_memory(gl.{x.dtype}, {shape}, {layout})"
        made[laid(printer, x)] = call
    return made


def blanked(printer: GluonPrinter, load: Load) -> str:
    """Return the line that writes zeros over what does not exist of a fetched tile."""
    assert load.guard is not None
    live = printer.value(load.guard, (printer.columns,))
    return f"blank({load.var.name}, {live}, {min(PIECE, printer.axes[load.var.axes[1]].width)})"
