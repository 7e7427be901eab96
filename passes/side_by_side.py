"""Side by side: how many programs of few rows a multiprocessor needs to wait for memory well.

Few rows leave a program nothing to do but wait for what it walks. As many programs as keep enough
bytes on their way are then enough; more of them only store more states to be merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ..ir.mapping import MappedKernel
from .partition import MOST_RESIDENT, few_rows
from .tile_work import element_bytes, operands
from .walked_span import looked_up

ON_THE_WAY = 64 * 1024
"""Bytes that each multiprocessor has on their way. Measured on an H100, tiles of 64 keys in three
stages: with 128 features, 64 KiB a program, one program is 3 to 5 % before two where a call walks
34 to 268 MB; with 64 features, or where a table says where keys lie, two are 12 to 25 % before one.
"""


def side_by_side(
    kernel: MappedKernel, *, sizes: Mapping[str, int], dtypes: Mapping[str, str]
) -> MappedKernel:
    """Say how many programs of a partitioned kernel run on a multiprocessor, if its rows are few.

    ::

        4 rows; K[m, e], V[m, f] walked in tiles of 64 x 128, three stages
        -->
        residents = 1, for 2 * 64 * 128 * 2 bytes are on their way twice

    Requires: tiles are chosen. Keeps: everything else.
    """
    if not few_rows(kernel, sizes):
        return kernel
    streamed = set(kernel.ranks("streamed"))
    width = {p.rank: p.tile for p in kernel.partitions}
    moving = 0
    for tensor, ranks in operands(kernel):
        if streamed & set(ranks):
            moving += element_bytes(tensor, dtypes) * prod(width[r] for r in ranks if r in width)
    ahead = max(1, kernel.num_stages - (2 if looked_up(kernel) else 1))
    wanted = -(-ON_THE_WAY // max(1, moving * ahead))
    return replace(kernel, residents=min(MOST_RESIDENT, max(1, wanted)))
