"""State traffic: what it costs to store the states of parts, beside the walk that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..ir.mapping import MappedKernel
from .tile_work import operands

STORED, WALKED = 8, 2
"""Bytes of an element of a state, in float32, written and read again; of one that is walked."""

RATE = 200
"""Operations of products while a byte moves: of an H100, 600 and 3 millions of millions a second.

Many rows compute for longer than what they walk takes to come, and states may move meanwhile.
"""

PROCESSORS = 132
"""Multiprocessors of an H100, among which tiles and traffic are divided."""

BEHIND = 3
"""How many times the traffic of its states a part costs, as the merge waits for the last of them.

Measured on an H100, 5 x 4096 rows, 4096 coordinates, 128 features: 91 us whole, 96 in two parts.
"""


def least_tiles(kernel: MappedKernel, rank: str, sizes: Mapping[str, int]) -> int:
    """Return the tiles of a streamed rank that a part has at least.

    ::

        O[h, f] over 128 rows, 512 features; Z[m, e], 512 features; tiles of 64
        -->
        8 * 128 * 512 / (2 * 512) = 512 coordinates, 8 tiles

    Ranks of open size count once on either side. Where groups of warps compute for longer than what
    they walk moves (two operations for each element of the state and coordinate, twice), the walk
    counts as what moves then.
    """
    state = elements_stored(kernel, sizes)
    spans = {(t, frozenset(ranks)) for t, ranks in operands(kernel) if rank in ranks}
    step = sum(prod(sizes.get(r, 1) for r in ranks if r != rank) for _, ranks in spans)
    tile = kernel.partition(rank).tile
    moved = WALKED * max(step, 1)
    if many_rows(kernel):
        moved = max(moved, 4 * state // RATE)
    return max(1, -(-STORED * state // (moved * tile)))


def cost_of_part(kernel: MappedKernel, rank: str, sizes: Mapping[str, int]) -> int:
    """Return what all states of one part cost, in hundredths of a program's step over a tile.

    A step takes as long as its products, or as what it reads, whichever is more. 0 where programs
    have few rows: beside what they walk, that is little.
    """
    if not many_rows(kernel):
        return 0
    width = {p.rank: p.tile for p in kernel.partitions}
    rows = prod(width[r] for r in kernel.ranks("tiled"))
    spans = {(t, frozenset(ranks)) for t, ranks in operands(kernel) if rank in ranks}
    read = sum(prod(width[r] for r in ranks if r in width) for _, ranks in spans)
    step = max(2 * rows * read // RATE, WALKED * read) * PROCESSORS * kernel.residents
    return 100 * BEHIND * STORED * elements_stored(kernel, sizes) // max(step, 1)


def many_rows(kernel: MappedKernel) -> bool:
    """Whether groups of warps share the rows of a program, of which each has 64 of its own."""
    return kernel.crew is not None and not kernel.crew.wide


def elements_stored(kernel: MappedKernel, sizes: Mapping[str, int]) -> int:
    """Return the elements of a kernel's state, over all programs."""
    fields = kernel.traversals[0].streaming.fields
    return sum(prod(sizes.get(r, 1) for r in f.ranks) for f in fields)
