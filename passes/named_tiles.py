"""Named tiles: hold what a user asks for against what the machine has, before anything is compiled.

rewrite::

    a cut kernel --> the same, or an error that says what is too large, and what is not

*Requires* a kernel cut by ``partition``. *Keeps* everything.

Refused is only what no compiler could place: a tile of more elements than Triton takes, a moving
operand of a product larger than shared memory, accumulators that are more than all registers of a
multiprocessor. Whatever else does not fit Triton refuses ahead of the launch, with its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from ..ir.errors import BackendError
from ..ir.expression import tensors
from ..ir.mapping import MappedKernel
from .band_tiles import bands
from .partition import LARGEST, SHARED
from .selection_tiles import SMALLEST
from .tile_work import element_bytes, folded_body, folds, operands

FILE = {"gfx942": 131072}
"""Registers of a multiprocessor, by target; of all others ``USUAL``."""

USUAL = 65536


def hold_tiles(
    kernel: MappedKernel, *, tiles: Mapping[str, int], dtypes: Mapping[str, str], target: str
) -> MappedKernel:
    """Return a cut kernel as it is.

    Raises
    ------
    BackendError
        if the named ``tiles`` make something of it larger than the machine has room for.
    """
    cut = {p.rank: p.tile for p in kernel.partitions}
    named = {r: cut[r] for r in tiles if cut.get(r) == tiles[r]}
    wrong = next(excesses(kernel, cut, dtypes, target), "") if named else ""
    if not wrong:
        return kernel
    smaller = dict(named)
    while next(excesses(kernel, {**cut, **smaller}, dtypes, target), ""):
        widest = max(smaller, key=smaller.__getitem__)
        if smaller[widest] <= SMALLEST:
            return kernel  # not for what was named
        smaller[widest] //= 2
    raise BackendError(
        f"{kernel.name} does not fit {target} with tiles={named}: {wrong}; at most"
        f" tiles={smaller} could, and without tiles the partition chooses"
    )


def excesses(
    kernel: MappedKernel, cut: Mapping[str, int], dtypes: Mapping[str, str], target: str
) -> Iterator[str]:
    """Yield what is larger than the machine has room for."""

    def inside(ranks: tuple[str, ...]) -> list[int]:
        return [cut[r] for r in ranks if r in cut]

    moving = set(kernel.ranks("streamed"))
    multiplied = {
        t
        for x in kernel.einsums()
        if not folds(x, cut) and (body := folded_body(x)) is not None
        for t in tensors(body)
    }
    room = SHARED.get(target, 99) * 1024
    diagonal = {b.access.tensor: {b.own, b.across} for b in bands(kernel)}
    for tensor, ranks in operands(kernel):
        if tensor in diagonal and diagonal[tensor] <= set(ranks):
            continue  # of which a tile has a row for each diagonal, not for each point
        many, axes = prod(inside(ranks)), " x ".join(map(str, inside(ranks)))
        if many > LARGEST:
            yield f"a tile of {tensor} has {axes} elements, and Triton takes {LARGEST} at most"
        need = many * element_bytes(tensor, dtypes)
        if moving & set(ranks) and tensor in multiplied and len(inside(ranks)) > 1 and need > room:
            yield f"a tile of {tensor} takes {need} bytes of shared memory, and there are {room}"
    sums = [x for t in kernel.traversals if not t.continues for x in t.streaming.fields]
    kept = sum(prod(inside(x.ranks)) for x in sums)
    if kept > FILE.get(target, USUAL):
        yield (
            f"what it accumulates takes {kept} registers, and a multiprocessor has"
            f" {FILE.get(target, USUAL)}"
        )
