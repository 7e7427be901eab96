"""Scatter: sums of what lists put at coordinates, written where the lists say.

::

    O[b, p, f] = sum[u: idx[b, u] == p](Y[b, u, f])

A coordinate that no list names holds the identity, 0. Where the list holds no coordinate twice, at
most one point of the sum is there, so that a kernel makes Y over u, as any other tensor, and stores
each point at its coordinate: no two programs write one place, and the memory is zeros before.
Where several lists name a coordinate, ``invert_lists`` turns them round first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    substitute,
)
from ..ir.mapping import View
from .align import conjunction, fresh
from .stream_presence import conjuncts


@dataclass(frozen=True, slots=True)
class Landing:
    """A condition ``T[b, u] == p`` that puts points of a sum at a kept rank.

    test : the condition. kept : the rank p. rank : the rank of the list, u. entry : the list.
    """

    test: Expression
    kept: str
    rank: str
    entry: Access


def invert_lists(cascade: Cascade) -> Cascade:
    """Sum what several lists put at a coordinate list by list, at the place where it stands.

    ::

        T[c, u] = topk[p, 4](X[c, p])
        O[p, f] = sum[c, u: T[c, u] == p](Y[c, u, f])
        return O
        -->
        T[c, u] = topk[p, 4](X[c, p])
        T_place[c, p] = sum[u: T[c, u] == p](u + 1)
        O[p, f] = sum[c: T_place[c, p] >= 1](Y[c, T_place[c, p] - 1, f])
        return O

    A list of a selection, or of an input declared ``unique``, holds a coordinate once, so that its
    place is one number; adding up follows the order of the lists, whatever order programs run in.

    Requires: a flat cascade. Keeps: every output's value.
    """
    unique = distinct(cascade)
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    made: dict[tuple[Access, str], Access] = {}
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        found = landing(einsum, unique)
        body = einsum.body
        if found is None or not isinstance(body, Reduce) or len(body.ranks) < 2:
            einsums.append(einsum)
            continue
        key = (found.entry, found.kept)
        outer = [c for c in found.entry.coordinates if c != RankVariable(found.rank)]
        if not all(isinstance(c, RankVariable) for c in outer):
            einsums.append(einsum)
            continue
        if key not in made:
            name = fresh(f"{found.entry.tensor}_place", taken)
            made[key] = Access(name, (*outer, RankVariable(found.kept)))
            one = Apply("+", (RankVariable(found.rank), Constant(1)))
            einsums.append(Einsum(made[key], Reduce("sum", (found.rank,), one, found.test)))
        place = {found.rank: Apply("-", (made[key], Constant(1)))}
        rest = [substitute(c, dict(place)) for c in conjuncts(body.filter) if c != found.test]
        there = Apply(">=", (made[key], Constant(1)))
        ranks = tuple(r for r in body.ranks if r != found.rank)
        summed = substitute(body.body, dict(place))
        einsums.append(
            replace(einsum, body=replace(
                body, ranks=ranks, body=summed, filter=conjunction([there, *rest])
            ))
        )  # fmt: skip
    if not made:
        return cascade
    return replace(cascade, einsums=tuple(einsums))


def distinct(cascade: Cascade) -> frozenset[str]:
    """Return the tensors that hold no number twice along their last rank."""
    selected = (e.name for e in cascade.einsums if isinstance(e.body, Populate))
    return frozenset((*cascade.unique, *selected))


def landing(einsum: Einsum, unique: Iterable[str]) -> Landing | None:
    """Return where a list puts the points of a sum, None where nothing does."""
    body = einsum.body
    if not isinstance(body, Reduce) or body.reducer != "sum":
        return None
    for test in conjuncts(body.filter):
        match test:
            case Apply("==", (Access() as entry, RankVariable(rank=kept))):
                pass
            case Apply("==", (RankVariable(rank=kept), Access() as entry)):
                pass
            case _:
                continue
        last = entry.coordinates[-1]
        if entry.tensor not in unique or not isinstance(last, RankVariable):
            continue
        once = last.rank not in (r for c in entry.coordinates[:-1] for r in free_ranks(c))
        if kept in einsum.ranks and last.rank in body.ranks and once:
            if kept not in free_ranks(entry):
                return Landing(test, kept, last.rank, entry)
    return None


def scatters(cascade: Cascade) -> dict[str, tuple[Einsum, View]]:
    """Return the sums whose points a list puts where they belong, turned to run over the list.

    Of each the pointwise einsum, which keeps the rank of the list in place of the rank that the
    list names, and where in memory its points lie.
    """
    unique = distinct(cascade)
    found: dict[str, tuple[Einsum, View]] = {}
    for einsum in cascade.einsums:
        at = landing(einsum, unique)
        body = einsum.body
        if at is None or not isinstance(body, Reduce) or body.ranks != (at.rank,):
            continue
        place = {at.kept: at.entry}
        rest = [c for c in conjuncts(body.filter) if c != at.test]
        rest += [] if einsum.filter is None else [einsum.filter]
        inside = [
            Apply("<=", (Constant(0), at.entry)),
            Apply("<", (at.entry, Size(at.kept))),
            *(substitute(c, dict(place)) for c in rest),
        ]
        output = replace(
            einsum.output,
            coordinates=tuple(
                RankVariable(at.rank) if c == RankVariable(at.kept) else c
                for c in einsum.output.coordinates
            ),
        )
        turned = Einsum(output, substitute(body.body, dict(place)), conjunction(inside), einsum.at)
        found[einsum.name] = turned, View(at.kept, at.entry)
    return found
