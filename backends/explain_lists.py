"""Counting what loops along lists visit: entries of each list, over all programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.domain import Walk
from ..ir.expression import Expression, RankVariable, walk
from ..ir.mapping import MappedKernel, Traversal
from ..passes.domain_values import Names, NotGivenError, value_at

if TYPE_CHECKING:
    from .explain_visits import Facts

COMBINATIONS = 4096
"""Coordinates of grid ranks for which lists are counted one by one."""


POINTS = 1 << 27
"""Points of blocks that are counted one by one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the lists of a loop name over all programs.

    tiles : of the rank, as wide as the kernel's. exact : whether the lists are known; else they are
    taken to be as long as they can be. points : of them, those that exist; None if not counted.
    """

    tiles: int = 0
    exact: bool = True
    points: int | None = 0


def listed_tiles(
    kernel: MappedKernel, traversal: Traversal, facts: Facts, numbers: Mapping[str, int | float]
) -> Listed:
    """Count what the lists of a loop name, where they are given and not too many."""
    rank = traversal.streaming.rank
    tile = kernel.partition(rank).tile
    total = Listed()
    for each in traversal.walks:
        entries, sure, points = entries_of(kernel, each, rank, facts, numbers)
        tiles = sum(-(-n * each.width // tile) * times for n, times in entries)
        known = None if total.points is None or points is None else total.points + points
        total = Listed(total.tiles + tiles, total.exact and sure, known)
    return total


def entries_of(
    kernel: MappedKernel,
    each: Walk,
    rank: str,
    facts: Facts,
    numbers: Mapping[str, int | float],
) -> tuple[list[tuple[int, int]], bool, int | None]:
    """Return (entries of a list, how many programs have as many), whether that is exact, points."""
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
        return everywhere, False, None
    ends = {}
    for k, (r, tile) in enumerate(rows.items()):
        ends[f"{r}_first"] = first[:, k, None]
        ends[f"{r}_last"] = np.minimum(first[:, k, None] + tile, sizes[r]) - 1
    place = np.arange(longest)[None, :]
    counts: list[int] = []
    tiles = [
        {r: range(b, min(b + t, sizes[r])) for (r, t), b in zip(rows.items(), at, strict=True)}
        for at in places
    ]
    points: int | None = 0
    try:
        for at in product(*(range(sizes[r]) for r in followed)):
            ranks = {**dict(zip(followed, at, strict=True)), each.rank: place}
            names = Names(ranks, {**numbers, **ends}, sizes, facts.tensors)
            there, named = kept(each, sizes[rank], (len(first), longest), names)
            counts += [int(n) for n in there.sum(1)]
            if points is not None:
                own = replace(names, parameters=numbers)
                most = POINTS // combinations
                more = points_of(each, rank, tiles, (there, named), own, most)
                points = None if more is None else points + more
    except NotGivenError:
        return everywhere, False, None
    found, times = np.unique(np.array(counts, np.int64), return_counts=True)
    entries = [(int(n), int(t) * alike) for n, t in zip(found, times, strict=True)]
    return entries, True, None if points is None else points * alike


def kept(
    each: Walk, size: int, shape: tuple[int, int], names: Names
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which entries of each row of tiles name something of the rank, and what they name."""
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
    return np.broadcast_to(inside & there, shape), np.broadcast_to(named, shape)


def points_of(
    each: Walk,
    rank: str,
    tiles: Iterable[Mapping[str, range]],
    entries: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    names: Names,
    most: int,
) -> int | None:
    """Count the points of the blocks that rows of tiles name; None if that takes too much.

    tiles : the coordinates of each tile of rows. entries : which of its list's there are, and what
    they name. most : points that may be looked at one by one.
    """
    tests = list(dict.fromkeys(test for _, test in each.tests)) or [None]
    if len(tests) > 1:
        return None
    size, width = names.sizes[rank], each.width
    found = 0
    for there, named, rows in zip(*entries, tiles, strict=True):
        blocks = named[there].astype(np.int64) * width
        many = prod(map(len, rows.values()))
        if tests[0] is None:
            found += int(np.minimum(width, size - blocks).sum()) * many
            continue
        most -= len(blocks) * width * many
        if most < 0:
            return None
        columns = (blocks[:, None] + np.arange(width)).reshape(-1)
        axes = (*rows.values(), columns[columns < size])
        own = dict(zip((*rows, rank), np.ix_(*axes), strict=True))
        value, present = value_at(tests[0], replace(names, ranks={**names.ranks, **own}))
        live = np.asarray(value, np.bool_) & present
        found += int(np.broadcast_to(live, [len(x) for x in axes]).sum())
    return found


def expressions(each: Walk) -> Iterable[Expression]:
    """Yield what the entries of a list, and how many there are, follow."""
    yield each.entry
    for r in each.positions.ranges:
        yield from (r.begin, r.end)
    if each.positions.test is not None:
        yield each.positions.test
    if each.within is not None:
        yield each.within
