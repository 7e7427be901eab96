"""The walk over a rotated loop's tiles, as every group of warps takes it; all must agree on it.

The loops of a nest are *sections* of the walk. Those whose tiles are worked on alike, one after the
other, are one *phase* and get one loop, so that the text, and what a processor has to hold of it,
does not grow with the number of ranges::

    m = 0 ... 64, tested;  m = 512 ... 1024, tested    -->    m_at = 0 ... 64 + 512, tested:
                                                                  m_first = m_at + where(...)

A tile of a section that walks a list is found where the list says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .gluon_draw import DRAWN
from .gluon_values import GluonPrinter
from .loop_nest import Cast, Let, Load, Number, Op, Place, Scalar, Statement, Value
from .one_loop import tested
from .schedule import Schedule, Section


@dataclass(frozen=True, slots=True)
class Phase:
    """Sections that share a loop; ``ends`` are the texts of where each ends, laid end to end."""

    sections: tuple[Section, ...]
    ends: tuple[str, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether a list says where tiles lie."""
        return bool(self.sections[0].place)


class Walk:
    """The walk as one printer writes it: what is set up ahead, the first tile, a loop a phase."""

    def __init__(self, printer: GluonPrinter, plan: Schedule) -> None:
        self.printer, self.plan = printer, plan
        self.first, self.rank = plan.columns.first, plan.columns.rank
        found, both = phases(plan.sections), plan.joined
        if both is not None:
            found = [Phase(plan.sections)]
        self.phases = tuple(map(self.measured, found))
        ends = self.phases[0].ends
        self.whole_end = ends[both.whole - 1] if both is not None and ends else ""
        # where lists name all tiles, the warp that fetches reads them for the others
        self.hears = printer.warps > 1 and printer.crew.rotated and all(p.placed for p in found)
        self.marks = [n for n in printer.told.tiles if n != self.first]
        # ahead of all loops, what their addresses have in common
        for section in () if self.hears else plan.sections:
            for s in (*section.place, *at_slot(section, section.loop.begin)):
                if isinstance(s, Load):
                    printer.base(s.tensor, s.coordinates)

    def measured(self, phase: Phase) -> Phase:
        """Print how far the sections of a phase reach, laid end to end, if they are several."""
        if len(phase.sections) == 1:
            return phase
        ends: list[str] = []
        for section in phase.sections:
            loop = section.loop
            begin, end = self.text(loop.begin), self.text(loop.end)
            length = end if begin == "0" else f"{end} - {bracketed(begin)}"
            tiles = f"tl.cdiv(tl.maximum({length}, 0), {loop.tile}) * {loop.tile}"
            last = section.tests and section is phase.sections[-1]
            name = self.printer.names.take(f"{self.rank}_{'at' if last else word(section)}_end")
            self.printer.add(f"{name} = {' + '.join([*ends[-1:], tiles])}")
            ends.append(name)
        return replace(phase, ends=tuple(ends))

    def text(self, value: Value) -> str:
        """Return a scalar as text."""
        return self.printer.value(value, ())

    @property
    def at(self) -> str:
        """The name of a place among the sections of a phase that are laid end to end."""
        return f"{self.rank}_at"

    def some(self, phase: Phase) -> str:
        """Return the condition that a phase has a tile."""
        if phase.ends:
            return f"0 < {phase.ends[-1]}"
        loop = phase.sections[0].loop
        return f"{self.text(loop.begin)} < {self.text(loop.end)}"

    def begin(self, phase: Phase) -> str:
        """Return where the first tile of a phase lies that no list places."""
        return self.place(phase, "0") if phase.ends else self.text(phase.sections[0].loop.begin)

    def place(self, phase: Phase, at: str) -> str:
        """Return where the tile lies that is ``at`` places into the sections of a phase."""
        begins = [self.text(s.loop.begin) for s in phase.sections]
        rest = zip(begins[1:], phase.ends, strict=False)
        moves = [begins[0], *(f"-{e}" if b == "0" else f"{b} - {e}" for b, e in rest)]
        text = moves[-1]
        for move, end in zip(reversed(moves[:-1]), reversed(phase.ends[:-1]), strict=True):
            text = f"tl.where({at} < {end}, {move}, {text})"
        return text if at == "0" else f"{at} + {text}"

    def begin_first(self) -> None:
        """Print where the walk's first tile lies: in the first phase that is not empty.

        A walk without tiles has one all the same, which is tested.
        """
        if self.hears:
            return
        *others, last = self.phases
        if not any(p.placed for p in self.phases):
            text = self.begin(last)
            for phase in reversed(others):
                text = f"tl.where({self.some(phase)}, {self.begin(phase)}, {text})"
            self.printer.add(f"{self.first} = {text}")
            return
        self.printer.add(f"{self.first} = {self.text(Scalar(f'size({self.rank})'))}")
        for phase in reversed(self.phases):
            text = self.begin(phase)
            if phase.placed:
                section = phase.sections[0]
                *before, place = at_slot(section, section.loop.begin)
                for s in before:
                    self.printer.statement(s)
                assert isinstance(place, Place)
                text = self.text(place.value)
            self.printer.add(f"{self.first} = tl.where({self.some(phase)}, {text}, {self.first})")
            for name in self.marks:
                self.printer.add(f"{name} = tl.where({self.some(phase)}, {name}, 1)")

    def untested(self) -> str:
        """Return the condition that the first tile needs no test, "" if it always has one.

        A test of points that lists decide about may cost more than all tiles of its row; where
        frames rest, the first tile's work is all that nothing runs beside.
        """
        cut = [bool(p.sections[0].loop.cut) for p in self.phases]
        if all(cut) or not any(cut):
            return ""
        if cut[0] and not any(p.placed for p in self.phases):
            return ""
        place = cut.index(False)
        before = [f"~({self.some(p)})" for p in self.phases[:place]]
        there = self.some(self.phases[place])
        return " & ".join([*before, f"({there})"]) if before else there

    def loop(
        self,
        phase: Phase,
        *,
        placing: bool = True,
        testing: bool = False,
        ahead: bool = False,
    ) -> None:
        """Print the head of a phase's loop.

        A rotated one leaves out the walk's first tile if it is its. ``placing``: something reads
        where its tiles lie. ``testing``: whether they may be cut.
        ``ahead``: a list is read one tile ahead, by warps that would wait.
        """
        section, at = phase.sections[0], self.first
        loop = section.loop
        begin, end = self.text(loop.begin), self.text(loop.end)
        if phase.ends:
            begin, end, at = "0", phase.ends[-1], self.at
        if phase.placed:
            at = loop.first
        step = loop.tile or "1"
        second = step if begin == "0" else f"{begin} + {step}"
        before = [self.some(p) for p in self.phases[: self.phases.index(phase)]]
        if not self.printer.crew.rotated:
            second = begin
        elif before:
            test = before[0] if len(before) == 1 else " | ".join(f"({x})" for x in before)
            second = f"tl.where({test}, {begin}, {second})"
        stride = f", {step}" if step != "1" else ""
        self.printer.add("")
        if phase.placed and ahead:
            self.printer.add(f"{loop.first}_next = {second}")
            self.find_next(section)
        place = f"{self.rank}_back" if self.printer.crew.backwards else at
        self.printer.add(f"for {place} in range({second}, {end}{stride}):")
        self.printer.depth += 1
        if place != at:
            whole = end if phase.ends else f"{begin} + tl.cdiv({end} - {begin}, {step}) * {step}"
            again = "" if begin == "0" else f" + {begin}"
            self.printer.add(f"{at} = {whole}{again} - {step} - {place}")
        if phase.ends and placing:
            self.printer.add(f"{self.first} = {self.place(phase, at)}")
        if section.tests and testing:
            self.printer.add(f"{tested(self.plan).name} = {self.cut(phase, at)}")
        if self.plan.ahead is not None and not ahead:
            self.printer.add(f"{self.rank}_more = {place} + {step} < {end}")
        if phase.placed and ahead:
            for name in (self.first, *self.marks):
                self.printer.add(f"{name} = {name}_next")
            self.printer.add(f"{loop.first}_next = {loop.first} + {step}")
            self.find_next(section)
        elif phase.placed and placing and not self.hears:
            for s in section.place:
                self.printer.statement(s)

    def cut(self, phase: Phase, at: str) -> str:
        """Return the condition that the tile ``at`` places into the sections of a phase is cut."""
        tests = []
        ends = ("0", *phase.ends)
        cut = [s.loop.cut for s in phase.sections]
        for k, begin in enumerate(cut):
            if not begin or (k and cut[k - 1]):
                continue
            last = next((i for i in range(k, len(cut)) if not cut[i]), len(cut))
            sides = [f"{at} >= {ends[k]}"] if k else []
            sides += [f"{at} < {ends[last]}"] if last < len(cut) else []
            tests.append(sides[0] if len(sides) == 1 else " & ".join(f"({x})" for x in sides))
        return tests[0] if len(tests) == 1 else " | ".join(f"({x})" for x in tests)

    def find_next(self, section: Section) -> None:
        """Print what finds the next tile of a list, if there is one."""
        following = Scalar(f"{section.loop.first}_next")
        self.printer.moving.add(following.name)
        *before, place = at_slot(section, following)
        for s in before:
            if isinstance(s, Let) and s.var.name in self.marks:
                s = replace(s, var=replace(s.var, name=f"{s.var.name}_next"))
            self.printer.statement(s)
        assert isinstance(place, Place)
        self.printer.add(f"{self.first}_next = {self.text(place.value)}")


