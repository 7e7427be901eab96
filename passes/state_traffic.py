"""State traffic: how long a part of a walk is at least, so that its state moves no more than it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..ir.mapping import MappedKernel
from .tile_work import operands

STORED, WALKED = 8, 2
"""Bytes of an element of a state, in float32, written and read again; of one that is walked."""


def least_tiles(kernel: MappedKernel, rank: str, sizes: Mapping[str, int]) -> int:
    """Return the tiles of a streamed rank that a part has at least.

    ::

        O[h, f] over 128 rows, 512 features; Z[m, e], 512 features; tiles of 64
        -->
        8 * 128 * 512 / (2 * 512) = 512 coordinates, 8 tiles

    Ranks of open size count once on either side.
    """
    fields = kernel.traversals[0].streaming.fields
    state = sum(prod(sizes.get(r, 1) for r in f.ranks) for f in fields)
    spans = {(t, frozenset(ranks)) for t, ranks in operands(kernel) if rank in ranks}
    step = sum(prod(sizes.get(r, 1) for r in ranks if r != rank) for _, ranks in spans)
    tile = kernel.partition(rank).tile
    return max(1, -(-STORED * state // (WALKED * max(step, 1) * tile)))
