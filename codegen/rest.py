"""The work on a whole tile while frames rest (``passes/resting.py``).

Every accumulator that it carries on is a sum then, and nothing reads it before the walk's end, so a
thread may add up its own share of a row, and threads meet once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.mapping import Traversal
from .loop_nest import Fold, Let, Op, Ref, Resting, Statement, value_vars
from .signature import values

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


def adds_up(work: Sequence[Statement], accumulators: set[str], axis: str) -> bool:
    """Whether a tile's work only adds sums along an axis to accumulators, and reads none else."""
    sums = {
        s.var.name for s in work if isinstance(s, Fold) and (s.axis, s.reducer) == (axis, "sum")
    }
    read = [n for s in work for v in values(s) for n in value_vars(v)]
    for s in work:
        if not isinstance(s, Let) or s.var.name not in accumulators:
            continue
        match s.value:
            case Op("+", (Ref(var=old), Ref(var=new))) if old == s.var and new.name in sums:
                if read.count(old.name) > 1 or read.count(new.name) > 1:
                    return False
            case _:
                return False
    return True
