"""Invariance: tensors that shift a result nowhere, though the result is computed from them.

The largest score of a row is subtracted from every exponent and divided out again: whatever number
stood there, the quotient would be the same. Its gradient is therefore 0, and need not be computed.
The proof follows the shift through the cascade (``reframe``): with ``G + c`` for ``G``, each tensor
T becomes ``T * exp(degree * c) + shift * c``, and the results have neither degree nor shift.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Apply, Expression, Reduce, accesses, walk
from .facts import plain_writers
from .reframe import Reframing


def invariant_under(cascade: Cascade, results: Iterable[str]) -> frozenset[str]:
    """Return the maxima and minima under a shift of which no result changes.

    Each is proved by itself, with the others as they are: a maximum that is made of proved ones
    needs no proof of theirs.
    """
    writers = plain_writers(cascade)
    goal = frozenset(results)
    return frozenset(
        e.name for e in cascade.einsums if is_extremum(e) and _invariant(e, cascade, writers, goal)
    )


def is_extremum(einsum: Einsum) -> bool:
    """Whether an einsum writes a maximum or a minimum."""
    match einsum.body:
        case Reduce(reducer="max" | "min") | Apply(operator="max" | "min"):
            return True
        case _:
            return False


def _invariant(
    frame: Einsum, cascade: Cascade, writers: dict[str, Einsum], results: frozenset[str]
) -> bool:
    if frame.name not in writers or frame.name in results:
        return False
    for operator in ("exp", "exp2"):
        pass_ = Reframing(frame.output, operator, frozenset(), writers, {frame.name: (0, 1)})
        place = cascade.einsums.index(frame)
        rewritten = [pass_.einsum(e) for e in cascade.einsums[place + 1 :]]
        if pass_.failed or pass_.moved or pass_.loose or results & set(pass_.grades):
            continue
        if not any(_reads(e, frame.name) for e in rewritten):
            return True
    return False


def _reads(einsum: Einsum, tensor: str) -> bool:
    parts: list[Expression] = [einsum.body, *([] if einsum.filter is None else [einsum.filter])]
    return any(x.tensor == tensor for y in parts for z in walk(y) for x in accesses(z))