def phases(sections: Iterable[Section]) -> list[Phase]:
    """Group sections, in their order: neighbours whose tiles are worked on alike share a loop."""
    found: list[Phase] = []
    for section in sections:
        last = found[-1].sections[-1] if found else None
        if last is not None and not (last.place or section.place) and alike(last, section):
            found[-1] = Phase((*found[-1].sections, section))
        else:
            found.append(Phase((section,)))
    return found


def alike(one: Section, other: Section) -> bool:
    """Whether the tiles of two sections are worked on alike."""
    return (one.tests or one.loop.cut, one.work, one.late, one.shares) == (
        other.tests or other.loop.cut,
        other.work,
        other.late,
        other.shares,
    )


def word(section: Section) -> str:
    """Return what a section's tiles are called."""
    return "cut" if section.loop.cut else "whole"


def kind(section: Section) -> str:
    """Return what the work on a section's tiles is called."""
    return "tile" if section.tests else word(section)


def bracketed(text: str) -> str:
    """Return text as the right side of a difference."""
    return text if re.fullmatch(r"\w+(\(.*\))?", text) else f"({text})"


def at_slot(section: Section, slot: Value) -> tuple[Statement, ...]:
    """Return what finds the tile at a slot of a list, if the list is so long."""
    loop = section.loop
    inside = Op("<", (slot, loop.end))
    return tuple(guarded(s, loop.first, slot, inside) for s in section.place)


