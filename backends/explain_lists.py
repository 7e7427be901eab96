"""Counting what loops along lists visit: entries of each list, over all programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ..ir.domain import Walk
from ..ir.expression import Expression, RankVariable, walk
from ..ir.mapping import MappedKernel, Traversal
from ..passes.domain_values import Names, NotGivenError, value_at

if TYPE_CHECKING:
    from .explain_visits import Facts

COMBINATIONS = 4096
"""Coordinates of grid ranks for which lists are counted one by one."""


def listed_tiles(
    kernel: MappedKernel, traversal: Traversal, facts: Facts, numbers: Mapping[str, int | float]
) -> tuple[int, bool]:
    """Return how many tiles the lists of a loop name over all programs, and whether that is exact.

    A tile of the list's entries is as wide as one of the rank; where the lists are not given, or
    there are too many of them, they are taken to be as long as they can be.
    """
    rank = traversal.streaming.rank
    tile = kernel.partition(rank).tile
    total, exact = 0, True
    for each in traversal.walks:
        entries, sure = entries_of(kernel, each, rank, facts, numbers)
        total += sum(-(-n * each.width // tile) * times for n, times in entries)
        exact &= sure
    return total, exact


def entries_of(
    kernel: MappedKernel,
    each: Walk,
    rank: str,
    facts: Facts,
    numbers: Mapping[str, int | float],
) -> tuple[list[tuple[int, int]], bool]:
    """Return (entries of a list, how many programs have as many), and whether that is exact."""
    sizes, grid = facts.sizes, kernel.ranks("grid")
    rows = {r: kernel.partition(r).tile for r in kernel.ranks("tiled")}
    starts = [range(0, sizes[r], t) for r, t in rows.items()]
    places = list(product(*starts))
    first = np.array(places, np.int64).reshape(len(places), len(rows))
    longest = int(sizes[each.rank])
    read = {x.rank for y in expressions(each) for x in walk(y) if isinstance(x, RankVariable)}
    followed = [r for r in grid if r in read]
    alike = int(np.prod([sizes[r] for r in grid if r not in followed], dtype=np.int64))
    combinations = int(np.prod([sizes[r] for r in followed], dtype=np.int64))
    everywhere = [(longest, len(first) * combinations * alike)]
    if combinations > COMBINATIONS:
        return everywhere, False
    ends = {}
    for k, (r, tile) in enumerate(rows.items()):
        ends[f"{r}_first"] = first[:, k, None]
        ends[f"{r}_last"] = np.minimum(first[:, k, None] + tile, sizes[r]) - 1
    place = np.arange(longest)[None, :]
    counts: list[int] = []
    try:
        for at in product(*(range(sizes[r]) for r in followed)):
            ranks = {**dict(zip(followed, at, strict=True)), each.rank: place}
            names = Names(ranks, {**numbers, **ends}, sizes, facts.tensors)
            counts += kept(each, sizes[rank], (len(first), longest), names)
    except NotGivenError:
        return everywhere, False
    found, times = np.unique(np.array(counts, np.int64), return_counts=True)
    return [(int(n), int(t) * alike) for n, t in zip(found, times, strict=True)], True


def kept(each: Walk, size: int, shape: tuple[int, int], names: Names) -> list[int]:
    """Count the entries of each row of tiles that name something of the rank."""
    inside = np.zeros(shape, np.bool_)
    for r in each.positions.ranges:
        begin, end = value_at(r.begin, names)[0], value_at(r.end, names)[0]
        at = names.ranks[each.rank]
        inside = inside | ((begin <= at) & (at < end))
    tests = [x for x in (each.positions.test, each.within) if x is not None]
    for test in tests:
        value, present = value_at(test, names)
        inside = inside & np.asarray(value, np.bool_) & present
    entry, present = value_at(each.entry, names)
    named = np.asarray(entry)
    there = (named >= 0) & (named * each.width < size) & present
    return [int(n) for n in np.broadcast_to(inside & there, shape).sum(1)]


def expressions(each: Walk) -> Iterable[Expression]:
    """Yield what the entries of a list, and how many there are, follow."""
    yield each.entry
    for r in each.positions.ranges:
        yield from (r.begin, r.end)
    if each.positions.test is not None:
        yield each.positions.test
    if each.within is not None:
        yield each.within
