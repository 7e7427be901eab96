"""Pack rows: let the rows of a tile be coordinates of several ranks that share what they load.

A tensor core takes no fewer than 16 rows. Where the tiled rank is shorter, other ranks that read
the same tiles of the streamed operands can fill the tile: ranks that those operands do not have,
and the low digit of a rank that they have divided by a number. The packed ranks are walked under
new ones; memory keeps its own, so what is loaded and stored is viewed, never moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite,
    walk,
)
from ..ir.mapping import View
from .align import fresh
from .divide import Group

ENOUGH = 64
"""Rows of one rank that fill a tile, so that nothing is packed."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A group whose rows are packed, or as it was.

    views : the packed ranks, over the new ones. back : the new ones, over the packed ranks.
    made : sizes of the new ranks; ``sizes`` has the known ones. requires : what must hold at a
        call. apart : ranks of which a program has one coordinate.
    """

    group: Group
    cascade: Cascade
    apart: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    back: Mapping[str, Expression] = field(default_factory=dict)
    made: tuple[tuple[str, Expression], ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    requires: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A rank, or the low digit of one, whose coordinates become rows; ``own`` is its coordinate."""

    rank: str
    size: Expression
    count: int
    own: Expression


@dataclass(frozen=True, slots=True)
class Digits:
    """A rank that streamed operands have divided: ``rank = high * radix + low``."""

    rank: str
    radix: Expression
    number: int


def pack_rows(
    cascade: Cascade,
    group: Group,
    *,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, float],
    apart: tuple[str, ...] = (),
) -> Packed:
    """Pack the rows of one group of einsums, if the rank that would be tiled is short.

    ::

        S[h, m]    = Q[h, e] * K[h // G, m, e]                                nothing to tile
        -->
        S[h_group, h_row, m] = Q[h_group * G + h_row, e] * K[h_group, m, e]   h_row tiled

        S[h, p, m] = Q[h, p, e] * K[m, e]                                     p tiled, 3 of them
        -->
        S[row, m]  = Q[row // size(p), row % size(p), e] * K[m, e]            row tiled

    Requires: what divides a rank divides its size; ``Packed.requires`` says so where sizes are
    open. Ranks that a filter reads are left alone, but for the one that would be tiled anyway.
    Keeps: every target, in memory under the ranks with which it was declared.
    """
    same = Packed(group, cascade, apart)
    pool = [r for r in group.parallel if r not in apart]
    moving = list(moving_accesses(group))
    lacking = [r for r in pool if not any(r in free_ranks(x) for x in moving)]
    last = lacking[-1] if lacking else ""
    count = sizes.get(last, ENOUGH) if last else 1
    if group.streamed is None or not moving or count >= ENOUGH:
        return same
    filtered = {r for e in group.slice for x in conditions(e) for r in free_ranks(x)}
    free = [r for r in pool if r not in filtered and r != last]
    digits = find_digits(group, free, moving, parameters)
    requires = whole_groups(group, digits, sizes, shapes) if digits else ()
    if requires is None:
        digits, requires = None, ()
    taken = {*cascade.ranks, *cascade.inputs, *(e.name for e in cascade.einsums)}
    taken |= {n for n, _ in cascade.parameters}
    rows = [Row(r, Size(r), sizes[r], RankVariable(r)) for r in free if r in lacking and r in sizes]
    high = ""
    if digits:
        high = fresh(f"{digits.rank}_group", taken)
        low = fresh(f"{digits.rank}_row", taken)
        own = Apply("%", (RankVariable(digits.rank), digits.radix))
        rows.insert(0, Row(low, digits.radix, digits.number, own))
    if not rows:
        return same
    if count > 1:
        rows.append(Row(last, Size(last), count, RankVariable(last)))
    elif last:
        apart = (*apart, last)
    if len(rows) == 1 and not digits:
        return replace(same, apart=apart)
    row = rows[0].rank if len(rows) == 1 else fresh("row", taken)
    values = dict(mixed_radix(row, rows))
    made = {row: product([r.size for r in rows])}
    known = {row: prod(r.count for r in rows)}
    back = {row: position(rows)}
    order = [row]
    if digits:
        value = Apply("*", (RankVariable(high), digits.radix))
        values[digits.rank] = Apply("+", (value, values.pop(rows[0].rank)))
        made[high] = Apply("//", (Size(digits.rank), digits.radix))
        back[high] = Apply("//", (RankVariable(digits.rank), digits.radix))
        order.insert(0, high)
        if digits.rank in sizes:
            known[high] = sizes[digits.rank] // digits.number
    return replace(
        moved(same, values, tuple(order), digits),
        apart=apart,
        views=tuple(View(r, x) for r, x in values.items()),
        back=back,
        made=tuple(made.items()),
        sizes=known,
        requires=requires,
    )


def moving_accesses(group: Group) -> Iterator[Access]:
    """Yield the accesses to memory that move with the streamed rank."""
    streamed = {*group.segments, *((group.streamed,) if group.streamed else ())}
    for access in outside(group):
        if streamed & set(free_ranks(access)):
            yield access


