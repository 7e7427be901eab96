"""Walking a table of tiles: how a loop finds which tile it is at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..ir.domain import Table
from ..ir.mapping import MappedKernel
from .loop_nest import Comment, Load, Number, Op, Place, Ref, Scalar, Value, Var

if TYPE_CHECKING:
    from .tiles import Tiles

Listed = tuple[str, Value, Callable[[], None], bool]


def list_place(lowering: Tiles, table: Table) -> tuple[Value, ...]:
    """Return the coordinates of this program's list in a table."""
    kernel = lowering.kernel
    outer = tuple(Scalar(r) for r in kernel.ranks("grid") if r in table.ranks)
    return (*outer, *(Scalar(f"{r}_tile") for r in kernel.ranks("tiled")))


def list_dtypes(kernel: MappedKernel) -> dict[str, str]:
    """Return the dtypes of the tables that a kernel's loops walk."""
    tables = [t.domain.table for t in kernel.traversals if t.domain.table is not None]
    return dict.fromkeys((n for t in tables for n in (t.name, t.full, t.partial)), "int32")


def listed(lowering: Tiles, table: Table) -> Iterator[Listed]:
    """Yield the two lists: a place's name, how many there are, what finds a tile, whether cut."""
    rank, axis = lowering.rank, lowering.axes[lowering.rank]
    place, width = list_place(lowering, table), Scalar(axis.constant)
    slot = lowering.names.take(f"{rank}_slot")
    lowering.say(Comment(f"the tiles of {rank} that have points: the full ones, then the others"))
    for count, cut in ((table.full, False), (table.partial, True)):
        name = lowering.names.take(f"{count.removeprefix(table.name)}_tiles"[1:])
        many = Var(name, (), "int32")
        lowering.say(Load(many, count, place))
        at: Value = Scalar(slot)
        if cut:
            last = Op("-", (Op("cdiv", (lowering.size(rank), width)), Number(1)))
            at = Op("-", (last, at))
        yield slot, Ref(many), partial(place_tile, lowering, table.name, (*place, at)), cut


def place_tile(lowering: Tiles, table: str, place: tuple[Value, ...]) -> None:
    """Read the number of a tile, and say where it begins."""
    axis = lowering.axes[lowering.rank]
    number = Var(f"{lowering.rank}_tile", (), "int32")
    lowering.say(Load(number, table, place))
    lowering.say(Place(axis.name, Op("*", (Ref(number), Scalar(axis.constant)))))
