"""The work on a tile while frames rest (``passes/resting.py``).

Every accumulator that it carries on is a sum then, and nothing reads it before the walk's end, so a
thread may add up its own share of a row, and threads meet once. A point that does not exist adds 0
as ever. Where nothing was taken in yet, the frame at its identity makes of any point a sum that is
no number or infinite, which counts as large, so that a tested tile may rest as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..ir.cascade import Einsum
from ..ir.expression import Access, Concatenate, Populate, Reduce, tensors
from ..ir.mapping import Traversal
from .absent import HIGHEST, LOWEST, UNKNOWN, abstract, obviously_positive
from .loop_nest import Fold, Let, Op, Ref, Resting, Statement, value_vars
from .signature import values

if TYPE_CHECKING:
    from .lower import Lowering


def rest(
    lowering: Lowering,
    traversal: Traversal,
    cut: bool = False,
    place: Callable[[], None] | None = None,
) -> Resting | None:
    """Return a tile's work while frames rest, where the kernel's crew lets them.

    ``cut``, ``place`` : as of the work on a tile with frames that move.
    """
    crew = lowering.kernel.crew
    if crew is None or not crew.resting:
        return None
    if cut and not tells(lowering, traversal):
        return None
    fields = {f.tensor: f for f in traversal.streaming.fields}
    bounds = tuple(lowering.got(t, fields[t].ranks, {}) for t in crew.resting)
    return Resting(tuple(lowering.step(traversal, cut, place, rests=True)), bounds)


def joins(lowering: Lowering, traversal: Traversal) -> bool:
    """Whether tested tiles share a loop with whole ones, in which frames rest."""
    crew = lowering.kernel.crew
    return crew is not None and crew.joined and tells(lowering, traversal)


def tells(lowering: Lowering, traversal: Traversal) -> bool:
    """Whether a row into which nothing was taken yet makes an infinite sum of its first point.

    That holds if all that reads its frame, minus infinity, are weights, and they are infinite then.
    """
    streaming = traversal.streaming
    frames = {g for f in streaming.fields for g in f.frame}
    values: dict[str | Access, str] = dict.fromkeys(lowering.kernel.infinite, UNKNOWN)
    values |= dict.fromkeys(frames, LOWEST)
    for item in streaming.body:
        body = item.body if isinstance(item, Einsum) else item.lift
        if not frames & set(tensors(body)):
            continue
        if not isinstance(item, Einsum) or isinstance(body, Populate | Concatenate | Reduce):
            return False
        if abstract(body, values, obviously_positive) != HIGHEST:
            return False
    return True


def adds_up(work: Sequence[Statement], accumulators: set[str], axis: str) -> bool:
    """Whether a tile's work reduces only along an axis, by sums, for accumulators to add."""
    folds = [s for s in work if isinstance(s, Fold)]
    read = [n for s in work for v in values(s) for n in value_vars(v)]
    added = set()
    for s in work:
        match s:
            case Let(var=var, value=Op("+", (Ref(var=old), Ref(var=new)))) if (
                old == var and var.name in accumulators
            ):
                if read.count(old.name) > 1 or read.count(new.name) > 1:
                    return False
                added.add(new.name)
            case Let(var=var) if var.name in accumulators:
                return False
    return all((s.axis, s.reducer) == (axis, "sum") and s.var.name in added for s in folds)
