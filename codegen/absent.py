"""What a point that does not exist does to the values computed from it.

A partial tile computes at points that do not exist. If the tensor at which a filter first cuts is
*filled* with the right number there, everything downstream turns into the identity of its reducer
by arithmetic alone, and one select replaces one for each reduction. This file decides whether it
does, on a domain of five abstract values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import inf

from ..ir.expression import Access, Apply, Constant, Expression, Parameter, RankVariable, Size
from ..ir.operators import REDUCERS

ZERO, LOWEST, HIGHEST, FINITE, UNKNOWN = "0", "-inf", "+inf", "finite", "?"
"""Abstract values; FINITE is any number that is neither infinite nor NaN."""

FILLS: tuple[tuple[str, float], ...] = ((LOWEST, -inf), (ZERO, 0.0), (HIGHEST, inf))
"""Values to try as a fill, in order of preference."""

_NEGATED = {LOWEST: HIGHEST, HIGHEST: LOWEST}


def abstract(
    expression: Expression,
    values: Mapping[str | Access, str],
    positive: Callable[[Expression], bool],
    grown: str = FINITE,
) -> str:
    """Evaluate an expression abstractly.

    ``values`` gives tensors, or single accesses, their abstract values (others are FINITE);
    ``positive`` says whether a factor is a positive number, so that an infinity times it keeps its
    sign. ``grown`` is the exponential of a number: UNKNOWN where it may be too large for a float,
    as that of a difference is which no point that exists has.
    """

    def of(x: Expression) -> str:
        return abstract(x, values, positive, grown)

    match expression:
        case Access(tensor=tensor):
            return values.get(expression, values.get(tensor, FINITE))
        case Constant(value=value):
            return {0: ZERO, inf: HIGHEST, -inf: LOWEST}.get(float(value), FINITE)
        case Parameter() | Size() | RankVariable():
            return FINITE
        case Apply("neg" | "stop_gradient" as operator, (x,)):
            return _NEGATED.get(of(x), of(x)) if operator == "neg" else of(x)
        case Apply("+", (x, y)):
            return _sum(of(x), of(y))
        case Apply("-", (x, y)):
            return _sum(of(x), _NEGATED.get(of(y), of(y)))
        case Apply("*", (x, y)):
            return _product(of(x), of(y), positive(x), positive(y))
        case Apply("/", (x, y)):
            if of(x) == ZERO or of(y) == ZERO:
                return ZERO
            return of(x) if positive(y) else FINITE if of(x) == of(y) == FINITE else UNKNOWN
        case Apply("exp" | "exp2", (x,)):
            known = {LOWEST: ZERO, HIGHEST: HIGHEST, ZERO: FINITE, FINITE: grown}
            return known.get(of(x), UNKNOWN)
        case Apply("sigmoid", (x,)):
            return ZERO if of(x) == LOWEST else UNKNOWN if of(x) == UNKNOWN else FINITE
        case Apply("relu", (x,)):
            known = {LOWEST: ZERO, ZERO: ZERO, HIGHEST: HIGHEST, FINITE: FINITE}
            return known.get(of(x), UNKNOWN)
        case Apply("abs" | "sqrt" | "sin" | "erf" | "tanh" as operator, (x,)):
            if of(x) in (ZERO, FINITE) and not (operator == "sqrt" and of(x) == FINITE):
                return of(x)
            return HIGHEST if operator == "abs" and of(x) in (LOWEST, HIGHEST) else UNKNOWN
        case Apply("**", (x, Constant(value=power))) if power in (2, 3, 4):
            found = of(x)
            if found in (LOWEST, HIGHEST):
                return HIGHEST if power != 3 else found
            return found
        case Apply("where", (_, x, y)):
            if of(x) == of(y):
                return of(x)
            return FINITE if {of(x), of(y)} <= {ZERO, FINITE} else UNKNOWN
        case Apply("max" | "min" | "cos", operands):
            return FINITE if all(of(x) in (ZERO, FINITE) for x in operands) else UNKNOWN
        case _:
            return UNKNOWN


def _sum(x: str, y: str) -> str:
    if UNKNOWN in (x, y) or {x, y} == {LOWEST, HIGHEST}:
        return UNKNOWN
    for infinite in (LOWEST, HIGHEST):
        if infinite in (x, y):
            return infinite
    return ZERO if x == y == ZERO else FINITE


def _product(x: str, y: str, x_positive: bool, y_positive: bool) -> str:
    if UNKNOWN in (x, y):
        return UNKNOWN
    if ZERO in (x, y):
        return ZERO if {x, y} <= {ZERO, FINITE} else UNKNOWN
    if x == y == FINITE:
        return FINITE
    if x == FINITE:
        return y if x_positive else UNKNOWN
    if y == FINITE:
        return x if y_positive else UNKNOWN
    return UNKNOWN


def fillings(entry: list[str], later: list[str]) -> Iterator[dict[str, str]]:
    """Yield ways to fill the tensors at which a condition first cuts: all alike, then some apart.

    A score may have to be -inf where the value that it weighs has to be a number. Where a function
    of it knows no infinity, as a tangent does not, one of the ``later`` tensors is filled.
    """
    yield {}
    for label, _ in FILLS:
        yield dict.fromkeys(entry, label)
    if 2 <= len(entry) <= 3:
        ways = product(("", *(label for label, _ in FILLS)), repeat=len(entry))
        for labels in sorted(ways, key=lambda x: sum(map(bool, x))):
            yield {name: label for name, label in zip(entry, labels, strict=True) if label}
    for name in later:
        for label, _ in FILLS:
            yield {name: label}


def is_identity(value: str, reducer: str) -> bool:
    """Whether an abstract value is the identity of a reducer."""
    identity = float(REDUCERS[reducer].identity)
    return value == {0.0: ZERO, inf: HIGHEST, -inf: LOWEST}.get(identity)


def obviously_positive(expression: Expression) -> bool:
    """Whether an expression is a positive number whatever the tensors and parameters hold."""
    match expression:
        case Constant(value=value):
            return 0 < float(value) < inf
        case Size():
            return True
        case Apply("sqrt" | "rsqrt" | "exp" | "exp2", (x,)):
            return (
                expression.operator in ("exp", "exp2")
                and isinstance(x, Constant)
                or (obviously_positive(x) and expression.operator in ("sqrt", "rsqrt"))
            )
        case Apply("*" | "/" | "+", (x, y)):
            return obviously_positive(x) and obviously_positive(y)
        case _:
            return False
