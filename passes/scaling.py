"""Scaling: an expression times log2(e) or as it is, where some tensors hold log2(e) times theirs.

Two answers for each expression, each at least cost:

::

    plain(x)    the value of x
    scaled(x)   the value of x times log2(e)

    scaled(T) = T                      for a tensor that holds log2(e) times its value
    scaled(x + y) = scaled(x) + scaled(y)       scaled(x * y) = scaled(x) * plain(y)
    scaled(where(c, x, y)) = where(plain(c), scaled(x), scaled(y))       max, min, relu, abs alike
    scaled(log(x)) = log2(plain(x))             plain(exp(x)) = exp2(scaled(x))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..ir.expression import Access, Apply, Constant, Expression, Reduce, children, free_ranks
from .facts import is_scalar, weight
from .fold import fold

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


def cost(expression: Expression, sizes: Mapping[str, int]) -> float:
    """Return how many multiplications, additions, exponentials and logarithms are executed.

    An operation runs once for each point of the ranks that it reads; of scalars alone it is free.
    An addition of a product over the same ranks is part of a fused multiplication. A natural
    exponential or logarithm counts one multiplication more than that of base two.
    """
    match expression:
        case Access():
            return 0.0
        case Apply(operator, operands) if not is_scalar(expression):
            points = weight(free_ranks(expression), sizes)
            below = sum(cost(x, sizes) for x in operands)
            match operator:
                case "+" | "-":
                    ranks = set(free_ranks(expression))
                    fused = any(_multiplies(x, ranks) for x in operands)
                    return below + (0.0 if fused else points)
                case "*" | "/" | "exp" | "log":
                    return below + points
                case _:
                    return below
        case _:
            return sum(cost(x, sizes) for x in children(expression))


def _multiplies(x: Expression, ranks: set[str]) -> bool:
    """Whether x is a product that is made anew at each point of ``ranks``."""
    return isinstance(x, Apply) and x.operator == "*" and set(free_ranks(x)) == ranks


@dataclass(frozen=True, slots=True)
class Scaling:
    """The rewriting for one choice of tensors that hold log2(e) times their value."""

    held: frozenset[str]
    sizes: Mapping[str, int]
    infinite: frozenset[str]
    known: dict[tuple[str, str], Expression] = field(default_factory=dict)

    def plain(self, x: Expression) -> Expression:
        """Return an expression of the value of x; x itself where nothing in it changes."""
        if not self.touches(x):
            return x
        key = "plain", repr(x)
        if key not in self.known:
            self.known[key] = self.plain_anew(x)
        return self.known[key]

    def plain_anew(self, x: Expression) -> Expression:
        """Compute what ``plain`` remembers."""
        structural = self.plain_parts(x)
        apart = self.scaled_parts(x)
        if apart is None:
            return structural
        return self.cheaper(structural, self.times(apart, LN_2))

    def scaled(self, x: Expression) -> Expression:
        """Return an expression of the value of x times log2(e)."""
        key = "scaled", repr(x)
        if key not in self.known:
            outside = self.times(self.plain(x), LOG2_E)
            inside = self.scaled_parts(x)
            self.known[key] = outside if inside is None else self.cheaper(outside, inside)
        return self.known[key]

    def touches(self, x: Expression) -> bool:
        """Whether something in x is read scaled or has another base."""
        match x:
            case Access(tensor=tensor) if tensor in self.held:
                return True
            case Apply("exp" | "log", _):
                return True
            case _:
                return any(self.touches(y) for y in children(x))

    def plain_parts(self, x: Expression) -> Expression:
        """Return the value of x, its parts rewritten one by one."""
        match x:
            case Access(tensor=tensor):
                return self.times(x, LN_2) if tensor in self.held else x
            case Apply("exp", (y,)):
                natural = replace(x, operands=(self.plain(y),))
                return self.cheaper(
                    natural, replace(x, operator="exp2", operands=(self.scaled(y),))
                )
            case Apply(operands=operands):
                return replace(x, operands=tuple(self.plain(y) for y in operands))
            case Reduce(body=body):
                return replace(x, body=self.plain(body))
            case _:
                return x

    def scaled_parts(self, x: Expression) -> Expression | None:
        """Return x times log2(e) with the factor inside its parts, or None where it cannot go."""
        match x:
            case Access(tensor=tensor):
                return x if tensor in self.held else None
            case Constant(value=value) if not isinstance(value, bool):
                return Constant(value * LOG2_E)
            case Apply("+" | "-" | "neg" | "max" | "min" | "default" | "relu" | "abs", operands):
                return replace(x, operands=tuple(self.scaled(y) for y in operands))
            case Apply("stop_gradient", operands):
                return replace(x, operands=tuple(self.scaled(y) for y in operands))
            case Apply("where", (condition, y, z)):
                return replace(x, operands=(self.plain(condition), self.scaled(y), self.scaled(z)))
            case Apply("*", (y, z)):
                left = replace(x, operands=(self.scaled(y), self.plain(z)))
                right = replace(x, operands=(self.plain(y), self.scaled(z)))
                return self.cheaper(self.folded(left), self.folded(right))
            case Apply("/", (y, z)):
                return self.folded(replace(x, operands=(self.scaled(y), self.plain(z))))
            case Apply("log", (y,)):
                return replace(x, operator="log2", operands=(self.plain(y),))
            case Reduce("max" | "min" | "sum", _, body):
                return replace(x, body=self.scaled(body))
            case _:
                return None

    def times(self, x: Expression, factor: float) -> Expression:
        """Multiply, gathering the factor with other scalars."""
        return self.folded(Apply("*", (x, Constant(factor))))

    def folded(self, x: Expression) -> Expression:
        """Gather scalars."""
        return fold(x, infinite=self.infinite)

    def cheaper(self, one: Expression, two: Expression) -> Expression:
        """Return the one that costs less; the first where they cost the same."""
        return one if cost(one, self.sizes) <= cost(two, self.sizes) else two
