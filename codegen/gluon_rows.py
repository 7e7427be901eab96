"""The bodies of the functions that compute: the walk around the work on its tiles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .gluon_boxes import box_of, place
from .gluon_products import Products
from .gluon_spare import PARITY, begun_late
from .gluon_spare import place as spare_place
from .gluon_tests import hear, leave_out, test_name
from .gluon_told import own_setup, reads_of, ring
from .gluon_walk import Phase, Walk, stay, word
from .gluon_work import Work
from .join_tiles import Joined
from .kernel import Argument
from .layout import needed
from .loop_nest import (
    Cast,
    Fold,
    Let,
    Load,
    Nest,
    Ref,
    Statement,
    Store,
    Var,
    statements,
    value_axes,
)
from .schedule import Held, Schedule, Section
from .work_results import own_name, positions


class Rows(Products):
    """What one consumer does: its rows' share of every product, and the work between them."""

    def __init__(self, nest: Nest, plan: Schedule) -> None:
        super().__init__(nest, plan)
        self.boxes: dict[str, Argument] = {}
        self.places: dict[str, str] = {}
        self.positions, self.joined = positions(plan), plan.joined
        self.header()
        start = len(self.lines)
        self.set_up()
        self.walk = Walk(self, plan)
        vectors = {x.var.name for x in plan.vectors}
        for section in plan.sections:
            for s in statements(section.work):
                if isinstance(s, Load) and s.var.name not in vectors:
                    self.base(s.tensor, s.coordinates)
        self.opening = (start, list(self.lines))
        self.lines = []

    def set_up(self) -> None:
        """Write what every tile of rows begins with; what is told is not computed here."""
        told = {v.name for v in self.told.rows}
        once = begun_late(self.plan) if self.spare else ()
        kept = [s for s in own_setup(self.plan, told) if s not in once]
        later = [s for s in kept if told & reads_of(s, kept)]
        for s in kept:
            if s not in later:
                self.statement(s)
        if told:
            for held in self.plan.held:
                self.hold(held)
            for v in self.told.rows:
                self.add(f"{v.name} = told({ring(v.name)}.index(CONSUMER))")
        for s in later:
            self.statement(s)

    def returned(self, section: Section) -> tuple[str, ...]:
        """Return what the work of a section hands back, by its own names."""
        found = [own_name(section, k) for k in self.positions]
        return (*found, *(v.name for v in self.plan.carried))

    def rested(self, section: Section) -> tuple[str, ...]:
        """Return what the work of a section hands back while frames rest."""
        found = [own_name(section, k) for k in self.positions if k % 2 == 0]
        return (*found, *(v.name for v in self.grown(section)))

    def grown(self, section: Section) -> tuple[Var, ...]:
        """Return what the work of a section carries on while frames rest."""
        assert section.resting is not None
        made = {s.var.name for s in section.resting.body if isinstance(s, Let | Fold)}
        return tuple(v for v in self.plan.carried if v.name in made)

    def shared_work(self, joined: Joined) -> dict[str, list[str]]:
        """Return the work that tiles of all kinds share, by name."""
        nest, plan, section = self.nest, self.plan, self.plan.sections[0]
        made = tuple(dict.fromkeys(d.var.name for d in plan.products))
        return {
            test_name(k): Work(nest, plan, section, self, work=test.work, results=made).lines
            for k, test in enumerate(joined.tests)
        } | {
            "moving": Work(nest, plan, section, self, work=joined.moving).lines,
            "resting": Work(nest, plan, section, self, rests=True, work=joined.resting).lines,
        }

    def results(self) -> tuple[str, ...]:
        """Return the same by the names that they have here."""
        return self.returned(self.plan.sections[0])

    def write(self, calls: Mapping[str, str]) -> None:
        """Write the body; ``calls`` gives each section's work, by ``whole`` and ``cut``."""
        plan, stays = self.plan, self.crew.persistent
        for held in () if self.told.rows else plan.held:
            self.hold(held)
        shape = f"[{self.extent(self.rows)}, {self.extent(self.columns)}]"
        layout = self.layout((self.rows, self.columns))
        self.add(f"nothing = tl.zeros({shape}, tl.float32, {layout})")
        self.add("")
        self.add(f"# the first tile of {plan.columns.rank}; its late products wait")
        self.walk.begin_first()
        self.products("step" if stays else "0")
        self.turn("pass_turn")
        works = [call for name, call in calls.items() if not name.startswith("test")]
        hear(self, works, "step" if stays else "0")
        if not stays and plan.vectors and not plan.vectors_always:
            self.add("tested = 0")
        self.wait_early(0, "step" if stays else "0", calls, "0")
        if not self.joined:
            self.read_vectors("step" if stays else "0")
        self.first_work(calls)
        if self.narrow:
            self.make_operands()
        self.add("step += 1" if stays else "step = 1")
        sharing: list[str] = []
        for phase in self.walk.phases:
            section = phase.sections[0]
            wanted = [v.name for v in self.grown(section)] if section.resting else []
            if wanted != sharing:
                self.collect(sharing)
                self.share(wanted)
            sharing = wanted
            self.loop_over(phase, calls)
        self.collect(sharing)
        self.add("")
        for held in plan.held:
            if stays and held.load is not None:
                self.add(f"mbarrier.arrive({held.var.name}_empty.index({self.own}))")
        self.add("# the late products of the last tile")
        self.late_products("step - 1", self.begun(self.walk.phases[0].ends[-1:]))
        self.wait_late("step - 1", split=False)
        for s in plan.finish:
            self.statement(s)
        self.close()

    def close(self) -> None:
        """Put what stands ahead of the walk, and behind it, around the body."""
        start, opening = self.opening
        body = needed([*opening, *self.lines], start)
        before, after = [], []
        if any(s.resting is not None for s in self.plan.sections) or self.crew.lagging:
            before.append("watch(CONSUMER)")
            self.pieces.setdefault("watch")
        if self.crew.turns:
            before += ["if CONSUMER == CONSUMERS - 1:", "    pass_turn(CONSUMER)"]
            after = ["if CONSUMER == 0:", "    take_turn(CONSUMER)"]
            self.pieces |= {"take_turn": None, "pass_turn": None}
        if self.boxes:
            after.append("tma.store_wait(0)")
        if self.crew.drawn:
            self.pieces.setdefault("drawn_tile")
        if self.nest.beside:
            self.pieces.setdefault("end_last")
            after += ["if CONSUMER == 0:", "    end_last()"]
        self.lines, self.depth = [], 0
        for s in begun_late(self.plan) if self.spare else ():
            self.statement(s)
        self.lines = stay(self, body, before, after, self.lines)

    def hold(self, held: Held) -> None:
        """Wait for an operand that stays, or store it where products read it."""
        name, width = held.var.name, self.extent(held.var.axes[1])
        place = f"{name}_rows.index({self.own})"
        if held.load is not None:
            phase = "turn & 1" if self.crew.persistent else "0"
            if self.spare and held == self.plan.held[0]:
                self.add(f"own = {spare_place('CONSUMER')}")
            phase = PARITY if self.spare else phase
            self.add(f"mbarrier.wait({name}_full.index({self.own}), {phase})")
            self.add(f"{name} = {place}.reshape([ROWS, {width}])")
            return
        self.add(f"{name}_held = {place}")
        text = self.value(Cast(Ref(held.var), held.dtype), held.var.axes)
        self.add(f"{name}_held.store({text if held.var.dtype != held.dtype else name})")
        self.add("fence_async_shared()")

    def loop_over(self, phase: Phase, calls: Mapping[str, str]) -> None:
        """Write one loop of the rotated walk."""
        section = phase.sections[0]
        call = calls["moving" if self.joined else word(section)]
        resting = calls.get("resting" if self.joined else f"{word(section)}_resting", "")
        tests = [c for name, c in calls.items() if name.startswith("test")]
        first = self.plan.columns.first
        placing = any(re.search(rf"\b{first}\b", c) for c in (call, *tests))
        self.walk.loop(phase, placing=placing)
        self.products("step")
        self.late_products("step - 1", self.begun((self.walk.at,)))
        self.turn("pass_turn")
        seldom = self.joined is not None and self.joined.seldom
        hear(self, (call, resting, *(tests if seldom else ())), "step")
        self.wait_early(len(self.plan.late), "step", {} if seldom else calls, self.walk.at)
        if (section.loop.cut or self.plan.vectors_always) and not self.joined:
            self.read_vectors("step")
        if section.resting is None:
            self.call(call)
            self.wait_late("step - 1", split=True)
            self.carry()
        else:
            self.rest(section, call, resting, calls)
        self.add("step += 1")
        self.depth -= 1

    def rest(self, section: Section, call: str, resting: str, calls: Mapping[str, str]) -> None:
        """Take a tile in with frames at rest; where its terms are large, once more with new ones.

        So is one that needs a test, where that is seldom.

        What the tile is made of stays in registers until that is known. Weights in half precision
        hold what counts as large, and sums have as much room above.
        """
        assert section.resting is not None
        first = self.plan.sections[0]
        operands = [own_name(first, k) for k in self.positions if k % 2 == 0]
        grown = [v.name for v in self.grown(section)]
        for v in grown:
            resting = re.sub(rf"\b{v}\b", f"{v}_shares", resting)
        self.add(f"{', '.join([*operands, *(f'{v}_resting' for v in grown)])} = {resting}")
        for bound in section.resting.bounds:
            self.add(f"note_large({bound.name}_resting - {bound.name}_shares, CONSUMER)")
        self.wait_late("step - 1", split=True)
        seldom = self.joined is not None and self.joined.seldom
        marks = self.joined.marks if self.joined is not None and seldom else ()
        self.add(f"if {' + '.join(['large(CONSUMER)', *marks])} == 0:")
        for v in grown:
            self.add(f"    {v}_shares = {v}_resting")
        self.add("else:")
        self.depth += 1
        self.collect(grown)
        self.share(grown)
        if seldom:
            leave_out(self, calls, "step", self.walk.at, heard=True)
        self.call(self.anew(call))
        self.rescale()
        self.depth -= 1
        if self.narrow:
            self.make_operands()

    def anew(self, call: str) -> str:
        """Return a call whose work shares nothing with the work at rest before it.

        It is seldom made. Were its values those that were made at rest, they would be kept in
        registers until that is decided, and not be fused with what reads them.
        """
        names = {d.var.name: "anew" for d in self.plan.products}
        names[self.plan.columns.first] = "anew_place"
        head, _, given = call.partition("(")
        for name, function in names.items():
            given = re.sub(rf"\b{name}\b", f"{function}({name})", given)
        return f"{head}({given}"

    def share(self, names: Iterable[str]) -> None:
        """Let each thread begin to add up its share of sums along rows."""
        for v in names:
            self.add(f"{v}_shares = by_thread(nothing)")

    def collect(self, names: Iterable[str]) -> None:
        """Add to sums along rows what threads have added up."""
        for v in names:
            self.add(f"{v} = {v} + together({v}_shares, {self.layout((self.rows,))})")

    def read_vectors(self, step: str = "") -> None:
        """Take to registers what was fetched along a tile's columns, and free its slot.

        A tile that is taken once more finds them there: a warp that does so alone may not read
        what barriers of all warps guard.
        """
        always, shape = self.plan.vectors_always, f"[{self.extent(self.columns)}]"
        step = step if always else "tested"
        for load in self.plan.vectors:
            name = load.var.name
            full = f"filled({name}_ring, {name}_full, {step})"
            self.add(f"{name} = {full}.reshape({shape}).load({self.layout(load.var.axes)})")
            self.add(f"release({name}_empty, {step})")
        if self.plan.vectors and not always:
            self.add("tested += 1")

    def wait_early(self, pending: int, step: str, calls: Mapping[str, str], at: str) -> None:
        """Wait for a tile's early products, and let their operands be fetched over.

        ``calls`` : of the tests, where tiles are joined; they are done ahead of that, at which
        groups of warps wait for all; {} if not. ``at`` : the place among the sections, end to end.
        """
        names = list(dict.fromkeys(d.var.name for d in self.plan.products))
        self.wait(pending, names)
        if self.joined and calls:
            leave_out(self, calls, step, at)
        for load in self.plan.fetched:
            if not self.plan.read_late(load):
                self.add(f"release({load.var.name}_empty, {step})")

    def call(self, call: str) -> None:
        """Do the work on a tile."""
        self.add(f"{', '.join(self.results())} = {call}")

    def first_work(self, calls: Mapping[str, str]) -> None:
        """Do the work on the first tile, which is tested unless it is known to be whole.

        Nothing has to be carried to its frame: sums are 0.
        """
        if self.joined:
            self.call(calls["moving"])
            return
        untested = self.walk.untested()
        if untested:
            self.add(f"if {untested}:")
            self.depth += 1
            self.call(calls["whole"])
            self.depth -= 1
            self.add("else:")
            self.depth += 1
        self.call(calls.get("cut") or calls["whole"])
        self.depth -= bool(untested)

    def statement(self, statement: Statement) -> None:
        """Print a statement; a tile of rows is stored by a descriptor where one may."""
        match statement:
            case Store(tensor=tensor, coordinates=coordinates, value=value) if (
                not self.crew.wide  # sums leave no memory to stage them in
                and (box := box_of(self.nest, self.plan, tensor, coordinates)) is not None
            ):
                name = self.staging(tensor, box)
                self.boxes.setdefault(box.name, box)
                axes = self.ordered(frozenset().union(*(value_axes(c) for c in coordinates)))
                dtype = self.dtypes[tensor]
                text = self.broadcast(Cast(value, dtype), axes)
                shape = f"[ROWS, {box.block[-1]}]"
                if self.crew.persistent and len(self.places) == 1:
                    self.add("tma.store_wait(0)")
                self.add(f"{name}.index(CONSUMER).reshape({shape}).store({text})")
                self.add("fence_async_shared()")
                at = place(self, box, coordinates, f"{self.plan.rows.first} + CONSUMER * ROWS")
                self.add(
                    f"tma.async_copy_shared_to_global({box.name}, {at}, {name}.index(CONSUMER))"
                )
            case _:
                super().statement(statement)

    def staging(self, tensor: str, box: Argument) -> str:
        """Return the shared memory from which rows are stored: that of an operand, if it fits."""
        own = f"{box.name}_rows"
        # in a program that stays the next tile's operand comes while these rows leave
        for x in () if self.crew.persistent else self.plan.held:
            same = x.load is not None and x.dtype == self.dtypes[tensor]
            place = f"{x.var.name}_rows"
            fits = self.axes[x.var.axes[1]].width == box.block[-1]
            if same and fits and self.places.get(place, box.name) == box.name:
                own = place
                break
        self.places[own] = box.name
        return own
