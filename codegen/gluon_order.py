"""The functions that compute where a tile is finished before the next begins (``in_order.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .gluon_rows import Rows
from .gluon_shares import arrive, give, meet, nothing_yet, put, room, share_out
from .gluon_values import GluonPrinter
from .gluon_walk import Phase, kind
from .gluon_wide import blanked, laid, lay_down
from .in_order import Arrive, Free, Get, Give, Issue, Meet, Put, Room, Wait, in_order, reads
from .lag import lag
from .loop_nest import Dot, Load, Nest, Number, Op, Ref, Statement, When
from .one_loop import tested
from .operands import bare
from .positions import uses_coordinate
from .schedule import Late, Schedule, Section, Share


class TileInOrder(GluonPrinter):
    """One tile: its products and its work, in order."""

    def __init__(self, nest: Nest, plan: Schedule, section: Section, outer: Rows) -> None:
        super().__init__(nest, plan)
        self.lags = self.crew.lagging and not section.loop.cut
        section = lag(section) if self.lags else section
        self.section, self.depth = section, 1
        self.bases, self.names = outer.bases, outer.names
        self.layouts, self.pieces, self.helpers = outer.layouts, outer.pieces, outer.helpers
        self.cut = {x.var.name: x for x in section.blanked}
        self.places_columns = bool(self.cut) or self.uses_columns(section.work)
        if self.places_columns:
            self.add(self.coordinates)
        for s in in_order(plan, section, self.crew.consumers):
            match s:
                case Get(load=load, there=True):
                    self.slot(load)
                case Get(load=load):
                    self.get(load)
                case Issue(product=Dot() as dot, ahead=True):
                    self.ahead(dot)
                case Issue(product=Share() as share, part=part):
                    self.add(share_out(self, share, part))
                case Issue(product=Late() as late):
                    self.late(late)
                case Issue(product=product):
                    assert isinstance(product, Dot)
                    self.early(product)
                case Put(share=share):
                    for line in put(share):
                        self.add(line)
                case Meet():
                    for share in section.shares:
                        self.add(meet(share))
                case Arrive():
                    for share in section.shares:
                        self.add(arrive(share))
                case Room():
                    for share in section.shares:
                        self.add(room(self, share))
                case Give(share=share):
                    for line in give(self, share):
                        self.add(line)
                case Wait(pending=pending, done=done):
                    comma = "," if len(done) == 1 else ""
                    names = ", ".join(done)
                    self.add(f"{names} = warpgroup_mma_wait({pending}, deps=({names}{comma}))")
                case Free(load=load):
                    self.add(f"release({load.var.name}_empty, step)")
                case _:
                    self.statement(s)
        self.add(f"return {', '.join(results(plan))}")

    def get(self, load: Load, step: str = "step") -> None:
        """Wait for what was fetched."""
        name, full = load.var.name, self.carrier(load)
        self.place(load, f"filled({name}_ring, {full}_full, {step})")
        if name in self.cut:
            self.add(blanked(self, self.cut[name]))

    def slot(self, load: Load) -> None:
        """Name a fetched tile that was waited for before."""
        self.place(load, f"{load.var.name}_ring.index(step % STAGES)")

    def place(self, load: Load, slot: str) -> None:
        """Name what lies in a slot; a vector goes to registers."""
        shape = f"[{', '.join(self.extent(a) for a in load.var.axes)}]"
        rest = f".load({self.layout(load.var.axes)})" if len(load.var.axes) == 1 else ""
        self.add(f"{load.var.name} = {slot}.reshape({shape}){rest}")

    def ahead(self, dot: Dot) -> None:
        """Issue a product of the next tile; behind the last one it is one that nobody reads."""
        self.add(f"if {self.plan.columns.rank}_more:")
        self.depth += 1
        for load in self.plan.fetched:
            if reads(dot, load):
                self.get(load, "step + 1")
        self.depth -= 1
        self.early(dot)

    def statement(self, statement: Statement) -> None:
        """Print a statement; coordinates that only a test reads are made in it."""
        if not isinstance(statement, When):
            super().statement(statement)
            return
        self.add(f"if {self.value(statement.condition, ())}:")
        self.depth += 1
        if not self.places_columns and self.uses_columns(statement.body):
            self.add(self.coordinates)
        for s in statement.body:
            self.statement(s)
        self.depth -= 1

    @property
    def coordinates(self) -> str:
        """Return the line that makes the coordinates of a tile's columns."""
        return f"{self.columns} = {self.plan.columns.first} + {self.plan.columns.rank}_row"

    def uses_columns(self, body: tuple[Statement, ...]) -> bool:
        """Whether a statement, but for what is inside a test, needs those."""
        fetched = {x.var for x in self.plan.vectors}
        own = (s for s in body if not (isinstance(s, Load) and s.var in fetched))
        return any(uses_coordinate(s, self.columns) for s in own)

    def early(self, dot: Dot) -> None:
        """Issue a product of operands from memory."""
        start = "nothing, use_acc=False"
        match dot.start:
            case Ref(var=var) if var.name == dot.var.name:
                start = dot.var.name
            case Op("-", (Number(value=0.0), value)):
                self.add("# the product begins with what its result is added to below")
                start = f"nothing - {self.broadcast(value, dot.var.axes)}"
            case Op() | Ref() as value:
                self.add("# the product begins with what its result is added to below")
                start = f"nothing + {self.broadcast(value, dot.var.axes)}"
        self.add(product(self, dot, start))

    def late(self, x: Late) -> None:
        """Issue a product of an operand that was computed."""
        name = x.accumulator.name
        wide = self.crew.wide
        if x.said is not None:
            self.statement(x.said)
        for line in lay_down(self, x) if wide else ():
            self.add(line)
        if x.factor is not None:
            text = self.broadcast(Ref(x.factor), x.accumulator.axes)
            if self.lags:
                self.add(f"note_moved({x.factor.name}, CONSUMER)")
                self.add("if large(CONSUMER) != 0:")
            self.add(f"{'    ' * self.lags}{name} = {name} * {text}")
        left = laid(self, x) if wide else f"{x.operand.name}_left"
        if not wide:
            layout = f"LEFT_OF_{self.layout(x.accumulator.axes)}"
            value = f"{x.operand.name}.to(tl.{x.dtype})"
            self.add(f"{left} = tl.convert_layout({value}, {layout}, assert_trivial=True)")
        self.add(f"{name} = warpgroup_mma({left}, {x.right.name}, {name}, is_async=True)")


