"""The test of a point: a solved filter, one limit of each direction, written as one would say it.

::

    m >= p - W + 1 and m < p + 1 and m < L     -->     m >= p - W + 1 and m < min(p + 1, L)
    m < p + 1                                  -->     m <= p

A limit is one value per row, so a kernel computes it once per row and compares once per point.
"""

from __future__ import annotations

from typing import TypeGuard

from ..ir.expression import Apply, Constant, Expression, RankVariable, walk
from .domain_extremes import varies
from .domain_known import Known
from .domain_limits import depends, is_limit
from .domain_simplify import FALSE, TRUE, plus, simplify


def point_test(solved: Expression, known: Known, *, decided: bool) -> Expression:
    """Return the test of a point of a partial tile, in limits per row.

    ``decided`` says that there is one range, which is empty where a condition without rows fails:
    those conditions are left out.
    """
    if decided:
        operands = solved.operands if _is(solved, "and") else (solved,)
        kept = tuple(x for x in operands if depends(x, known) or varies(x, known))
        solved = simplify(Apply("and", (TRUE, *kept)), known)
    return _gathered(solved, known)


def _is(x: Expression, operator: str) -> TypeGuard[Apply]:
    return isinstance(x, Apply) and x.operator == operator


def _gathered(x: Expression, known: Known) -> Expression:
    """Make one limit of each direction: ``m < a and m < b`` is ``m < min(a, b)``."""
    match x:
        case Apply("and" | "or" as name, operands):
            inner = [_gathered(o, known) for o in operands]
        case _:
            return _legible(x, known) if is_limit(x, known) else x
    # The limits of this level, in their half-open form; what is legible comes after.
    level = [o for o in operands if is_limit(o, known)]
    gathered: dict[int, Expression] = {}
    for symbol, tighter in ((">=", "max"), ("<", "min")):
        same = [o for o in level if isinstance(o, Apply) and o.operator == symbol]
        if len(same) < 2:
            continue
        choice = tighter if name == "and" else {"max": "min", "min": "max"}[tighter]
        limit = simplify(Apply(choice, tuple(o.operands[1] for o in same)), known)
        places = [i for i, o in enumerate(operands) if any(o is s for s in same)]
        joined = Apply(symbol, (RankVariable(known.streamed), limit))
        gathered[places[0]] = _legible(joined, known)
        gathered.update((i, TRUE if name == "and" else FALSE) for i in places[1:])
    return simplify(Apply(name, tuple(gathered.get(i, o) for i, o in enumerate(inner))), known)


def _legible(limit: Expression, known: Known) -> Expression:
    """Write ``m < U`` as ``m <= U - 1`` where that is no longer, and U is a sum."""
    match limit:
        case Apply("<", (variable, bound)):
            if isinstance(bound, Apply) and bound.operator in ("min", "max"):
                lowered = tuple(plus(x, -1) for x in bound.operands)
                inclusive: Expression = Apply(bound.operator, lowered)
            else:
                inclusive = plus(bound, -1)
            shorter = _length(inclusive) - _length(bound)
            if shorter < 0 or (shorter == 0 and _ends_plus(bound)):
                return Apply("<=", (variable, inclusive))
    return limit


def _length(x: Expression) -> int:
    return sum(1 for _ in walk(x))


def _ends_plus(x: Expression) -> bool:
    return isinstance(x, Apply) and x.operator == "+" and isinstance(x.operands[1], Constant)
