"""Lower what a tile adds to in memory: a sum over the rows of programs, a share of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.expression import Reduce
from ..ir.show import show_expression
from ..ir.streaming import Field
from .loop_nest import Comment, Index, Op, Ref, Scalar, Store, Value

if TYPE_CHECKING:
    from .lower import Lowering
    from .tiles import Parts, Tiles


def add_share(lowering: Lowering, field: Field) -> None:
    """Sum over the rows of a tile, and add that to what memory holds."""
    summed = Reduce(field.reducer, field.ranks_reduced, field.lift, field.filter)
    ranks = ", ".join(field.ranks)
    lowering.say(Comment(f"{field.tensor}[{ranks}] = {show_expression(summed)}, added in memory"))
    for parts in lowering.assignments(field.ranks):

        def test(all_parts: Parts, parts: Parts = parts) -> Value:
            rows: list[Value] = [
                Op("<", (Index(axis.name), lowering.size(r)))
                for r in field.ranks_reduced
                if (axis := lowering.axis(r, parts)) is not None
            ]
            if field.tensor in lowering.selected:
                rows.append(lowering.live(lowering.taking[field.tensor], all_parts))
            return rows[0] if len(rows) == 1 else Op("and", tuple(rows))

        name = lowering.names.tile(field.tensor, lowering.suffix(field.ranks, parts))
        lift = lowering.guarded(field.lift, parts)
        var = lowering.reduce(
            name,
            field.reducer,
            field.ranks_reduced,
            lift,
            parts,
            test=test if lowering.cut else None,
        )
        coordinates = tuple(lowering.coordinate(r, parts) for r in field.ranks)
        ends = (lowering.bounds(field.ranks, parts), walked(lowering))
        guards = tuple(g for g in ends if g is not None)
        guard = guards[0] if len(guards) == 1 else Op("and", guards) if guards else None
        lowering.say(Store(field.tensor, coordinates, Ref(var), guard, add=True))


def walked(lowering: Lowering) -> Value | None:
    """Return the condition that a tile's coordinates lie in the walked rank, None if they do."""
    if not lowering.cut:
        return None
    return Op("<", (Index(lowering.axes[lowering.rank].name), lowering.size(lowering.rank)))


def all_rows(lowering: Tiles, rank: str) -> Value:
    """Return the condition that every row of the program's tile exists."""
    axis = lowering.axes[rank]
    return Op("<=", (Op("+", (Scalar(axis.first), Scalar(axis.constant))), lowering.size(rank)))
