"""Parts: in how many a streamed rank is reduced side by side, decided when a launch is prepared.

The answer follows from sizes and from the machine's number of multiprocessors alone, so that no
call waits for the GPU, a captured graph replays it, and the same shapes give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from ..codegen.kernel import Kernel
from ..ir.cascade import Scalar
from ..ir.expression import Apply, Constant, Expression, rewrite
from ..ir.mapping import Cut, MappedKernel
from ..ir.mapping import Mapping as Mapped
from ..ir.scalar import scalar
from ..passes.domain_known import first, last
from ..passes.state_traffic import cost_of_part, least_tiles
from ..passes.walked_span import differences

PROCESSORS = 132
"""Multiprocessors of the machine that is assumed where no GPU is: an H100 or H200."""

SHORTEST = 512
"""Coordinates below which a rank is not worth a second kernel."""


def tiles_of_part(tiles: int, programs: int, slots: int, least: int = 1, stored: int = 0) -> int:
    """Return how many tiles of a streamed rank one part has, of ``tiles`` in all.

    ``programs`` is the number of programs without parts, ``slots`` how many run at a time, and no
    part has fewer tiles than ``least``, beyond which states move more than the walk does. The
    model counts tiles along the busiest slot: waves of programs, each as long as a part and one
    tile more for its beginning, and for the merge two tiles, and as many hundredths of one as are
    ``stored`` for each part. Of the numbers of parts within 3 % of
    the best the smallest is taken.
    """

    def steps(parts: int) -> int:
        length = -(-tiles // parts)
        waves = -(-programs * -(-tiles // length) // slots)
        return waves * (length + 1) + (2 + parts * stored // 100 if parts > 1 else 0)

    most = max(1, min(tiles // least, 4 * slots // max(programs, 1)))
    best = min(map(steps, range(1, most + 1)))
    parts = next(n for n in range(1, most + 1) if 32 * steps(n) <= 33 * best)
    return -(-tiles // parts)


def with_parts(
    cuts: tuple[Cut, ...],
    kernels: tuple[Kernel, ...],
    sizes: Mapping[str, int],
    parameters: Mapping[str, Scalar],
    processors: int,
) -> tuple[dict[str, int], dict[str, Scalar]]:
    """Add the sizes of ranks of parts, and the lengths of parts, to what a launch knows."""
    found, values = dict(sizes), dict(parameters)
    for cut in cuts:
        stretch = None if cut.extent is None else scalar(cut.extent, sizes, parameters)
        walked = sizes[cut.positions or cut.rank] if stretch is None else int(stretch)
        tiles = max(1, -(-walked // cut.unit))
        if cut.parts:
            length = -(-tiles // cut.parts)
        else:
            apart = {**found, cut.part: 1}
            walking = [k for k in kernels if any(g.rank == cut.part for g in k.grid)]
            count = max(count_programs(k, apart) for k in walking)
            slots = processors * cut.residents
            length = tiles_of_part(tiles, count, slots, cut.least, cut.stored)
        values[cut.step] = length * cut.unit
        found[cut.part] = cut.parts or -(-tiles // length)
        if cut.extent is not None:
            found[cut.part] += 1  # a stretch begins anywhere in its first part
    return found, values


def worth_parts(
    mapping: Mapped,
    sizes: Mapping[str, int],
    processors: int,
    parameters: Mapping[str, Scalar] | None = None,
) -> dict[str, int]:
    """Return the streamed ranks that are better reduced in parts (each with 0: as many as fit).

    They are where programs would leave multiprocessors idle, and where parts can be so long that
    storing their states moves no more than walking them does: few rows, as in decoding.
    """
    return {
        rank: 0
        for kernel in mapping.kernels
        for rank in kernel.ranks("streamed")
        if pays(kernel, rank, sizes, processors, parameters or {})
    }


def kept_whole(
    mapping: Mapped,
    parts: Mapping[str, int],
    sizes: Mapping[str, int],
    processors: int,
    parameters: Mapping[str, Scalar] | None = None,
) -> tuple[str, ...]:
    """Return what kernels store that walk a rank of ``parts``, but had better walk it whole."""
    return tuple(
        target
        for kernel in mapping.kernels
        if set(kernel.ranks("streamed")) & set(parts)
        and not any(
            pays(kernel, rank, sizes, processors, parameters or {})
            for rank in kernel.ranks("streamed")
        )
        for target in kernel.writes
    )


def pays(
    kernel: MappedKernel,
    rank: str,
    sizes: Mapping[str, int],
    processors: int,
    parameters: Mapping[str, Scalar],
) -> bool:
    """Whether one kernel is faster if it reduces a rank in parts."""
    alone = len(kernel.traversals) == 1 and kernel.traversals[0].streaming.rank == rank
    counted = all(r in sizes for r in kernel.ranks("grid") + kernel.ranks("tiled"))
    if not (alone and counted and sizes.get(rank, 0) >= SHORTEST):
        return False
    length = walked_length(kernel, rank, sizes, parameters)
    if length < SHORTEST:
        return False
    tiles = -(-length // kernel.partition(rank).tile)
    slots = processors * kernel.residents
    least, stored = least_tiles(kernel, rank, sizes), cost_of_part(kernel, rank, sizes)
    return tiles_of_part(tiles, programs(kernel, sizes), slots, least, stored) < tiles


def walked_length(
    kernel: MappedKernel, rank: str, sizes: Mapping[str, int], parameters: Mapping[str, Scalar]
) -> int:
    """Return how many coordinates of a rank a program walks at most."""
    (traversal,) = kernel.traversals
    ranges = traversal.domain.ranges
    if traversal.walks and not ranges:
        listed = sum(sizes.get(w.rank, sizes[rank]) * w.width for w in traversal.walks)
        return min(sizes[rank], listed)
    if len(ranges) != 1:
        return sizes[rank]
    rows: dict[Expression, Expression] = {}
    for tiled in kernel.ranks("tiled"):
        more = min(kernel.partition(tiled).tile, sizes[tiled]) - 1
        rows[last(tiled)] = Apply("+", (first(tiled), Constant(more)))
    begin, end = (rewrite(x, rows.get) for x in (ranges[0].begin, ranges[0].end))
    stretches = differences(replace(ranges[0], begin=begin, end=end))
    found = (scalar(x, sizes, parameters) for x in stretches)
    return max(1, min([sizes[rank], *(int(n) for n in found if n is not None)]))


def programs(kernel: MappedKernel, sizes: Mapping[str, int]) -> int:
    """Return the programs of a kernel's grid."""
    tiled = (-(-sizes[r] // kernel.partition(r).tile) for r in kernel.ranks("tiled"))
    return prod(sizes[r] for r in kernel.ranks("grid")) * prod(tiled)


def processors_of(device: torch.device | None = None) -> int:
    """Return the number of multiprocessors of a device, or of the GPU that is here."""
    if (device is not None and device.type != "cuda") or not torch.cuda.is_available():
        return PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def count_programs(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """Return how many programs a kernel's grid has."""
    tiles = kernel.tile_sizes
    return prod(-(-sizes[g.rank] // (tiles[g.tile] if g.tile else 1)) for g in kernel.grid)
