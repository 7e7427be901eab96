"""Specialise: cut a kernel's tiles for groups of warps of which one fetches and others compute.

rewrite::

    p: 64 rows of a program, m: 64 at a time, 4 warps
    -->
    p: 128 rows of a program, 64 for each of 2 consumers, m: 128 at a time, 2 slots a ring

*Requires* a partitioned kernel with one tiled and one streamed rank, whose moving tiles descriptors
may fetch. *Keeps* everything but partitions, stages and consumers.

A consumer is four warps, 64 rows. Two of them may have 240 registers a thread, three 160. The model
counts accumulators, the tile of products that the work is done on, and its narrow copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from ..ir.cascade import Einsum
from ..ir.expression import Reduce
from ..ir.mapping import Crew, MappedKernel
from .partition import SHARED, Configuration, all_ranks, cut_kernel, operands, resident_parts

ROWS = 64
"""Rows of a consumer."""

BUDGET = {2: 232, 3: 152}
"""Registers of a thread that tiles may fill, by number of consumers."""

BESIDES = 20
"""Registers for addresses, limits and values per row."""

BARRIERS = 1024
"""Bytes of shared memory for barriers."""

SHORTEST = 128
"""The fewest rows, and the fewest coordinates to walk, that are worth several groups of warps."""


def specialise(
    kernel: MappedKernel,
    *,
    dtypes: Mapping[str, str],
    sizes: Mapping[str, int],
    described: tuple[str, ...],
    target: str = "sm_90",
    tiles: Mapping[str, int] | None = None,
    num_stages: int | None = None,
    choice: int = 0,
) -> MappedKernel | str:
    """Cut a kernel for consumers and a fetching warp; or say why it is not worth it or impossible.

    ``described`` are the tensors of which descriptors may fetch boxes.
    """
    if target != "sm_90":
        return f"{target} has no such kernels"
    tiled, streamed = kernel.ranks("tiled"), kernel.ranks("streamed")
    if len(tiled) != 1 or len(streamed) != 1 or len(kernel.traversals) != 1:
        return "it walks one rank once, for tiles of one other, in no loop"
    if kernel.views:
        return f"memory has {kernel.views[0].rank} in another order than its tiles"
    for rank in (*tiled, *streamed):
        if sizes.get(rank, SHORTEST) < SHORTEST:
            return f"{rank} has fewer than {SHORTEST} coordinates"
    moving = {
        t
        for t, ranks in operands(kernel)
        if streamed[0] in ranks and set(ranks) & set(kernel.ranks("resident"))
    }
    if lost := sorted(moving - set(described)):
        return f"{lost[0]} is not laid out for descriptors"
    rows, walked = tiled[0], streamed[0]
    fixed = dict(tiles or {})
    found = []
    for cut in cuts():
        tile = {rows: ROWS * cut.crew.consumers, walked: fixed.get(walked, cut.columns)}
        if fixed.get(rows, tile[rows]) == tile[rows] and fits(kernel, cut, tile, dtypes, target):
            found.append((cut, tile))
    if not found:
        return "its accumulators fill more registers than consumers have"
    cut, tile = found[min(choice, len(found) - 1)]
    whole = Configuration(tuple(tile.items()), 4, num_stages or cut.stages)
    return replace(cut_kernel(kernel, target, whole), crew=cut.crew, described=described)


@dataclass(frozen=True, slots=True)
class Sizing:
    """One way to cut a kernel: its crew, coordinates walked at a time, slots of a ring."""

    crew: Crew
    columns: int
    stages: int


def cuts() -> Iterator[Sizing]:
    """Yield ways to cut a kernel, the best guess first."""
    for consumers, columns, stages in (
        (2, 128, 2),
        (3, 128, 2),
        (2, 64, 3),
        (2, 64, 2),
        (2, 32, 2),
    ):
        for persistent in (False, True):
            yield Sizing(Crew(consumers, True, persistent), columns, stages)


def fits(
    kernel: MappedKernel,
    cut: Sizing,
    tile: Mapping[str, int],
    dtypes: Mapping[str, str],
    target: str,
) -> bool:
    """Whether accumulators fit a consumer's registers, and boxes the shared memory."""
    rows, walked = tile
    consumers = cut.crew.consumers
    held = {r: sum(w for _, w, _ in resident_parts(kernel, r, n, target)) for r, n in kernel.static}
    width = {**tile, **held, rows: ROWS}

    def elements(ranks: tuple[str, ...]) -> int:
        return prod(width[r] for r in ranks if r in width)

    kept = sum(elements(f.ranks) for t in kernel.traversals for f in t.streaming.fields)
    products = {
        elements(e.ranks)
        for t in kernel.traversals
        for e in t.streaming.body
        if isinstance(e, Einsum) and isinstance(e.body, Reduce) and walked in all_ranks(e)
    }
    transient = 1.5 * max(products, default=0)
    if (kept + transient) / 128 + BESIDES > BUDGET[consumers]:
        return False
    shared = BARRIERS
    for tensor, ranks in operands(kernel):
        size = {"float32": 4, "float64": 8}.get(dtypes.get(tensor, "float16"), 2)
        if len([r for r in ranks if r in width]) > 1:
            copies = cut.stages if walked in ranks else consumers
            shared += elements(ranks) * size * copies
    return shared <= SHARED[target] * 1024
