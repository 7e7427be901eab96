"""Short ranks: those of which one program may hold every coordinate; the others are long.

A long rank is cut in tiles or walked. What decides is the rank's size, where memory has it, and
whether a list says which of its coordinates exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ..ir.cascade import Cascade
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Populate,
    RankVariable,
    accesses,
    free_ranks,
    walk,
)
from .align import aligned
from .scatter_store import scatters
from .segments import part_ranks
from .walk_lists import filters_of, is_member

RESIDENT_LIMIT = 1024
"""Coordinates of a rank that one program may hold whole."""


def short_ranks(
    cascade: Cascade,
    sizes: Mapping[str, int],
    limit: int = RESIDENT_LIMIT,
    places: bool = True,
) -> frozenset[str]:
    """Return the ranks that a program may hold whole: of a known size up to ``limit``.

    With ``places``, only those that no input, and no tensor that is read elsewhere than it was
    written, has at another place than its last, where features stand, other than as the lowest
    digit of a mixed radix ``j * B + r``, and by which nothing is looked up there, as by t in
    ``X[order[t], f]``. What two other inputs have as features is so in all, as e in ``W[e, g]``
    beside ``Q[p, e]`` and ``K[m, e]``. A concatenated rank and those of its parts are walked,
    however short.
    """
    long = long_ranks(cascade, places)
    return frozenset(r for r, n in sizes.items() if r not in long and n <= limit)


@lru_cache(maxsize=512)
def long_ranks(cascade: Cascade, places: bool) -> frozenset[str]:
    """Return the ranks that no program holds whole, whatever their size; as ``short_ranks``."""
    joined = part_ranks(cascade.einsums)
    long = {*joined, *(r for parts in joined.values() for r in parts)}
    writers = {e.name: e for e in cascade.einsums}
    for einsum, view in scatters(cascade).values():
        long |= {view.rank, *free_ranks(view.coordinate), *einsum.ranks[:-1]}
    for einsum in cascade.einsums:
        if isinstance(einsum.body, Populate):
            # lists are one a program, and what they are chosen from is tiles elsewhere
            long |= {einsum.body.rank, *einsum.ranks}
        for asked in filters_of(einsum):
            # a loop walks what a list names, and lists differ among rows
            for x in walk(asked):
                if is_member(x) or (isinstance(x, Apply) and x.operator == "in"):
                    long |= set(free_ranks(x))
        for access in (*accesses(einsum.body), *accesses_of(einsum.filter)):
            writer = writers.get(access.tensor)
            if places and (writer is None or not aligned(access, writer)):
                for c in access.coordinates[:-1]:
                    if isinstance(c, RankVariable):
                        known = writer is None and is_feature(c.rank, access, cascade)
                        long |= set() if known else {c.rank}
                    else:
                        long |= set(free_ranks(c)) - lowest_digits(c)
    return frozenset(long)


def is_feature(rank: str, access: Access, cascade: Cascade) -> bool:
    """Whether two inputs have a rank last, each in rows of which a given access knows nothing.

    Where one einsum reads a tensor at h and another at ``k * G + g``, its rows are known to both.
    """
    known = set(free_ranks(access))
    rows: dict[str, bool] = {}
    for e in cascade.einsums:
        for x in (*accesses(e.body), *accesses_of(e.filter)):
            if x.tensor in cascade.inputs and x.coordinates[-1:] == (RankVariable(rank),):
                foreign = bool(set(free_ranks(x)) - known)
                rows[x.tensor] = rows.get(x.tensor, True) and foreign
    foreign_ones = {tensor for tensor, foreign in rows.items() if foreign}
    return len(foreign_ones - {access.tensor}) > 1


def lowest_digits(coordinate: Expression) -> set[str]:
    """Return the ranks that stand in a sum by themselves, without a factor."""
    match coordinate:
        case Apply("+" | "-", (left, right)):
            return lowest_digits(left) | lowest_digits(right)
        case RankVariable(rank=rank):
            return {rank}
        case _:
            return set()


def accesses_of(expression: Expression | None) -> tuple[Access, ...]:
    """Return the accesses in an optional expression."""
    return () if expression is None else accesses(expression)
