"""Solve a filter for the streamed rank: comparisons become limits that do not contain it.

::

    p - m < W                -->   m >= p - W + 1
    p // B == m // B         -->   m >= p // B * B and m < p // B * B + B
    abs(p - m) <= r          -->   m >= p - r and m <= p + r
    min(m, L) < p            -->   m < p or L < p
    bit_length(p - m) <= 3   -->   m >= p - 7 and m <= p + 7
    (p - m) % d == 0         -->   unchanged: it has no finite union of intervals as its solution

A limit is inclusive below and exclusive above, ``m >= L`` and ``m < U``, so that it is also a bound
of a half-open range. Every step is an equivalence over the integers.
"""

from __future__ import annotations

from ..ir.expression import (
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    free_ranks,
    walk,
)
from ..ir.linear import Linear, delinear, linear
from .domain_known import Known, least, whole
from .domain_normal import OPPOSITE, normal
from .domain_simplify import FALSE, TRUE, plus, simplify, times

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def depends(expression: Expression, known: Known) -> bool:
    """Whether the streamed rank occurs in the expression."""
    return known.streamed in free_ranks(expression)


def is_limit(atom: Expression, known: Known) -> bool:
    """Whether an atom is ``m >= L``, ``m < U``, ``m == E`` or ``m != E``, no m on the right."""
    match atom:
        case Apply(">=" | "<" | "==" | "!=", (RankVariable(rank=rank), limit)):
            return rank == known.streamed and not depends(limit, known)
        case _:
            return False


def solve(filter: Expression, known: Known) -> Expression:
    """Return an equivalent filter over ``and``, ``or``, limits, and atoms left as they are."""
    return simplify(_solve(normal(filter), known), known)


def positive_parameters(filter: Expression, *, streamed: str) -> tuple[str, ...]:
    """Return the parameters that solving takes to be at least 1, in order of sight.

    They divide coordinates (``p // B``) or multiply the streamed one (``m * d <= p``). A caller
    that is given another value must not use the bounds.
    """
    found: dict[str, None] = {}
    for x in walk(filter):
        match x:
            case Apply("//" | "%", (_, divisor)):
                factors = (f for monomial, _ in linear(divisor).terms for f in monomial)
                if len(linear(divisor).terms) == 1 and not linear(divisor).constant:
                    found.update((f.name, None) for f in factors if isinstance(f, Parameter))
            case Apply("*"):
                for monomial, _ in linear(x).terms:
                    if RankVariable(streamed) in monomial:
                        found.update((f.name, None) for f in monomial if isinstance(f, Parameter))
    return tuple(found)


def _solve(x: Expression, known: Known) -> Expression:
    match x:
        case Apply("and" | "or" as name, operands):
            return Apply(name, tuple(_solve(o, known) for o in operands))
        case Apply(operator=name, operands=(left, right)) if name in OPPOSITE and depends(x, known):
            return _compare(name, left, right, known)
        case _:
            return x


def _compare(symbol: str, left: Expression, right: Expression, known: Known) -> Expression:
    """Solve ``left symbol right``; where that is not possible, return it as it is."""
    form = linear(left) - linear(right)
    within = [(t, c) for t, c in form.terms if any(depends(atom, known) for atom in t)]
    atom = Apply(symbol, (left, right))
    if not within:
        return Apply(symbol, (delinear(form), Constant(0)))
    if len(within) > 1:
        return atom
    (monomial, coefficient), *_ = within
    inner = [a for a in monomial if depends(a, known)]
    factor = Linear(((tuple(a for a in monomial if a is not inner[0]), abs(coefficient)),))
    if len(monomial) == 1:
        factor = Linear((), abs(coefficient))
    low = least(delinear(factor), known)
    if len(inner) > 1 or low is None or low <= 0 or isinstance(coefficient, float):
        return atom
    rest = Linear(tuple(t for t in form.terms if t[0] is not monomial), form.constant)
    other = delinear(rest.scaled(-1 if coefficient > 0 else 1))
    symbol = symbol if coefficient > 0 else MIRRORED[symbol]
    solved = _isolated(symbol, inner[0], delinear(factor), other, known)
    return atom if solved is None else solved


