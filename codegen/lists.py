"""Lists: loops that visit the coordinates of a rank that a list names.

A loop counts *slots*, the coordinates of the list's blocks laid end to end. A tile of slots inside
one block is a tile of the rank at another place, so that only its first coordinate is looked up and
everything else is as in a loop in order. A tile that spans blocks looks up one coordinate for each
of its slots.
"""

from __future__ import annotations

from ..ir.domain import Walk
from ..ir.expression import Expression
from .frames import Frames
from .loop_nest import (
    Cast,
    Index,
    Number,
    Op,
    Place,
    Ref,
    Scalar,
    Value,
    Var,
    When,
)


class Lists(Frames):
    """Lowering of tiles that lie where a list says."""

    in_blocks = False
    """Whether a tile lies in a listed block, all of whose points exist that the rank has."""

    def fill(
        self, var: Var, condition: Expression | None, value: float, parts: dict[str, int]
    ) -> Var:
        """Put a value where points of a tile do not exist; return the variable, of the same name.

        In a listed block all exist, but for one that the end of the rank cuts.
        """
        asked = self.in_blocks and self.kernel.crew is not None
        if asked:
            lives, self.lives = self.lives, {}
            self.scopes.append([])
        live = self.live(condition, parts)
        found = self.let(var.name, Op("where", (live, self.widen(Ref(var)), Number(value))))
        if asked:
            axis, self.lives = self.axes[self.rank], lives
            end = Op("+", (Scalar(axis.first), Scalar(axis.constant)))
            body = tuple(self.scopes.pop())
            self.say(When(Op(">", (end, self.size(self.rank))), body))
        return found

    def place(self, walk: Walk, slot: str, end: Value) -> None:
        """Say where the tile at a slot lies; what the list does not name lies behind the rank."""
        rank, axis, width = self.rank, self.axes[self.rank], Number(walk.width)
        whole = walk.width % axis.width == 0
        here: Value = Scalar(slot)
        tests: list[Value] = []
        if not whole:
            here = Op("+", (here, Index(axis.name, row=True)))
            tests.append(Op("<", (here, end)))
        self.at = {walk.rank: here if walk.width == 1 else Op("//", (here, width))}
        self.inside = tuple(tests)
        entry = self.tile(walk.entry, {})
        if self.dtype(entry) == "int64":
            entry = Cast(entry, "int32")
        if walk.positions.test is not None:
            tests.append(self.tile(walk.positions.test, {}))
        self.inside = ()
        if not walk.sure:
            blocks = scaled_down(self.size(rank), width)
            tests += [Op("<=", (Number(0), entry)), Op("<", (entry, blocks))]
        found = scaled(entry, width)
        if walk.width != axis.width and walk.width > 1:
            found = Op("+", (found, Op("%", (here, width))))
        if tests:
            test = tests[0] if len(tests) == 1 else Op("and", tuple(tests))
            found = Op("where", (test, found, self.size(rank)))
        if whole:
            self.say(Place(axis.name, found))
        else:
            name = self.names.take(f"{rank}_at")
            self.at[rank] = Ref(self.let(name, found, (axis.name,), "int32"))


def scaled(value: Value, width: Number) -> Value:
    """Return a number of blocks as a number of coordinates."""
    if width == Number(1) or value == Number(0):
        return value
    return Op("*", (value, width))


def scaled_down(value: Value, width: Number) -> Value:
    """Return how many blocks a number of coordinates fills, the last one perhaps in part."""
    return value if width == Number(1) else Op("cdiv", (value, width))
