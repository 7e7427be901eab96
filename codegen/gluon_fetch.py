"""The body of the function that fetches: boxes, in the order in which products read them."""

from __future__ import annotations

from collections.abc import Iterable

from .gluon_boxes import box_of, place
from .gluon_draw import drawing
from .gluon_spare import PARITY
from .gluon_spare import place as spare_place
from .gluon_told import ring
from .gluon_values import GluonPrinter
from .gluon_walk import Walk, stay
from .in_order import Get, in_order
from .kernel import Argument
from .layout import needed
from .loop_nest import Fold, Let, Load, Nest, Statement, value_vars
from .schedule import Held, Schedule
from .signature import values


class Fetcher(GluonPrinter):
    """What the fetching warp does: boxes, in the order in which products read them."""

    warps = 1

    def __init__(self, nest: Nest, plan: Schedule) -> None:
        super().__init__(nest, plan)
        self.boxes: dict[str, Argument] = {}
        self.header()
        start = len(self.lines)
        for s in scalars(plan, self.read()):
            self.statement(s)
        walk = Walk(self, plan)
        if not self.crew.rotated:
            self.walk_in_order(walk)
            self.lines = stay(self, needed(self.lines, start), [], [])
            return
        first, stays = plan.columns.first, self.crew.persistent
        early = [x for x in plan.fetched if plan.read_early(x)]
        late = [x for x in plan.fetched if not plan.read_early(x)]
        if not stays:
            self.hold_all()
        self.add("")
        self.add("# a tile's operands of early products go ahead of the late ones of the last tile")
        walk.begin_first()
        self.tell_tile(early[0], "step" if stays else "0")
        self.fetch(early, first, "step" if stays else "0")
        if stays:
            self.hold_all()
            self.draw()
        elif plan.vectors and not plan.vectors_always:
            self.add("tested = 0")
        self.fetch_vectors(first, "step" if stays else "0")
        self.add(f"{first}_before = {first}")
        self.add("step += 1" if stays else "step = 1")
        for phase in walk.phases:
            walk.loop(phase, ahead=True)
            self.tell_tile(early[0], "step")
            self.fetch(early, first, "step")
            if phase.sections[0].loop.cut or plan.vectors_always:
                self.fetch_vectors(first, "step")
            self.fetch(late, f"{first}_before", "step - 1")
            self.add(f"{first}_before = {first}")
            self.add("step += 1")
            self.depth -= 1
        self.fetch(late, f"{first}_before", "step - 1")
        self.lines = stay(self, needed(self.lines, start), [], [])

    def walk_in_order(self, walk: Walk) -> None:
        """Fetch what stays, and then each tile's operands and vectors as its work reads them."""
        self.hold_all()
        self.draw()
        if not self.crew.persistent:
            self.add("step = 0")
        for phase in walk.phases:
            order = in_order(self.plan, phase.sections[0], self.crew.consumers)
            walk.loop(phase, ahead=True)
            reads = [s.load for s in order if isinstance(s, Get)]
            self.fetch(reads, self.plan.columns.first, "step")
            self.add("step += 1")
            self.depth -= 1

    def draw(self) -> None:
        """Draw the next tile of rows, where programs draw, while the first boxes are on the way."""
        if self.crew.drawn:
            self.add(drawing(self.nest))

    def hold_all(self) -> None:
        """Fetch the operands that stay."""
        for held in self.plan.held:
            if held.load is not None:
                self.hold(held)

    def read(self) -> set[str]:
        """Return the variables that say where boxes lie."""
        held = (h.load for h in self.plan.held if h.load is not None)
        loads = (*self.plan.fetched, *self.plan.vectors, *held)
        return {n for x in loads for c in x.coordinates for n in value_vars(c)}

    def hold(self, held: Held) -> None:
        """Fetch every consumer's rows of an operand that stays."""
        assert held.load is not None
        box = box_of(self.nest, self.plan, held.load.tensor, held.load.coordinates)
        assert box is not None
        self.boxes.setdefault(box.name, box)
        name, own, parity = held.var.name, "i", "turn & 1"
        at = place(self, box, held.load.coordinates, f"{self.plan.rows.first} + i * ROWS")
        self.add("for i in tl.static_range(CONSUMERS):")
        if self.spare:
            own, parity = "own", PARITY
            self.add(f"    own = {spare_place('i')}")
        if self.crew.persistent:
            self.add(f"    mbarrier.wait({name}_empty.index({own}), ({parity}) ^ 1)")
        if held == self.told.held:
            for v in self.told.rows:
                self.add(f"    tell({ring(v.name)}.index(i), {v.name})")
        self.add(f"    mbarrier.expect({name}_full.index({own}), {box.name}.block_type.nbytes)")
        copy = f"{box.name}, {at}, {name}_full.index({own}), {name}_rows.index({own})"
        self.add(f"    tma.async_copy_global_to_shared({copy})")

    def tell_tile(self, load: Load, step: str) -> None:
        """Tell what the work on a tile needs to know, under the barriers of an operand."""
        if not self.told.tiles:
            return
        slot, empty = f"index({step} % STAGES)", f"{self.carrier(load)}_empty"
        self.add(f"mbarrier.wait({empty}.{slot}, ({step} // STAGES & 1) ^ 1)")
        for name in self.told.tiles:
            self.add(f"tell({ring(name)}.{slot}, {name})")

    def fetch_vectors(self, first: str, step: str) -> None:
        """Fetch what lies along the columns of a tile, if need be of one that is tested only."""
        if not self.plan.vectors:
            return
        if self.plan.vectors_always:
            self.fetch(self.plan.vectors, first, step)
            return
        needed = self.plan.needs_vectors
        if needed is not None:
            self.add(f"if {self.value(needed, ())}:")
        self.depth += needed is not None
        self.fetch(self.plan.vectors, first, "tested")
        self.add("tested += 1")
        self.depth -= needed is not None

    def fetch(self, loads: Iterable[Load], first: str, step: str) -> None:
        """Fetch tiles of a step."""
        for load in loads:
            box = box_of(self.nest, self.plan, load.tensor, load.coordinates)
            assert box is not None
            self.boxes.setdefault(box.name, box)
            name, at = load.var.name, place(self, box, load.coordinates, first)
            ring = self.carrier(load)
            self.add(f"fetch({box.name}, {at}, {name}_ring, {ring}_full, {ring}_empty, {step})")


def scalars(plan: Schedule, read: set[str]) -> list[Statement]:
    """Return the setup statements on which the walk's bounds depend, and the variables ``read``."""
    wanted = {n for s in plan.sections for v in values(s.loop) for n in value_vars(v)} | read
    places = [s for x in plan.sections for s in x.place]
    wanted |= {n for s in places for v in values(s) for n in value_vars(v)}
    kept: list[Statement] = []
    for s in reversed(plan.setup):
        if isinstance(s, Let | Load | Fold) and s.var.name in wanted:
            kept.insert(0, s)
            if isinstance(s, Fold):
                continue  # it loads what it needs
            wanted |= {n for v in values(s) for n in value_vars(v)}
    return kept