class RowsInOrder(Rows):
    """What one consumer does, tile after tile."""

    def write(self, calls: Mapping[str, str]) -> None:
        """Write the body; ``calls`` gives each section's tile, by ``whole`` and ``cut``."""
        plan = self.plan
        for held in plan.held:
            self.hold(held)
        shape = f"[{self.extent(self.rows)}, {self.extent(self.columns)}]"
        layout = self.layout((self.rows, self.columns))
        self.add(f"nothing = tl.zeros({shape}, tl.float32, {layout})")
        if not self.crew.persistent:
            self.add("step = 0")
        for share in plan.sections[0].shares:
            for line in nothing_yet(self, share):
                self.add(line)
        for phase in self.walk.phases:
            call = calls[kind(phase.sections[0])]
            placing = re.search(rf"\b{plan.columns.first}\b", call) is not None
            testing = re.search(rf"\b{tested(plan).name}\b", call) is not None
            if plan.ahead is not None:
                self.first_ahead(plan.ahead, phase)
            self.walk.loop(phase, placing=placing, testing=testing)
            self.add(f"{', '.join(results(plan))} = {call}")
            self.add("step += 1")
            self.depth -= 1
        if plan.sections[0].shares or self.crew.persistent:
            self.add("")
        if plan.sections[0].shares:
            self.end_shares()
        for held in plan.held:
            if self.crew.persistent and held.load is not None:
                self.add(f"mbarrier.arrive({held.var.name}_empty.index(CONSUMER))")
        for s in plan.finish:
            self.statement(s)
        self.close()

    def end_shares(self) -> None:
        """Give what the last tile has shared out; then operands may be written over."""
        for share in self.plan.sections[0].shares:
            self.add(meet(share))
            for part in range(self.crew.consumers):
                self.add(share_out(self, share, part))
            self.wait(0, [share.var.name])
            self.add(room(self, share))
            for line in give(self, share):
                self.add(line)
        self.add("meet()")

    def first_ahead(self, dot: Dot, phase: Phase) -> None:
        """Make the first tile's product that later tiles have made one tile ahead."""
        name = dot.var.name
        self.add("")
        self.add(f"{name} = nothing")
        self.add(f"if {self.walk.some(phase)}:")
        self.depth += 1
        for load in self.plan.fetched:
            if reads(dot, load):
                self.get(load.var.name, "step")
        self.add(product(self, dot, "nothing, use_acc=False"))
        self.wait(0, [name])
        self.depth -= 1


def product(printer: GluonPrinter, dot: Dot, start: str) -> str:
    """Return the line that issues a product of operands from memory."""
    left, right = bare(dot.left), bare(dot.right)
    assert left is not None and right is not None
    held = next(x for x in printer.plan.held if x.var.name == left.name)
    name = left.name if held.load is not None else f"{left.name}_held"
    operands = f"{name}, {right.name}.permute((1, 0)), {start}"
    return f"{dot.var.name} = warpgroup_mma({operands}, is_async=True)"


def results(plan: Schedule) -> tuple[str, ...]:
    """Return what a tile hands on to the next: accumulators, and what its work carries."""
    late = dict.fromkeys(x.accumulator.name for x in plan.late)
    ahead = () if plan.ahead is None else (plan.ahead.var.name,)
    return (*late, *(v.name for v in plan.carried), *ahead)
