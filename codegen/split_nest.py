"""Split a loop nest for warps that fetch and warps that compute, and rotate its loop.

The products of one tile are of two kinds. An *early* one has operands from memory alone, so it can
be issued as soon as they are there. A *late* one has an operand that was computed from the early
ones, and only its own accumulator reads its result. Between the two stands element-wise work.
Rotated by one tile, the loop issues the early products of a tile and the late ones of the tile
before it, and works on the first while the second still run::

    tile: early; work; late     -->     early of the first; work
                                        loop: early of this tile, late of the one before; work
                                        late of the last

Nothing here asks what a product means; the split follows from which variable is made of which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .begin_with import begin_with
from .join_tiles import arranged
from .loop_nest import (
    Axis,
    Cast,
    Comment,
    Dot,
    Fold,
    Index,
    Let,
    Load,
    Loop,
    Nest,
    Op,
    Place,
    Ref,
    Statement,
    Store,
    Value,
    Var,
    statements,
    value_axes,
    value_vars,
)
from .operands import NARROW, bare, dtype_of, of_every_row, plain, tidy
from .rest import adds_up
from .schedule import Held, Late, Schedule, Section, Share
from .signature import values
from .vectors import vectors_of


class ScheduleError(Exception):
    """Raised inside this file: the nest has no such schedule, for the reason that is its text."""


def split_nest(nest: Nest) -> Schedule | str:
    """Return a nest's schedule, or why it has none."""
    try:
        return Splitting(nest).schedule()
    except ScheduleError as reason:
        return str(reason)


