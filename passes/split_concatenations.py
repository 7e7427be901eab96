"""Split concatenations: what is made along a concatenated rank is made along each part's rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    accesses,
    children,
    rewrite,
    substitute,
)
from ..ir.linear import delinear, linear
from .align import conjunction, fresh, inside
from .existence import Existence, conjuncts
from .segments import part_ranks

JOINED = {"sum": "+", "prod": "*", "max": "max", "min": "min", "any": "or", "all": "and"}
"""The operators that put the reductions of two parts together."""


def split_concatenations(cascade: Cascade) -> Cascade:
    """Write what is made along a concatenated rank once for each part, where points are read.

    ::

        C[p, n] = concat[n](S[p, m], T[p, j])
        X[p, n] = C[p, n] * C[p, n]
        D[p]    = sum[n](X[p, n])
        Y[p, j] = X[p, j + size(m)] * D[p]
        return Y
        -->
        X_m[p, m] = S[p, m] * S[p, m]
        X_j[p, j] = T[p, j] * T[p, j]
        D_m[p]    = sum[m](X_m[p, m])
        D_j[p]    = sum[j](X_j[p, j])
        D[p]      = D_m[p] + D_j[p]
        Y[p, j]   = X_j[p, j] * D[p]
        return Y

    A concatenation whose rank is reduced wherever it is read stays: one loop after the other walks
    its parts. What reads a single point, ``X[p, j + size(m)]``, as gradients of the parts do, would
    have the whole laid out in memory.

    Requires: a flat cascade. Keeps: every output's value, and its absent points. A concatenation
    stays where an output has its rank, where a point is read that is in no certain part, or where
    the place of an extremum along it is asked for.
    """
    if not any(isinstance(e.body, Concatenate) for e in cascade.einsums):
        return cascade
    for rank, parts in part_ranks(cascade.einsums).items():
        pieces = _Pieces(cascade, rank, parts)
        if pieces.wanted():
            cascade = pieces.split()
    return cascade


class _NoPartError(Exception):
    """A point is in no certain part, or a reduction does not come in parts."""


@dataclass(slots=True)
class _Pieces:
    """One concatenated rank of a cascade, and its parts."""

    cascade: Cascade
    rank: str
    parts: tuple[str, ...]
    along: dict[str, Einsum] = field(init=False)
    taken: set[str] = field(init=False)
    known: Existence = field(init=False)
    names: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cascade = self.cascade
        self.along = {e.name: e for e in cascade.einsums if self.rank in e.ranks}
        self.known = Existence(cascade)
        self.taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
        self.taken |= {e.name for e in cascade.einsums}

    def wanted(self) -> bool:
        """Whether single points along the rank are read, and no output has it."""
        if set(self.along) & set(self.cascade.outputs):
            return False
        if any(set(self.parts) & set(e.ranks) for e in self.along.values()):
            return False  # the part's rank would mean two things
        whole = RankVariable(self.rank)
        return any(
            self.picked(e) is not None
            or any(
                a.tensor in self.along and self.coordinate(a) != whole
                for x in e.expressions()
                for a in accesses(x)
            )
            for e in self.cascade.einsums
        )

    def coordinate(self, access: Access) -> Expression:
        """Return where along the rank a tensor is read."""
        return access.coordinates[self.along[access.tensor].ranks.index(self.rank)]

    def flat(self, part: int) -> Expression:
        """Return the coordinate of a part's point along the whole."""
        found: Expression = RankVariable(self.parts[part])
        for rank in reversed(self.parts[:part]):
            found = Apply("+", (Size(rank), found))
        return found

    def size(self) -> Expression:
        """Return the size of the whole."""
        found: Expression = Size(self.parts[0])
        for rank in self.parts[1:]:
            found = Apply("+", (found, Size(rank)))
        return found

    def part_at(self, coordinate: Expression) -> int | None:
        """Return the part at whose own rank a coordinate is."""
        form = linear(coordinate)
        for part in range(len(self.parts)):
            if (form - linear(self.flat(part))).value == 0:
                return part
        return None

    def picked(self, einsum: Einsum) -> tuple[int, Expression] | None:
        """Return the part at whose rank an einsum picks a point, and the comparison that does."""
        match einsum.body:
            case Reduce(reducer="sum", ranks=(rank,), filter=filter) if rank == self.rank:
                for c in () if filter is None else conjuncts(filter):
                    match c:
                        case Apply("==", (RankVariable(rank=r), place)) if r == rank:
                            part = self.part_at(place)
                            if part is not None and self.parts[part] in einsum.ranks:
                                return part, c
        return None

    def split(self) -> Cascade:
        """Return the cascade with the rank in parts, or as it is where that cannot be."""
        einsums: list[Einsum] = []
        try:
            for einsum in self.cascade.einsums:
                for new in self.written(einsum):
                    self.known.add(new)
                    einsums.append(new)
        except _NoPartError:
            return self.cascade
        return replace(self.cascade, einsums=tuple(einsums))

    def written(self, einsum: Einsum) -> Iterator[Einsum]:
        """Yield what an einsum becomes."""
        body, filter = einsum.body, einsum.filter
        if isinstance(body, Concatenate) and body.rank == self.rank:
            if filter is not None:
                for part, x in enumerate(body.parts):
                    yield self.of_part(einsum, x, part)
        elif einsum.name in self.along:
            for part in range(len(self.parts)):
                yield self.of_part(einsum, self.placed(body, part), part)
        elif isinstance(body, Reduce) and self.rank in body.ranks:
            yield from self.reduced(einsum, body)
        elif isinstance(body, Populate) and body.rank == self.rank:
            raise _NoPartError
        else:
            held = None if filter is None else self.placed(filter)
            yield replace(einsum, body=self.placed(body), filter=held)

    def of_part(self, einsum: Einsum, body: Expression, part: int) -> Einsum:
        """Return an einsum along the rank for one part."""
        own = self.parts[part]
        self.names[einsum.name, part] = name = fresh(f"{einsum.name}_{own}", self.taken)
        ranks = tuple(RankVariable(own if r == self.rank else r) for r in einsum.ranks)
        filter = None if einsum.filter is None else self.placed(einsum.filter, part)
        return replace(einsum, output=Access(name, ranks), body=body, filter=filter)

    def reduced(self, einsum: Einsum, body: Reduce) -> Iterator[Einsum]:
        """Yield the reductions of the parts, and what puts them together."""
        found = self.picked(einsum)
        if found is not None:
            yield self.point(einsum, body, *found)
            return
        if body.reducer not in JOINED or set(self.parts) & {*einsum.ranks, *body.ranks}:
            raise _NoPartError
        made: list[Expression] = []
        for part, own in enumerate(self.parts):
            ranks = tuple(own if r == self.rank else r for r in body.ranks)
            filter = None if body.filter is None else self.placed(body.filter, part)
            inner = replace(body, ranks=ranks, body=self.placed(body.body, part), filter=filter)
            output = replace(einsum.output, tensor=fresh(f"{einsum.name}_{own}", self.taken))
            made.append(output)
            yield replace(einsum, output=output, body=inner, filter=None)
        whole = made[0]
        for x in made[1:]:
            whole = Apply(JOINED[body.reducer], (whole, x))
        held = None if einsum.filter is None else self.placed(einsum.filter)
        yield replace(einsum, body=whole, filter=held)

    def point(self, einsum: Einsum, body: Reduce, part: int, picking: Expression) -> Einsum:
        """Return what a sum over one point is: the point, and 0 where it does not exist."""
        rest = [c for c in conjuncts(body.filter) if c != picking] if body.filter else []
        inner = self.placed(body.body, part)
        held = [self.placed(c, part) for c in rest]
        test = conjunction(list(dict.fromkeys((*held, *self.known.of(inner)))))
        if test is not None:
            inner = Apply("where", (test, inner, Constant(0.0)))
        filter = None if einsum.filter is None else self.placed(einsum.filter)
        return replace(einsum, body=inner, filter=filter)

    def placed(self, x: Expression, part: int | None = None) -> Expression:
        """Return an expression that reads parts, at a point of one part if it is along the rank."""
        whole, sure = self.size(), assumed(x)

        def rule(y: Expression) -> Expression | None:
            match y:
                case RankVariable(rank=rank) if rank == self.rank and part is not None:
                    return self.flat(part)
                case Size(rank=rank) if rank == self.rank:
                    return whole
                case Access(tensor=tensor) if tensor in self.along:
                    return self.piece(y, sure.get(y, frozenset()))
                case Apply("<", (c, end)) if end == whole and self.part_at(c) is not None:
                    return Constant(True)
                case Apply("<=", (Constant(value=0), c)) if self.part_at(c) is not None:
                    return Constant(True)
                case Apply("and", operands):
                    kept = [c for c in operands if c != Constant(True)]
                    return Constant(True) if not kept else conjunction(kept)
                case Apply("where", (Constant(value=True), yes, _)):
                    return yes
                case _:
                    return None

        return rewrite(x, rule)

    def piece(self, access: Access, sure: frozenset[Expression]) -> Expression:
        """Return the reading of one part for a reading of the whole.

        ``sure`` are conditions that hold wherever the access is taken.
        """
        writer, c = self.along[access.tensor], self.coordinate(access)
        part, own = self.located(c, sure)
        if (access.tensor, part) not in self.names:
            assert isinstance(writer.body, Concatenate)
            values = dict(zip(writer.ranks, access.coordinates, strict=True))
            values[self.parts[part]] = own
            return substitute(writer.body.parts[part], values)
        name = self.names[access.tensor, part]
        return Access(name, tuple(own if x == c else x for x in access.coordinates))

    def located(self, c: Expression, sure: frozenset[Expression]) -> tuple[int, Expression]:
        """Return the part in which a coordinate of the whole lies, and its coordinate there."""
        part = self.part_at(c)
        if part is not None:
            return part, RankVariable(self.parts[part])
        for part, own in enumerate(self.parts):
            start = linear(self.flat(part)) - linear(RankVariable(own))
            x = delinear(linear(c) - start)
            if set(inside(x, Size(own))) <= sure:
                return part, x
        raise _NoPartError


def assumed(x: Expression) -> dict[Expression, frozenset[Expression]]:
    """Return of each access the conditions of the choices that take it, wherever it is read."""
    found: dict[Expression, frozenset[Expression]] = {}

    def look(y: Expression, above: frozenset[Expression]) -> None:
        if isinstance(y, Access):
            found[y] = found.get(y, above) & above
        match y:
            case Apply("where", (test, yes, no)):
                look(test, above)
                look(yes, above | set(conjuncts(test)))
                look(no, above)
            case _:
                for z in children(y):
                    look(z, above)

    look(x, frozenset())
    return found
