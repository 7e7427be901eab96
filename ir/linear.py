"""Linear forms: a number as a sum of products of atoms, so that like terms meet.

::

    linear("p + 1 - (p - W)")   =   1 * [W]  +  1
    linear("(p // B + 1) * B")  =   1 * [p // B, B]  +  1 * [B]

An *atom* is any expression that is not itself a sum, a difference, a product or a number. Products
are multiplied out, so two expressions that are the same polynomial in the same atoms have the same
form. Atoms are compared by structure, never by value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .expression import Apply, Constant, Expression

Number = int | float
Monomial = tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Linear:
    """A sum of ``coefficient * product of atoms``, and a constant; no coefficient is 0.

    Terms stand in order of sight. ``==`` asks for the same order; ask whether a difference is
    constant to compare two forms.
    """

    terms: tuple[tuple[Monomial, Number], ...]
    constant: Number = 0

    def __add__(self, other: Linear) -> Linear:
        return _collect((*self.terms, *other.terms), self.constant + other.constant)

    def __sub__(self, other: Linear) -> Linear:
        return self + other.scaled(-1)

    def __mul__(self, other: Linear) -> Linear:
        terms = [(a + b, x * y) for a, x in self.terms for b, y in other.terms]
        terms += [(a, x * other.constant) for a, x in self.terms]
        terms += [(b, self.constant * y) for b, y in other.terms]
        return _collect(terms, self.constant * other.constant)

    def scaled(self, factor: Number) -> Linear:
        """Return every coefficient, and the constant, times ``factor``."""
        if factor == 0:
            return Linear(())
        return Linear(tuple((m, c * factor) for m, c in self.terms), self.constant * factor)

    @property
    def value(self) -> Number | None:
        """The number that the form is, or None where it holds atoms."""
        return None if self.terms else self.constant

    def divided(self, divisor: int) -> Linear | None:
        """Return the form divided by an integer that divides every part of it, else None."""
        parts = (*(c for _, c in self.terms), self.constant)
        if any(isinstance(c, float) or c % divisor for c in parts):
            return None
        terms = tuple((m, int(c) // divisor) for m, c in self.terms)
        return Linear(terms, int(self.constant) // divisor)


def linear(expression: Expression) -> Linear:
    """Return the linear form of a number-valued expression."""
    match expression:
        case Constant(value=value):
            return Linear((), int(value) if isinstance(value, bool) else value)
        case Apply("+", (left, right)):
            return linear(left) + linear(right)
        case Apply("-", (left, right)):
            return linear(left) - linear(right)
        case Apply("neg", (inner,)):
            return linear(inner).scaled(-1)
        case Apply("*", (left, right)):
            return linear(left) * linear(right)
        case _:
            return Linear((((expression,), 1),))


def delinear(form: Linear) -> Expression:
    """Write a linear form out to be read: ``p - W + 1``, positive terms and the constant last."""
    positive = [(m, c) for m, c in form.terms if c > 0]
    negative = [(m, -c) for m, c in form.terms if c < 0]
    constant = form.constant
    result: Expression | None = None
    if not positive and constant > 0:
        result, constant = Constant(constant), 0
    for sign, terms in (("+", positive), ("-", negative)):
        for monomial, coefficient in terms:
            term = _product(monomial, coefficient)
            if result is None:
                result = term if sign == "+" else Apply("neg", (term,))
            else:
                result = Apply(sign, (result, term))
    if result is None:
        return Constant(constant)
    if constant:
        sign = "+" if constant > 0 else "-"
        result = Apply(sign, (result, Constant(abs(constant))))
    return result


def _product(monomial: Monomial, coefficient: Number) -> Expression:
    result: Expression | None = None if coefficient == 1 else Constant(coefficient)
    for atom in monomial:
        result = atom if result is None else Apply("*", (result, atom))
    return Constant(coefficient) if result is None else result


def _collect(terms: Iterable[tuple[Monomial, Number]], constant: Number) -> Linear:
    """Add up like terms: the same atoms as often, in whichever order."""
    found: dict[frozenset[tuple[Expression, int]], tuple[Monomial, Number]] = {}
    for monomial, coefficient in terms:
        key = frozenset(Counter(monomial).items())
        first, sum_ = found.get(key, (monomial, 0))
        found[key] = (first, sum_ + coefficient)
    return Linear(tuple((m, c) for m, c in found.values() if c != 0), constant)
