"""Boxes: tiles that descriptors fetch or store, and where each lies."""

from __future__ import annotations

from .gluon_values import GluonPrinter
from .kernel import Argument
from .loop_nest import Index, Nest, Value, value_axes
from .schedule import Schedule

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


def box_of(
    nest: Nest, plan: Schedule, tensor: str, coordinates: tuple[Value, ...]
) -> Argument | None:
    """Return the descriptor of a tile: its rows second to last, its features last; None if none.

    Of what a kernel writes, rows have to be multiples of 16 bytes.
    """
    axes = {a.name: a for a in nest.axes}
    if coordinates[-1] == Index(plan.columns.name):
        return vector_of(plan, tensor, coordinates)
    moving = [k for k, c in enumerate(coordinates) if value_axes(c)]
    if len(moving) != 2 or moving[1] != len(coordinates) - 1 or len(coordinates) > 5:
        return None
    ends = [coordinates[k] for k in moving]
    if not all(isinstance(c, Index) for c in ends):
        return None
    first, last = (axes[c.axis] for c in ends if isinstance(c, Index))
    if last.first or not first.first:
        return None
    size = BYTES.get(dict(nest.dtypes)[tensor], 0)
    if tensor not in nest.reads:
        width = max(a.offset + a.valid for a in nest.axes if a.rank == last.rank)
        if not size or width * size % 16 or len(coordinates) < 2:
            return None
    order = (*(k for k in range(len(coordinates)) if k not in moving), *moving)
    height = 64 if first is plan.rows else first.width
    block = (*(1 for _ in order[2:]), height, last.width)
    parts = [a for a in nest.axes if a.rank == last.rank]
    end = "" if len(parts) == 1 else f"_{parts.index(last)}"
    own = f"{tensor}_{first.rank}" if tensor in stays_and_moves(plan) else tensor
    return Argument("box", f"{own}_box{end}", tensor, order=order, block=block)


def stays_and_moves(plan: Schedule) -> set[str]:
    """Return the tensors of which rows stay and others are walked, in boxes of other heights."""
    moving = {x.tensor for x in (*plan.fetched, *plan.vectors)}
    return {x.load.tensor for x in plan.held if x.load is not None} & moving


def vector_of(plan: Schedule, tensor: str, coordinates: tuple[Value, ...]) -> Argument | None:
    """Return the descriptor of a piece of a vector along the walked axis."""
    if len(coordinates) > 5 or any(value_axes(c) for c in coordinates[:-1]):
        return None
    block = (*(1 for _ in coordinates[1:]), plan.columns.width)
    return Argument(
        "box", f"{tensor}_box", tensor, order=tuple(range(len(coordinates))), block=block
    )


def place(printer: GluonPrinter, box: Argument, coordinates: tuple[Value, ...], first: str) -> str:
    """Return the coordinates of a box's corner; ``first`` is that of its rows."""
    if coordinates[-1] == Index(printer.columns):
        outer = [printer.value(c, ()) for c in coordinates[:-1]]
        return f"({', '.join([*outer, first])}{'' if outer else ','})"
    words = [printer.value(coordinates[k], ()) for k in box.order[:-2]]
    last = coordinates[box.order[-1]]
    assert isinstance(last, Index)
    return f"({', '.join([*words, first, str(printer.axes[last.axis].offset)])})"
