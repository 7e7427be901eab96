"""Write bounds short: constants folded, like terms collected, what never decides left out.

Bounds are printed into generated code, so ``min(size(m), p_last + 2 - 1)`` must become
``min(size(m), p_last + 1)``. Nothing here changes a value.
"""

from __future__ import annotations

from ..ir.expression import Access, Apply, Constant, Expression, rewrite, walk
from ..ir.linear import Linear, delinear, linear
from .domain_known import Known, at_most, least, whole

ZERO = Constant(0)
TRUE, FALSE = Constant(True), Constant(False)


def plus(left: Expression, right: int | Expression) -> Expression:
    """Return a sum, like terms added up."""
    return delinear(linear(left) + linear(_number(right)))


def times(left: Expression, right: int | Expression) -> Expression:
    """Return a product, multiplied out."""
    return delinear(linear(left) * linear(_number(right)))


def _number(x: int | Expression) -> Expression:
    return Constant(x) if isinstance(x, int) else x


def simplify(expression: Expression, known: Known) -> Expression:
    """Return the same value in fewer words: constants folded, min and max flat, terms collected."""
    return rewrite(expression, lambda x: _rule(x, known))


def _rule(x: Expression, known: Known) -> Expression | None:
    match x:
        case Apply("+" | "-" | "*" | "neg"):
            return delinear(linear(x))
        case Apply("//", (left, right)):
            return _quotient(left, right, known)
        case Apply("%", (_, Constant(value=1))) if whole(x, known):
            return ZERO
        case Apply("%", (Constant(value=a), Constant(value=b))) if b:
            return Constant(a % b)
        case Apply("min" | "max" as name, operands):
            return _extremum(name, operands, known)
        case Apply("abs", (inner,)):
            low = least(inner, known)
            return inner if low is not None and low >= 0 else _fold("abs", inner)
        case Apply("bit_length", (Constant(value=int(value)),)):
            return Constant(value.bit_length())
        case Apply("**", (Constant(value=int(a)), Constant(value=int(b)))) if b >= 0:
            return Constant(int(a) ** int(b))
        case Apply("floor" | "ceil", (inner,)) if whole(inner, known):
            return inner
        case Apply("where", (Constant(value=value), yes, no)):
            return yes if value else no
        case Apply("where", (_, yes, no)) if yes == no:
            return yes
        case Apply("not", (Constant(value=value),)):
            return Constant(not value)
        case Apply("and" | "or" as name, operands):
            return _connective(name, operands)
        case Apply("<" | "<=" | ">" | ">=" | "==" | "!=" as name, (left, right)):
            return _decided(name, left, right, known)
        case _:
            return None


def _fold(name: str, inner: Expression) -> Expression | None:
    match inner:
        case Constant(value=value):
            return Constant(abs(value))
        case Apply("neg", (negated,)):
            return Apply(name, (negated,))
        case _:
            return None


def _quotient(left: Expression, right: Expression, known: Known) -> Expression | None:
    """Move multiples of the divisor out: ``(q * B + r) // B`` is ``q + r // B``."""
    divisor = linear(right)
    if divisor.value == 0:
        return ZERO
    low = least(right, known)
    if low is None or low < 1 or not whole(left, known) or not whole(right, known):
        return None
    atom: tuple[Expression, ...] = () if divisor.value is not None else (right,)
    number = divisor.value if divisor.value is not None else 1
    out: list[tuple[tuple[Expression, ...], int | float]] = []
    rest: list[tuple[tuple[Expression, ...], int | float]] = []
    for monomial, coefficient in linear(left).terms:
        if coefficient % number == 0 and all(a in monomial for a in atom):
            remaining = list(monomial)
            for a in atom:
                remaining.remove(a)
            out.append((tuple(remaining), coefficient // number))
        else:
            rest.append((monomial, coefficient))
    constant = linear(left).constant
    moved = _sum_of(out)
    if rest:
        inner = delinear(_sum_of(rest) + Linear((), constant))
        quotient = inner if number == 1 and not atom else Apply("//", (inner, right))
    elif not atom:
        quotient = Constant(constant // number)
    elif constant == 0 or (constant < 0 and -constant <= low):
        quotient = Constant(0 if constant == 0 else -1)
    else:
        quotient = Apply("//", (Constant(constant), right))
    return delinear(moved + linear(quotient))


def _sum_of(terms: list[tuple[tuple[Expression, ...], int | float]]) -> Linear:
    total = Linear(())
    for monomial, coefficient in terms:
        total = total + (
            Linear(((monomial, coefficient),)) if monomial else Linear((), coefficient)
        )
    return total


def _extremum(name: str, operands: tuple[Expression, ...], known: Known) -> Expression:
    flat: list[Expression] = []
    for x in operands:
        flat.extend(x.operands if isinstance(x, Apply) and x.operator == name else (x,))
    flat = list(dict.fromkeys(flat))
    kept = list(flat)
    for x in flat:
        others = [y for y in kept if y is not x]
        if name == "min" and any(at_most(y, x, known) for y in others):
            kept = others
        if name == "max" and any(at_most(x, y, known) for y in others):
            kept = others
    return kept[0] if len(kept) == 1 else _factored(name, tuple(kept), known)


def _factored(name: str, operands: tuple[Expression, ...], known: Known) -> Expression:
    """Take out what every operand has: ``max(min(s, a), min(s, b))`` is ``min(s, max(a, b))``."""
    dual = "max" if name == "min" else "min"
    inner = [x.operands for x in operands if isinstance(x, Apply) and x.operator == dual]
    shared = [x for x in inner[0] if all(x in parts for parts in inner)] if inner else []
    if len(inner) < len(operands) or not shared:
        return Apply(name, operands)
    rests = [tuple(x for x in parts if x not in shared) for parts in inner]
    if () in rests:
        return _extremum(dual, tuple(shared), known)
    varying = _extremum(name, tuple(_extremum(dual, rest, known) for rest in rests), known)
    return _extremum(dual, (*shared, varying), known)


def _connective(name: str, operands: tuple[Expression, ...]) -> Expression:
    ends, neutral = (FALSE, TRUE) if name == "and" else (TRUE, FALSE)
    flat: list[Expression] = []
    for x in operands:
        flat.extend(x.operands if isinstance(x, Apply) and x.operator == name else (x,))
    kept = list(dict.fromkeys(x for x in flat if x != neutral))
    if ends in kept:
        return ends
    return (kept[0] if len(kept) == 1 else Apply(name, tuple(kept))) if kept else neutral


def _decided(name: str, left: Expression, right: Expression, known: Known) -> Expression | None:
    """Fold a comparison that holds, or fails, whatever the open names hold."""
    if any(isinstance(x, Access) for side in (left, right) for x in walk(side)):
        return None
    if name in (">", ">="):
        left, right, name = right, left, {">": "<", ">=": "<="}[name]
    integer = whole(left, known) and whole(right, known)
    below = integer and at_most(plus(left, 1), right, known)
    above = integer and at_most(plus(right, 1), left, known)
    difference = (linear(left) - linear(right)).value
    if difference is not None:
        below, above = difference < 0, difference > 0
    if name in ("==", "!="):
        equal = difference == 0
        return Constant(equal == (name == "==")) if equal or below or above else None
    if below or (name == "<=" and at_most(left, right, known)):
        return TRUE
    if above or (name == "<" and at_most(right, left, known)):
        return FALSE
    return None
