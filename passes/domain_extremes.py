"""Bounds over a tile of rows: the least and greatest value of a limit, and of a condition.

A limit ``L(p)`` becomes an expression over ``p_first`` and ``p_last``. Where it only rises or only
falls in p, the bound is its value at one end of the tile and so exact; elsewhere it is an interval
bound, sound and perhaps loose. What a tensor holds is bounded by a minimum or maximum over the rows
of the tile, ``min[p](start[p])``. None says that nothing is known.
"""

from __future__ import annotations

from typing import Literal

from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
)
from ..ir.interval import surely_present
from ..ir.linear import Linear, delinear, linear
from .domain_known import Known, first, last, least
from .domain_simplify import FALSE, TRUE, ZERO, plus, simplify, times

End = Literal["least", "greatest"]


def varies(expression: Expression, known: Known) -> bool:
    """Whether an expression differs among the rows of a tile."""
    return any(rank in known.tiled for rank in free_ranks(expression))


def extreme(expression: Expression, end: End, known: Known) -> Expression | None:
    """Return the least or greatest value over the rows of a tile, None where it is not known."""
    found = _extreme(expression, end, known)
    return None if found is None else simplify(found, known)


def _extreme(x: Expression, end: End, known: Known) -> Expression | None:
    if not varies(x, known):
        return x
    match x:
        case RankVariable(rank=rank):
            return first(rank) if end == "least" else last(rank)
        case Access():
            if known.boxed and folded(x, known) is None:
                return None
            # what the rows of a tile hold is looked up when the tile is there
            rows = tuple(r for r in known.tiled if r in free_ranks(x))
            return Reduce("min" if end == "least" else "max", rows, x)
        case Apply("+" | "-" | "*" | "neg"):
            return _of_sum(linear(x), end, known)
        case Apply("//" | "/" as name, (inner, divisor)) if _positive(divisor, known):
            bound = _extreme(inner, end, known)
            return None if bound is None else Apply(name, (bound, divisor))
        case Apply("//" | "%" as name, (inner, divisor)) if _above_zero(divisor, known):
            return (_of_quotient if name == "//" else _of_remainder)(inner, divisor, end, known)
        case Apply("**", (Constant(value=base) as number, power)) if base >= 1:
            bound = _extreme(power, end, known)
            return None if bound is None else Apply("**", (number, bound))
        case Apply("floor" | "ceil" as name, (inner,)):
            bound = _extreme(inner, end, known)
            return None if bound is None else Apply(name, (bound,))
        case Apply("abs", (inner,)):
            return _of_abs(inner, end, known)
        case Apply("bit_length", (inner,)):
            bound = _of_abs(inner, end, known)
            return None if bound is None else Apply("bit_length", (bound,))
        case Apply("min" | "max" as name, operands):
            bounds = [_extreme(o, end, known) for o in operands]
            found = tuple(b for b in bounds if b is not None)
            # min is at most any operand, so one operand bounds it from above, all from below.
            enough = bool(found) if (name == "min") is (end == "greatest") else None not in bounds
            return Apply(name, found) if enough else None
        case Apply("where", (condition, yes, no)):
            a, b = _extreme(yes, end, known), _extreme(no, end, known)
            if a is None or b is None:
                return None
            if not varies(condition, known):
                return Apply("where", (condition, a, b))
            either: Expression = Apply("min" if end == "least" else "max", (a, b))
            if not known.boxed:
                return either
            every, some = everywhere(condition, known), somewhere(condition, known)
            return Apply("where", (every, a, Apply("where", (some, either, b))))
        case _:
            return None


def folded(access: Access, known: Known) -> str | None:
    """Return the one rank along which a tile of a tensor lies that a program may look through.

    A label of each row or of each column, ``doc[b, m]``: its least and greatest are read off.
    """
    moving = [c for c in access.coordinates if varies(c, known)]
    match moving:
        case [RankVariable(rank=rank)] if known.boxed and surely_present(access):
            return rank
        case _:
            return None


def _above_zero(divisor: Expression, known: Known) -> bool:
    low = least(divisor, known)
    return low is not None and low > 0


def _of_quotient(
    inner: Expression, divisor: Expression, end: End, known: Known
) -> Expression | None:
    """Bound a quotient of two things that differ among the rows: at a corner."""
    bound = _extreme(inner, end, known)
    low, high = _extreme(divisor, "least", known), _extreme(divisor, "greatest", known)
    if bound is None or low is None or high is None:
        return None
    corners = tuple(Apply("//", (bound, x)) for x in (low, high))
    return Apply("min" if end == "least" else "max", corners)


def _of_remainder(
    inner: Expression, divisor: Expression, end: End, known: Known
) -> Expression | None:
    """Bound a remainder: it only rises while the quotient stays what it is."""
    low, high = _extreme(divisor, "least", known), _extreme(divisor, "greatest", known)
    if high is None:
        return ZERO if end == "least" else None
    coarse = ZERO if end == "least" else plus(high, -1)
    a, b = _extreme(inner, "least", known), _extreme(inner, "greatest", known)
    if a is None or b is None or low is None or not known.boxed:
        return coarse
    rises: Expression = Apply("==", (Apply("//", (a, low)), Apply("//", (b, low))))
    if low != high:
        rises = Apply("and", (Apply("==", (low, high)), rises))
    return Apply("where", (rises, Apply("%", (a if end == "least" else b, low)), coarse))


