"""Expressions: what stands on the right of an einsum, in coordinates and in filters.

The grammar, on one page. Every node is frozen; ``at`` takes no part in equality, so ``a == b``
means "the same mathematics".

::

    expression = Constant(value)                            2, 0.5, inf, True
               | Parameter(name)                            W
               | Size(rank)                                 size(e)
               | RankVariable(rank)                         m, read as a number: its coordinate
               | Access(tensor, coordinates)                K[b, h // G, m, e]
               | Apply(operator, operands)                  x + y, exp(x), m <= p, where(c, x, y)
               | Reduce(reducer, ranks, body, filter)       max[m: m <= p](S[p, m])
               | Populate(selector, rank, argument, body, forced, forbidden, ascending)
                                                            topk[m, k](S[p, m], forced=m < 4)
               | Concatenate(rank, parts)                   concat[n](S[p, m], T[p, c])

    Apply("in", (item, Access))    membership: the access names a fiber, so it has one coordinate
                                   fewer than the list-valued tensor has ranks
    Apply("default", (x, y))       EDGE's union: x where it exists, else y

What the operators mean, point by point, is in ``operators.py``; when a point exists is in
``cascade.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter, is_
from typing import Any

from .errors import NOWHERE, Location


@dataclass(frozen=True, slots=True)
class Constant:
    """A number or truth value written in the text; ``inf`` is ``float("inf")``."""

    value: int | float | bool
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A free scalar, given when the cascade is compiled or called, e.g. a window's width."""

    name: str
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a rank, as a number: ``size(e)``."""

    rank: str
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RankVariable:
    """The coordinate of a rank, read as a number; a plain subscript is one of these."""

    rank: str
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """A tensor at coordinates, e.g. ``K[b, h // G, m, e]``. Outside the shape no point exists."""

    tensor: str
    coordinates: tuple[Expression, ...]
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Apply:
    """A pointwise operator of ``operators.OPERATORS`` on operands."""

    operator: str
    operands: tuple[Expression, ...]
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reduce:
    """A reduction of ``operators.REDUCERS`` over ranks; absent points take no part in it.

    ``filter`` removes points here only: ``sum[m: m <= p](X[p, m])``.
    """

    reducer: str
    ranks: tuple[str, ...]
    body: Expression
    filter: Expression | None = None
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Populate:
    """A selection: writes the chosen coordinates of ``rank`` into a list-valued rank.

    ``selector`` is ``topk`` (argument: how many), ``threshold`` (argument: strict lower bound), or
    one of three that count mass: ``cover`` is the shortest prefix whose sum is the argument or
    more, ``exceed`` the shortest whose sum is more than it, ``within`` the longest whose sums are
    all at most the argument. So ``exceed`` has as many members as running sums are at most the
    argument, plus one; ``cover`` as many as are below it, plus one. The list rank is the one rank
    of the output that the body has not. ``threshold`` lists by ascending coordinate, the others by
    descending value, or by ascending coordinate too if ``ascending``; among equal values the lowest
    coordinate wins. ``forced`` members are chosen first and use the budget; ``forbidden`` ones are
    never chosen.
    """

    selector: str
    rank: str
    argument: Expression
    body: Expression
    forced: Expression | None = None
    forbidden: Expression | None = None
    ascending: bool = False
    at: Location = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Tensors laid end to end along ``rank``; each part has one rank that the output has not."""

    rank: str
    parts: tuple[Expression, ...]
    at: Location = field(default=NOWHERE, compare=False, repr=False)


Expression = (
    Constant | Parameter | Size | RankVariable | Access | Apply | Reduce | Populate | Concatenate
)


def children(expression: Expression) -> tuple[Expression, ...]:
    """Return the direct sub-expressions, left to right (filters after bodies)."""
    inside = _INSIDE.get(type(expression))
    return () if inside is None else inside(expression)


def _reduced(x: Reduce) -> tuple[Expression, ...]:
    return (x.body,) if x.filter is None else (x.body, x.filter)


def _populated(x: Populate) -> tuple[Expression, ...]:
    return (x.argument, x.body, *(y for y in (x.forced, x.forbidden) if y is not None))


# a table, for nothing is asked as often as this
_INSIDE: dict[type, Callable[[Any], tuple[Expression, ...]]] = {
    Access: attrgetter("coordinates"),
    Apply: attrgetter("operands"),
    Concatenate: attrgetter("parts"),
    Reduce: _reduced,
    Populate: _populated,
}


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield the expression and everything inside it, outermost first."""
    waiting = [expression]
    while waiting:
        x = waiting.pop()
        yield x
        waiting += children(x)[::-1]


def rewrite(expression: Expression, rule: Callable[[Expression], Expression | None]) -> Expression:
    """Apply ``rule`` bottom-up; where it returns None the node stays (identical if unchanged)."""
    parts = children(expression)
    changed = tuple([rewrite(x, rule) for x in parts])
    same = all(map(is_, changed, parts))
    new = expression if same else with_children(expression, changed)
    result = rule(new)
    return new if result is None else result


def with_children(expression: Expression, parts: tuple[Expression, ...]) -> Expression:
    """Return the expression with other direct sub-expressions, as many as ``children`` gives."""
    match expression:
        case Access():
            return replace(expression, coordinates=parts)
        case Apply():
            return replace(expression, operands=parts)
        case Concatenate():
            return replace(expression, parts=parts)
        case Reduce():
            body, *filters = parts
            return replace(expression, body=body, filter=filters[0] if filters else None)
        case Populate():
            argument, body, *rest = parts
            forced = None if expression.forced is None else rest.pop(0)
            forbidden = None if expression.forbidden is None else rest.pop(0)
            return replace(
                expression, argument=argument, body=body, forced=forced, forbidden=forbidden
            )
        case _:
            return expression


def rewrite_outermost(
    expression: Expression, rule: Callable[[Expression], Expression | None]
) -> Expression:
    """Apply ``rule`` top-down; what it replaces is not looked into any more."""
    found = rule(expression)
    if found is not None:
        return found
    match expression:
        case Apply(operands=parts):
            return replace(expression, operands=tuple(rewrite_outermost(x, rule) for x in parts))
        case Reduce(body=body):
            return replace(expression, body=rewrite_outermost(body, rule))
        case _:
            return expression


def free_ranks(expression: Expression) -> tuple[str, ...]:
    """Return the ranks that vary in the expression and are not reduced in it, in order of sight.

    ``size(e)`` does not vary. A selection's rank and a concatenated part's own rank are bound; the
    concatenated rank itself is free (see ``bound_part_rank`` for which rank of a part that is).
    """
    seen: dict[str, None] = {}

    def visit(x: Expression, bound: frozenset[str]) -> None:
        match x:
            case RankVariable(rank=rank):
                if rank not in bound:
                    seen.setdefault(rank)
            case Reduce(ranks=ranks):
                for child in children(x):
                    visit(child, bound | set(ranks))
            case Populate(rank=rank, argument=argument):
                visit(argument, bound)
                for child in children(x)[1:]:
                    visit(child, bound | {rank})
            case Concatenate(rank=rank, parts=parts):
                if rank not in bound:
                    seen.setdefault(rank)
                shared = set.intersection(*(set(free_ranks(p)) for p in parts)) if parts else set()
                for part in parts:
                    visit(part, bound | (set(free_ranks(part)) - shared))
            case _:
                for child in children(x):
                    visit(child, bound)

    visit(expression, frozenset())
    return tuple(seen)


def accesses(expression: Expression) -> tuple[Access, ...]:
    """Return every tensor access inside, outermost first, left to right."""
    return tuple(x for x in walk(expression) if isinstance(x, Access))


def tensors(expression: Expression) -> tuple[str, ...]:
    """Return the names of the tensors read, each once, in order of sight."""
    return tuple(dict.fromkeys(x.tensor for x in accesses(expression)))


def substitute(expression: Expression, values: dict[str, Expression]) -> Expression:
    """Replace rank variables and parameters of the given names by expressions."""

    def rule(x: Expression) -> Expression | None:
        match x:
            case RankVariable(rank=name) | Parameter(name=name):
                return values.get(name)
            case _:
                return None

    return rewrite(expression, rule)
