"""Groups: split the streamed rank where results are read group by group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    free_ranks,
    rewrite,
    substitute,
)
from .align import conjunction, fresh
from .stream_presence import conjuncts


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of ``rank``: ``group`` is ``rank // extent``."""

    rank: str
    group: str
    extent: Expression


def grouped(slice: tuple[Einsum, ...], rank: str) -> Grouping | None:
    """Find the groups by which results over the rank are read, as in ``W[p, m // B]``."""
    writers = {e.name: e for e in slice}
    for einsum in slice:
        for x in einsum.expressions():
            if not isinstance(x, Access) or x.tensor not in writers:
                continue
            for place, coordinate in enumerate(x.coordinates):
                match coordinate:
                    case Apply("//", (RankVariable(rank=inner), extent)) if inner == rank:
                        ranks = writers[x.tensor].ranks
                        if free_ranks(extent) or place >= len(ranks) or ranks[place] == rank:
                            continue
                        return Grouping(rank, ranks[place], extent)
    return None


def split_groups(cascade: Cascade, *, rank: str) -> Cascade:
    """Split a rank in groups and places in them, where it is reduced and read by groups.

    ::

        G[p, g] = max[m: m // B == g](S[p, m])
        N[p, m] = exp(S[p, m] - G[p, m // B])
        T[p]    = sum[m](N[p, m] * W[p, m // B])
        -->
        G[p, g]        = max[m_in](S[p, g, m_in])
        N[p, g, m_in]  = exp(S[p, g, m_in] - G[p, g])
        T[p]           = sum[g, m_in](N[p, g, m_in] * W[p, g])

    with ``g * B + m_in`` wherever m was a coordinate or a number, so that each group is closed
    before the next one begins (theory 3.3, F7).

    What reduces another rank would exist beyond the end of m too; it is filtered by an input that
    does not (``K[g * B + m_in, 0] == K[g * B + m_in, 0]``).

    Requires: a flat cascade; every tensor along the rank is made of inputs along it; the groups
    cover the rank. Keeps: every output's value. Returns the cascade itself where it cannot split.
    """
    grouping = grouped(cascade.einsums, rank)
    if grouping is None:
        return cascade
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    place = fresh(f"{rank}_in", taken)
    probe = _probe(cascade, rank)
    if probe is None:
        return cascade
    split = _Split(cascade, grouping, place, {e.name: e for e in cascade.einsums}, probe)
    einsums = [split.einsum(e) for e in cascade.einsums]
    made = tuple(e for e in einsums if e is not None)
    return replace(cascade, einsums=made) if len(made) == len(einsums) else cascade


def _probe(cascade: Cascade, rank: str) -> Access | None:
    """Return a reading of an input at the rank and nowhere else."""
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor in cascade.inputs:
                if RankVariable(rank) in x.coordinates:
                    there = (RankVariable(rank), Constant(0))
                    at = tuple(there[c != RankVariable(rank)] for c in x.coordinates)
                    return Access(x.tensor, at)
    return None