def _positive(divisor: Expression, known: Known) -> bool:
    low = least(divisor, known)
    return low is not None and low > 0 and not varies(divisor, known)


def _of_abs(inner: Expression, end: End, known: Known) -> Expression | None:
    low, high = _extreme(inner, "least", known), _extreme(inner, "greatest", known)
    if low is None or high is None:
        return ZERO if end == "least" else None
    if end == "least":
        return Apply("max", (ZERO, low, times(high, -1)))
    return Apply("max", (high, times(low, -1)))


def _of_sum(form: Linear, end: End, known: Known) -> Expression | None:
    """Bound each term by itself: exact where a rank of the tile stands in one term only."""
    total: Expression = Constant(form.constant)
    for monomial, coefficient in form.terms:
        moving = [a for a in monomial if varies(a, known)]
        fixed = Linear(((tuple(a for a in monomial if a not in moving), 1),))
        factor = delinear(fixed if fixed.terms[0][0] else Linear((), 1))
        term: Expression | None
        if not moving:
            term = delinear(Linear(((monomial, coefficient),)))
        elif len(moving) == 1:
            term = _of_term(moving[0], coefficient, factor, end, known)
        else:
            term = None
        if term is None:
            return None
        total = Apply("+", (total, term))
    return total


def _of_term(
    atom: Expression, coefficient: float, factor: Expression, end: End, known: Known
) -> Expression | None:
    """Bound ``coefficient * factor * atom``; only the atom differs among the rows."""
    ends: dict[End, Expression | None] = {
        "least": _extreme(atom, "least", known),
        "greatest": _extreme(atom, "greatest", known),
    }
    scale = times(Constant(coefficient), factor)
    low = least(factor, known)
    if low is not None and low >= 0:
        opposite: End = "greatest" if end == "least" else "least"
        bound = ends[end if coefficient > 0 else opposite]
        return None if bound is None else Apply("*", (bound, scale))
    if ends["least"] is None or ends["greatest"] is None:
        return None
    corners = tuple(Apply("*", (x, scale)) for x in (ends["least"], ends["greatest"]))
    return Apply("min" if end == "least" else "max", corners)


def somewhere(condition: Expression, known: Known) -> Expression:
    """Return a test of the tile that holds wherever the condition holds for some row."""
    return simplify(_condition(condition, False, known), known)


def everywhere(condition: Expression, known: Known) -> Expression:
    """Return a test of the tile that holds only where the condition holds for every row."""
    return simplify(_condition(condition, True, known), known)


def _condition(x: Expression, every: bool, known: Known) -> Expression:
    unknown = FALSE if every else TRUE
    if not varies(x, known):
        sure = known.boxed or all(map(surely_present, accesses(x)))
        return x if sure else unknown
    match x:
        case Apply("and" | "or" as name, operands):
            return Apply(name, tuple(_condition(o, every, known) for o in operands))
        case Apply("not", (inner,)) if known.boxed:
            return Apply("not", (_condition(inner, not every, known),))
        case Access() if known.boxed:
            bound = _extreme(x, "least" if every else "greatest", known)
            return unknown if bound is None else Apply("!=", (bound, ZERO))
        case Apply("<" | "<=" as symbol, (left, right)):
            return _inequality(symbol, left, right, every, known) or unknown
        case Apply(">" | ">=" as symbol, (left, right)):
            return _inequality(symbol, left, right, every, known) or unknown
        case Apply("==", (left, right)):
            parts = [_inequality(s, left, right, every, known) for s in ("<=", ">=")]
            return Apply("and", tuple(p if p is not None else unknown for p in parts))
        case Apply("!=", (left, right)):
            parts = [_inequality(s, left, right, every, known) for s in ("<", ">")]
            return Apply("or", tuple(p if p is not None else unknown for p in parts))
        case _:
            return unknown


def _inequality(
    symbol: str, left: Expression, right: Expression, every: bool, known: Known
) -> Expression | None:
    """Compare at the corner of the tile that decides, side by side where no rank is shared."""
    shared = set(free_ranks(left)) & set(free_ranks(right)) & set(known.tiled)
    if shared:
        left, right = delinear(linear(left) - linear(right)), ZERO
    small: End = "greatest" if every else "least"
    large: End = "least" if every else "greatest"
    if symbol in (">", ">="):
        small, large = large, small
    a, b = extreme(left, small, known), extreme(right, large, known)
    return None if a is None or b is None else Apply(symbol, (a, b))


def solvable(condition: Expression, known: Known) -> bool:
    """Whether the ends of a tile may decide a condition on its rows."""
    return not varies(condition, known) or everywhere(condition, known) != FALSE
