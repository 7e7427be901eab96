"""Products and sums laid out as lists: ``x * a / d`` is the factors x and a and the divisor d."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.expression import Apply, Constant, Expression


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of a product; ``divides`` where it stands under the line."""

    expression: Expression
    divides: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a sum; ``negative`` where it is subtracted."""

    expression: Expression
    negative: bool = False


def factors(expression: Expression) -> tuple[bool, tuple[Factor, ...]]:
    """Return whether a product is negated, and its factors in order of sight.

    A divisor stays whole: ``x / (a * b)`` has the factors x and a * b. Since a quotient by 0 is 0,
    ``x * (y / d)`` and ``x * y / d`` agree for finite values.
    """
    match expression:
        case Apply("neg", (inner,)):
            negative, parts = factors(inner)
            return not negative, parts
        case Apply("*", (x, y)):
            (one, left), (two, right) = factors(x), factors(y)
            return one != two, (*left, *right)
        case Apply("/", (x, d)):
            one, left = factors(x)
            match d:
                case Apply("neg", (inner,)):
                    return not one, (*left, Factor(inner, divides=True))
                case _:
                    return one, (*left, Factor(d, divides=True))
        case _:
            return False, (Factor(expression),)


def write_product(parts: tuple[Factor, ...], *, negative: bool = False) -> Expression:
    """Write factors out, left to right; a product that begins with a divisor begins with 1."""
    result: Expression | None = None
    for part in parts:
        if part.divides:
            result = Apply("/", (Constant(1) if result is None else result, part.expression))
        else:
            result = part.expression if result is None else Apply("*", (result, part.expression))
    if result is None:
        result = Constant(1)
    return Apply("neg", (result,)) if negative else result


def terms(expression: Expression) -> tuple[Term, ...]:
    """Return the terms of a sum, through ``+``, ``-`` and negation."""
    match expression:
        case Apply("+", (x, y)):
            return (*terms(x), *terms(y))
        case Apply("-", (x, y)):
            return (*terms(x), *(Term(t.expression, not t.negative) for t in terms(y)))
        case Apply("neg", (x,)):
            return tuple(Term(t.expression, not t.negative) for t in terms(x))
        case _:
            return (Term(expression),)


def write_sum(parts: tuple[Term, ...]) -> Expression:
    """Write terms out, left to right; a sum of nothing is 0."""
    result: Expression | None = None
    for part in parts:
        if result is None:
            result = Apply("neg", (part.expression,)) if part.negative else part.expression
        else:
            result = Apply("-" if part.negative else "+", (result, part.expression))
    return Constant(0) if result is None else result
