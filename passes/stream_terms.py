"""Sums as scaled terms and products as powers: the normal form in which expressions are compared.

``scale * (S - G)`` is the terms 1 * (S * scale) and -1 * (G * scale); ``S * S / D`` is the powers
S ** 2 and D ** -1. Powers of one base with opposite signs are never cancelled, since a quotient by
0 is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..ir.expression import Apply, Constant, Expression, children, rewrite

ONE = Constant(1)
MANY = 16
"""Terms beyond which a product of sums is left as it is."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A number times an expression without a number in front."""

    coefficient: int | float
    expression: Expression


@dataclass(frozen=True, slots=True)
class Power:
    """A base to a constant power; negative where it stands under the line."""

    base: Expression
    power: int | float = 1


def flatten_product(expression: Expression) -> tuple[int | float, tuple[Power, ...]]:
    """Return the number and the powers whose product the expression is, in order of sight."""
    coefficient: int | float = 1
    found: dict[tuple[Expression, bool], int | float] = {}

    def visit(x: Expression, power: int | float) -> None:
        nonlocal coefficient
        match x:
            case Constant(value=value) if not isinstance(value, bool) and (value or power > 0):
                coefficient *= value if power == 1 else value**power
            case Apply("neg", (inner,)) if power == int(power):
                coefficient *= -1 if power % 2 else 1
                visit(inner, power)
            case Apply("*", (a, b)):
                visit(a, power)
                visit(b, power)
            case Apply("/", (a, b)):
                visit(a, power)
                visit(b, -power)
            case Apply("**", (a, Constant(value=int(n)))) if not isinstance(n, bool) and n > 0:
                visit(a, power * n)
            case _:
                key = (x, power > 0)
                found[key] = found.get(key, 0) + power

    visit(expression, 1)
    return coefficient, tuple(Power(base, power) for (base, _), power in found.items())


def write_powers(powers: Iterable[Power], coefficient: int | float = 1) -> Expression:
    """Write a product out, divisors last; short powers as products."""
    result: Expression | None = None
    ordered = sorted(powers, key=lambda p: p.power < 0)
    if coefficient not in (1, -1) or not ordered:
        result = Constant(abs(coefficient) if ordered else coefficient)
    for power in ordered:
        whole = isinstance(power.power, int) and abs(power.power) <= 4
        times = abs(power.power) if whole else 1
        base = power.base if whole else Apply("**", (power.base, Constant(abs(power.power))))
        for _ in range(int(times)):
            if power.power < 0:
                result = Apply("/", (ONE if result is None else result, base))
            else:
                result = base if result is None else Apply("*", (result, base))
    assert result is not None
    return Apply("neg", (result,)) if coefficient < 0 and ordered else result


def scaled_terms(expression: Expression) -> tuple[Scaled, ...]:
    """Return the terms whose sum the expression is, products distributed, like terms joined."""
    found: dict[Expression, tuple[Expression, int | float]] = {}
    for term in _terms(expression):
        key = canonical(term.expression)
        shown, total = found.get(key, (term.expression, 0))
        found[key] = (shown, total + term.coefficient)
    return tuple(Scaled(c, x) for x, c in found.values() if c != 0)


def _terms(expression: Expression) -> list[Scaled]:
    match expression:
        case Apply("+", (a, b)):
            return _terms(a) + _terms(b)
        case Apply("-", (a, b)):
            return _terms(a) + [Scaled(-t.coefficient, t.expression) for t in _terms(b)]
        case Apply("neg", (a,)):
            return [Scaled(-t.coefficient, t.expression) for t in _terms(a)]
        case Apply("*", (a, b)):
            left, right = _terms(a), _terms(b)
            if 1 < len(left) * len(right) <= MANY:
                return [
                    _single(t.coefficient * u.coefficient, Apply("*", (t.expression, u.expression)))
                    for t in left
                    for u in right
                ]
        case Apply("/", (a, b)):
            above = _terms(a)
            if 1 < len(above) <= MANY:
                return [_single(t.coefficient, Apply("/", (t.expression, b))) for t in above]
        case _:
            pass
    return [_single(1, expression)]


def _single(coefficient: int | float, expression: Expression) -> Scaled:
    """One term, its numbers in front."""
    factor, powers = flatten_product(expression)
    return Scaled(coefficient * factor, write_powers(powers) if powers else ONE)


def write_terms(terms: Iterable[Scaled]) -> Expression:
    """Write a sum out, what is added first; a sum of nothing is 0."""
    result: Expression | None = None
    for term in sorted(terms, key=lambda t: t.coefficient < 0):
        size = abs(term.coefficient)
        if term.expression == ONE:
            part: Expression = Constant(size)
        else:
            part = write_powers(flatten_product(term.expression)[1], size)
        if result is None:
            result = Apply("neg", (part,)) if term.coefficient < 0 else part
        else:
            result = Apply("-" if term.coefficient < 0 else "+", (result, part))
    return Constant(0) if result is None else result


@lru_cache(maxsize=4096)
def canonical(expression: Expression) -> Expression:
    """Return a form that two expressions share if they differ by the order of sums and products."""

    def rule(x: Expression) -> Expression | None:
        match x:
            case Apply("*" | "/" | "**"):
                coefficient, powers = flatten_product(x)
                return write_powers(sorted(powers, key=repr), coefficient)
            case Apply("+" | "-" | "neg"):
                signed = sorted(_signed(x), key=repr)
                terms = [Scaled(c, y) for y, c in signed]
                return write_terms(terms)
            case Apply("max" | "min" | "and" | "or" as operator, operands):
                return Apply(operator, tuple(sorted(operands, key=repr)))
            case _:
                return None

    return rewrite(expression, rule)


def _signed(expression: Expression) -> list[tuple[Expression, int | float]]:
    """Return the terms of a sum that is not distributed, with their numbers."""
    match expression:
        case Apply("+", (a, b)):
            return _signed(a) + _signed(b)
        case Apply("-", (a, b)):
            return _signed(a) + [(x, -c) for x, c in _signed(b)]
        case Apply("neg", (a,)):
            return [(x, -c) for x, c in _signed(a)]
        case _:
            coefficient, powers = flatten_product(expression)
            return [(write_powers(powers) if powers else ONE, coefficient)]


def size(expression: Expression) -> int:
    """How many nodes an expression has."""
    return 1 + sum(size(x) for x in children(expression))
