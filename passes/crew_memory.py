"""Crew memory: the shared memory of a kernel whose groups of warps do different things.

Counted ahead of printing, to choose how a kernel is cut: operands of rows, rings of boxes that
move, what is laid down for others to read, and the rows that leave. ``codegen/gluon_room.py`` says
what a printed kernel allocates; this is no less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ..ir.cascade import Einsum
from ..ir.expression import Access, tensors, walk
from ..ir.mapping import Crew, MappedKernel
from ..ir.streaming import Field
from .partition import resident_parts
from .tile_work import element_bytes, operands

ROWS = 64
"""Rows of a consumer."""

BARRIERS = 1024
"""Bytes of shared memory for barriers, and for what warps of a group exchange."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """One way to cut a kernel: its crew, coordinates walked at a time, slots of a ring."""

    crew: Crew
    columns: int
    stages: int


def crew_bytes(
    kernel: MappedKernel,
    cut: Sizing,
    tile: Mapping[str, int],
    dtypes: Mapping[str, str],
    target: str,
) -> int:
    """Return the shared memory of a program, in bytes; ``tile`` has the rows, then the walked."""
    rows, walked = tile
    consumers = cut.crew.consumers
    parts = {r: [w for _, w, _ in resident_parts(kernel, r, n, target)] for r, n in kernel.static}
    width = {**tile, **{r: sum(found) for r, found in parts.items()}, rows: ROWS}

    def elements(ranks: tuple[str, ...]) -> int:
        return prod(width[r] for r in ranks if r in width)

    def wide(ranks: tuple[str, ...]) -> bool:
        return len([r for r in ranks if r in width]) > 1

    shared = BARRIERS
    if cut.crew.wide:
        # what is computed and multiplied is read by both halves; it may stand under no name
        sums = sum(bool(set(parts) & set(f.ranks)) for f in fields(kernel))
        shared += 2 * ROWS * tile[walked] * max(1, sums, len(computed(kernel)))
    for f in added(kernel):
        part = elements(f.ranks) // consumers
        # of each part of its features two places for an operand of the rows of all
        shares = prod(len(parts.get(r, ())) or 1 for r in f.ranks)
        shared += 2 * consumers * ROWS * tile[walked] * 2 * shares
        # and one for what each consumer adds, for each warp that adds
        shared += 4 * part * consumers * cut.crew.adders
    inside = {t for x in kernel.traversals for e in x.streaming.body for t in reads_of_item(e)}
    for e in kernel.before:
        if e.name in inside and wide(e.ranks):
            shared += 2 * elements(e.ranks) * consumers
    ahead = {t for e in kernel.before for t in e.reads}  # laid down by those that compute
    places: Counter[tuple[str, int]] = Counter()
    for tensor, ranks in operands(kernel):
        if tensor not in inside:
            continue  # read ahead of the loop, into registers
        if wide(ranks):
            copies = cut.stages if walked in ranks else consumers * (1 + cut.crew.spare)
            shared += elements(ranks) * element_bytes(tensor, dtypes) * copies
            if not (walked in ranks or tensor in ahead or cut.crew.persistent):
                kind = dtypes.get(tensor, "float16")
                places.update((kind, w) for w in parts.get(ranks[-1], ()))
        elif walked in ranks:
            shared += elements(ranks) * element_bytes(tensor, dtypes) * cut.stages
    if cut.crew.wide:
        return shared  # rows leave from registers
    gives = {x.tensor if isinstance(x, Field) else x.name: x.ranks for x in kernel.einsums()}
    for tensor in set(kernel.writes) & gives.keys() - {f.tensor for f in added(kernel)}:
        if not wide(gives[tensor]):
            continue
        # rows leave from memory of their own; where a program ends with them, each from that of an
        # operand of its kind, which holds one of them
        last = gives[tensor][-1]
        for w in parts.get(last, [width.get(last, 1)]):
            place = (dtypes.get(tensor, "float16"), w)
            if places[place]:
                places[place] -= 1
                continue
            share = elements(gives[tensor]) * w // width.get(last, 1)
            shared += share * element_bytes(tensor, dtypes) * consumers
    return shared


def fields(kernel: MappedKernel) -> list[Field]:
    """Return what the walk accumulates."""
    return [f for t in kernel.traversals for f in t.streaming.fields]


def reads_of_item(item: Einsum | Field) -> tuple[str, ...]:
    """Return the tensors that an einsum or an accumulator reads."""
    return tensors(item.lift) if isinstance(item, Field) else item.reads


def computed(kernel: MappedKernel) -> set[str]:
    """Return what the loop computes and accumulators multiply with what moves."""
    resident = set(kernel.ranks("resident"))
    made = {x.name for t in kernel.traversals for x in t.streaming.body if isinstance(x, Einsum)}
    return {
        x.tensor
        for f in fields(kernel)
        if resident & set(f.ranks)
        for x in walk(f.lift)
        if isinstance(x, Access) and x.tensor in made
    }


def added(kernel: MappedKernel) -> list[Field]:
    """Return what tiles add to in memory."""
    return [f for t in kernel.traversals for f in t.streaming.additions]
