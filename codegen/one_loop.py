"""Walk tiles that may be cut and whole ones in one loop, whose work tests where it has to.

rewrite::

    tiles that may be cut: A; live; S = where(live, S, -inf); B
    whole tiles:           A; B
    -->
    all tiles:             A; if tested: live; S = where(live, S, -inf); B

Two loops keep what both read in registers twice over, and where accumulators leave few, spill in
the second. One loop is half the text as well, and a product may be issued one tile ahead in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .loop_nest import (
    Comment,
    Fold,
    Index,
    Let,
    Load,
    Number,
    Op,
    Ref,
    Scalar,
    Statement,
    Value,
    Var,
    When,
    statements,
    value_vars,
)
from .operands import plain, tidy
from .schedule import Schedule
from .signature import values


def one_loop(plan: Schedule) -> Schedule:
    """Return a schedule all of whose tiles are worked on alike, or as it is where they cannot be.

    Tiles that lists place have loops of their own.
    """
    sections = plan.sections
    cut = next((s for s in sections if s.loop.cut), None)
    whole = next((s for s in sections if not s.loop.cut), None)
    if cut is None or whole is None or any(s.place or s.blanked for s in sections):
        return plan
    pairs = [(c.operand, w.operand) for c, w in zip(cut.late, whole.late, strict=True)]
    pairs += [(c.operand, w.operand) for c, w in zip(cut.shares, whole.shares, strict=True)]
    same = {c.name: w for c, w in pairs if c != w}
    if any(c.factor != w.factor for c, w in zip(cut.late, whole.late, strict=True)):
        return plan
    exists = Op("<", (Index(plan.rows.name), Scalar(f"size({plan.rows.rank})")))
    joining = Joining(tested(plan), same, exists)
    work = joining.joined(cut.work, whole.work)
    if work is None:
        return plan
    late = tuple(replace(x, operand=joining.operand(x.operand)) for x in cut.late)
    shares = tuple(replace(x, operand=joining.operand(x.operand)) for x in cut.shares)
    joined = (replace(s, work=work, late=late, shares=shares, tests=True) for s in sections)
    return replace(plan, sections=tuple(joined))


def tested(plan: Schedule) -> Scalar:
    """Return what says of a tile that it may be cut."""
    return Scalar(f"{plan.columns.name}_tested", "bool")


@dataclass(slots=True)
class Joining:
    """The work on all tiles while it is made.

    same : what whole tiles hold in the place of an operand that cut ones compute. exists :
    whether a row of the program does. found : the work. apart : what only tests read, by name.
    gone : operands that are what whole tiles hold, in cut ones as well.
    """

    tested: Scalar
    same: Mapping[str, Var]
    exists: Value | None = None
    found: list[Statement] = field(default_factory=list)
    apart: dict[str, Let | Load] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def operand(self, var: Var) -> Var:
        """Return the variable that is an operand in all tiles."""
        return self.same[var.name] if var.name in self.gone else var

    def joined(
        self, cut: tuple[Statement, ...], whole: tuple[Statement, ...]
    ) -> tuple[Statement, ...] | None:
        """Return the work on all tiles, None where one is not the other with tests."""
        rest = [s for s in whole if not isinstance(s, Comment)]
        for s in cut:
            if isinstance(s, Comment):
                self.found.append(s)
            elif rest and plain((s,)) == plain((rest[0],)):
                self.found.append(s)
                rest.pop(0)
            elif isinstance(s, Let) and rest and redefines(s, rest[0]):
                (before, after) = apart(s, rest.pop(0))
                self.found.append(before)
                self.test(after, len(self.found))
            elif isinstance(s, Let) and s.var.name in self.same:
                self.copy(s, self.same[s.var.name])
            elif isinstance(s, Let) and s.var.name in value_vars(s.value):
                self.test(s, len(self.found))
            elif isinstance(s, Let | Load):
                self.apart[s.var.name] = s
            else:
                return None
        outside = (v for s in self.found for v in values(s))
        read = {n for v in outside for n in value_vars(v)}
        if rest or read & self.apart.keys():
            return None
        return tidy(self.found)

    def test(self, statement: Let, place: int) -> None:
        """Put a statement that tests in its place, with what it alone needs."""
        body = (*self.needed(statement), statement)
        self.found.insert(place, When(self.tested, body))

    def copy(self, statement: Let, var: Var) -> None:
        """Let an operand be what whole tiles hold, as soon as that is there, and test it.

        Where the test leaves out rows that do not exist, and no more, what stands in these rows may
        be left out of all products: what they add up to there is stored nowhere.
        """
        needed = self.needed(statement)
        names = {n for s in (*needed, statement) for v in reads(s) for n in value_vars(v)}
        made = [
            k
            for k, s in enumerate(self.found)
            for x in statements((s,))
            if isinstance(x, Let | Load | Fold) and x.var.name in names
        ]
        place = max(made, default=len(self.found) - 1) + 1
        match statement.value:
            case Op("where", (condition, Ref(var=of), Number())) if (
                of == var and condition == self.exists
            ):
                self.gone.add(statement.var.name)
                self.test(Let(var, statement.value), place)
                return
        self.found.insert(place, Let(statement.var, Ref(var)))
        self.test(statement, place + 1)

    def needed(self, statement: Let) -> tuple[Statement, ...]:
        """Return what only tests read and this one does, in order."""
        names: set[str] = set()
        pending: list[Statement] = [statement]
        while pending:
            read = {n for v in reads(pending.pop()) for n in value_vars(v)}
            new = [self.apart[n] for n in sorted(read & self.apart.keys() - names)]
            names |= {s.var.name for s in new}
            pending += new
        return tuple(s for n, s in self.apart.items() if n in names)


def reads(statement: Statement) -> tuple[Value, ...]:
    """Return the values that a statement reads, inside a test too."""
    return tuple(v for s in statements((statement,)) for v in values(s))


def redefines(cut: Let, whole: Statement) -> bool:
    """Whether both define one variable, the first by a value that holds that of the second."""
    return (
        isinstance(whole, Let)
        and whole.var == cut.var
        and holds(cut.value, whole.value)
        and cut.var.name not in value_vars(cut.value)
    )


def holds(value: Value, part: Value) -> bool:
    """Whether a value is an operation on another one."""
    return isinstance(value, Op) and any(x == part or holds(x, part) for x in value.operands)


def apart(cut: Let, whole: Statement) -> tuple[Let, Let]:
    """Return what both compute, and what the first makes of it."""
    assert isinstance(whole, Let)

    def without(value: Value) -> Value:
        if value == whole.value:
            return Ref(cut.var)
        if isinstance(value, Op):
            return replace(value, operands=tuple(map(without, value.operands)))
        return value

    return whole, Let(cut.var, without(cut.value))
