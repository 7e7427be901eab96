"""What lies along each axis of a tensor: its rank, and its size as far as sizes are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .cascade import Cascade, Einsum, Scalar
from .expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Size,
    free_ranks,
    substitute,
    walk,
)
from .scalar import scalar


def ranks_of(cascade: Cascade, tensor: str) -> tuple[str | None, ...]:
    """Return the rank along each axis of ``tensor``; None where it is never a plain coordinate.

    An iterative rank stands for its ``i + 1`` generations. An input that different einsums read at
    different ranks (``X[p, e]`` and ``X[m, e]``) has the ranks of the first.
    """
    writers = [e.output.coordinates for e in cascade.einsums if e.name == tensor]
    if writers:
        return tuple(
            next((rank for c in written for rank in free_ranks(c)), None)
            for written in zip(*writers, strict=True)
        )
    reads = list(reads_of(cascade, tensor))
    if not reads:
        raise KeyError(tensor)
    ranks: list[str | None] = [None] * max(len(access.coordinates) for access in reads)
    for access in reads:
        for axis, coordinate in enumerate(access.coordinates):
            if isinstance(coordinate, RankVariable) and ranks[axis] is None:
                ranks[axis] = coordinate.rank
    return tuple(ranks)


def known_axes(cascade: Cascade, tensor: str, sizes: Mapping[str, int]) -> tuple[int | None, ...]:
    """Return the shape of a tensor as far as it is known."""
    if tensor in cascade.inputs:
        ranks = ranks_of(cascade, tensor)
        return tuple(None if rank is None else sizes.get(rank) for rank in ranks)
    writers = [e.output.coordinates for e in cascade.einsums if e.name == tensor]
    shape: list[int | None] = []
    for written in zip(*writers, strict=True):
        # The last coordinate that any writer reaches, whatever it is written as, plus one.
        lasts: list[Scalar | None] = []
        for c in written:
            read = {*free_ranks(c), *(x.rank for x in walk(c) if isinstance(x, Size))}
            ends = {r: Constant(sizes[r] - 1) for r in free_ranks(c) if r in sizes}
            known = read <= set(sizes)
            lasts.append(scalar(substitute(c, dict(ends)), sizes, {}) if known else None)
        reached = [int(last) for last in lasts if last is not None]
        shape.append(max(reached) + 1 if len(reached) == len(lasts) else None)
    return tuple(shape)


def right_sides(einsum: Einsum) -> Iterator[Expression]:
    """Yield every expression of body and filter."""
    yield from walk(einsum.body)
    if einsum.filter is not None:
        yield from walk(einsum.filter)


def reads_with_ranks(cascade: Cascade, tensor: str) -> Iterator[tuple[Access, int]]:
    """Yield each access of ``tensor`` and how many ranks it says that the tensor has."""
    for einsum in cascade.einsums:
        if tensor not in einsum.reads:
            continue
        fibers: set[int] = set()
        for x in right_sides(einsum):
            match x:
                case Apply(operator="in", operands=(_, Access() as access)):
                    fibers.add(id(access))  # a fiber's access has one coordinate fewer
            if isinstance(x, Access) and x.tensor == tensor:
                yield x, len(x.coordinates) + (id(x) in fibers)


def reads_of(cascade: Cascade, tensor: str) -> Iterator[Access]:
    """Yield each access of ``tensor``."""
    return (access for access, _ in reads_with_ranks(cascade, tensor))
