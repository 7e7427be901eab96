"""Shares: products over the rows of all consumers, divided among them and added in memory.

Every consumer lays its rows of the operand in shared memory, so that each may multiply all rows for
a part of the result: a part of the columns where a tile has enough of them, else of the features.
There are two places to lay them, so that one tile is laid down while the last is still read.
"""

from __future__ import annotations

from .gluon_values import GluonPrinter
from .kernel import Argument
from .loop_nest import Index, value_axes
from .schedule import Share

HEIGHT = 64
"""Rows of a product of one consumer."""


def by_columns(printer: GluonPrinter) -> bool:
    """Whether consumers divide the columns of a tile, and not the features."""
    return printer.plan.columns.width == HEIGHT * printer.crew.consumers


def width_of(printer: GluonPrinter, share: Share) -> int:
    """Return how many features of a share one consumer computes."""
    width = printer.axes[share.var.axes[1]].width
    return width if by_columns(printer) else width // printer.crew.consumers


def box_of_share(printer: GluonPrinter, share: Share) -> Argument:
    """Return the descriptor of what one consumer adds."""
    coordinates = share.store.coordinates
    moving = [k for k, c in enumerate(coordinates) if value_axes(c)]
    order = (*(k for k in range(len(coordinates)) if k not in moving), *moving)
    block = (*(1 for _ in order[2:]), HEIGHT, width_of(printer, share))
    last = printer.axes[share.var.axes[1]]
    parts = [a for a in printer.nest.axes if a.rank == last.rank]
    end = "" if len(parts) == 1 else f"_{parts.index(last)}"
    tensor = share.store.tensor
    return Argument("box", f"{tensor}_box{end}", tensor, order=order, block=block)


def put(printer: GluonPrinter, share: Share) -> list[str]:
    """Return the lines that lay an operand where all consumers' products read it."""
    name, tiles = share.operand.name, f"{share.var.name}_tiles"
    place = f"{tiles}.index(step % 2 * CONSUMERS + CONSUMER)"
    return [f"{place}.store({name}.to(tl.{share.dtype}))", "fence_async_shared()"]


def share_out(printer: GluonPrinter, share: Share, part: int) -> str:
    """Return the line that issues a consumer's share of the product over the rows of ``part``."""
    name, right = share.var.name, share.right.name
    features = printer.extent(share.right.axes[1])
    left = f"{name}_tiles.index(step % 2 * CONSUMERS + {part})"
    other = f"{right}_rows.index({part}).reshape([ROWS, {features}])"
    width = width_of(printer, share)
    if by_columns(printer):
        left += f".slice(CONSUMER * {HEIGHT}, {HEIGHT}, dim=1)"
    else:
        other += f".slice(CONSUMER * {width}, {width}, dim=1)"
    start = name
    if part == 0:
        layout = share_layout(share)
        start = f"gl.zeros([{HEIGHT}, {width}], gl.float32, {layout}), use_acc=False"
    return f"{name} = warpgroup_mma({left}.permute((1, 0)), {other}, {start}, is_async=True)"


def add_up(printer: GluonPrinter, share: Share, boxes: dict[str, Argument]) -> list[str]:
    """Return the lines that add a consumer's share to what memory holds."""
    box = box_of_share(printer, share)
    boxes.setdefault(box.name, box)
    coordinates = share.store.coordinates
    words = [printer.value(coordinates[k], ()) for k in box.order[:-2]]
    last = coordinates[box.order[-1]]
    assert isinstance(last, Index)
    first, begin = printer.plan.columns.first, str(printer.axes[last.axis].offset)
    width = width_of(printer, share)
    if by_columns(printer):
        first += f" + CONSUMER * {HEIGHT}"
    else:
        begin = f"CONSUMER * {width}" if begin == "0" else f"{begin} + CONSUMER * {width}"
    rows = f"{box.name}_rows.index(CONSUMER)"
    at = f"({', '.join([*words, first, begin])})"
    return [
        "tma.store_wait(0)",
        f"{rows}.reshape([{HEIGHT}, {width}]).store({share.var.name})",
        "fence_async_shared()",
        f"add_box({box.name}, {at}, {rows})",
    ]


def share_layout(share: Share) -> str:
    """Return the name of the layout of what a consumer adds."""
    return f"SHARE_OF_{share.var.name.upper()}"


def layout_line(printer: GluonPrinter, share: Share) -> str:
    """Return the definition of that layout."""
    width = width_of(printer, share)
    text = f"gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {width}, 16])"
    return f"{share_layout(share)} = gl.constexpr({text})"


def shared_of(printer: GluonPrinter) -> dict[str, str]:
    """Return the shared memory in which operands are laid, by name, with the call that makes it."""
    made: dict[str, str] = {}
    for share in printer.plan.sections[0].shares:
        shape = f"[ROWS, {printer.extent(printer.columns)}]"
        layout = f"gl.NVMMASharedLayout.get_default_for({shape}, gl.{share.dtype})"
        every = f"[2 * CONSUMERS, {shape[1:]}"
        call = f"gl.allocate_shared_memory(gl.{share.dtype}, {every}, {layout})"
        made[f"{share.var.name}_tiles"] = call
    return made
