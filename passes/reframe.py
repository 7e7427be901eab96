"""Reframe: follow a factor through a cascade, and put it back where it would change a result.

Let ``G`` be a frame over some ranks. Each tensor T of the cascade becomes a new one T' with

::

    T = T' * exp(degree * G) + shift * G

where an exponential that is divided by ``exp(G)`` has degree 1, a quotient of two sums of it
degree 0, and the logarithm of a sum shift 1. What is of degree 0 without a shift is the tensor that
it was; where an operator cannot carry degree or shift they are put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    Reduce,
    free_ranks,
    rewrite,
)
from .stream_terms import canonical

ZERO = Constant(0)
_COMPARISONS = frozenset(("<", "<=", ">", ">=", "==", "!="))


@dataclass(frozen=True, slots=True)
class Graded:
    """A rewritten expression with what it lacks: ``old = new * exp(degree * G) + shift * G``."""

    expression: Expression
    degree: float = 0
    shift: float = 0


@dataclass(slots=True)
class Reframing:
    """One frame on its way through a cascade.

    frame : the reading of the frame, at its own ranks; operator : ``exp`` or ``exp2``.
    seeds : exponents, in canonical form, from which the frame is subtracted.
    grades : degree and shift of the tensors passed so far.
    cancelled : whether some quotient or logarithm took the factor away; moved : whether a degree
    had to be put back inside; failed : whether a reading could not be followed.
    loose : terms without the factor that were added to ones with it.
    """

    frame: Access
    operator: str
    seeds: frozenset[Expression]
    writers: Mapping[str, Einsum]
    grades: dict[str, tuple[float, float]] = field(default_factory=dict)
    cancelled: bool = False
    moved: bool = False
    failed: bool = False
    loose: list[Expression] = field(default_factory=list)

    def einsum(self, e: Einsum) -> Einsum:
        """Rewrite one einsum and record the grade of what it writes."""
        match e.body:
            case Reduce(reducer=reducer, ranks=ranks, body=body, filter=inner):
                found = self.reduced(reducer, ranks, self.grade(body))
                filter = None if inner is None else self.plain(inner)
                new: Expression = replace(e.body, body=found.expression, filter=filter)
                found = replace(found, expression=new)
            case Populate() | Concatenate():
                found = Graded(rewrite(e.body, self.restored))
            case _:
                found = self.grade(e.body)
        if (found.degree or found.shift) and not set(free_ranks(self.frame)) <= set(e.ranks):
            self.failed = True
        if found.degree or found.shift:
            self.grades[e.name] = (found.degree, found.shift)
        condition = None if e.filter is None else self.plain(e.filter)
        return replace(e, body=found.expression, filter=condition)

    def reduced(self, reducer: str, ranks: tuple[str, ...], body: Graded) -> Graded:
        """Carry a grade through a reduction."""
        across = bool(set(ranks) & set(free_ranks(self.frame)))
        if across or reducer not in ("sum", "max", "min", "argmax", "argmin"):
            return Graded(self.put_back(body))
        if reducer == "sum":
            return Graded(self.unshifted(body).expression, body.degree)
        if reducer in ("argmax", "argmin"):
            return Graded(body.expression)
        return body

    def restored(self, x: Expression) -> Expression | None:
        """Return a reading of a graded tensor with everything put back."""
        if isinstance(x, Access) and x.tensor in self.grades:
            return self.put_back(self.grade(x))
        return None

    def plain(self, x: Expression) -> Expression:
        """Rewrite an expression to the value that it had."""
        return self.put_back(self.grade(x))

    def put_back(self, x: Graded) -> Expression:
        """Multiply the factor back and add the shift."""
        x = self.unshifted(x)
        if not x.degree:
            return x.expression
        self.moved = True
        return Apply("*", (x.expression, self.factor(x.degree)))

    def factor(self, degree: float) -> Expression:
        """Return the exponential of the frame to a degree."""
        return Apply(self.operator, (times(degree, self.frame),))

    def unshifted(self, x: Graded) -> Graded:
        """Add the shift back."""
        if not x.shift:
            return x
        moved = times(abs(x.shift), self.frame)
        if x.expression == ZERO and x.shift > 0:
            return Graded(moved, x.degree)
        sign = "+" if x.shift > 0 else "-"
        return Graded(Apply(sign, (x.expression, moved)), x.degree)

    def grade(self, x: Expression) -> Graded:
        """Rewrite an expression and say what it lacks."""
        match x:
            case Access(tensor=tensor, coordinates=coordinates):
                degree, shift = self.grades.get(tensor, (0, 0))
                if not (degree or shift):
                    return Graded(rewrite(x, self.restored) if self.grades else x)
                if coordinates != self.writers[tensor].output.coordinates:
                    self.failed = True
                if x.tensor == self.frame.tensor:
                    return Graded(ZERO, 0, 1)
                return Graded(x, degree, shift)
            case Apply("exp" | "exp2" as operator, (inner,)):
                seeded = operator == self.operator and bool(self.seeds)
                found = self.exponent(inner) if seeded else self.grade(inner)
                if found.degree:
                    found = Graded(self.put_back(found))
                return Graded(
                    Apply(operator, (found.expression,)), self.scaled(operator, found.shift)
                )
            case Apply("log" | "log2" as operator, (inner,)):
                found = self.unshifted(self.grade(inner))
                self.cancelled |= bool(found.degree)
                scale = self.scaled("exp" if operator == "log" else "exp2", 1)
                return Graded(Apply(operator, (found.expression,)), 0, found.degree / scale)
            case Apply("neg" | "stop_gradient", (inner,)):
                found = self.grade(inner)
                sign = -1 if x.operator == "neg" else 1
                return Graded(
                    replace(x, operands=(found.expression,)), found.degree, sign * found.shift
                )
            case Apply("abs" | "relu", (inner,)):
                found = self.unshifted(self.grade(inner))
                return Graded(replace(x, operands=(found.expression,)), found.degree)
            case Apply("sqrt" | "rsqrt", (inner,)):
                found = self.unshifted(self.grade(inner))
                power = 0.5 if x.operator == "sqrt" else -0.5
                return Graded(replace(x, operands=(found.expression,)), power * found.degree)
            case Apply("**", (inner, Constant(value=n))):
                found = self.unshifted(self.grade(inner))
                return Graded(Apply("**", (found.expression, Constant(n))), n * found.degree)
            case Apply("*" | "/" as operator, (a, b)):
                return self.product(operator, a, b)
            case Apply("+" | "-" as operator, (a, b)):
                return self.sum(operator, self.grade(a), self.grade(b))
            case Apply("max" | "min", operands):
                return self.alike(x, [self.grade(y) for y in operands])
            case Apply("where", (condition, a, b)):
                kept = self.alike(Apply("max", (a, b)), [self.grade(a), self.grade(b)])
                assert isinstance(kept.expression, Apply)
                chosen = (self.plain(condition), *kept.expression.operands)
                return replace(kept, expression=Apply("where", chosen))
            case Apply("default", (a, b)):
                return self.alike(x, [self.grade(a), self.grade(b)])
            case Apply(operator=operator, operands=operands) if operator in _COMPARISONS:
                found = self.alike(x, [self.grade(y) for y in operands])
                return Graded(found.expression)
            case Apply(operands=operands):
                return Graded(replace(x, operands=tuple(self.plain(y) for y in operands)))
            case Reduce() | Populate() | Concatenate():
                self.failed = True
                return Graded(x)
            case _:
                return Graded(x)

    def exponent(self, x: Expression) -> Graded:
        """Subtract the frame from the seed in an exponent, where one is added in it."""
        if canonical(x) in self.seeds:
            return Graded(Apply("-", (x, self.frame)), 0, 1)
        match x:
            case Apply("+", (a, b)):
                return self.sum("+", self.exponent(a), self.exponent(b))
            case Apply("-", (a, b)):
                return self.sum("-", self.exponent(a), self.grade(b))
            case _:
                return self.grade(x)

    def scaled(self, operator: str, amount: float) -> float:
        """Return a factor ``operator(amount * G)`` as a degree of this frame's exponential."""
        if operator == self.operator or not amount:
            return amount
        return amount / log(2) if operator == "exp" else amount * log(2)

    def product(self, operator: str, a: Expression, b: Expression) -> Graded:
        """Multiply or divide: degrees add or subtract."""
        left, right = self.unshifted(self.grade(a)), self.unshifted(self.grade(b))
        sign = 1 if operator == "*" else -1
        degree = left.degree + sign * right.degree
        self.cancelled |= bool(left.degree) and not degree
        return Graded(Apply(operator, (left.expression, right.expression)), degree)

    def sum(self, operator: str, left: Graded, right: Graded) -> Graded:
        """Add two terms of one degree; one without the factor is divided by it."""
        sign = 1 if operator == "+" else -1
        left, right = self.level(left, right)
        shift = left.shift + sign * right.shift
        if left.degree and shift:
            left, right, shift = self.unshifted(left), self.unshifted(right), 0
        degree = left.degree or right.degree
        if right.expression == ZERO:
            return Graded(left.expression, degree, shift)
        if left.expression == ZERO and operator == "+":
            return Graded(right.expression, degree, shift)
        return Graded(Apply(operator, (left.expression, right.expression)), degree, shift)

    def level(self, left: Graded, right: Graded) -> tuple[Graded, Graded]:
        """Bring two expressions to one degree; 0 has every degree."""
        if left.degree == right.degree or ZERO in (left.expression, right.expression):
            return left, right
        if left.degree and right.degree:
            return Graded(self.put_back(left)), Graded(self.put_back(right))
        degree = left.degree or right.degree
        low, high = (right, left) if left.degree else (left, right)
        low = self.unshifted(low)
        self.loose.append(low.expression)
        factor = self.factor(-degree)
        one = low.expression == Constant(1)
        lifted = Graded(factor if one else Apply("*", (low.expression, factor)), degree)
        return (high, lifted) if left.degree else (lifted, high)

    def alike(self, x: Apply, parts: list[Graded]) -> Graded:
        """Carry one degree and one shift through an operator that keeps both, or put them back."""
        known = [p for p in parts if p.expression != ZERO or p.shift]
        degrees = {p.degree for p in known} or {0}
        shifts = {p.shift for p in known} if len(known) == len(parts) else {0.0}
        if len(degrees) > 1 or len(shifts) > 1 or any(p.shift for p in parts) and len(shifts) > 1:
            return Graded(replace(x, operands=tuple(self.put_back(p) for p in parts)))
        if len(known) < len(parts) and any(p.shift for p in known):
            return Graded(replace(x, operands=tuple(self.put_back(p) for p in parts)))
        operands = tuple(p.expression for p in parts)
        return Graded(replace(x, operands=operands), degrees.pop(), shifts.pop())


def times(factor: float, x: Expression) -> Expression:
    """Return a multiple of an expression."""
    if factor == 1:
        return x
    if factor == -1:
        return Apply("neg", (x,))
    return Apply("*", (Constant(factor), x))