@dataclass(frozen=True, slots=True)
class _Split:
    cascade: Cascade
    grouping: Grouping
    place: str
    writers: dict[str, Einsum]
    probe: Access

    def einsum(self, e: Einsum) -> Einsum | None:
        """Return an einsum over groups and places; None where it cannot be written so."""
        g = self.grouping
        inner = set(e.body.ranks) if isinstance(e.body, Reduce) else set()
        touches = g.rank in e.ranks or g.rank in inner
        if not touches:
            return e
        if isinstance(e.body, Populate | Concatenate) or not self.writable(e, inner):
            return None
        filter = self.filter(e.filter)
        output = replace(e.output, coordinates=self.coordinates(e.output.coordinates))
        match e.body:
            case Reduce(ranks=ranks, body=body, filter=inside) if g.rank in ranks:
                closed = g.group in e.ranks
                conditions = conjuncts(inside)
                if closed and not any(self.selects(c) for c in conditions):
                    return None
                over = (self.place,) if closed else (g.group, self.place)
                at = ranks.index(g.rank)
                new: Expression = replace(
                    e.body,
                    ranks=(*ranks[:at], *over, *ranks[at + 1 :]),
                    body=self.moved(body),
                    filter=self.filter(inside),
                )
            case _:
                new = self.moved(e.body)
        if g.rank in e.ranks and isinstance(e.body, Reduce):
            there = self.moved(self.probe)
            exists = Apply("==", (there, there))
            filter = conjunction([*([] if filter is None else [filter]), exists])
        return replace(e, output=output, body=new, filter=filter)

    def writable(self, e: Einsum, inner: set[str]) -> bool:
        """Whether no name clashes, and every point outside the rank is absent by itself."""
        g = self.grouping
        if g.group in inner or (g.rank in e.ranks and g.group in e.ranks):
            return False
        reads = False
        for x in e.expressions():
            if isinstance(x, Size) and x.rank == g.rank:
                return False
            if isinstance(x, Access) and x is not e.output:
                bare = RankVariable(g.rank) in x.coordinates
                reads |= bare
                writer = self.writers.get(x.tensor)
                if writer is not None and g.rank in writer.ranks:
                    at = writer.ranks.index(g.rank)
                    if x.coordinates[at] != RankVariable(g.rank):
                        return False
        return reads

    def selects(self, condition: Expression) -> bool:
        """Whether a condition is that the element lies in the group."""
        g = self.grouping
        quotient = Apply("//", (RankVariable(g.rank), g.extent))
        group = RankVariable(g.group)
        match condition:
            case Apply("==", (a, b)):
                return {a, b} == {quotient, group}
            case _:
                return False

    def filter(self, filter: Expression | None) -> Expression | None:
        """Return a filter over groups and places, without what now always holds."""
        kept = [self.moved(c) for c in conjuncts(filter) if not self.selects(c)]
        return conjunction(kept)

    def coordinates(self, coordinates: Iterable[Expression]) -> tuple[Expression, ...]:
        """Return a tensor's coordinates, the rank replaced by its two."""
        both = (RankVariable(self.grouping.group), RankVariable(self.place))
        return tuple(
            y
            for c in coordinates
            for y in (both if c == RankVariable(self.grouping.rank) else (self.moved(c),))
        )

    def moved(self, expression: Expression) -> Expression:
        """Return an expression with the rank written as groups and places."""
        g = self.grouping
        quotient = Apply("//", (RankVariable(g.rank), g.extent))
        remainder = Apply("%", (RankVariable(g.rank), g.extent))
        flat = Apply(
            "+",
            (Apply("*", (RankVariable(g.group), g.extent)), RankVariable(self.place)),
        )

        def marked(x: Expression) -> Expression | None:
            match x:
                case Access(tensor=tensor, coordinates=coordinates) if tensor in self.writers:
                    if g.rank in self.writers[tensor].ranks:
                        return replace(x, coordinates=self.coordinates(coordinates))
                case Apply("//" | "%"):
                    if x == quotient:
                        return RankVariable(g.group)
                    if x == remainder:
                        return RankVariable(self.place)
                case _:
                    pass
            return None

        return substitute(rewrite(expression, marked), {g.rank: flat})


def nested(body: Iterable[Einsum]) -> dict[str, frozenset[str]]:
    """Return, for each tensor of a traversal, the ranks along which a group is closed for it.

    Two reductions over the rank stand before it, one upon the result of the other.
    """
    chains: dict[str, dict[str, int]] = {}
    for einsum in body:
        depth: dict[str, int] = {}
        for read in einsum.reads:
            for rank, n in chains.get(read, {}).items():
                depth[rank] = max(depth.get(rank, 0), n)
        if isinstance(einsum.body, Reduce):
            for rank in einsum.body.ranks:
                depth[rank] = depth.get(rank, 0) + 1
        chains[einsum.name] = depth
    return {n: frozenset(r for r, k in d.items() if k > 1) for n, d in chains.items()}
