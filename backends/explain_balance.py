"""Explaining balance: how unequal the programs of a launch are, and what that costs at its end.

Programs start in the order of the grid and take the next multiprocessor that is free. Where some
have more tiles than others, the last ones may run while the rest of the machine stands idle; with
the longest first little is left for the end (Graham, SIAM J. Appl. Math. 17, 1969).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..ir.errors import PassError
from ..ir.mapping import MappedKernel
from ..passes.domain_density import tiles_of_rows
from .explain_visits import COMBINATIONS, Facts, ranks_of_domain, sizes_of_domain

PROGRAMS = 1 << 16
"""Programs of a launch that are played through."""

TILES = 1 << 20
"""Tiles that are looked at, one by one, where a table lists those that have points."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Tiles that a program visits, and when the last multiprocessor ends.

    least, mean, most : tiles of a program. issued : when the last multiprocessor ends, with the
    programs in their order, as a multiple of the time in which the work would be done if it could
    be cut at will; longest_first : the same with the longest programs first. These two are None
    where no machine is known, or has room for all. A program that stays takes tiles of rows, or
    pairs of them, in turn with the others.
    """

    least: int
    mean: float
    most: int
    issued: float | None
    longest_first: float | None


def balance(kernel: MappedKernel, facts: Facts, processors: int | None) -> Balance | None:
    """Return how unequal programs are; None where that is not known, or they are all alike."""
    work = work_of_programs(kernel, facts)
    if work is None or not len(work) or work.min() == work.max():
        return None
    issued = first = None
    if processors is not None and processors < len(work):
        ideal = float(work.sum()) / processors
        if kernel.crew is not None and kernel.crew.persistent and not kernel.crew.drawn:
            turns = work
            if kernel.crew.paired:
                turns = np.pad(work, (0, len(work) % 2)).reshape(-1, 2).sum(1)
            issued = max(float(turns[k::processors].sum()) for k in range(processors)) / ideal
        else:
            issued = last_end(work.tolist(), processors) / ideal
        first = last_end(sorted(work.tolist(), reverse=True), processors) / ideal
    return Balance(int(work.min()), float(work.mean()), int(work.max()), issued, first)


def work_of_programs(kernel: MappedKernel, facts: Facts) -> Any:
    """Return the tiles of every program, in the order in which programs start; None if open."""
    grid, tiled = kernel.ranks("grid"), kernel.ranks("tiled")
    if facts.missing(kernel) or any(t.walks for t in kernel.traversals):
        return None
    widths = {r: kernel.partition(r).tile for r in tiled}
    shape = [facts.sizes[r] for r in grid] + [-(-facts.sizes[r] // widths[r]) for r in tiled]
    if prod(shape) > PROGRAMS or not kernel.traversals:
        return None
    total = np.zeros(shape, np.int64)
    extents = {f"{t}_size_{k}": n for t, s in facts.shapes.items() for k, n in enumerate(s)}
    for traversal in kernel.traversals:
        domain, rank = traversal.domain, traversal.streaming.rank
        read = ranks_of_domain(domain)
        if any(r not in facts.sizes for r in (rank, *sizes_of_domain(domain))):
            return None
        columns = -(-facts.sizes[rank] // kernel.partition(rank).tile)
        if domain.table is not None and prod(shape) * columns > TILES:
            return None
        followed = [r if r in read else "" for r in grid]
        if prod(facts.sizes[r] for r in followed if r) > COMBINATIONS:
            return None
        for at in product(*(range(facts.sizes[r]) if r else [0] for r in followed)):
            try:
                own = tiles_of_rows(
                    domain,
                    streamed=rank,
                    tiles={**widths, rank: kernel.partition(rank).tile},
                    sizes=facts.sizes,
                    parameters={**extents, **facts.parameters},
                    coordinates={r: x for r, x in zip(followed, at, strict=True) if r},
                    tensors=facts.tensors,
                )
            except PassError:
                return None
            where = tuple(x if r else slice(None) for r, x in zip(followed, at, strict=True))
            total[where] += own.reshape(shape[len(grid) :]) if len(own) else 0
    turned = [len(grid) + k for k, r in enumerate(tiled) if r in kernel.reverse]
    found = np.flip(total, turned)
    if kernel.crew is not None and kernel.crew.persistent and kernel.crew.paired:
        # the last that is left, then the first
        order = np.arange(found.shape[-1])
        found = found[..., np.where(order % 2 == 0, order // 2, len(order) - 1 - order // 2)]
    if kernel.crew is not None and kernel.crew.slowest:
        found = np.moveaxis(found, list(range(len(grid), found.ndim)), list(range(len(tiled))))
    return found.reshape(-1)


def last_end(work: Sequence[int], processors: int) -> float:
    """Return when the last of some processors ends; each takes the next program when it is free."""
    free = [0] * processors
    for tiles in work:
        heapq.heappush(free, heapq.heappop(free) + tiles)
    return float(max(free))
