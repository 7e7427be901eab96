"""Separate: split an expression into what streams and what is known later.

The setting is one reduction over a streamed rank. Its body reads *early* tensors (inputs, and what
is made of them element by element) and *late* ones (results of earlier reductions over the rank).
The body is written as a sum of monomials

::

    coefficient * early factors * late factors * (u + w) ** n * ... * exp(v + z)

with u, v early and w, z late. That is a proof that it has a finite separation rank (theory 3.3, F1
to F4), and the shape from which the transport follows. What has no such form is returned as
``Stuck``, with the part that is to blame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log

from ..ir.expression import Access, Apply, Constant, Expression, free_ranks, tensors, walk
from .facts import is_positive
from .monomial import (
    INVERSE,
    Monomial,
    Shift,
    exponential,
    joined,
    multiply,
    raised,
    times,
)
from .stream_terms import (
    ONE,
    Power,
    Scaled,
    flatten_product,
    scaled_terms,
    write_powers,
    write_terms,
)

MONOMIALS = 24
"""Monomials beyond which a body counts as not separable."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Who is late, and along which rank elements stream; ``positive`` are late tensors above 0."""

    rank: str
    late: frozenset[str]
    positive: frozenset[str] = frozenset()

    def reads_late(self, expression: Expression) -> bool:
        """Whether the expression reads a result of an earlier reduction."""
        return any(x.tensor in self.late for x in walk(expression) if isinstance(x, Access))

    def streams(self, expression: Expression) -> bool:
        """Whether the expression varies along the streamed rank."""
        return self.rank in free_ranks(expression)


@dataclass(frozen=True, slots=True)
class Parts:
    """The early and the late terms of a sum."""

    early: tuple[Scaled, ...] = ()
    late: tuple[Scaled, ...] = ()


@dataclass(frozen=True, slots=True)
class Stuck:
    """The part of an expression in which early and late values cannot be told apart."""

    expression: Expression


@lru_cache(maxsize=4096)
def separate(expression: Expression, roles: Roles) -> tuple[Monomial, ...] | Stuck:
    """Write an expression as a sum of monomials, or say which part of it has no such form.

    Requires: every tensor that streams and depends on late ones is inlined. Cached by expression
    and roles.
    """
    return _Separator(roles).monomials(expression)


def sum_parts(expression: Expression, roles: Roles) -> Parts | Stuck:
    """Split a sum into early and late terms: the additive separation that max and min allow."""
    return _Separator(roles).parts(expression)


