"""Shares: products over the rows of all consumers, divided among them and added in memory.

Every consumer lays its rows of the operand in shared memory, so that each may multiply all rows for
a part of the result: a part of the columns where a tile has enough of them, else of the features.
There are two places to lay them, so that one tile is laid down while the last is still read.

Where products are issued one tile behind (``in_order.py``), consumers meet at a barrier for each
place, and what lies there ahead of the first tile is 0.
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
    tiles = f"{share.var.name}_tiles"
    value = f"{share.operand.name}.to(tl.{share.dtype})"
    if not printer.plan.behind:
        place = f"{tiles}.index(step % 2 * CONSUMERS + CONSUMER)"
        return [f"{place}.store({value})", "fence_async_shared()"]
    place = f"{tiles}.index((step + 1) % 2 * CONSUMERS + CONSUMER)"
    return [f"{place}.store({value})", "fence_async_shared()"]


def arrive(share: Share) -> str:
    """Return the line that says that a consumer has laid its operand down."""
    return f"mbarrier.arrive({share.var.name}_laid.index((step + 1) % 2))"


def nothing_yet(printer: GluonPrinter, share: Share) -> list[str]:
    """Return the lines that lay down, and add behind the end, what is there before all tiles."""
    axes = (printer.rows, printer.columns)
    shape, dtype = ", ".join(printer.extent(a) for a in axes), share.dtype
    zeros = f"tl.zeros([{shape}], tl.{dtype}, {printer.layout(axes)})"
    before = f"{printer.plan.columns.first}_before = {printer.sizes[printer.plan.columns.rank]}"
    return [
        f"{share.var.name}_tiles.index(CONSUMER).store({zeros})",
        "fence_async_shared()",
        f"mbarrier.arrive({share.var.name}_laid.index(0))",
        before,
    ]


def meet(printer: GluonPrinter, share: Share) -> str:
    """Return the line that waits until all consumers have laid down what they multiply next."""
    if printer.plan.behind:
        return f"mbarrier.wait({share.var.name}_laid.index(step % 2), step // 2 & 1)"
    return "meet()"


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
    if printer.plan.behind:
        first += "_before"
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
        if printer.plan.behind:
            made[f"{share.var.name}_laid"] = "barriers(2, CONSUMERS)"
    return made
