"""Split blocks: a reduction over each block of a rank reduces the places in a block alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    Size,
    accesses,
    free_ranks,
    rewrite,
    substitute,
)
from ..ir.linear import linear
from ..ir.scalar import scalar
from .align import conjunction, fresh
from .facts import is_scalar
from .stream_presence import conjuncts

NOTHING: Mapping[str, Scalar] = MappingProxyType({})

WIDEST = 256
"""Places of a block that a program holds whole."""


def split_blocks(cascade: Cascade, *, parameters: Mapping[str, Scalar] = NOTHING) -> Cascade:
    """Write a reduction over the points of block ``j`` as one over the places in the block.

    ::

        S[p, m]        = Q[p] * K[m]
        C[p, j: j < 3] = max[m: m // 4 == j and m <= p](S[p, m])
        return S, C
        -->
        S[p, m]        = Q[p] * K[m]
        C[p, j: j < 3] = max[m_in: m_in < 4 and j * 4 + m_in < size(m) and j * 4 + m_in <= p](
                             S[p, j * 4 + m_in])
        return S, C

    The blocks are then a rank like any other: programs run side by side along it, and the places
    are a rank of known size that one of them holds whole. As it was written, every point would be
    looked at once for each block.

    Requires: a flat cascade; a block size that ``parameters`` tell and that is at most ``WIDEST``.
    Keeps: every output's value.
    """
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    places: dict[tuple[str, str, int], str] = {}
    einsums = tuple(split(e, parameters, taken, places) for e in cascade.einsums)
    if all(a is b for a, b in zip(einsums, cascade.einsums, strict=True)):
        return cascade
    return replace(cascade, einsums=einsums)


def split(
    einsum: Einsum,
    parameters: Mapping[str, Scalar],
    taken: set[str],
    places: dict[tuple[str, str, int], str],
) -> Einsum:
    """Split every rank of one reduction that a filter keeps inside one block.

    ``places`` names the places in the blocks of a rank, for what is made there to be made once.
    """
    body = einsum.body
    if not isinstance(body, Reduce):
        return einsum
    for test in conjuncts(body.filter):
        found = block(test, body.ranks, einsum.ranks, parameters)
        if found is None:
            continue
        rank, group, extent = found
        if found not in places:
            places[found] = fresh(f"{rank}_in", taken)
        place = places[found]
        width = Constant(extent)
        at = Apply("+", (Apply("*", (RankVariable(group), width)), RankVariable(place)))
        rest = [c for c in conjuncts(body.filter) if c is not test]
        inside = [
            Apply("<", (RankVariable(place), width)),
            Apply("<", (at, Size(rank))),
            *(placed(c, rank, group, place, at, extent, parameters) for c in rest),
        ]
        new = replace(
            body,
            ranks=tuple(place if r == rank else r for r in body.ranks),
            body=placed(body.body, rank, group, place, at, extent, parameters),
            filter=conjunction(inside),
        )
        return split(replace(einsum, body=new), parameters, taken, places)
    return einsum


def block(
    test: Expression,
    reduced: tuple[str, ...],
    kept: tuple[str, ...],
    parameters: Mapping[str, Scalar],
) -> tuple[str, str, int] | None:
    """Return rank, blocks and block size of ``m // B == j``; None for any other condition."""
    match test:
        case Apply("==", (Apply("//", (RankVariable(rank=m), by)), RankVariable(rank=j))):
            pass
        case Apply("==", (RankVariable(rank=j), Apply("//", (RankVariable(rank=m), by)))):
            pass
        case _:
            return None
    extent = scalar(by, {}, parameters)
    if m not in reduced or j not in kept or isinstance(extent, bool):
        return None
    if not isinstance(extent, int) or not 1 < extent <= WIDEST:
        return None
    return m, j, extent


def placed(
    x: Expression,
    rank: str,
    group: str,
    place: str,
    at: Expression,
    extent: int,
    parameters: Mapping[str, Scalar],
) -> Expression:
    """Return an expression at a place in a block; block and place by division are these ranks."""

    def rule(y: Expression) -> Expression | None:
        match y:
            case Apply("//" | "%" as operator, (RankVariable(rank=r), by)) if r == rank:
                if scalar(by, {}, parameters) == extent:
                    return RankVariable(group if operator == "//" else place)
        return None

    return substitute(rewrite(x, rule), {rank: at})


def block_sizes(cascade: Cascade) -> dict[str, int]:
    """Return the sizes that filters of reductions give: ``m_in < 4``.

    And those of results, for the digit of a coordinate: ``r < 4`` beside ``X[4 * i + r]``.
    """
    found: dict[str, int] = {}
    for einsum in cascade.einsums:
        for test in conjuncts(einsum.filter):
            match test:
                case Apply("<", (RankVariable(rank=r), Constant(value=int(n)))):
                    if is_digit(r, n, cascade):
                        found.setdefault(r, n)
        for x in einsum.expressions():
            if not isinstance(x, Reduce):
                continue
            for test in conjuncts(x.filter):
                match test:
                    case Apply("<", (RankVariable(rank=r), Constant(value=int(n)))):
                        if r in x.ranks:
                            found.setdefault(r, n)
    return found


def is_digit(rank: str, radix: int, cascade: Cascade) -> bool:
    """Whether some coordinate is a rank plus multiples of a radix of others: ``4 * i + r``."""
    me = (RankVariable(rank),)
    for c in (c for e in cascade.einsums for x in accesses(e.body) for c in x.coordinates):
        if rank in free_ranks(c) and not isinstance(c, RankVariable):
            others = [t for t in linear(c).terms if not all(map(is_scalar, t[0]))]
            if any(m == me for m, _ in others) and len(others) > 1:
                if all(n % radix == 0 for m, n in others if m != me):
                    return True
    return False
