"""Look up members: a list that is not walked becomes a table of who is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import BackendError, underlined
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
from ..ir.show import show_expression
from .align import fresh
from .domain_extremes import extreme
from .domain_known import Known, first, last, least
from .domain_simplify import ZERO, plus
from .existence import conjuncts


def look_up_members(cascade: Cascade, *, short: frozenset[str] = frozenset()) -> Cascade:
    """Look membership up in a table where the rank that a list names is kept, not reduced.

    ::

        S[p, m: m // 4 in L[p // 2]] = Q[p] * K[m]
        Z[p] = sum[m](S[p, m])
        C[m] = sum[p](S[p, m])
        return Z, C
        -->
        L_has[i, n: n < (size(m) + 3) // 4] = any[j](L[i, j] == n)
        S[p, m: m // 4 in L[p // 2]] = Q[p] * K[m]
        S_of_m[p, m: L_has[p // 2, m // 4]] = Q[p] * K[m]
        Z[p] = sum[m](S[p, m])
        C[m] = sum[p](S_of_m[p, m])
        return Z, C

    What reduces the rank walks the list. What keeps it has a program for each of its tiles, and
    would go through the whole list at every point. The table has a place for each list and block.
    An item that is neither a rank nor its quotient names no tiles to walk, and is always looked
    up::

        S[p, m: p + m in L[p]] = Q[p] * K[m]
        Z[p] = sum[m](S[p, m])
        return Z
        -->
        L_has[p, n: n < size(p) + size(m) - 1] = any[j](L[p, j] == n)
        S[p, m: L_has[p, p + m]] = Q[p] * K[m]
        Z[p] = sum[m](S[p, m])
        return Z

    ``short`` ranks are held whole by a program; reductions over them are part of a tile's work.

    Requires: a flat cascade. Keeps: every output's value, and its absent points.

    Raises
    ------
    BackendError
        for an item of which nobody knows how large it is.
    """
    for einsum in cascade.einsums:
        for test in () if einsum.filter is None else memberships(einsum.filter):
            found = _Kept(cascade, einsum, test, short).looked_up()
            if found is not None:
                return look_up_members(found, short=short)
    return cascade


def memberships(filter: Expression) -> Iterator[Apply]:
    """Yield the tests against lists in a filter."""
    for x in walk(filter):
        if isinstance(x, Apply) and x.operator == "in":
            yield x


def bounds_of(item: Expression) -> tuple[Expression, Expression] | None:
    """Return the least and greatest value of a coordinate over whole ranks, None if not known.

    The least is 0 where the coordinate is proved to be no less.
    """
    ranks = tuple(free_ranks(item))
    # where there is a coordinate, its rank has a size above 0
    sizes: dict[Expression, Expression] = {Size(r): Parameter(f"size({r})") for r in ranks}
    known = Known("", ranks, positive=frozenset(f"size({r})" for r in ranks))
    within = rewrite(item, sizes.get)
    found = [extreme(within, end, known) for end in ("least", "greatest")]
    if any(x is None or any(isinstance(y, Access) for y in walk(x)) for x in found):
        return None
    ends = {sizes[size]: size for size in sizes}
    ends |= {first(r): Constant(0) for r in ranks}
    ends |= {last(r): plus(Size(r), -1) for r in ranks}
    low, high = (rewrite(x, ends.get) for x in found if x is not None)
    bound = least(within, known)
    return Constant(0) if bound is not None and bound >= 0 else low, high


@dataclass(slots=True)
class _Kept:
    """One test against a list, and what keeps the rank that it is about."""

    cascade: Cascade
    einsum: Einsum
    test: Apply
    short: frozenset[str]
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        cascade = self.cascade
        self.taken = {cascade.name, *cascade.inputs, *cascade.ranks}
        self.taken |= {e.name for e in cascade.einsums} | {n for n, _ in cascade.parameters}

    def looked_up(self) -> Cascade | None:
        """Return the cascade with a table, or None where the list is walked, or has to be."""
        item, fiber = self.test.operands
        match item:
            case RankVariable(rank=rank):
                extent: Expression = Size(rank)
            case Apply("//", (RankVariable(rank=rank), by)) if not free_ranks(by):
                match by:
                    case Constant(value=int(value)):
                        above: Expression = Constant(value - 1)
                    case _:
                        above = Apply("-", (by, Constant(1)))
                extent = Apply("//", (Apply("+", (Size(rank), above)), by))
            case _:
                return self.always(item, fiber)
        assert isinstance(fiber, Access)
        behind = self.behind(rank)
        ends = [e for e in behind if self.ends(e, rank)]
        if not ends:
            return None
        writers = {e.name: e for e in self.cascade.einsums}
        front, needed = [e.name for e in ends], set()
        while front:
            name = front.pop()
            if name not in needed:
                needed.add(name)
                front += [r for r in writers[name].reads if r in {e.name for e in behind}]
        last = {e.name for e in ends}
        again = {
            e.name: e.name if e.name in last else fresh(f"{e.name}_of_{rank}", self.taken)
            for e in behind
            if e.name in needed
        }
        table = self.table(fiber, extent)
        there = Access(table.name, (*fiber.coordinates, item))
        einsums: list[Einsum] = []
        for e in self.cascade.einsums:
            if e is self.einsum:
                einsums.append(table)
            if e.name not in last:
                einsums.append(e)
            if e.name in again:
                einsums.append(self.renamed(e, again, there))
        return replace(self.cascade, einsums=tuple(einsums))

    def always(self, item: Expression, fiber: Expression) -> Cascade:
        """Return the cascade in which the test is looked up by whatever reads it."""
        assert isinstance(fiber, Access)
        bounds = bounds_of(item)
        if bounds is None:
            raise BackendError(
                f"{show_expression(item)} is looked up in {fiber.tensor}, and how large it may be "
                "follows from no size; write an item of ranks, sizes and numbers, with divisors "
                f"above 0{underlined(fiber.at)}"
            )
        begin, greatest = bounds
        extent = plus(greatest if begin == ZERO else Apply("-", (greatest, begin)), 1)
        table = self.table(fiber, extent, begin)
        place = item if begin == ZERO else Apply("-", (item, begin))
        there = Access(table.name, (*fiber.coordinates, place))
        asking = self.renamed(self.einsum, {self.einsum.name: self.einsum.name}, there)
        written = ((table, asking) if e is self.einsum else (e,) for e in self.cascade.einsums)
        return replace(self.cascade, einsums=tuple(x for pair in written for x in pair))

    def behind(self, rank: str) -> list[Einsum]:
        """Return the einsum of the test and all that is made of it point by point of the rank."""
        found = [self.einsum]
        for e in self.cascade.einsums:
            reads = {x.name for x in found} & set(e.reads)
            if reads and rank in e.ranks and e is not self.einsum:
                found.append(e)
        return found

    def ends(self, einsum: Einsum, rank: str) -> bool:
        """Whether an einsum is stored with the rank."""
        if einsum.name in self.cascade.outputs:
            return True
        body = einsum.body
        return isinstance(body, Reduce) and not set(body.ranks) <= {*self.short, rank}

    def table(self, fiber: Access, extent: Expression, begin: Expression = ZERO) -> Einsum:
        """Return the einsum of the table: whether a coordinate, from ``begin`` on, is in a list."""
        writer = next((e for e in self.cascade.einsums if e.name == fiber.tensor), None)
        if writer is None:
            rows = [
                c.rank if isinstance(c, RankVariable) else fresh("i", self.taken)
                for c in fiber.coordinates
            ]
            place = fresh("j", self.taken)
        else:
            *rows, place = writer.ranks
        member = fresh("n", self.taken)
        own = tuple(RankVariable(r) for r in rows)
        entry = Access(fiber.tensor, (*own, RankVariable(place)), fiber.at)
        own_place: Expression = RankVariable(member)
        if begin != ZERO:
            own_place = Apply("+", (own_place, begin))
        body = Reduce("any", (place,), Apply("==", (entry, own_place)))
        name = fresh(f"{fiber.tensor}_has", self.taken)
        below = Apply("<", (RankVariable(member), extent))
        return Einsum(Access(name, (*own, RankVariable(member))), body, below)

    def renamed(self, einsum: Einsum, names: dict[str, str], there: Access) -> Einsum:
        """Return an einsum that is made of what looks the test up."""

        def rule(x: Expression) -> Expression | None:
            if isinstance(x, Access) and names.get(x.tensor, x.tensor) != x.tensor:
                return replace(x, tensor=names[x.tensor])
            return None

        def look_up(x: Expression) -> Expression | None:
            return asked if x == self.test else None

        output, filter = replace(einsum.output, tensor=names[einsum.name]), einsum.filter
        # elsewhere than in a conjunction, what is not there must count as no member
        among = filter is not None and self.test in conjuncts(filter)
        asked = there if among else Apply("default", (there, Constant(False)))
        if filter is not None:
            filter = rewrite(filter, look_up) if einsum is self.einsum else filter
            filter = rewrite(filter, rule)
        return replace(einsum, output=output, body=rewrite(einsum.body, rule), filter=filter)