def _isolated(
    symbol: str, inner: Expression, factor: Expression, other: Expression, known: Known
) -> Expression | None:
    """Solve ``inner * factor symbol other``, factor positive and ``other`` without the rank."""
    single = factor == Constant(1)
    if inner == RankVariable(known.streamed):
        if single and symbol in ("==", "!=") and whole(other, known):
            return Apply(symbol, (inner, other))
    elif not single and not (whole(inner, known) and whole(other, known)):
        return None
    if symbol in ("==", "!="):
        low, high, name = ("<=", ">=", "and") if symbol == "==" else ("<", ">", "or")
        parts = tuple(_isolated(s, inner, factor, other, known) for s in (low, high))
        if any(p is None for p in parts):
            return None
        return Apply(name, tuple(p for p in parts if p is not None))
    if inner == RankVariable(known.streamed):
        if symbol in ("<", "<="):
            return Apply("<", (inner, _above(symbol, factor, other, known)))
        return Apply(">=", (inner, _below(symbol, factor, other, known)))
    if not single:
        # Divide: inner < U is inner <= U - 1, so that one form is left for each direction.
        if symbol in ("<", "<="):
            symbol, other = "<=", plus(_above(symbol, factor, other, known), -1)
        else:
            symbol, other = ">=", _below(symbol, factor, other, known)
    elif whole(inner, known):
        if symbol in ("<", "<="):
            symbol, other = "<=", plus(_above(symbol, factor, other, known), -1)
        else:
            symbol, other = ">=", _below(symbol, factor, other, known)
    return _inside(symbol, inner, other, known)


def _above(symbol: str, factor: Expression, other: Expression, known: Known) -> Expression:
    """Return the least integer x with not (x * factor symbol other), symbol < or <=."""
    if whole(other, known) and whole(factor, known):
        if symbol == "<":
            return _below(">=", factor, other, known)
        return simplify(plus(Apply("//", (other, factor)), 1), known)
    quotient = other if factor == Constant(1) else Apply("/", (other, factor))
    if symbol == "<":
        return simplify(Apply("ceil", (quotient,)), known)
    return simplify(plus(Apply("floor", (quotient,)), 1), known)


def _below(symbol: str, factor: Expression, other: Expression, known: Known) -> Expression:
    """Return the least integer x with x * factor symbol other, symbol > or >=."""
    if symbol == ">=" and whole(other, known) and whole(factor, known):
        # Rounded up like this, a limit that is not negative divides no negative number.
        raised = plus(plus(other, factor), -1)
        return simplify(Apply("//", (raised, factor)), known)
    return _above({">": "<=", ">=": "<"}[symbol], factor, other, known)


def _inside(symbol: str, inner: Expression, other: Expression, known: Known) -> Expression | None:
    """Solve ``inner symbol other`` by looking inside; symbol is an inequality."""
    under = symbol in ("<", "<=")
    match inner:
        case Apply("//", (x, divisor)):
            low = least(divisor, known)
            if depends(divisor, known) or low is None or low < 1:
                return None
            if under:
                return _compare("<", x, times(plus(other, 1), divisor), known)
            return _compare(">=", x, times(other, divisor), known)
        case Apply("floor", (x,)):
            return _compare("<" if under else ">=", x, plus(other, 1 if under else 0), known)
        case Apply("ceil", (x,)):
            return _compare("<=" if under else ">", x, plus(other, 0 if under else -1), known)
        case Apply("abs", (x,)):
            name = "and" if under else "or"
            negative = times(other, -1)
            mirrored = _compare(MIRRORED[symbol], x, negative, known)
            return Apply(name, (mirrored, _compare(symbol, x, other, known)))
        case Apply("min" | "max" as which, operands):
            name = "or" if (which == "min") is under else "and"
            return Apply(name, tuple(_solved(symbol, x, other, known) for x in operands))
        case Apply("where", (condition, yes, no)):
            chosen = (_solve(normal(condition), known), _solved(symbol, yes, other, known))
            refused = _solve(normal(condition, negated=True), known)
            rejected = (refused, _solved(symbol, no, other, known))
            return Apply("or", (Apply("and", chosen), Apply("and", rejected)))
        case Apply("bit_length", (x,)):
            return _bits(under, x, other, known)
        case _:
            return None


def _solved(symbol: str, x: Expression, other: Expression, known: Known) -> Expression:
    """Solve a comparison that may have lost the streamed rank on the way."""
    if depends(x, known):
        return _compare(symbol, x, other, known)
    return Apply(symbol, (x, other))


def _bits(under: bool, x: Expression, other: Expression, known: Known) -> Expression | None:
    """Solve ``bit_length(x) <= n`` and ``>= n`` for a number n: ``abs(x) < 2**n``, or not less."""
    number = simplify(other, known)
    if not isinstance(number, Constant) or not isinstance(number.value, int):
        return None
    if under and number.value < 0:
        return FALSE
    if not under and number.value <= 0:
        return TRUE
    reach = Constant(2**number.value if under else 2 ** (number.value - 1))
    return _compare("<" if under else ">=", Apply("abs", (x,)), reach, known)
