"""Told numbers: what the fetching warp reads of lists, it says to the warps that compute.

It reads a list ahead of everybody, to know what to fetch. Where a tile lies, and which tests it
needs, it writes to shared memory under the barriers of the first operand that is fetched for the
tile; how far a tile of rows walks, under those of an operand that stays. So no consumer waits for
memory to know where it is::

    fetches:   m_tile = load(m_tiles, slot);  tell(m_first_ring, m_tile * M0);  fetch K
    computes:  wait for K;  m_first = told(m_first_ring)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .loop_nest import (
    Cast,
    Fold,
    Index,
    Let,
    Load,
    Nest,
    Op,
    Scalar,
    Statement,
    Value,
    Var,
    statements,
    value_vars,
)
from .schedule import Held, Schedule
from .signature import values

PIECES = {
    "tell": '''@gluon.jit
def tell(place, number):
    """Write a number for the warps that compute."""
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    place.store(gl.full([1], number, gl.int32, ONE))''',
    "told": '''@gluon.jit
def told(place):
    """A number that the warp that fetches has written."""
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    return gl.max(place.load(ONE), axis=0)''',
}
"""The small functions of a file in which numbers are told."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is told: ``tiles``, of each tile; ``rows``, of each tile of rows; names of scalars.

    held : the operand under whose barriers rows are told.
    """

    tiles: tuple[str, ...] = ()
    rows: tuple[Var, ...] = ()
    held: Held | None = None

    def shared(self) -> dict[str, str]:
        """Return what lies in shared memory, by name, with the call that makes it."""
        line = "gl.allocate_shared_memory(gl.int32, [{}, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))"
        made = {ring(name): line.format("STAGES") for name in self.tiles}
        return made | {ring(v.name): line.format("CONSUMERS") for v in self.rows}


def ring(name: str) -> str:
    """Return the name of the shared memory through which a number is told."""
    return f"{name}_ring"


def told_of(nest: Nest, plan: Schedule) -> Told:
    """Return what is told in a kernel; nothing where the loop is not rotated."""
    if nest.crew is None or not nest.crew.rotated:
        return Told()
    held = next((h for h in plan.held if h.load is not None), None)
    rows = told_rows(plan) if held is not None and nest.crew.persistent else ()
    return Told(told_tiles(plan), rows, held)


def told_tiles(plan: Schedule) -> tuple[str, ...]:
    """Return the scalars of a tile that its work reads, where a list names all tiles."""
    if not all(s.place for s in plan.sections):
        return ()
    made = {s.var.name: s.var for x in plan.sections for s in x.place if isinstance(s, Let | Load)}
    work = [s for x in plan.sections for s in work_of(x.work, plan)]
    work += [s for x in plan.sections if x.resting for s in work_of(x.resting.body, plan)]
    read = {n for s in work for v in values(s) for n in value_vars(v)}
    names = tuple(n for n in made if n in read)
    if any(made[n].dtype != "int32" for n in names):
        return ()
    places = any(reads_place(v, plan) for s in work for v in values(s))
    return (plan.columns.first, *names) if places else names


def work_of(work: tuple[Statement, ...], plan: Schedule) -> list[Statement]:
    """Return the statements of a tile's work that its consumers print."""
    return [s for s in statements(work) if s not in plan.vectors]


def reads_place(value: Value, plan: Schedule) -> bool:
    """Whether a value reads where a tile lies."""
    match value:
        case Index(axis=axis, row=row):
            return axis == plan.columns.name and not row
        case Scalar(name=name):
            return name == plan.columns.first
        case Op(operands=operands):
            return any(reads_place(x, plan) for x in operands)
        case Cast(value=inner):
            return reads_place(inner, plan)
        case _:
            return False


def told_rows(plan: Schedule) -> tuple[Var, ...]:
    """Return the scalars that say how far rows walk, and that memory says."""
    made = {s.var.name: s for s in plan.setup if isinstance(s, Let | Load | Fold)}

    def remembered(name: str) -> bool:
        s = made[name]
        below = {n for v in values(s) for n in value_vars(v) if n in made}
        return isinstance(s, Load) or any(map(remembered, sorted(below)))

    loops = [x.loop for x in plan.sections]
    read = {n: None for x in loops for v in values(x) for n in sorted(value_vars(v))}
    found = [made[n].var for n in read if n in made and remembered(n)]
    return tuple(v for v in found if v.dtype == "int32" and not v.axes)


def own_setup(plan: Schedule, told: Collection[str]) -> list[Statement]:
    """Return the setup of a consumer that is told some scalars, and so needs less of it."""
    if not told:
        return list(plan.setup)
    after = [s for x in plan.sections for s in (x.loop, *x.work, *plan.finish)]
    after += [s for x in plan.sections if x.resting for s in x.resting.body]
    read = {n for s in statements(tuple(after)) for v in values(s) for n in value_vars(v)}
    kept: list[Statement] = []
    dropped = False
    for s in reversed(plan.setup):
        if isinstance(s, Let | Load | Fold):
            dropped = s.var.name in told or (not s.var.axes and s.var.name not in read)
            read |= set() if dropped else {n for v in values(s) for n in value_vars(v)}
        if not dropped:  # nor what is said of a statement that is dropped
            kept.insert(0, s)
    return kept


def reads_of(statement: Statement, setup: Iterable[Statement]) -> set[str]:
    """Return the variables that a statement of the setup depends on."""
    made = {s.var.name: s for s in setup if isinstance(s, Let | Load | Fold) and s != statement}
    found: set[str] = set()
    pending = [statement]
    while pending:
        read = {n for v in values(pending.pop()) for n in value_vars(v)} - found
        found |= read
        pending += [made[n] for n in sorted(read & made.keys())]
    return found
