"""Phases: what is known after one part of a concatenated rank, while the next is still to come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Access, Expression, RankVariable, Reduce, rewrite
from ..ir.streaming import Field, Streaming
from .facts import pointwise
from .stream_terms import canonical


def part_results(slice: Cascade, parts: tuple[str, ...], late: set[str]) -> dict[str, list[str]]:
    """Return, for each part's rank, the results of reductions over it alone, and what follows.

    ``late`` are the tensors that depend on the whole concatenated rank. What follows is made of
    the part's results and has no part's rank itself.
    """
    found: dict[str, list[str]] = {}
    for einsum in slice.einsums:
        if einsum.name in late or set(parts) & set(einsum.ranks):
            continue
        for rank in parts:
            inner = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
            if rank in inner or set(found.get(rank, ())) & set(einsum.reads):
                found.setdefault(rank, []).append(einsum.name)
                break
    return found


def continued(first: Streaming, whole: tuple[Streaming, ...]) -> tuple[Streaming, ...] | None:
    """Take what a traversal of the first part gives from the traversal that goes on behind it.

    ::

        first   G[p] = max[j](S[p, j])      L[p] = log(sum[j](exp(S[p, j] - G[p]))) + G[p]
        whole   H[p] = max[j](S[p, j])      D[p] = sum[j](exp(S[p, j] - H[p]))
                then the same along m, where exp(T[p, m] - L[p]) > tau
        -->
        whole   H[p] = max[j](S[p, j])      D[p] = sum[j](exp(S[p, j] - H[p]))
                G[p] = H[p]    L[p] = log(D[p]) + G[p]
                then the same along m, where exp(T[p, m] - L[p]) > tau

    Returns ``whole`` with the results of ``first`` made behind its first loop; None where an
    accumulator of ``first`` is none of the first loop's.

    Requires: ``first`` walks the first part of the rank that ``whole`` walks in segments.
    Keeps: every tensor's value.
    """
    start = whole[0]
    if first.rank != start.rank:
        return None
    names: dict[str, str] = {}
    for one in first.fields:
        twin = next((f for f in start.fields if _alike(one, first, f, start, names)), None)
        if twin is None:
            return None
        names[one.tensor] = twin.tensor
    copies = []
    for one in first.fields:
        at = tuple(RankVariable(r) for r in one.ranks)
        if names[one.tensor] != one.tensor:
            copies.append(Einsum(Access(one.tensor, at), Access(names[one.tensor], at)))
    return (replace(start, finalise=(*copies, *first.finalise)), *whole[1:])


def _alike(one: Field, of: Streaming, two: Field, other: Streaming, names: dict[str, str]) -> bool:
    """Whether two accumulators of two traversals hold the same, ``names`` being the same too."""
    if (one.reducer, one.ranks, one.filter) != (two.reducer, two.ranks, two.filter):
        return False
    if set(one.ranks_reduced) != set(two.ranks_reduced):
        return False

    def renamed(x: Expression) -> Expression | None:
        if isinstance(x, Access) and x.tensor in names:
            return replace(x, tensor=names[x.tensor])
        return None

    left = rewrite(_written_out(one.lift, of.body), renamed)
    return canonical(left) == canonical(_written_out(two.lift, other.body))


def _written_out(x: Expression, body: Iterable[Einsum | Field]) -> Expression:
    """Return an expression with what the traversal computes point by point in place of names."""
    made = {e.name: e for e in body if isinstance(e, Einsum)}

    def rule(y: Expression) -> Expression | None:
        if not isinstance(y, Access) or y.tensor not in made:
            return None
        e = made[y.tensor]
        plain = e.filter is None and pointwise(e.body) and y.coordinates == e.output.coordinates
        return rewrite(e.body, rule) if plain else None

    return rewrite(x, rule)
