"""Which tensors are read by more than products that are summed.

A term of a sum may be rounded where it is stored: it is wrong by as much, relative to itself, and
of products that are summed tensor cores take operands of half precision. Elsewhere a rounding is
not so small. The exponential of a rounded score is wrong by the score's size times as much, a
difference of rounded numbers by as much relative to them and not to itself, and what is compared
with a bound changes sides.
"""

from __future__ import annotations

from .cascade import Cascade
from .expression import (
    Access,
    Apply,
    Concatenate,
    Expression,
    Reduce,
    children,
    free_ranks,
    tensors,
)


def read_exactly(cascade: Cascade) -> frozenset[str]:
    """Return the tensors whose readers want more than an operand of a summed product.

    What scales a tensor, moves it, picks from it or adds its elements up wants what is wanted of
    its own result.
    """
    wanted: set[str] = set()
    for einsum in reversed(cascade.einsums):
        wanted |= wants(einsum.body, einsum.name in wanted)
        wanted |= set() if einsum.filter is None else wants(einsum.filter, True)
    return frozenset(wanted)


def wants(x: Expression, exact: bool) -> set[str]:
    """Return what is read exactly for the sake of an expression, which is itself, or is not."""
    match x:
        case Access(tensor=tensor, coordinates=coordinates):
            found = {tensor} if exact else set()
            return found.union(*(wants(c, True) for c in coordinates))
        case Apply("*", operands) | Apply("neg" | "stop_gradient", operands):
            return set().union(*(wants(o, exact) for o in operands))
        case Apply("/", (over, under)):
            return wants(over, exact) | wants(under, True)
        case Apply("where", (test, one, other)):
            return wants(test, True) | wants(one, exact) | wants(other, exact)
        case Apply("default", operands) | Concatenate(parts=operands):
            return set().union(*(wants(o, exact) for o in operands))
        case Reduce(reducer="sum", ranks=ranks, body=body, filter=filter):
            paired = [o for o in factors(body) if tensors(o) and set(free_ranks(o)) & set(ranks)]
            found = set() if filter is None else wants(filter, True)
            return found | wants(body, exact and len(paired) < 2)
        case _:
            return set().union(*(wants(c, True) for c in children(x)))


def factors(x: Expression) -> tuple[Expression, ...]:
    """Return the operands of a product of any length."""
    match x:
        case Apply("*", operands):
            return tuple(f for o in operands for f in factors(o))
        case Apply("/", (over, _)) | Apply("neg", (over,)):
            return factors(over)
        case _:
            return (x,)