def outside(group: Group) -> Iterator[Access]:
    """Yield the accesses to tensors that the group does not make."""
    made = {e.name for e in group.slice}
    for einsum in group.slice:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor not in made:
                yield x


def conditions(einsum: Einsum) -> Iterator[Expression]:
    """Yield the filters of an einsum and of the reductions in it."""
    for x in (einsum.filter, *(y.filter for y in walk(einsum.body) if isinstance(y, Reduce))):
        if x is not None:
            yield x


def find_digits(
    group: Group, pool: list[str], moving: list[Access], parameters: Mapping[str, float]
) -> Digits | None:
    """Find a rank that streamed operands have divided by one number, and no other way."""
    for rank in pool:
        found = {c for x in moving for c in x.coordinates if rank in free_ranks(c)}
        if len(found) != 1:
            continue
        match found.pop():
            case Apply("//", (RankVariable(), Constant(value=number) as radix)):
                pass
            case Apply("//", (RankVariable(), Parameter(name=name) as radix)):
                number = parameters.get(name, 0)
            case _:
                continue
        if isinstance(number, int) and number > 1:
            return Digits(rank, radix, number)
    return None


def whole_groups(
    group: Group,
    digits: Digits,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Expression, ...] | None:
    """Return what must hold for digits to be whole: None if it does not, () if it does."""
    size = Size(digits.rank)
    wanted: dict[Expression, None] = {}
    if digits.rank not in sizes:
        wanted[Apply("==", (Apply("%", (size, digits.radix)), Constant(0)))] = None
    elif sizes[digits.rank] % digits.number:
        return None
    divided = Apply("//", (RankVariable(digits.rank), digits.radix))
    for access in outside(group):
        for place, coordinate in enumerate(access.coordinates):
            if coordinate != divided:
                continue
            if access.tensor in shapes and digits.rank in sizes:
                if shapes[access.tensor][place] * digits.number < sizes[digits.rank]:
                    return None
                continue
            extent = Parameter(f"{access.tensor}_size_{place}")
            wanted[Apply("<=", (size, Apply("*", (extent, digits.radix))))] = None
    return tuple(wanted)


def mixed_radix(row: str, rows: list[Row]) -> Iterator[tuple[str, Expression]]:
    """Yield the coordinate of each packed rank at a row, the last rank varying fastest."""
    for k, r in enumerate(rows):
        x: Expression = RankVariable(row)
        if k + 1 < len(rows):
            x = Apply("//", (x, product([other.size for other in rows[k + 1 :]])))
        yield r.rank, Apply("%", (x, r.size)) if k else x


def position(rows: list[Row]) -> Expression:
    """Return the row at which coordinates of the packed ranks lie."""
    found = rows[0].own
    for r in rows[1:]:
        found = Apply("+", (Apply("*", (found, r.size)), r.own))
    return found


def product(factors: list[Expression]) -> Expression:
    """Return a product."""
    found = factors[0]
    for x in factors[1:]:
        found = Apply("*", (found, x))
    return found


def moved(
    packed: Packed, values: Mapping[str, Expression], order: tuple[str, ...], digits: Digits | None
) -> Packed:
    """Write a group over the new ranks ``order``; ``values`` are the packed ranks over them."""
    own = {e.name for e in packed.group.slice}
    whole = values.get(digits.rank) if digits else None

    def rule(x: Expression) -> Expression | None:
        match x:
            case RankVariable(rank=rank):
                return values.get(rank)
            case Apply("//" | "%" as operator, (Apply(operands=(_, low)) as inner, radix)):
                if digits and inner == whole and radix == digits.radix:
                    return RankVariable(order[0]) if operator == "//" else low
            case Access(tensor=tensor) if tensor in own:
                return regrouped(x)
        return None

    def regrouped(access: Access) -> Access:
        """Return a tensor made here: the new ranks stand where packed ones stood."""
        ranks = list(access.coordinates)
        places = [k for k, c in enumerate(ranks) if c in values.values()]
        kept = [c for c in ranks if c not in values.values()]
        new = [RankVariable(r) for r in order] if places else []
        first = places[0] if places else 0
        return replace(access, coordinates=(*kept[:first], *new, *kept[first:]))

    def one(e: Einsum) -> Einsum:
        filter = None if e.filter is None else rewrite(e.filter, rule)
        output = rewrite(e.output, rule)
        assert isinstance(output, Access)
        return replace(e, output=output, body=rewrite(e.body, rule), filter=filter)

    slice = tuple(one(e) for e in packed.group.slice)
    changed = {e.name: e for e in slice}
    kept = [r for r in packed.group.parallel if r not in values]
    group = replace(packed.group, slice=slice, parallel=(*kept, *order))
    einsums = tuple(changed.get(e.name, e) for e in packed.cascade.einsums)
    return replace(packed, group=group, cascade=replace(packed.cascade, einsums=einsums))
