"""Ranks whose sizes can be read off the shapes of inputs, with nothing to solve.

Most cascades give every rank a plain coordinate of some input, and any other coordinate of an input
bounds what is known already. Where that is so it is seen once; a call then compares numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .cascade import Cascade
from .expression import Access, Apply, Concatenate, Populate, RankVariable

Places = tuple[tuple[str, int, tuple[tuple[int, str], ...]], ...]


def plain_sizes(cascade: Cascade, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Return the size of every rank, or None if it takes more than looking, or they disagree."""
    found = places(cascade)
    if found is None or len(shapes) != len(cascade.inputs):
        return None
    ranks, plain = found
    sizes: dict[str, int] = {}
    for tensor, count, positions in plain:
        shape = shapes.get(tensor)
        if shape is None or len(shape) != count:
            return None
        for position, rank in positions:
            if sizes.setdefault(rank, shape[position]) != shape[position]:
                return None
    return {rank: sizes[rank] for rank in ranks}


@lru_cache(maxsize=512)
def places(cascade: Cascade) -> tuple[tuple[str, ...], Places] | None:
    """Return a cascade's ranks, and for each input how many it has and which stand where.

    None if a rank stands plain in no input, or if something else than these places may have a say:
    a list, a concatenation, a recurrence, a tensor read at other ranks than it was written with.
    """
    writers = {e.name: e for e in cascade.einsums}
    counts: dict[str, int] = {}
    plain: dict[str, dict[tuple[int, str], None]] = {t: {} for t in cascade.inputs}
    for einsum in cascade.einsums:
        if any(not isinstance(c, RankVariable) for c in einsum.output.coordinates):
            return None
        for x in einsum.expressions():
            match x:
                case Populate() | Concatenate() | Apply("in"):
                    return None
                case Access(tensor=tensor, coordinates=coordinates) if tensor in plain:
                    if counts.setdefault(tensor, len(coordinates)) != len(coordinates):
                        return None
                    for k, c in enumerate(coordinates):
                        match c:
                            case RankVariable(rank=rank):
                                plain[tensor].setdefault((k, rank))
                            case Access() | Apply("//" | "%", (RankVariable(), _)):
                                pass
                            case _:
                                return None
                case Access(tensor=tensor, coordinates=coordinates):
                    if coordinates != writers[tensor].output.coordinates:
                        return None
    homes = {rank for places in plain.values() for _, rank in places}
    if not set(cascade.ranks) <= homes or set(counts) != set(cascade.inputs):
        return None
    return cascade.ranks, tuple((t, counts[t], tuple(plain[t])) for t in cascade.inputs)