@dataclass(frozen=True, slots=True)
class _Separator:
    roles: Roles

    def monomials(self, x: Expression) -> tuple[Monomial, ...] | Stuck:
        roles = self.roles
        if not roles.reads_late(x) or not roles.streams(x):
            return (self.product(x),)
        match x:
            case Apply("neg", (a,)):
                return self.times(_number(-1), self.monomials(a))
            case Apply("stop_gradient", (a,)):
                return self.monomials(a)
            case Apply("*", (a, b)):
                return self.times(self.monomials(a), self.monomials(b))
            case Apply("/", (a, b)):
                below = self.single(b)
                if isinstance(below, Stuck) or below.shifts or not below.coefficient:
                    return Stuck(x)
                return self.times(self.monomials(a), (raised(below, -1),))
            case Apply("+" | "-", (a, b)):
                parts = self.parts(x)
                if isinstance(parts, Parts):
                    return (Monomial(shifts=(Shift(parts.early, parts.late),)),)
                left, right = self.monomials(a), self.monomials(b)
                if isinstance(left, Stuck):
                    return left
                right = right if x.operator == "+" else self.times(_number(-1), right)
                return right if isinstance(right, Stuck) else _few((*left, *right), x)
            case Apply("**", (a, Constant(value=n))):
                return self.power(x, a, n)
            case Apply("sqrt", (a,)):
                return self.power(x, a, 0.5)
            case Apply("rsqrt", (a,)):
                return self.power(x, a, -0.5)
            case Apply("exp" | "exp2" as operator, (a,)):
                parts = self.parts(a)
                if isinstance(parts, Stuck):
                    return Stuck(x)
                return (exponential(operator, parts.early, parts.late),)
            case Apply("log" | "log2"):
                parts = self.parts(x)
                if isinstance(parts, Stuck):
                    return Stuck(x)
                return (Monomial(shifts=(Shift(parts.early, parts.late),)),)
            case Apply("abs" | "relu" as operator, (a,)):
                return self.homogeneous(x, operator, a)
            case Apply("sin" | "cos" as operator, (a,)):
                return self.wave(x, operator, a)
            case Apply("where", (condition, a, b)) if not roles.reads_late(condition):
                inverse = Apply("not", (condition,))
                kept, other = self.chosen(condition, a), self.chosen(inverse, b)
                if isinstance(kept, Stuck):
                    return kept
                return other if isinstance(other, Stuck) else _few((*kept, *other), x)
            case _:
                return Stuck(x)

    def product(self, x: Expression) -> Monomial:
        """Write a product that has no factor early and late at once."""
        coefficient, powers = flatten_product(x)
        result = Monomial(coefficient)
        for power in powers:
            result = multiply(result, self.factor(power))
        return result

    def factor(self, power: Power) -> Monomial:
        late = self.roles.reads_late(power.base)
        match power.base:
            case Apply("exp" | "exp2" as operator, (inner,)):
                terms = tuple(
                    Scaled(t.coefficient * power.power, t.expression) for t in scaled_terms(inner)
                )
                return exponential(operator, () if late else terms, terms if late else ())
            case _:
                return Monomial(late=(power,)) if late else Monomial(early=(power,))

    def single(self, x: Expression) -> Monomial | Stuck:
        """Return the one monomial that an expression is."""
        found = self.monomials(x)
        if isinstance(found, Stuck):
            return found
        return found[0] if len(found) == 1 else Stuck(x)

    def times(
        self, left: tuple[Monomial, ...] | Stuck, right: tuple[Monomial, ...] | Stuck
    ) -> tuple[Monomial, ...] | Stuck:
        if isinstance(left, Stuck):
            return left
        if isinstance(right, Stuck):
            return right
        return tuple(multiply(a, b) for a in left for b in right)

    def power(
        self, x: Expression, base: Expression, n: int | float
    ) -> tuple[Monomial, ...] | Stuck:
        if isinstance(n, int) and n > 0:
            found = self.monomials(base)
            if isinstance(found, Stuck) or len(found) == 1:
                return found if isinstance(found, Stuck) else (raised(found[0], n),)
            result: tuple[Monomial, ...] | Stuck = found
            for _ in range(n - 1):
                result = self.times(result, found)
                if isinstance(result, Stuck) or len(result) > MONOMIALS:
                    return Stuck(x)
            return result
        one = self.single(base)
        if isinstance(one, Stuck) or one.shifts or one.coefficient <= 0 or not self.above(one):
            return Stuck(x)
        return (raised(one, n),)

    def above(self, one: Monomial) -> bool:
        """Whether the late factors are above 0, so that a root may be taken of each side."""
        return all(is_positive(p.base, self.roles.positive) for p in one.late)

    def homogeneous(
        self, x: Expression, operator: str, inner: Expression
    ) -> tuple[Monomial, ...] | Stuck:
        """``relu(u * w)`` with w above 0 is ``relu(u) * w``; ``abs`` needs no sign."""
        one = self.single(inner)
        if isinstance(one, Stuck) or one.shifts:
            return Stuck(x)
        if operator == "relu" and not self.above(one):
            return Stuck(x)
        late = one.late
        if operator == "abs":
            late = tuple(
                p if p.power % 2 == 0 else Power(Apply("abs", (p.base,)), p.power) for p in late
            )
        sides = write_powers(one.early, one.coefficient)
        return (replace(one, coefficient=1, early=(Power(Apply(operator, (sides,))),), late=late),)

    def wave(self, x: Expression, operator: str, inner: Expression) -> tuple[Monomial, ...] | Stuck:
        """Write the wave of a sum as two products, by the addition theorems."""
        parts = self.parts(inner)
        if isinstance(parts, Stuck):
            return Stuck(x)
        u, w = write_terms(parts.early), write_terms(parts.late)

        def pair(sign: int, one: str, two: str) -> Monomial:
            return Monomial(sign, (Power(Apply(one, (u,))),), (Power(Apply(two, (w,))),))

        if operator == "sin":
            return pair(1, "sin", "cos"), pair(1, "cos", "sin")
        return pair(1, "cos", "cos"), pair(-1, "sin", "sin")

    def chosen(self, condition: Expression, x: Expression) -> tuple[Monomial, ...] | Stuck:
        """Write a branch of an early choice, which counts only where it is chosen."""
        if x == Constant(0):
            return ()
        found = self.monomials(x)
        if isinstance(found, Stuck):
            return found
        result = []
        for one in found:
            if one.exponentials:
                # The exponent is put out of reach: an exponential that is not chosen may overflow.
                first, *rest = one.exponentials
                never = Apply(
                    "where", (condition, write_terms(first.early), Constant(float("-inf")))
                )
                first = replace(first, early=(Scaled(1, never),))
                result.append(replace(one, exponentials=(first, *rest)))
            else:
                early = write_powers(one.early) if one.early else ONE
                kept = Apply("where", (condition, early, Constant(0)))
                result.append(replace(one, early=(Power(kept),)))
        return tuple(result)

    def parts(self, x: Expression) -> Parts | Stuck:
        early: list[Scaled] = []
        late: list[Scaled] = []
        for term in scaled_terms(x):
            inner = term.expression
            if not self.roles.reads_late(inner):
                early.append(term)
            elif not self.roles.streams(inner):
                late.append(term)
            else:
                found = self.mixed_term(inner)
                if isinstance(found, Stuck):
                    return found
                number = Scaled(term.coefficient, ONE)
                early += [times(number, t) for t in found.early]
                late += [times(number, t) for t in found.late]
        return Parts(joined(early), joined(late))

    def mixed_term(self, x: Expression) -> Parts | Stuck:
        """Split a term by the logarithm in it, whose own factors are constants of the row."""
        _, powers = flatten_product(x)
        mixed = [p for p in powers if self.roles.reads_late(p.base) and self.roles.streams(p.base)]
        others = [p for p in powers if p not in mixed]
        constant = not any(self.roles.streams(p.base) for p in others)
        if len(mixed) != 1 or mixed[0].power != 1 or not constant:
            return Stuck(x)
        found = self.logarithm(mixed[0].base)
        if isinstance(found, Stuck):
            return found
        if not others:
            return found
        scale = Scaled(1, write_powers(others))
        if self.roles.reads_late(scale.expression) and found.early:
            return Stuck(x)
        return Parts(
            tuple(times(scale, t) for t in found.early),
            tuple(times(scale, t) for t in found.late),
        )

    def logarithm(self, x: Expression) -> Parts | Stuck:
        """Write the logarithm of one product as the sum of its factors' logarithms."""
        match x:
            case Apply("log" | "log2" as operator, (inner,)):
                one = self.single(inner)
            case Apply("stop_gradient", (inner,)):
                return self.parts(inner)
            case _:
                return Stuck(x)
        if isinstance(one, Stuck) or one.shifts or one.coefficient <= 0:
            return Stuck(x)
        early: list[Scaled] = []
        late: list[Scaled] = []
        for e in one.exponentials:
            scale = _log_scale(operator, e.operator)
            early += [Scaled(t.coefficient * scale, t.expression) for t in e.early]
            late += [Scaled(t.coefficient * scale, t.expression) for t in e.late]
        # Of a product with early and late factors both sides have to be above 0.
        if one.early and one.late and not self.above(one):
            return Stuck(x)
        if one.early or one.coefficient != 1:
            rest = write_powers(one.early, one.coefficient)
            early.append(Scaled(1, Apply(operator, (rest,))))
        if len(one.late) == 1:
            p = one.late[0]
            late.append(Scaled(p.power, Apply(operator, (p.base,))))
        elif one.late:
            late.append(Scaled(1, Apply(operator, (write_powers(one.late),))))
        return Parts(tuple(early), tuple(late))


def _log_scale(log_operator: str, exp_operator: str) -> int | float:
    """Return what log(exp(1)) is, for either base."""
    if INVERSE[exp_operator] == log_operator:
        return 1
    return log(2) if log_operator == "log" else 1 / log(2)


def _number(value: int) -> tuple[Monomial, ...]:
    return (Monomial(value),)


def _few(found: tuple[Monomial, ...], x: Expression) -> tuple[Monomial, ...] | Stuck:
    return found if len(found) <= MONOMIALS else Stuck(x)


def late_tensors(expressions: Iterable[Expression], late: frozenset[str]) -> tuple[str, ...]:
    """Return the late tensors read, each once, in order of sight."""
    found = (name for x in expressions for name in tensors(x) if name in late)
    return tuple(dict.fromkeys(found))
