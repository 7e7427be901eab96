"""Walked span: the stretch of a streamed rank in which one row has its points, where it is short.

A filter such as ``p - W < m and m <= p`` leaves every row a stretch of W coordinates, that begins
elsewhere for each row, whatever the rank's size. Whoever divides the walk divides that stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir.domain import Range
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    RankVariable,
    Size,
    accesses,
    free_ranks,
    walk,
)
from ..ir.linear import delinear, linear
from ..ir.mapping import MappedKernel
from ..ir.streaming import Field
from .domain_simplify import ZERO
from .domains import domain, positive_parameters


def walked_span(
    filters: Iterable[Expression | None], *, rank: str, real: tuple[str, ...] = ()
) -> tuple[Expression, Expression] | None:
    """Return where the stretch of a row begins, and the most coordinates that it has.

    ::

        m <= p + d and p + d - m < W    -->    max(0, p + d - W + 1), min(size(m), W)
        m < length[b]                   -->    None

    The length is over sizes and parameters alone, so that it is one number at a launch. None where
    the stretch begins at 0, has no such length, or is another one for another filter; ``real`` is
    as for ``domain``.
    """
    found = set()
    for filter in filters:
        if filter is None or positive_parameters(filter, streamed=rank):
            return None
        ranges = domain(filter, streamed=rank, tiled=(), real=real).ranges
        if len(ranges) != 1:
            return None
        found.add((ranges[0].begin, length(ranges[0], rank)))
    if len(found) != 1:
        return None
    begin, most = found.pop()
    return None if begin == ZERO or most == Size(rank) else (begin, most)


def looked_up(kernel: MappedKernel) -> bool:
    """Whether what a kernel walks lies where another tensor says, along the walk: behind a load."""
    streamed = set(kernel.ranks("streamed"))
    for item in kernel.einsums():
        for x in walk(item.lift if isinstance(item, Field) else item.body):
            for c in x.coordinates if isinstance(x, Access) else ():
                if any(streamed & set(free_ranks(y)) for y in accesses(c)):
                    return True
    return False


def length(stretch: Range, rank: str) -> Expression:
    """Return the most coordinates of a range, over sizes and parameters alone."""
    known = dict.fromkeys([Size(rank), *differences(stretch)])
    return Apply("min", tuple(known)) if len(known) > 1 else Size(rank)


def differences(stretch: Range) -> Iterator[Expression]:
    """Yield what an upper limit and a lower one differ by, where that is the same everywhere."""
    for high in limits(stretch.end, "min"):
        for low in limits(stretch.begin, "max"):
            between = delinear(linear(high) - linear(low))
            if low != ZERO and not any(isinstance(x, RankVariable | Access) for x in walk(between)):
                yield between


def limits(bound: Expression, operator: str) -> tuple[Expression, ...]:
    """Return the limits of which a bound is the least or the greatest."""
    match bound:
        case Apply(operator=name, operands=operands) if name == operator:
            return tuple(y for x in operands for y in limits(x, operator))
        case _:
            return (bound,)