class Splitting:
    """The analysis of one nest."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.axes = {a.name: a for a in nest.axes}

    def schedule(self) -> Schedule:
        """Split the nest."""
        body = self.nest.statements
        loops = [k for k, s in enumerate(body) if isinstance(s, Loop)]
        if not loops:
            raise ScheduleError("it has no loop")
        between = [s for s in body[loops[0] : loops[-1]] if not isinstance(s, Loop)]
        if any(isinstance(s, Let | Fold) and s.var.axes for s in between):
            raise ScheduleError("it walks a rank more than once")
        rows, columns = self.sides(next(s for s in body if isinstance(s, Loop)))
        setup = (*body[: loops[0]], *(s for s in between if not isinstance(s, Comment)))
        finish = body[loops[-1] + 1 :]
        split = [self.section(s, setup) for s in body if isinstance(s, Loop)]
        fetched, early, _ = split[0]
        for other_fetched, other_early, _ in split[1:]:
            if plain(other_fetched) != plain(fetched) or plain(other_early) != plain(early):
                raise ScheduleError("its cut tiles have other products than its whole ones")
        sections = tuple(s for _, _, s in split)
        if len({(s.loop.cut, s.work, s.late) for s in sections}) > len(
            {s.loop.cut for s in sections}
        ):
            raise ScheduleError("its tiles are tested in more than one way")
        if any(s.place for s in sections) and not any(s.loop.cut for s in sections):
            raise ScheduleError("its lists may be empty, and no tile of theirs is tested")
        if self.nest.crew is not None and self.nest.crew.rotated:
            dots = [d.var.name for d in early if isinstance(d, Dot)]
            join = self.nest.crew.joined and self.nest.commutative
            sections = arranged(sections, dots, join=join, sort=self.nest.commutative)
        elif self.nest.commutative:
            sections = tuple(sorted(sections, key=lambda s: not s.loop.cut))
        kinds = [
            [(replace(x, operand=x.right, factor=None), x.factor is None) for x in s.late]
            for s in sections
        ]
        if any(kind != kinds[0] for kind in kinds):
            raise ScheduleError("its cut tiles have other products than its whole ones")
        if self.nest.crew is not None and not self.nest.crew.rotated:
            fixed = frozenset(s.var.name for s in setup if isinstance(s, Let | Load | Fold))
            early, works = begin_with(early, tuple(s.work for s in sections), fixed)
            pairs = zip(sections, works, strict=True)
            sections = tuple(replace(s, work=tidy(list(work))) for s, work in pairs)
        held = self.held(early, setup)
        loaded = {x.var.name for x in held if x.load is not None}
        setup = tuple(s for s in setup if not (isinstance(s, Load) and s.var.name in loaded))
        late = {x.accumulator.name for x in sections[0].late}
        known = {s.var.name: s.var for s in setup if isinstance(s, Let)}
        made = {s.var.name for x in sections for s in x.work if isinstance(s, Let | Fold)}
        carried = tuple(v for n, v in known.items() if n in made and n not in late)
        vectors = vectors_of(self.nest, sections, columns)
        found = Schedule(
            rows, columns, setup, held, fetched, early, sections, carried, finish, vectors
        )
        self.check(found)
        return found

    def sides(self, loop: Loop) -> tuple[Axis, Axis]:
        """Return the axis of rows, which a program has a tile of, and the walked one."""
        placed = {s.axis for s in loop.body if isinstance(s, Place)}
        found = (a for a in self.nest.axes if a.first == loop.first or a.name in placed)
        walked = next(found, None)
        if walked is None:
            raise ScheduleError(f"it walks a list of coordinates of {loop.rank}, not of tiles")
        tiled = [g.rank for g in self.nest.grid if g.tile]
        if len(tiled) != 1:
            raise ScheduleError("a program has a tile of no rank, or of two")
        rows = next(a for a in self.nest.axes if a.rank == tiled[0])
        if self.nest.axes.index(rows) > self.nest.axes.index(walked):
            raise ScheduleError(f"{walked.name} lies ahead of {rows.name}")
        return rows, walked

    def section(
        self, loop: Loop, setup: tuple[Statement, ...]
    ) -> tuple[tuple[Load, ...], tuple[Statement, ...], Section]:
        """Split one loop's body: fetched tiles, early products, the rest."""
        fixed = {s.var.name for s in setup if isinstance(s, Let | Load | Fold)}
        fetched = {s.var.name: s for s in loop.body if isinstance(s, Load) and s.described}
        dots = [s for s in loop.body if isinstance(s, Dot)]
        early: dict[str, Var] = {}
        first: list[Statement] = []
        late: list[Late] = []
        work: list[Statement] = []
        shares: list[Share] = []
        said: Comment | None = None
        placing = placing_of(loop)
        for k, s in enumerate(loop.body):
            if k < len(placing):
                continue
            if isinstance(s, Store) and any(s.add and s.value == Ref(x.var) for x in shares):
                continue
            if isinstance(s, Loop | Store):
                raise ScheduleError("its loop stores, or has a loop inside")
            if isinstance(s, Comment):
                said = s
                continue
            if isinstance(s, Load) and s.described:
                continue
            if isinstance(s, Dot) and self.is_early(s, fetched, fixed, early):
                first += [*([said] if said else []), s]
                early[s.var.name] = s.var
                said = None
                continue
            told, said = said, None
            shared = isinstance(s, Dot) and s.axis not in s.var.axes and self.over_rows(s)
            if told is not None and (shared or not isinstance(s, Dot)):
                work.append(told)
            if isinstance(s, Dot) and shared:
                shares.append(self.share(s, loop.body[k + 1], work))
            elif isinstance(s, Dot):
                later = {x.var.name for x in loop.body[k + 1 :] if isinstance(x, Let | Fold | Load)}
                x = self.late(s, later | early.keys(), fetched, work)
                late.append(replace(x, said=told))
            else:
                work.append(s)
        if not first:
            raise ScheduleError("no product of its loop has operands from memory alone")
        self.check_work(work, fetched, late)
        names = {n for dot in dots for n in value_vars(dot.left) | value_vars(dot.right)}
        used = [s for n, s in fetched.items() if n in names]
        in_early = {n for s in first if isinstance(s, Dot) for v in (s.left, s.right)
                    for n in value_vars(v)}  # fmt: skip
        ordered = sorted(used, key=lambda s: s.var.name not in in_early)
        wide = self.nest.crew is not None and self.nest.crew.wide
        blanked = tuple(s for s in ordered if s.guard is not None) if wide else ()
        found = Section(loop, tidy(work), tuple(late), placing, tuple(shares), blanked=blanked)
        if loop.resting is not None:
            alone = replace(loop, body=loop.resting.body, resting=None)
            _, _, rests = self.section(alone, setup)
            assert [replace(x, factor=None) for x in late] == list(rests.late)
            if adds_up(rests.work, fixed, self.sides(loop)[1].name):
                found = replace(found, resting=replace(loop.resting, body=rests.work))
        return tuple(ordered), tuple(first), found

    def is_early(
        self, dot: Dot, fetched: dict[str, Load], fixed: set[str], early: dict[str, Var]
    ) -> bool:
        """Whether a product has operands from memory or from before the loop alone."""
        sides = [bare(dot.left), bare(dot.right)]
        if any(v is None or v.name not in fetched.keys() | fixed for v in sides):
            return False
        if dot.start is None:
            return True
        return isinstance(dot.start, Ref) and dot.start.var.name in early

    def over_rows(self, dot: Dot) -> bool:
        """Whether a product is a sum over a program's rows."""
        return any(g.tile and dot.axis == g.rank for g in self.nest.grid)

    def share(self, dot: Dot, store: Statement, work: list[Statement]) -> Share:
        """Return a product that is added to memory; its operand is named in the work."""
        name, right = dot.var.name, bare(dot.right)
        if not (isinstance(store, Store) and store.add and store.value == Ref(dot.var)):
            raise ScheduleError(f"{name} is a sum over rows and is not added to memory")
        if self.nest.crew is None or self.nest.crew.rotated:
            raise ScheduleError(f"{name} is added to memory, which no rotated loop does")
        if not isinstance(dot.left, Cast) or dot.left.dtype not in NARROW or right is None:
            raise ScheduleError(f"{name} is a product in {dtype_of(dot.left)}")
        operand = self.named(dot.left.value, f"{name}_operand", set(), work)
        return Share(dot.var, operand, dot.left.dtype, right, store)

    def late(
        self,
        dot: Dot,
        fleeting: set[str],
        fetched: dict[str, Load],
        work: list[Statement],
    ) -> Late:
        """Return a late product; what it needs of the work is named there.

        ``fleeting`` are variables that will hold something else when the product is issued.
        """
        name = dot.var.name
        right = bare(dot.right)
        if right is None or right.name not in fetched or isinstance(dot.right, Cast):
            raise ScheduleError(f"{name} is a product whose right side was not fetched")
        if not isinstance(dot.left, Cast) or dot.left.dtype not in NARROW:
            raise ScheduleError(f"{name} is a product in {dtype_of(dot.left)}")
        start, factor = dot.start, None
        match start:
            case Op("*", (Ref(var=var), other)) | Op("*", (other, Ref(var=var))) if (
                var.name == name and name not in value_vars(other)
            ):
                factor = self.named(other, f"{name}_factor", fleeting, work)
            case Ref(var=var) if var.name == name:
                pass
            case _:
                raise ScheduleError(f"{name} is carried along in more than one step")
        operand = self.named(dot.left.value, f"{name}_operand", fleeting, work)
        return Late(dot.var, operand, dot.left.dtype, right, dot.axis, factor)

    def named(self, value: Value, name: str, fleeting: set[str], work: list[Statement]) -> Var:
        """Return a variable that holds a value until the next step's work."""
        if isinstance(value, Ref) and value.var.name not in fleeting:
            return value.var
        order = [a.name for a in self.nest.axes]
        axes = tuple(sorted(value_axes(value), key=order.index))
        var = Var(name, axes)
        work.append(Let(var, value))
        return var

    def held(self, early: tuple[Statement, ...], setup: tuple[Statement, ...]) -> tuple[Held, ...]:
        """Return the operands that the loop does not move, and how each comes about."""
        loads = {s.var.name: s for s in setup if isinstance(s, Load)}
        made = {s.var.name for s in setup if isinstance(s, Let | Fold | Load)}
        read = {n for s in setup for v in values(s) for n in value_vars(v)}
        found: dict[str, Held] = {}
        for dot in (s for s in early if isinstance(s, Dot)):
            for side in (dot.left, dot.right):
                var = bare(side)
                if var is None or var.name not in made:
                    continue
                load = loads.get(var.name)
                box = load is not None and isinstance(side, Ref) and self.is_box(load)
                fetched = load if box and var.name not in read else None
                found[var.name] = Held(var, dtype_of(side), fetched)
        return tuple(found.values())

    def is_box(self, load: Load) -> bool:
        """Whether a load of rows is a box of a tensor that a descriptor may fetch."""
        *outer, last = load.coordinates
        return (
            load.tensor in self.nest.described
            and len(load.coordinates) <= 5
            and isinstance(last, Index)
            and not self.axes[last.axis].first
            and sum(isinstance(c, Index) for c in outer) == 1
            and not any(value_vars(c) for c in outer)
            and all(isinstance(c, Index) or not value_axes(c) for c in outer)
        )

    def check_work(self, work: list[Statement], fetched: dict[str, Load], late: list[Late]) -> None:
        """Refuse work that reads a fetched tile or the result of a late product."""
        results = {x.accumulator.name for x in late}
        for s in work:
            for value in values(s):
                read = value_vars(value)
                if read & results:
                    raise ScheduleError(f"{min(read & results)} is needed in its own step")
                if read & fetched.keys():
                    raise ScheduleError(f"{min(read & fetched.keys())} is no operand alone")

    def check(self, found: Schedule) -> None:
        """Refuse what has no layout, no dtype or no place."""
        rows, columns = found.rows.name, found.columns.name
        for dot in found.products:
            kinds = {dtype_of(dot.left), dtype_of(dot.right)}
            if len(kinds) != 1 or not kinds <= set(NARROW):
                raise ScheduleError(f"{dot.var.name} is a product in {', '.join(sorted(kinds))}")
            left, right = bare(dot.left), bare(dot.right)
            assert left is not None and right is not None
            if dot.var.axes != (rows, columns) or rows not in left.axes:
                raise ScheduleError(f"{dot.var.name} is a product over other ranks than its rows")
            if right.name in {x.var.name for x in found.held}:
                raise ScheduleError(f"{right.name} is an operand of a product and does not move")
        boxes = {x.var.name: x.dtype for x in found.held if x.load is not None}
        for share in found.sections[0].shares:
            width = self.axes[share.var.axes[1]].width
            if boxes.get(share.right.name) != share.dtype:
                raise ScheduleError(f"{share.right.name} does not stay in memory for a product")
            if share.var.axes[0] != columns or width < 32 or found.columns.width not in (64, 128):
                raise ScheduleError(f"{share.var.name} is too small to be shared out")
        for x in found.late:
            if x.accumulator.axes[0] != rows or dtypes_of(found, x.right) != x.dtype:
                raise ScheduleError(f"{x.accumulator.name} is a product over other ranks or dtypes")
        wide = self.nest.crew is not None and self.nest.crew.wide
        if not wide and any(load.guard is not None for load in found.fetched):
            raise ScheduleError("its tiles are cut by more than the end of a rank")
        for load in found.fetched:
            if len(load.coordinates) > 5:
                raise ScheduleError(f"{load.tensor} has more than five ranks")
        body = [s for x in found.sections for s in x.work]
        everything = (*found.setup, *body, *found.finish)
        for s in statements(everything):
            if isinstance(s, Load) and s.described:
                raise ScheduleError(f"{s.var.name} is fetched and no operand")
            if isinstance(s, Dot):
                raise ScheduleError(f"{s.var.name} is a product outside the loop")
            if isinstance(s, Fold) and s.axis == rows and not of_every_row(s, found.setup, rows):
                raise ScheduleError(f"{s.var.name} is reduced over {rows}, which warps share")
            for axes in self.shapes(s):
                two = len(axes) == 2 and axes[0] == rows
                if axes and not two and len(axes) != 1:
                    raise ScheduleError(f"a tile over {' and '.join(axes)} has no layout")

    def shapes(self, s: Statement) -> Iterator[tuple[str, ...]]:
        """Yield the axes of what a statement makes and reads."""
        order = [a.name for a in self.nest.axes]
        if isinstance(s, Let | Load | Fold | Dot):
            yield s.var.axes
        for value in values(s):
            yield tuple(sorted(value_axes(value), key=order.index))
        if isinstance(s, Load | Store):
            found = frozenset().union(*(value_axes(c) for c in s.coordinates))
            yield tuple(sorted(found, key=order.index))


def placing_of(loop: Loop) -> tuple[Statement, ...]:
    """Return the statements at the front of a loop's body that find a tile, () if it is in order.

    Raises ScheduleError where they compute more than scalars.
    """
    last = max((k for k, s in enumerate(loop.body) if isinstance(s, Place)), default=-1)
    found = tuple(s for s in loop.body[: last + 1] if not isinstance(s, Comment))
    for s in found:
        if not isinstance(s, Let | Load | Place) or (not isinstance(s, Place) and s.var.axes):
            raise ScheduleError(f"more than scalars say where its tiles of {loop.rank} lie")
    return found


def dtypes_of(found: Schedule, var: Var) -> str:
    """Return the dtype of a fetched tile."""
    return next(load.var.dtype for load in found.fetched if load.var.name == var.name)
