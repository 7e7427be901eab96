"""The body of the function that adds: what consumers give, to memory, tile after tile.

A warp of its own waits for memory, so that consumers do not: it takes each tile's shares
(``gluon_shares.py``), and the memory engine adds them. What comes ahead of the first tile is
nothing, and is left lying.
"""

from __future__ import annotations

from collections.abc import Iterable

from .gluon_fetch import scalars
from .gluon_shares import HEIGHT, box_of_share, by_columns, width_of
from .gluon_turns import counts_of
from .gluon_values import GluonPrinter
from .gluon_walk import Walk
from .kernel import Argument
from .layout import needed
from .loop_nest import Index, Nest, value_vars
from .schedule import Schedule, Share


class Adder(GluonPrinter):
    """What the adding warp does: boxes, in the order in which consumers give them."""

    warps = 1

    def __init__(self, nest: Nest, plan: Schedule) -> None:
        super().__init__(nest, plan)
        self.boxes: dict[str, Argument] = {}
        self.header()
        start = len(self.lines)
        read = {
            n for x in plan.sections[0].shares for c in x.store.coordinates for n in value_vars(c)
        }
        for s in scalars(plan, read):
            self.statement(s)
        walk = Walk(self, plan)
        if self.crew.in_turn:
            self.add(self.counts)
            self.add(f"{plan.columns.first}_before = 0")
        self.add("# what comes ahead of the first tile is nothing")
        self.add("step = 0")
        for x in plan.sections[0].shares:
            self.every([given(x), taken(x)])
        self.add("step = 1")
        for phase in walk.phases:
            walk.loop(phase, ahead=True)
            self.tile()
            self.depth -= 1
        if self.crew.in_turn:
            self.end_turn(0)
        self.lines = needed(self.lines, start)

    def every(self, lines: Iterable[str]) -> None:
        """Do something for each consumer."""
        self.add("for i in tl.static_range(CONSUMERS):")
        self.depth += 1
        for line in lines:
            self.add(line)
        self.depth -= 1

    @property
    def counts(self) -> str:
        """The line that finds where the counters of a program's tiles lie."""
        place = "0"
        for g in self.nest.grid:
            if not g.tile:
                own = self.sizes[g.rank]
                place = g.rank if place == "0" else f"({place} * {own} + {g.rank})"
        columns = self.plan.columns
        many = f"tl.cdiv({self.sizes[columns.rank]}, {columns.constant})"
        return f"counts = {counts_of(self.nest)} + {place} * {many}"

    def tile(self) -> None:
        """Add a tile of what consumers give, each as it comes."""
        plan, columns = self.plan, self.plan.columns
        if self.crew.in_turn:
            self.add(f"await_turn({self.count(columns.first)}, {plan.rows.rank}_tile)")
        for share in plan.sections[0].shares:
            box = box_of_share(self, share)
            self.boxes.setdefault(box.name, box)
            what = f"({box.name}, {self.place(share, box)}, {box.name}_rows.index(i))"
            lines = [given(share)]
            if self.crew.in_turn:
                lines += [f"if {plan.rows.rank}_tile == 0:"]
                lines += [f"    tma.async_copy_shared_to_global{what}", "else:"]
            lines.append("    " * self.crew.in_turn + f"add_box{what}")
            self.every([*lines, "tma.store_wait(0)", taken(share)])
        if self.crew.in_turn:
            self.end_turn(self.crew.consumers * len(plan.sections[0].shares))
            self.add(f"{columns.first}_before = {columns.first}")
        self.add("step += 1")

    def count(self, first: str) -> str:
        """Return where the counter of the tile lies that begins there."""
        return f"counts + {first} // {self.plan.columns.constant}"

    def end_turn(self, pending: int) -> None:
        """End the turn at the tile before, when memory has all but so many boxes."""
        self.add("if step > 1:")
        before = self.count(f"{self.plan.columns.first}_before")
        self.add(f"    end_turn({before}, {pending})")

    def place(self, share: Share, box: Argument) -> str:
        """Return the coordinates of what a consumer gives."""
        coordinates = share.store.coordinates
        words = [self.value(coordinates[k], ()) for k in box.order[:-2]]
        last = coordinates[box.order[-1]]
        assert isinstance(last, Index)
        first, begin = self.plan.columns.first, str(self.axes[last.axis].offset)
        if by_columns(self):
            first += f" + i * {HEIGHT}"
        else:
            own = f"i * {width_of(self, share)}"
            begin = own if begin == "0" else f"{begin} + {own}"
        return f"({', '.join([*words, first, begin])})"


def given(share: Share) -> str:
    """Return the line that waits for what a consumer gives."""
    return f"mbarrier.wait({share.var.name}_given.index(i), step & 1)"


def taken(share: Share) -> str:
    """Return the line that says that a consumer may give the next tile's."""
    return f"mbarrier.arrive({share.var.name}_taken.index(i))"
