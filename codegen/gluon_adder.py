"""The body of the function that adds: what consumers give, to memory, tile after tile.

A warp of its own waits for memory, so that consumers do not: it takes each tile's shares
(``gluon_shares.py``), and the memory engine adds them. What comes ahead of the first tile is
nothing, and is left lying.

Two such warps take every other tile, each from a place of its own, so that one waits for its turn
while memory still has the other's::

    tile t:      wait for the turn, for what is given;  add;  wait for memory;  count
    tile t + 1:           wait for the turn, for what is given;  add;  wait for memory;  count

That takes 32 KiB more, and pays where tiles come fast: of 64 columns (``passes/specialise.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

from .gluon_fetch import scalars
from .gluon_shares import (
    HEIGHT,
    box_of_share,
    by_columns,
    parity_of,
    place_of,
    width_of,
)
from .gluon_turns import counts_of
from .gluon_values import GluonPrinter
from .gluon_walk import Walk
from .kernel import Argument
from .layout import needed
from .loop_nest import Index, Nest, value_vars
from .schedule import Schedule, Share


class Adder(GluonPrinter):
    """What a warp that adds does: boxes, in the order in which consumers give them."""

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
            if self.crew.adders == 1:
                self.add(f"{plan.columns.first}_before = 0")
        self.add("# what comes ahead of the first tile is nothing")
        self.add("step = 0")
        several = self.crew.adders > 1
        if several:
            self.add("if ADDER == 0:")
            self.depth += 1
        for x in plan.sections[0].shares:
            self.every([self.given(x), self.taken(x)])
        self.depth -= several
        self.add("step = 1")
        for phase in walk.phases:
            walk.loop(phase, ahead=True)
            if several:
                self.own_tile()
            else:
                self.tile()
            self.add("step += 1")
            self.depth -= 1
        if self.crew.in_turn and not several:
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
            self.every([*self.added(share), "tma.store_wait(0)", self.taken(share)])
        if self.crew.in_turn:
            self.end_turn(self.crew.consumers * len(plan.sections[0].shares))
            self.add(f"{columns.first}_before = {columns.first}")

    def own_tile(self) -> None:
        """Add a tile if it is this warp's, and end the turn; another has the next one meanwhile."""
        plan, columns = self.plan, self.plan.columns
        self.add("if step % ADDERS == ADDER:")
        self.depth += 1
        count = self.count(columns.first)
        if self.crew.in_turn:
            self.add(f"await_turn({count}, {plan.rows.rank}_tile)")
        shares = plan.sections[0].shares
        for share in shares:
            self.every(self.added(share))
        self.add("tma.store_wait(0)")
        for share in shares:
            self.every([self.taken(share)])
        if self.crew.in_turn:
            self.add(f"end_turn({count}, 0)")
        self.depth -= 1

    def added(self, share: Share) -> list[str]:
        """Return the lines that add what a consumer gives; the first program of all sets it.

        Where walks begin elsewhere, the first may not walk all, and sums begin with 0.
        """
        box = box_of_share(self, share)
        self.boxes.setdefault(box.name, box)
        place = f"{box.name}_rows.index({place_of(self, 'i')})"
        what = f"({box.name}, {self.place(share, box)}, {place})"
        if not self.crew.in_turn or self.crew.backwards:
            return [self.given(share), f"add_box{what}"]
        return [
            self.given(share),
            f"if {self.plan.rows.rank}_tile == 0:",
            f"    tma.async_copy_shared_to_global{what}",
            "else:",
            f"    add_box{what}",
        ]

    def given(self, share: Share) -> str:
        """Return the line that waits for what a consumer gives."""
        barrier = f"{share.var.name}_given.index({place_of(self, 'i')})"
        return f"mbarrier.wait({barrier}, {parity_of(self)})"

    def taken(self, share: Share) -> str:
        """Return the line that says that a consumer may give the next tile's."""
        return f"mbarrier.arrive({share.var.name}_taken.index({place_of(self, 'i')}))"

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
