"""Dead einsums: what no output needs is not computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Concatenate,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
)


def remove_dead(cascade: Cascade) -> Cascade:
    """Drop the einsums that no output needs.

    ::

        S[p, m] = sum[e](Q[p, e] * K[m, e])
        C[p]    = max[m](S[p, m])
        O[p]    = sum[m](S[p, m])
        -->
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        O[p]    = sum[m](S[p, m])

    A dead einsum stays if without it nothing would read an argument, or a rank that is still used
    would lose its size: ``size(e)`` may stand where only a dead einsum reads a tensor along ``e``.

    Requires: nothing. Keeps: every output's value; inputs and parameters, which are how the cascade
    is called. A cascade without dead einsums stays the same object.
    """
    needed = _needed(cascade, cascade.outputs)
    while True:
        alive = [e for e in cascade.einsums if e.name in needed]
        if len(alive) == len(cascade.einsums):
            return cascade
        witness = _witness(cascade, alive)
        if witness is None:
            return replace(cascade, einsums=tuple(alive))
        needed |= _needed(cascade, (witness.name,))


def _witness(cascade: Cascade, alive: Sequence[Einsum]) -> Einsum | None:
    """Return an einsum that those alive need beside them; None if there is none."""
    read = {tensor for e in alive for tensor in e.reads}
    for tensor in cascade.inputs:
        if tensor not in read:
            for einsum in cascade.einsums:
                if tensor in einsum.reads:
                    return einsum
    used = _ranks(alive)
    # Only a rank that has no size of its own anywhere can owe it to a computed coordinate.
    for giving in (_sized, _mentioned):
        given = {r for e in alive for r in giving(cascade, e)}
        for rank in used:
            if rank not in given:
                for einsum in cascade.einsums:
                    if rank in giving(cascade, einsum):
                        return einsum
        used = tuple(r for r in used if not any(r in giving(cascade, e) for e in alive))
    return None


def _needed(cascade: Cascade, tensors: Iterable[str]) -> set[str]:
    """Return the tensors, and those that they are computed from."""
    needed: set[str] = set()
    front = list(tensors)
    while front:
        name = front.pop()
        if name not in needed:
            needed.add(name)
            front += [read for e in cascade.einsums if e.name == name for read in e.reads]
    return needed


def _sized(cascade: Cascade, einsum: Einsum) -> tuple[str, ...]:
    """Return the ranks whose sizes follow from this einsum and the shapes of the inputs."""
    ranks = [
        c.rank
        for x in einsum.expressions()
        if isinstance(x, Access) and x.tensor in cascade.inputs
        for c in x.coordinates
        if isinstance(c, RankVariable)
    ]
    match einsum.body:
        case Concatenate(rank=rank):
            ranks.append(rank)
        case Populate():
            ranks += [r for r in einsum.ranks if r not in free_ranks(einsum.body)]
    return tuple(dict.fromkeys(ranks))


def _mentioned(cascade: Cascade, einsum: Einsum) -> tuple[str, ...]:
    """Return the ranks that occur in coordinates or filters, which may give them a size."""
    ranks = [r for x in einsum.expressions() if isinstance(x, Access) for r in free_ranks(x)]
    filters = [x.filter for x in einsum.expressions() if isinstance(x, Reduce)]
    ranks += [r for f in (einsum.filter, *filters) if f is not None for r in free_ranks(f)]
    return tuple(dict.fromkeys(ranks))


def _ranks(einsums: Iterable[Einsum]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for einsum in einsums:
        for x in einsum.expressions():
            match x:
                case RankVariable(rank=rank) | Size(rank=rank) | Populate(rank=rank):
                    found.setdefault(rank)
                case Reduce(ranks=ranks):
                    found |= dict.fromkeys(ranks)
    return tuple(found)
