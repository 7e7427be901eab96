"""What is known of a bound before any size is: its sign, whether it is whole, which one is less.

Coordinates and sizes are not negative, the first coordinate of a tile is not after its last, and
divisors of coordinates are positive (``Known.positive`` names the ones that are only taken to be).
Every answer is a proof or the absence of one; a wrong "no" costs a longer bound, never a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
)
from ..ir.linear import Linear, linear
from ..ir.operators import OPERATORS

FIRST, LAST = "_first", "_last"


@dataclass(frozen=True, slots=True)
class Known:
    """What may be assumed while bounds are derived.

    streamed : the rank that is solved for; ``tiled``: the ranks of which a program has a tile.
    real : parameters and tensors that hold fractions; all others hold integers.
    positive : parameters taken to be at least 1.
    boxed : bounds are evaluated tile by tile, with the streamed rank in a tile too, so that tensors
        may be looked through, and the filter says itself where they have points; else they are loop
        bounds.
    """

    streamed: str
    tiled: tuple[str, ...] = ()
    real: frozenset[str] = frozenset()
    positive: frozenset[str] = frozenset()
    boxed: bool = False


def first(rank: str) -> Parameter:
    """Return the first coordinate of the tile of ``rank``."""
    return Parameter(rank + FIRST)


def last(rank: str) -> Parameter:
    """Return the last coordinate, inclusive, of the tile of ``rank``."""
    return Parameter(rank + LAST)


def whole(expression: Expression, known: Known) -> bool:
    """Whether the value is an integer for certain."""
    match expression:
        case Constant(value=value):
            return isinstance(value, int)
        case Parameter(name=name) | Access(tensor=name):
            return name not in known.real
        case Size() | RankVariable():
            return True
        case Apply("//" | "floor" | "ceil" | "bit_length"):
            return True
        case Apply("+" | "-" | "*" | "%" | "neg" | "abs" | "min" | "max", operands):
            return all(whole(x, known) for x in operands)
        case Apply("where", (_, yes, no)):
            return whole(yes, known) and whole(no, known)
        case Apply("**", (Constant(value=base), Constant(value=power))):
            return isinstance(base, int) and isinstance(power, int) and power >= 0
        case Apply(operator=name):
            return OPERATORS[name].boolean
        case _:
            return False


def least(expression: Expression, known: Known) -> int | float | None:
    """Return a number that the value is never below, or None."""
    match expression:
        case Constant(value=value):
            return value
        case Parameter(name=name):
            if name in known.positive:
                return 1
            ends = [rank + end for rank in known.tiled for end in (FIRST, LAST)]
            return 0 if name in ends else None
        case Size() | RankVariable() | Apply("abs" | "bit_length"):
            return 0
        case Apply("//", (x, y)):
            low, divisor = least(x, known), least(y, known)
            return 0 if low is not None and low >= 0 and divisor is not None else None
        case Apply("%", (_, y)):
            divisor = least(y, known)
            return 0 if divisor is not None and divisor > 0 else None
        case Apply("**", (Constant(value=base), power)) if base >= 1:
            low = least(power, known)
            return 1 if low is not None and low >= 0 else 0
        case Apply("min", operands):
            lows = [least(x, known) for x in operands]
            return None if None in lows else min(x for x in lows if x is not None)
        case Apply("max", operands):
            return max(
                (x for x in (least(o, known) for o in operands) if x is not None), default=None
            )
        case Apply("where", (_, yes, no)):
            return least(Apply("min", (yes, no)), known)
        case Apply("+" | "-" | "*" | "neg"):
            return _least_sum(linear(expression), known)
        case _:
            return None


def _least_sum(form: Linear, known: Known) -> int | float | None:
    """Bound a sum from below; a negative term needs a positive one that is never smaller."""
    total: int | float = form.constant
    rising = {monomial: c for monomial, c in form.terms if c > 0}
    for monomial, coefficient in form.terms:
        if coefficient > 0:
            continue
        for other, c in rising.items():
            if c >= -coefficient and len(other) == len(monomial) == 1:
                if _atom_at_most(monomial[0], other[0], known):
                    rising[other] = c + coefficient
                    break
        else:
            return None
    for monomial, coefficient in rising.items():
        lows = [least(atom, known) for atom in monomial]
        product: int | float = coefficient
        for low in lows:
            if low is None or low < 0:
                if coefficient == 0:
                    low = 0
                else:
                    return None
            product *= low
        total += product
    return total


def _atom_at_most(a: Expression, b: Expression, known: Known) -> bool:
    match a, b:
        case Parameter(name=low), Parameter(name=high):
            return any((low, high) == (rank + FIRST, rank + LAST) for rank in known.tiled)
        case Apply("//", (x, c)), Apply("//", (y, d)):
            divisor = least(c, known)
            return c == d and divisor is not None and divisor > 0 and at_most(x, y, known)
        case _:
            return False


def at_most(a: Expression, b: Expression, known: Known) -> bool:
    """Whether a <= b can be shown, whatever the open names hold."""
    if a == b:
        return True
    match a:
        case Apply("max", operands):
            return all(at_most(x, b, known) for x in operands)
        case Apply("where", (_, yes, no)):
            return at_most(yes, b, known) and at_most(no, b, known)
    match b:
        case Apply("min", operands):
            return all(at_most(a, x, known) for x in operands)
        case Apply("where", (_, yes, no)):
            return at_most(a, yes, known) and at_most(a, no, known)
        case Apply("max", operands) if any(at_most(a, x, known) for x in operands):
            return True
    match a:
        case Apply("min", operands) if any(at_most(x, b, known) for x in operands):
            return True
    low = _least_sum(linear(b) - linear(a), known)
    return low is not None and low >= 0
