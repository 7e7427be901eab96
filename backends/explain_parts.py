"""Parts, explained: which rank is reduced in parts side by side, in how many, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..ir.cascade import Scalar
from ..ir.mapping import Cut
from ..ir.mapping import Mapping as Mapped
from .explain_numbers import listing
from .parts import processors_of, programs, with_parts
from .walked_sizes import made_sizes

if TYPE_CHECKING:
    from .lowered import Lowered


def parts_known(
    lowered: Lowered, sizes: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, Scalar]]:
    """Return sizes with those of the ranks of parts, and how long parts are, where it is known."""
    cuts = lowered.mapping.cuts
    sizes = {**sizes, **made_sizes(lowered.mapping, sizes, lowered.known.parameters)}
    apart = {c.part for c in cuts}
    walking = [k for k in lowered.kernels if apart & {g.rank for g in k.grid}]
    needed = {c.rank for c in cuts} | {g.rank for k in walking for g in k.grid} - apart
    if not cuts or not needed <= set(sizes):
        return dict(sizes), {}
    return with_parts(cuts, lowered.kernels, sizes, lowered.known.parameters, processors_of())


def explain_parts(
    cut: Cut, mapping: Mapped, sizes: Mapping[str, int], values: Mapping[str, Scalar]
) -> str:
    """Say in a sentence or two how a rank is cut and what follows."""
    kernels = [k for k in mapping.kernels if dict(k.roles).get(cut.part) == "grid"]
    merging = [k.name for k in mapping.kernels if set(cut.states) & set(k.reads)]
    how = f"{cut.rank} is reduced in parts side by side, counted by {cut.part}"
    if cut.step in values:
        what = "positions of its list" if cut.positions else "coordinates"
        how += f": {sizes[cut.part]} of {values[cut.step]} {what}"
    if cut.parts:
        why = "as was asked for"
    elif cut.step in values:
        alone = programs(kernels[0], {**sizes, cut.part: 1})
        processors = processors_of()
        why = (
            f"without them {alone} programs would share {processors} multiprocessors, which hold"
            f" {cut.residents * processors} at a time"
        )
    else:
        why = "their number follows from the sizes and the machine when a call is prepared"
    return f"{how}; {why}. {listing(merging)} merges {listing(cut.states)} by the derived merge."
