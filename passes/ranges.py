"""Ranges: bounds of expressions, as far as they follow from what is written.

Inputs are any finite numbers, parameters are unknown unless given. Bounds are one-sided truth: what
is returned holds; what is not returned is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite,
    substitute,
)
from ..ir.interval_arithmetic import UNKNOWN, Interval, apply_to_intervals
from .facts import plain_writers, pointwise
from .monomial import terms_key
from .stream_presence import conjuncts
from .stream_terms import Scaled, canonical, flatten_product, scaled_terms, write_terms

DEPTH = 12
"""Definitions followed one behind the other, at most."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What is known of the values of a flat cascade.

    Build it with ``ranges``; ``bounds`` and ``bounded_above`` answer.
    """

    writers: Mapping[str, Einsum]
    parameters: Mapping[str, Scalar]
    sizes: Mapping[str, int]
    known: dict[str, Interval] = field(default_factory=dict)

    def bounds(self, expression: Expression) -> Interval:
        """Return inclusive bounds of an expression's values."""
        match expression:
            case Constant(value=value):
                return (value, value)
            case Parameter(name=name):
                value = self.parameters.get(name, inf)
                return (value, value) if isfinite(value) else UNKNOWN
            case Size(rank=rank):
                return (self.sizes.get(rank, 1), self.sizes.get(rank, inf))
            case RankVariable(rank=rank):
                return (0, self.sizes.get(rank, inf) - 1)
            case Access(tensor=tensor):
                return self.of_tensor(tensor)
            case Apply("where", (_, a, b)) | Apply("default", (a, b)):
                (low, high), (other, top) = self.bounds(a), self.bounds(b)
                return min(low, other), max(high, top)
            case Apply("*", (a, b)) if canonical(a) == canonical(b):
                low, high = apply_to_intervals("abs", [self.bounds(a)])
                return low * low, (high * high if isfinite(high) else inf)
            case Apply("/", (a, b)):
                return self.quotient(self.bounds(a), self.bounds(b))
            case Apply(operator=operator, operands=operands):
                return apply_to_intervals(operator, [self.bounds(x) for x in operands])
            case Reduce():
                return self.reduced(expression)
            case _:
                return UNKNOWN

    def quotient(self, above: Interval, below: Interval) -> Interval:
        """Bound a quotient by what is not below 0; a quotient by 0 is 0."""
        least = below[0]
        if least < 0:
            return apply_to_intervals("/", [above, below])
        low = 0 if above[0] >= 0 else (above[0] / least if least else -inf)
        high = 0 if above[1] <= 0 else (above[1] / least if least else inf)
        return low, high

    def of_tensor(self, tensor: str) -> Interval:
        """Return bounds of a tensor, from the einsum that writes it."""
        if tensor not in self.writers:
            return UNKNOWN
        if tensor not in self.known:
            self.known[tensor] = UNKNOWN
            self.known[tensor] = self.bounds(self.writers[tensor].body)
        return self.known[tensor]

    def reduced(self, x: Reduce) -> Interval:
        """Bound a reduction; over nothing it is the identity."""
        low, high = self.bounds(x.body)
        match x.reducer:
            case "max":
                return -inf, high
            case "min":
                return low, inf
            case "any" | "all":
                return 0, 1
            case "sum":
                length = self.inner_product(x)
                if length is not None:
                    return -length, length
                points = 1.0
                for rank in x.ranks:
                    points *= self.sizes.get(rank, inf)
                return (0 if low >= 0 else low * points), (0 if high <= 0 else high * points)
            case _:
                return UNKNOWN

    def inner_product(self, x: Reduce) -> float | None:
        """Bound a sum of products of two vectors of known length (Cauchy and Schwarz)."""
        scale, powers = flatten_product(x.body)
        bound = abs(float(scale))
        found = 0
        for power in powers:
            if not set(free_ranks(power.base)) & set(x.ranks):
                low, high = apply_to_intervals("abs", [self.bounds(power.base)])
                size = high if power.power > 0 else (1 / low if low > 0 else inf)
                bound *= size ** abs(power.power)
            else:
                length = self.length(power.base, x.ranks) if power.power in (1, 2) else None
                if length is None:
                    return None
                bound *= length ** float(power.power)
                found += int(power.power)
        return bound if found == 2 and isfinite(bound) else None

    def length(self, x: Expression, ranks: tuple[str, ...]) -> float | None:
        """Bound the Euclidean length over ``ranks`` of a vector that is divided by its own."""
        for _ in range(DEPTH):
            scale, powers = flatten_product(x)
            vector = [p for p in powers if set(free_ranks(p.base)) & set(ranks)]
            others = [p for p in powers if p not in vector]
            if len(vector) != 1 or vector[0].power != 1:
                return None
            if not others:
                inner = self.definition(vector[0].base)
                if inner is None:
                    return None
                x = inner
                continue
            square = canonical(Apply("*", (vector[0].base, vector[0].base)))
            if len(others) == 1 and self.covers_length(others[0].base, others[0].power, square):
                return abs(float(scale))
            return None
        return None

    def covers_length(self, x: Expression, power: int | float, square: Expression) -> bool:
        """Whether ``x ** -power`` is at least the root of the sum of ``square``."""
        for _ in range(DEPTH):
            match x:
                case Apply("rsqrt", (inner,)) if power == 1:
                    return self.covers_square(inner, square)
                case Apply("sqrt", (inner,)) if power == -1:
                    return self.covers_square(inner, square)
                case Apply("max", operands) if power == -1:
                    return any(self.covers_length(y, power, square) for y in operands)
                case Apply("+", (a, b)) if power == -1:
                    return any(
                        self.covers_length(y, power, square) and self.bounds(z)[0] >= 0
                        for y, z in ((a, b), (b, a))
                    )
                case _:
                    inner_x = self.definition(x)
                    if inner_x is None:
                        return False
                    x = inner_x
        return False

    def covers_square(self, x: Expression, square: Expression) -> bool:
        """Whether ``x`` is at least a sum of squares."""
        match x:
            case Apply("+", (a, b)):
                return any(
                    self.covers_square(y, square) and self.bounds(z)[0] >= 0
                    for y, z in ((a, b), (b, a))
                )
            case Apply("max", operands):
                return any(self.covers_square(y, square) for y in operands)
            case Reduce("sum", _, body, filter=None):
                return (
                    canonical(self.inlined(body)) == canonical(self.inlined(square))
                    or canonical(body) == square
                )
            case Access():
                inner = self.definition(x, reductions=True)
                return inner is not None and self.covers_square(inner, square)
            case _:
                return False

    def definition(self, x: Expression, *, reductions: bool = False) -> Expression | None:
        """Return what a read tensor is made of, in the reader's ranks."""
        if not isinstance(x, Access) or x.tensor not in self.writers:
            return None
        writer = self.writers[x.tensor]
        if len(writer.ranks) != len(x.coordinates):
            return None
        inner = writer.body
        if not pointwise(inner):
            captured = {r for c in x.coordinates for r in free_ranks(c)}
            bound = set(inner.ranks) if isinstance(inner, Reduce) else captured
            if not reductions or captured & bound:
                return None
        return substitute(inner, dict(zip(writer.ranks, x.coordinates, strict=True)))

    def inlined(self, expression: Expression) -> Expression:
        """Return the expression with pointwise tensors replaced by what they are made of."""

        def rule(x: Expression) -> Expression | None:
            inner = self.definition(x)
            return None if inner is None else self.inlined(inner)

        return rewrite(expression, rule)

    def bounded_above(self, expression: Expression, filter: Expression | None = None) -> float:
        """Return an upper bound, seeing that a maximum is no less than what it is taken of.

        ``S[p, m] - G[p]`` with ``G[p] = max[m](S[p, m])`` gives 0, and so does
        ``S[p, m] - log(D[p])`` with ``D[p] = sum[m](exp(S[p, m]))``.
        ``filter`` holds at the points that are asked about; a maximum may have parts of it.
        """
        held = frozenset(canonical(x) for x in conjuncts(filter))
        terms = scaled_terms(self.inlined(expression))
        best = self.bounds(write_terms(terms))[1]
        if isfinite(best):
            return float(best)
        for k, term in enumerate(terms):
            if term.coefficient >= 0:
                continue
            rest = (*terms[:k], *terms[k + 1 :])
            for lower in self.at_most(term.expression, held):
                replaced = scaled_terms(
                    write_terms(
                        (
                            *rest,
                            *(
                                Scaled(t.coefficient * term.coefficient, t.expression)
                                for t in scaled_terms(self.inlined(lower))
                            ),
                        )
                    )
                )
                if len(replaced) < len(terms) or terms_key(replaced) != terms_key(terms):
                    best = min(best, self.bounds(write_terms(replaced))[1])
        return float(best)

    def at_most(self, x: Expression, held: frozenset[Expression]) -> Iterator[Expression]:
        """Yield expressions that are at most ``x`` at every point that is asked about."""
        match x:
            case Apply("max", operands):
                for y in operands:
                    yield y
                    yield from self.at_most(y, held)
            case Apply("log" | "log2" as operator, (inner,)):
                raised = "exp" if operator == "log" else "exp2"
                for y in (inner, *self.at_most(inner, held)):
                    for part in self.summands(y):
                        match part:
                            case Apply(name, (exponent,)) if name == raised:
                                yield exponent
            case Access():
                inner_x = self.definition(x, reductions=True)
                if isinstance(inner_x, Reduce):
                    asked = {canonical(c) for c in conjuncts(inner_x.filter)}
                    if inner_x.reducer == "max" and asked <= held:
                        yield inner_x.body
                        yield from self.at_most(inner_x.body, held)
                elif inner_x is not None:
                    yield from self.at_most(inner_x, held)

    def summands(self, x: Expression) -> Iterator[Expression]:
        """Yield terms of a sum whose terms are all at least 0."""
        match x:
            case Apply("+", (a, b)) if self.bounds(x)[0] >= 0:
                yield from self.summands(a)
                yield from self.summands(b)
            case Access():
                inner = self.definition(x, reductions=True)
                match inner:
                    case Reduce("sum", _, body, filter=None) if self.bounds(body)[0] >= 0:
                        yield from self.summands(body)
                    case Reduce() | None:
                        pass
                    case _:
                        yield from self.summands(inner)
            case _:
                yield x


def ranges(
    cascade: Cascade,
    *,
    parameters: Mapping[str, Scalar] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Ranges:
    """Return what is known of a flat cascade's values.

    ``parameters`` are values that are known for certain; a default is none. ``sizes`` likewise.
    """
    return Ranges(plain_writers(cascade), parameters or {}, sizes or {})
