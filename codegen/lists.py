"""Lists: loops that visit the coordinates of a rank that a list names.

A loop counts *slots*, the coordinates of the list's blocks laid end to end. A tile of slots inside
one block is a tile of the rank at another place, so that only its first coordinate is looked up and
everything else is as in a loop in order. A tile that spans blocks looks up one coordinate for each
of its slots.
"""

from __future__ import annotations

from functools import reduce

from ..ir.domain import Part, Walk
from ..ir.expression import Constant, Expression
from .begins import conjuncts
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

    asked: tuple[tuple[Value, Expression | None], ...] = ()
    """Where a tile's tests have parts: whether it needs one, and what that asks."""

    def fill(
        self, var: Var, condition: Expression | None, value: float, parts: dict[str, int]
    ) -> Var:
        """Put a value where points of a tile do not exist; return the variable, of the same name.

        In a listed block all exist, but for one that the end of the rank cuts.
        """
        if self.asked:
            return self.fill_parts(var, condition, value, parts)
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

    def fill_parts(
        self, var: Var, condition: Expression | None, value: float, parts: dict[str, int]
    ) -> Var:
        """Put a value where points do not exist, asking what the tile needs, part by part."""
        tests, lives = self.tests, self.lives
        self.lives = {}
        for k, (needed, test) in enumerate(self.asked):
            self.tests = {condition: test}
            self.scopes.append([])
            self.loads.append({})
            live = self.live(condition, parts, ends=k == 0)
            found = self.let(var.name, Op("where", (live, self.widen(Ref(var)), Number(value))))
            self.loads.pop()
            self.say(When(needed, tuple(self.scopes.pop())))
        self.tests, self.lives = tests, lives
        return found

    def ask(self, needed: list[Value], parts: tuple[Part, ...]) -> None:
        """Let a tile be tested part by part, by numbers that are 1 where it needs one.

        Where parts are not what is to be tested, all of that is asked of tiles that need any.
        """
        rank = self.rank
        (test,) = dict.fromkeys(self.tests.values())
        tests = [x.test for x in parts]
        if {c for x in tests for c in conjuncts(x)} != set(conjuncts(test)):
            needed, tests = [reduce(lambda x, y: Op("max", (x, y)), needed)], [test]
        marks = [
            self.let(self.names.take(f"{rank}_test_{k}" if k else f"{rank}_test"), x, (), "int32")
            for k, x in enumerate(needed)
        ]
        self.asked = tuple(
            (Op("!=", (Ref(mark), Number(0))), x) for mark, x in zip(marks, tests, strict=True)
        )

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
        if whole and self.parted(walk):
            at = self.let(self.names.take(f"{rank}_place"), found, (), "int32")
            self.mark(Ref(at), walk.parts)
            self.say(Place(axis.name, Ref(at)))
        elif whole:
            self.say(Place(axis.name, found))
        else:
            name = self.names.take(f"{rank}_at")
            self.at[rank] = Ref(self.let(name, found, (axis.name,), "int32"))

    def parted(self, walk: Walk) -> bool:
        """Whether tiles that a list names are tested part by part, in one loop with whole ones."""
        crew, width = self.kernel.crew, self.axes[self.rank].width
        return crew is not None and crew.joined and bool(walk.parts) and walk.width % width == 0

    def mark(self, at: Value, parts: tuple[Part, ...]) -> None:
        """Say which parts of its test a tile needs that begins somewhere."""
        rank = self.rank
        after = Op("+", (at, Scalar(self.axes[rank].constant)))
        self.ends = {f"{rank}_first": at, f"{rank}_last": Op("-", (after, Number(1)))}
        needed: list[Value] = []
        for k, part in enumerate(parts):
            needed.append(Op("where", (self.fills_part(part, after, k), Number(0), Number(1))))
        self.ends = {}
        self.ask(needed, parts)

    def fills_part(self, part: Part, after: Value, k: int) -> Value:
        """Return whether all points of a tile that ends somewhere have part k of a test."""
        tests = [] if part.every == Constant(True) else [self.tile(part.every, {})]
        tests += [] if k else [Op("<=", (after, self.size(self.rank)))]
        return tests[0] if len(tests) == 1 else Op("and", tuple(tests))


def scaled(value: Value, width: Number) -> Value:
    """Return a number of blocks as a number of coordinates."""
    if width == Number(1) or value == Number(0):
        return value
    return Op("*", (value, width))


def scaled_down(value: Value, width: Number) -> Value:
    """Return how many blocks a number of coordinates fills, the last one perhaps in part."""
    return value if width == Number(1) else Op("cdiv", (value, width))
