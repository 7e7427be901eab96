"""Begins: where tiles of a streamed rank begin and end, and which tests that makes needless."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..ir.domain import Domain
from ..ir.expression import Apply, Expression, Parameter, RankVariable
from ..ir.mapping import MappedKernel, Traversal
from .loop_nest import Number, Op, Scalar, Value

Condition = Expression | None


def left_to_test(
    traversal: Traversal, conditions: tuple[Condition, ...], *, kernel: MappedKernel
) -> dict[Condition, Condition]:
    """Return, for each condition of a traversal, what is left of it to test on a cut tile."""
    table = traversal.domain.table
    if table is not None and table.whole:
        return dict.fromkeys(conditions)
    if len(conditions) > 1:
        return dict(traversal.tests)
    settles = partial(settled, kernel=kernel, rank=traversal.streaming.rank)
    return dict.fromkeys(conditions, behind_limits(traversal.domain, settles))


def begins_tile(value: Value, aligned: tuple[str, ...]) -> bool:
    """Whether a tile begins there, whatever its width; ``aligned`` scalars are multiples of it."""
    match value:
        case Number(value=number):
            return number == 0
        case Scalar(name=name):
            return name in aligned
        case Op("*", operands):
            return any(begins_tile(x, aligned) for x in operands)
        case Op("+" | "max" | "min", operands):
            return all(begins_tile(x, aligned) for x in operands)
        case _:
            return False


def settled(condition: Expression, *, kernel: MappedKernel, rank: str) -> bool:
    """Whether a condition is a limit of the rank at which tiles begin, so that it cuts none."""
    match condition:
        case Apply(">=" | "<", (RankVariable(rank=limited), limit)):
            return limited == rank and always_begins(limit, kernel.aligned)
        case Apply("<=" | ">", (limit, RankVariable(rank=limited))):
            return limited == rank and always_begins(limit, kernel.aligned)
        case _:
            return False


def always_begins(x: Expression, aligned: tuple[str, ...]) -> bool:
    """Whether a tile begins there: a coordinate of the grid times an aligned parameter, or sums."""
    match x:
        case Parameter(name=name):
            return name in aligned
        case Apply("*", (RankVariable(), by)):
            return always_begins(by, aligned)
        case Apply("+", operands):
            return all(always_begins(o, aligned) for o in operands)
        case _:
            return False


def behind_limits(domain: Domain, settles: Callable[[Expression], bool]) -> Expression | None:
    """Return the test of points without what the loop's begin and end have settled."""
    if len(domain.ranges) != 1 or not domain.exact:
        return domain.test
    rest = tuple(c for c in conjuncts(domain.test) if not settles(c))
    return Apply("and", rest) if len(rest) > 1 else rest[0] if rest else None


def conjuncts(condition: Expression | None) -> tuple[Expression, ...]:
    """Return the parts of a conjunction."""
    match condition:
        case None:
            return ()
        case Apply("and", operands):
            return tuple(x for o in operands for x in conjuncts(o))
        case _:
            return (condition,)


def down(x: Value, width: Value) -> Value:
    """Return the begin of the tile in which a coordinate lies."""
    return Op("*", (Op("//", (x, width)), width))


def up(x: Value, width: Value) -> Value:
    """Return the end of the tile before which a coordinate lies."""
    return Op("*", (Op("cdiv", (x, width)), width))
