"""Walking a table of tiles: how a loop finds which tile it is at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..ir.domain import Table
from ..ir.mapping import MappedKernel
from .loop_nest import Comment, Load, Number, Op, Place, Ref, Scalar, Value, Var

if TYPE_CHECKING:
    from .lists import Lists
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


def listed(lowering: Lists, table: Table, *, joined: bool = False) -> Iterator[Listed]:
    """Yield the two lists: a place's name, how many there are, what finds a tile, whether cut.

    ``joined`` : as one, the full tiles first.
    """
    if joined:
        yield listed_together(lowering, table)
        return
    rank, full = lowering.rank, Var("", ())
    place = list_place(lowering, table)
    slot = lowering.names.take(f"{rank}_slot")
    lowering.say(Comment(f"the tiles of {rank} that have points: the full ones, then the others"))
    for count, cut in ((table.full, False), (table.partial, True)):
        name = lowering.names.take(f"{count.removeprefix(table.name)}_tiles"[1:])
        many = Var(name, (), "int32")
        lowering.say(Load(many, count, place))
        at: Value = Scalar(slot)
        further: Value = Number(0)
        if cut:
            last = Op("-", (room(lowering, table), Number(1)))
            if table.most:  # what is behind the last one that is listed follows it
                end = Op("-", (last, Ref(full)))
                at, further = Op("min", (at, end)), Op("max", (Op("-", (at, end)), Number(0)))
            at = Op("-", (last, at))
        full = many
        find = partial(place_tile, lowering, table.name, (*place, at), further)
        yield slot, Ref(many), find, cut


def listed_together(lowering: Lists, table: Table) -> Listed:
    """Return both lists as one, the full tiles first; a tile is tested for the parts it needs."""
    rank, place = lowering.rank, list_place(lowering, table)
    slot = lowering.names.take(f"{rank}_slot")
    lowering.say(Comment(f"the tiles of {rank} that have points: the full ones, then the others"))
    counts = []
    for tensor in (table.full, table.partial):
        name = lowering.names.take(f"{tensor.removeprefix(table.name)}_tiles"[1:])
        counts.append(Var(name, (), "int32"))
        lowering.say(Load(counts[-1], tensor, place))
    full, partly = map(Ref, counts)
    rest, last = Op("-", (Scalar(slot), full)), Op("-", (room(lowering, table), Number(1)))
    further: Value = Number(0)
    if table.most:
        end = Op("-", (last, full))
        rest, further = Op("min", (rest, end)), Op("max", (Op("-", (rest, end)), Number(0)))
    at = Op("where", (Op("<", (Scalar(slot), full)), Scalar(slot), Op("-", (last, rest))))
    many = len(table.parts)

    def find() -> None:
        axis = lowering.axes[rank]
        number = Var(f"{rank}_tile", (), "int32")
        lowering.say(Load(number, table.name, (*place, at)))
        found: Value = Ref(number)
        needed: list[Value] = [Op("where", (Op("<", (Scalar(slot), full)), Number(0), Number(1)))]
        if table.marked:
            found = Op("max", (found, Number(0)))
            bits = (Op("//", (found, Number(2**k))) if k else found for k in range(many))
            needed = [Op("%", (x, Number(2))) for x in bits]
            found = Op("//", (found, Number(2**many)))
        if further != Number(0):
            found = Op("+", (found, further))
        lowering.ask(needed, table.parts)
        lowering.say(Place(axis.name, Op("*", (found, Scalar(axis.constant)))))

    return slot, Op("+", (full, partly)), find, True


def room(lowering: Tiles, table: Table) -> Value:
    """Return how many tiles a list has room for."""
    axis = lowering.axes[lowering.rank]
    tiles = Op("cdiv", (lowering.size(lowering.rank), Scalar(axis.constant)))
    return Op("min", (tiles, Number(table.most))) if table.most else tiles


def place_tile(lowering: Tiles, table: str, place: tuple[Value, ...], further: Value) -> None:
    """Read the number of a tile, and say where it, or one ``further``, begins."""
    axis = lowering.axes[lowering.rank]
    number = Var(f"{lowering.rank}_tile", (), "int32")
    lowering.say(Load(number, table, place))
    found: Value = Ref(number)
    if further != Number(0):
        found = Op("+", (found, further))
    lowering.say(Place(axis.name, Op("*", (found, Scalar(axis.constant)))))
