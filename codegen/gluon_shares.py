"""Shares: products over the rows of all consumers, divided among them, for a warp that adds.

Every consumer lays its rows of the operand in shared memory, so that each may multiply all rows for
a part of the result: a part of the columns where a tile has enough of them, else of the features.
There are two places to lay them, so that one tile is laid down while the last is still read.

Products are issued one tile behind (``in_order.py``): consumers meet at a barrier for each place,
and what lies there ahead of the first tile is 0. What comes of them goes to a warp that adds
(``gluon_adder.py``), as tiles come through rings, with a barrier for given and one for taken.

What comes out is turned round where features fill the height of a product, for then what threads
store at a time lies in different banks of shared memory.
"""

from __future__ import annotations

from .gluon_values import GluonPrinter
from .kernel import Argument
from .loop_nest import value_axes
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


def turned(printer: GluonPrinter, share: Share) -> bool:
    """Whether features, and not columns, are the rows of a consumer's product.

    A thread holds two neighbours of a row. Stored as they come, in pairs, two rows of eight meet in
    each bank; stored one by one, under each other, none do.
    """
    return width_of(printer, share) % HEIGHT == 0


def box_of_share(printer: GluonPrinter, share: Share) -> Argument:
    """Return the descriptor of what one consumer gives."""
    coordinates = share.store.coordinates
    moving = [k for k, c in enumerate(coordinates) if value_axes(c)]
    order = (*(k for k in range(len(coordinates)) if k not in moving), *moving)
    block = (*(1 for _ in order[2:]), HEIGHT, width_of(printer, share))
    last = printer.axes[share.var.axes[1]]
    parts = [a for a in printer.nest.axes if a.rank == last.rank]
    end = "" if len(parts) == 1 else f"_{parts.index(last)}"
    tensor = share.store.tensor
    return Argument("box", f"{tensor}_box{end}", tensor, order=order, block=block)


def put(share: Share) -> list[str]:
    """Return the lines that lay an operand where all consumers' products read it."""
    place = f"{share.var.name}_tiles.index((step + 1) % 2 * CONSUMERS + CONSUMER)"
    value = f"{share.operand.name}.to(tl.{share.dtype})"
    return [f"{place}.store({value})", "fence_async_shared()"]


def arrive(share: Share) -> str:
    """Return the line that says that a consumer has laid its operand down."""
    return f"mbarrier.arrive({share.var.name}_laid.index((step + 1) % 2))"


def nothing_yet(printer: GluonPrinter, share: Share) -> list[str]:
    """Return the lines that lay down what is there before all tiles."""
    axes = (printer.rows, printer.columns)
    shape, dtype = ", ".join(printer.extent(a) for a in axes), share.dtype
    zeros = f"tl.zeros([{shape}], tl.{dtype}, {printer.layout(axes)})"
    return [
        f"{share.var.name}_tiles.index(CONSUMER).store({zeros})",
        "fence_async_shared()",
        f"mbarrier.arrive({share.var.name}_laid.index(0))",
    ]


def meet(share: Share) -> str:
    """Return the line that waits until all consumers have laid down what they multiply next."""
    return f"mbarrier.wait({share.var.name}_laid.index(step % 2), step // 2 & 1)"


def share_out(printer: GluonPrinter, share: Share, part: int) -> str:
    """Return the line that issues a consumer's share of the product over the rows of ``part``."""
    name, right = share.var.name, share.right.name
    features = printer.extent(share.right.axes[1])
    left = f"{name}_tiles.index(step % 2 * CONSUMERS + {part})"
    other = f"{right}_rows.index({part}).reshape([ROWS, {features}])"
    if by_columns(printer):
        left += f".slice(CONSUMER * {HEIGHT}, {HEIGHT}, dim=1)"
    else:
        width = width_of(printer, share)
        other += f".slice(CONSUMER * {width}, {width}, dim=1)"
    if turned(printer, share):
        left, other = other, left
    start = name
    if part == 0:
        shape = ", ".join(map(str, shape_of(printer, share)))
        start = f"gl.zeros([{shape}], gl.float32, {share_layout(share)}), use_acc=False"
    return f"{name} = warpgroup_mma({left}.permute((1, 0)), {other}, {start}, is_async=True)"


def shape_of(printer: GluonPrinter, share: Share) -> tuple[int, int]:
    """Return the shape of one consumer's product."""
    width = width_of(printer, share)
    return (width, HEIGHT) if turned(printer, share) else (HEIGHT, width)


def place_of(printer: GluonPrinter, consumer: str) -> str:
    """Return where the step's place for what a consumer gives is, of those of all adding warps."""
    return consumer if printer.crew.adders == 1 else f"step % ADDERS * CONSUMERS + {consumer}"


def parity_of(printer: GluonPrinter) -> str:
    """Return the parity of the barriers of that place."""
    return "step & 1" if printer.crew.adders == 1 else "step // ADDERS & 1"


def room(printer: GluonPrinter, share: Share) -> str:
    """Return the line that waits until what was given last is taken."""
    own, parity = place_of(printer, "CONSUMER"), parity_of(printer)
    return f"mbarrier.wait({share.var.name}_taken.index({own}), ({parity}) ^ 1)"


def give(printer: GluonPrinter, share: Share) -> list[str]:
    """Return the lines that give a consumer's share to the warp that adds."""
    box, name = box_of_share(printer, share).name, share.var.name
    own = place_of(printer, "CONSUMER")
    rows = f"{box}_rows.index({own}).reshape([{HEIGHT}, {width_of(printer, share)}])"
    rows += ".permute((1, 0))" if turned(printer, share) else ""
    return [
        f"{rows}.store({name})",
        "fence_async_shared()",
        f"mbarrier.arrive({name}_given.index({own}))",
    ]


def share_layout(share: Share) -> str:
    """Return the name of the layout of what a consumer gives."""
    return f"SHARE_OF_{share.var.name.upper()}"


def layout_line(printer: GluonPrinter, share: Share) -> str:
    """Return the definition of that layout."""
    width = shape_of(printer, share)[1]
    text = f"gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {width}, 16])"
    return f"{share_layout(share)} = gl.constexpr({text})"


def shared_of(printer: GluonPrinter) -> dict[str, str]:
    """Return what consumers share, by name, with the call that makes it."""
    made: dict[str, str] = {}
    for share in printer.plan.sections[0].shares:
        name = share.var.name
        shape = f"[ROWS, {printer.extent(printer.columns)}]"
        layout = f"gl.NVMMASharedLayout.get_default_for({shape}, gl.{share.dtype})"
        every = f"[2 * CONSUMERS, {shape[1:]}"
        call = f"gl.allocate_shared_memory(gl.{share.dtype}, {every}, {layout})"
        made[f"{name}_tiles"] = call
        made[f"{name}_laid"] = "barriers(2, CONSUMERS)"
        places = "CONSUMERS" if printer.crew.adders == 1 else "ADDERS * CONSUMERS"
        made[f"{name}_given"] = made[f"{name}_taken"] = f"barriers({places}, 1)"
    return made
