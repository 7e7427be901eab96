"""Diagonals: sums over one rank of products of two sides, at rows and at columns that go with them.

What ``split_diagonals`` looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    RankVariable,
    Reduce,
    Size,
    accesses,
    free_ranks,
    rewrite,
    substitute,
    walk,
)
from ..ir.linear import delinear, linear
from .align import SHORT, conjunction, inside
from .facts import is_plain, is_scalar
from .product import factors
from .stream_presence import conjuncts


@dataclass(frozen=True, slots=True)
class Diagonal:
    """A column ``along * p + across * d + offset`` for each row p of the diagonal d.

    ``place`` is that coordinate as it is written, ``column`` the rank that was written there.
    """

    row: str
    name: str
    along: int
    across: int
    offset: Expression
    place: Expression
    column: str = ""

    @property
    def turned(self) -> Diagonal:
        """The same, with a row for each column."""
        across = -self.along * self.across
        offset = linear(self.offset).scaled(-self.along)
        place = linear(RankVariable(self.column)).scaled(self.along) + offset
        place += linear(RankVariable(self.name)).scaled(across)
        names = (self.column, self.name, self.along, across)
        return Diagonal(*names, delinear(offset), delinear(place), self.row)


def diagonal(
    einsum: Einsum, writers: Mapping[str, Einsum], short: frozenset[str]
) -> Diagonal | None:
    """Return the diagonal along which an einsum sums products of two sides, None without one."""
    body = einsum.body
    if not isinstance(body, Reduce) or body.reducer != "sum" or not is_plain(einsum):
        return None
    if len(body.ranks) != 1 or set(body.ranks) & short:
        return None
    (row,) = body.ranks
    for access in accesses(body.body):
        here = [k for k, c in enumerate(access.coordinates) if c == RankVariable(row)]
        for k, c in enumerate(access.coordinates):
            found = crossing(c, row, einsum.ranks)
            if found is None or not here or short.intersection(einsum.ranks) - {found.name}:
                continue
            if two_sided(access.tensor, here[0], k, writers):
                return replace(found, column=writers[access.tensor].ranks[k])
    return None


def small(found: Diagonal, sizes: Mapping[str, int]) -> bool:
    """Whether the product that a diagonal runs through has a short side."""
    return any(sizes.get(r, SHORT + 1) <= SHORT for r in (found.row, found.column))


def turned(
    einsum: Einsum, found: Diagonal, writers: Mapping[str, Einsum]
) -> tuple[Einsum, Diagonal]:
    """Walk the columns instead where more of what is read has one number a column than one a row.

    Those are then found at the rows of a tile, wherever along its diagonal it lies.
    """
    body = einsum.body
    assert isinstance(body, Reduce)
    taken = {*einsum.ranks, *free_ranks(body.body), *body.ranks}
    rows = alone(body.body, RankVariable(found.row), found.place, writers)
    columns = alone(body.body, found.place, RankVariable(found.row), writers)
    if len(columns) <= len(rows) or found.column in taken:
        return einsum, found
    other = found.turned
    values = {found.row: other.place}
    conditions = [placed(c, values) for c in conjuncts(body.filter)]
    conditions += inside(other.place, Size(found.row))
    new = replace(
        body,
        ranks=(found.column,),
        body=placed(body.body, values),
        filter=conjunction(conditions),
    )
    return replace(einsum, body=new), other


def alone(
    body: Expression, here: Expression, other: Expression, writers: Mapping[str, Einsum]
) -> set[str]:
    """Return the tensors behind an expression that have one coordinate and not the other one."""
    found: set[str] = set()
    reduced = set(body.ranks) if isinstance(body, Reduce) else set[str]()
    for access in accesses(body):
        places = access.coordinates
        if here not in places or reduced & {r for c in places for r in free_ranks(c)}:
            continue
        if other not in places:
            found.add(access.tensor)
        elif access.tensor in writers:
            writer = writers[access.tensor]
            ranks = [RankVariable(writer.ranks[places.index(c)]) for c in (here, other)]
            found |= alone(writer.body, ranks[0], ranks[1], writers)
    return found


def crossing(coordinate: Expression, row: str, kept: tuple[str, ...]) -> Diagonal | None:
    """Return the diagonal that a coordinate runs along, for rows ``row``, one of ``kept`` ranks."""
    form = linear(coordinate)
    named = [(m, n) for m, n in form.terms if not all(map(is_scalar, m))]
    signs = {m[0].rank: n for m, n in named if len(m) == 1 and isinstance(m[0], RankVariable)}
    if len(named) != 2 or len(signs) != 2 or row not in signs:
        return None
    (name,) = signs.keys() - {row}
    if name not in kept or not all(n in (1, -1) for n in signs.values()):
        return None
    rest = replace(form, terms=tuple(t for t in form.terms if t not in named))
    return Diagonal(row, name, int(signs[row]), int(signs[name]), delinear(rest), coordinate)


def two_sided(name: str, one: int, other: int, writers: Mapping[str, Einsum]) -> bool:
    """Whether a tensor comes from a sum of products with a side along each of two of its ranks."""
    writer = writers.get(name)
    if writer is None or max(one, other) >= len(writer.ranks):
        return False
    rows, columns = writer.ranks[one], writer.ranks[other]
    body = writer.body
    if isinstance(body, Reduce) and body.reducer == "sum":
        spans = [set(free_ranks(f.expression)) for f in factors(body.body)[1]]
        for rank in body.ranks:
            sides = [s & {rows, columns} for s in spans if rank in s]
            if {rows} in sides and {columns} in sides:
                return True
    for access in accesses(body):
        places = [
            next((k for k, c in enumerate(access.coordinates) if c == RankVariable(r)), None)
            for r in (rows, columns)
        ]
        if None not in places and two_sided(access.tensor, places[0], places[1], writers):  # type: ignore[arg-type]
            return True
    return False


def placed(x: Expression, values: dict[str, Expression]) -> Expression:
    """Return an expression over the ranks of tiles; coordinates and tests of them are gathered."""

    def rule(y: Expression) -> Expression | None:
        match y:
            case Access(coordinates=coordinates):
                moved = tuple(
                    gathered(c) if set(free_ranks(c)) & values.keys() else c for c in coordinates
                )
                return replace(y, coordinates=moved)
            case Apply("<" | "<=" | "==" | "!=" | ">" | ">=", operands):
                return replace(y, operands=tuple(map(gathered, operands)))
        return None

    def gathered(c: Expression) -> Expression:
        moved = substitute(c, values)
        if moved == c or moved in values.values():
            return moved
        return moved if any(isinstance(z, Access) for z in walk(c)) else delinear(linear(moved))

    return substitute(rewrite(x, rule), values)
