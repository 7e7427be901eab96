"""Crowds: programs of few rows that are a little more than run at a time take less room each.

Programs of few rows wait for loads alone, and a multiprocessor runs as many as their loads in
flight leave room for. Where a few are left over, they run at the end beside nobody, and the memory
is not kept busy. With fewer stages all run at once, or in fewer turns. Like parts, this follows
from sizes and from the machine's number of multiprocessors.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.mapping import Mapping as Mapped
from ..passes.partition import SHARED, few_rows, shared_bytes
from ..passes.walked_span import looked_up
from .parts import SHORTEST, programs

SMALL = (4, 2)
"""Warps and stages of a program in a crowd.

Measured on an H100 with 128 features and four rows, beside two warps in three stages, of which 396
programs run at a time: 512 programs are 2 to 8 % faster so, 1024 and 2048 up to 1 %, 4096 0.5 %
slower, and 256, which all run at once either way, 0.2 to 0.5 % slower. With 64 features 2 to 4 %
faster, with 256 features as fast as four warps in three stages.
"""

MOST_TURNS = 8
"""Turns beyond which what is left over at the end is little beside the rest."""


def crowded(
    mapping: Mapped, sizes: Mapping[str, int], processors: int, target: str = "sm_90"
) -> bool:
    """Whether a cascade's one kernel has few rows, and more programs than run at a time."""
    if len(mapping.kernels) != 1:
        return False
    (kernel,) = mapping.kernels
    ranks = (*kernel.ranks("grid"), *kernel.ranks("tiled"), *kernel.ranks("streamed"))
    if not all(r in sizes for r in ranks) or not few_rows(kernel, sizes) or looked_up(kernel):
        return False
    walked = max((sizes[r] for r in kernel.ranks("streamed")), default=0)
    if kernel.crew is not None or kernel.num_stages <= SMALL[1] or walked < SHORTEST:
        return False
    cut = {p.rank: p.tile for p in kernel.partitions}
    # of what is fetched ahead, one stage fewer lies in shared memory at a time
    room = shared_bytes(kernel, cut, kernel.num_stages - 1, dict(mapping.dtypes), target)
    at_a_time = processors * max(1, SHARED.get(target, 99) * 1024 // max(room, 1))
    return at_a_time < programs(kernel, sizes) <= MOST_TURNS * at_a_time