def guarded(s: Statement, name: str, at: Value, test: Value) -> Statement:
    """Return a statement at a place of a list; it reads memory only where the list has a member."""
    match s:
        case Let(value=value) | Place(value=value):
            return replace(s, value=substitute(value, name, at))
        case Load(coordinates=coordinates, guard=guard):
            places = tuple(substitute(c, name, at) for c in coordinates)
            tests = (test,) if guard is None else (test, substitute(guard, name, at))
            whole = tests[0] if len(tests) == 1 else Op("and", tests)
            return replace(s, coordinates=places, guard=whole)
        case _:
            return s


def substitute(value: Value, name: str, other: Value) -> Value:
    """Return a value with another in the place of a scalar."""
    match value:
        case Scalar(name=found) if found == name:
            return other
        case Op(operator="-" | "+", operands=(x, y)) if substitute(y, name, other) == Number(0):
            return substitute(x, name, other)
        case Op(operands=operands):
            return replace(value, operands=tuple(substitute(x, name, other) for x in operands))
        case Cast(value=inner):
            return replace(value, value=substitute(inner, name, other))
        case _:
            return value


def stay(
    printer: GluonPrinter,
    body: list[str],
    before: list[str],
    after: list[str],
    first: Iterable[str] = (),
) -> list[str]:
    """Return a function's lines; in a program that stays, the body is repeated for its tiles.

    Where some tiles of rows walk further than others, a program takes the longest with the
    shortest, so that all pairs are alike, or draws the next tile when it is done with one. What is
    ``first`` is done once.
    """
    ahead, behind = (["    " + x for x in lines] for lines in (before, after))
    if not printer.crew.persistent:
        return [*ahead, *body, *behind]
    counts = []
    for g in printer.nest.grid:
        size = printer.sizes[g.rank]
        counts.append(f"gl.cdiv({size}, {g.tile})" if g.tile else size)
    body = [x.replace("pid = gl.program_id(0)", "pid = tile") for x in body]
    start = ["    step = 0", "    turn = 0", f"    tiles = {' * '.join(counts)}"]
    if printer.plan.vectors and printer.crew.rotated and not printer.plan.vectors_always:
        start.insert(1, "    tested = 0")
    start += ["    " + x for x in first]
    if printer.crew.drawn:
        following = DRAWN if printer.warps > 1 else "next_tile"
        walk = ["    tile = gl.program_id(0)", "    while tile < tiles:"]
        body = [*body, f"        tile = {following}", "        turn += 1"]
        return [*ahead, *start, *walk, *body, *behind]
    if printer.paired:
        walk = [
            "    for pair in range(gl.program_id(0), gl.cdiv(tiles, 2), gl.num_programs(0)):",
            "        for tile in range(2 * pair, gl.minimum(2 * pair + 2, tiles)):",
        ]
    else:
        walk = ["    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):"]
    return [*ahead, *start, *walk, *body, "    " * (1 + len(walk)) + "turn += 1", *behind]
