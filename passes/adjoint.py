"""Adjoints: the gradients of an einsum's operands, given the gradient of what it writes.

A *share* is what one reading of a tensor contributes to its gradient, over the ranks of the einsum
that reads it, with the conditions under which it takes part. Reverse mode (Griewank and Walther,
Evaluating Derivatives, 2008, chapter 3) is the sum of all shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    substitute,
)
from .align import conjunction, fresh
from .derivative import partials
from .existence import Conditions, Existence, unique


@dataclass(frozen=True, slots=True)
class Share:
    """What one reading contributes to the gradient of the tensor that it reads.

    access : the reading. expression : the contribution, over the iteration ``ranks``, at the points
        that ``conditions`` keep.
    """

    access: Access
    expression: Expression
    ranks: tuple[str, ...]
    conditions: Conditions


def shares(
    einsum: Einsum, gradient: Expression, known: Existence, taken: set[str], before: list[Einsum]
) -> Iterator[Share]:
    """Yield the shares of every reading in an einsum.

    ``gradient`` is that of the einsum's tensor, over its ranks. ``before`` receives einsums over
    forward tensors that the shares need, such as the place of a maximum.

    """
    outer = known.of_filter(einsum.filter)
    match einsum.body:
        case Populate():
            return
        case Concatenate(rank=rank, parts=parts):
            yield from _parts(einsum, rank, parts, gradient, known, outer)
        case Reduce(reducer="any" | "all" | "argmax" | "argmin"):
            return
        case Reduce(reducer=reducer, ranks=ranks, body=body, filter=filter):
            conditions = unique((*outer, *known.of_filter(filter)))
            space = (*einsum.ranks, *ranks)
            if reducer == "prod":
                gradient = _product_of_others(einsum, gradient, known, taken, before)
            elif reducer in ("max", "min"):
                conditions = (*conditions, *_extremal(einsum, known, taken, before))
            yield from pull(body, body, gradient, space, conditions, known)
        case body:
            yield from pull(body, einsum.output, gradient, einsum.ranks, outer, known)


def pull(
    x: Expression,
    result: Expression,
    gradient: Expression,
    ranks: tuple[str, ...],
    conditions: Conditions,
    known: Existence,
) -> Iterator[Share]:
    """Yield the shares of the readings in a pointwise expression.

    ``result`` is an expression for the value of ``x``: the tensor that it is written to, where
    there is one.
    """
    match x:
        case Access():
            yield Share(x, gradient, ranks, unique((*conditions, *known.of(x))))
        case Apply("where", (test, yes, no)):
            held = (*conditions, *known.of(test))
            yield from pull(yes, yes, gradient, ranks, (*held, test), known)
            yield from pull(no, no, gradient, ranks, (*held, Apply("not", (test,))), known)
        case Apply("default", (inner, other)):
            there = known.of(inner)
            yield from pull(inner, inner, gradient, ranks, conditions, known)
            absent = conjunction(list(there))
            if absent is not None:
                gone = Apply("not", (absent,))
                yield from pull(other, other, gradient, ranks, (*conditions, gone), known)
        case Apply(operator, operands):
            for place, part in enumerate(partials(operator, operands, result, gradient)):
                if part is None:
                    continue
                others = (y for k, y in enumerate(operands) if k != place)
                beside = (c for y in others for c in known.of(y))
                held = unique((*conditions, *beside))
                yield from pull(operands[place], operands[place], part, ranks, held, known)
        case _:
            return


def _parts(
    einsum: Einsum,
    rank: str,
    parts: tuple[Expression, ...],
    gradient: Expression,
    known: Existence,
    outer: Conditions,
) -> Iterator[Share]:
    """Yield the shares of concatenated tensors: each begins where the one before it ended."""
    begin: Expression | None = None
    for part in parts:
        assert isinstance(part, Access)
        (own,) = (r for r in free_ranks(part) if r not in einsum.ranks)
        here = RankVariable(own)
        if begin is None:
            # Read at its own rank, the whole would take on the size of its first part.
            first = Apply("==", (RankVariable(rank), here))
            conditions = unique((*outer, *known.of(part), first))
            yield Share(part, gradient, (*einsum.ranks, own), conditions)
        else:
            values: dict[str, Expression] = {rank: Apply("+", (here, begin))}
            held = tuple(substitute(c, values) for c in outer)
            ranks = tuple(own if r == rank else r for r in einsum.ranks)
            conditions = unique((*held, *known.of(part)))
            yield Share(part, substitute(gradient, values), ranks, conditions)
        size = Size(own)
        begin = size if begin is None else Apply("+", (begin, size))


def _extremal(
    einsum: Einsum, known: Existence, taken: set[str], before: list[Einsum]
) -> Conditions:
    """Return the conditions that a point is the extremal one, the first of equals.

    Of several ranks the place is found one after the other, each among the points that are extremal
    and stand at the places found before.
    """
    body = einsum.body
    assert isinstance(body, Reduce)
    found: list[Expression] = []
    several = len(body.ranks) > 1
    for rank in body.ranks:
        name = fresh(f"{einsum.name}_at_{rank}" if several else f"{einsum.name}_at", taken)
        at = replace(einsum.output, tensor=name)
        place = replace(body, reducer=f"arg{body.reducer}")
        if several:
            equal = Apply("==", (body.body, einsum.output))
            filters = [*([] if body.filter is None else [body.filter]), equal, *found]
            place = Reduce("min", body.ranks, RankVariable(rank), conjunction(filters))
        before.append(replace(einsum, output=at, body=place))
        known.add(before[-1])
        found.append(Apply("==", (RankVariable(rank), at)))
    return tuple(found)


def _product_of_others(
    einsum: Einsum,
    gradient: Expression,
    known: Existence,
    taken: set[str],
    before: list[Einsum],
) -> Expression:
    """Return the gradient times the product of all other factors, exactly, zeros included.

    Where one factor is 0, only that one has a gradient; where two are, none has.
    """
    body = einsum.body
    assert isinstance(body, Reduce)
    x = body.body
    zero = Apply("==", (x, Constant(0)))
    made: list[Access] = []
    for end, reducer, inner in (
        ("zeros", "sum", Apply("where", (zero, Constant(1), Constant(0)))),
        ("others", "prod", Apply("where", (zero, Constant(1.0), x))),
    ):
        access = replace(einsum.output, tensor=fresh(f"{einsum.name}_{end}", taken))
        before.append(
            replace(einsum, output=access, body=replace(body, reducer=reducer, body=inner))
        )
        known.add(before[-1])
        made.append(access)
    zeros, others = made
    none = Apply("where", (Apply("==", (zeros, Constant(0))), others, Constant(0.0)))
    one = Apply("where", (Apply("==", (zeros, Constant(1))), others, Constant(0.0)))
    product = Apply("where", (zero, one, Apply("/", (none, x))))
    return Apply("*", (gradient, product))
