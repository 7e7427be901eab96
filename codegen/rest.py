"""The work on a whole tile while frames rest (``passes/resting.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.mapping import Traversal
from .loop_nest import Resting

if TYPE_CHECKING:
    from .lower import Lowering


def rest(lowering: Lowering, traversal: Traversal) -> Resting | None:
    """Return a whole tile's work while frames rest, where the kernel's crew lets them."""
    crew = lowering.kernel.crew
    if crew is None or not crew.resting:
        return None
    fields = {f.tensor: f for f in traversal.streaming.fields}
    bounds = tuple(lowering.got(t, fields[t].ranks, {}) for t in crew.resting)
    return Resting(tuple(lowering.step(traversal, False, rests=True)), bounds)
