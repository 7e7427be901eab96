"""The implicit sum: Einstein's convention, made explicit.

A rank on the right that is not on the left and that no reduction takes is summed. The sum stands
around each top-level additive term in which the rank occurs, and around nothing else:

::

    S[p, m] = Q[p, e] * K[m, e] - slope * (p - m)
    -->
    S[p, m] = sum[e](Q[p, e] * K[m, e]) - slope * (p - m)

Where a term is a product with a sum inside, of which one summand has the rank and its neighbour has
not, a reader may expect either of two sums. The same holds where the rank is free inside a
reduction that is no sum. Both are errors that show the two explicit ways to write it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from .errors import RankError
from .expression import (
    Apply,
    Concatenate,
    Expression,
    Populate,
    Reduce,
    children,
    free_ranks,
    rewrite,
)
from .show import show_expression


def sum_implicitly(
    body: Expression, kept: Collection[str], opaque: Collection[Expression] = ()
) -> Expression:
    """Return ``body`` with a sum around each term that has ranks not ``kept``.

    ``opaque`` are sub-expressions (these very objects) that are single terms, whatever is inside:
    what a shorthand expanded to. Raises RankError where the reading is doubtful.
    """
    if isinstance(body, Concatenate):
        return body
    if isinstance(body, Populate):
        inner = sum_implicitly(body.body, {*kept, body.rank}, opaque)
        return body if inner is body.body else replace(body, body=inner)
    if set(free_ranks(body)) <= set(kept):
        return body
    if isinstance(body, Apply) and not _is_one_of(body, opaque):
        if body.operator in ("+", "-") or body.operator == "neg":
            operands = tuple(sum_implicitly(x, kept, opaque) for x in body.operands)
            return replace(body, operands=operands)
    missing = tuple(rank for rank in free_ranks(body) if rank not in kept)
    for rank in missing:
        _refuse_uneven_product(body, rank, opaque)
        _refuse_other_reduction(body, rank)
    return Reduce("sum", missing, body, None, body.at)


def _is_one_of(expression: Expression, those: Collection[Expression]) -> bool:
    return any(expression is x for x in those)


def _refuse_uneven_product(term: Expression, rank: str, opaque: Collection[Expression]) -> None:
    for factor in _factors(term, opaque):
        summands = tuple(_summands(factor, opaque))
        holding = [x for x in summands if rank in free_ranks(x)]
        if not holding or len(holding) == len(summands):
            continue

        def around(x: Expression, holding: list[Expression] = holding) -> Expression | None:
            return Reduce("sum", (rank,), x) if _is_one_of(x, holding) else None

        inside = rewrite(term, around)
        other = next(x for x in summands if not _is_one_of(x, holding))
        raise RankError(
            f"{rank} is to be summed, and it stands in {show_expression(holding[0])} but not in "
            f"{show_expression(other)} beside it, so the sum is written out: "
            f"{show_expression(Reduce('sum', (rank,), term))} or {show_expression(inside)}.",
            factor.at,
        )


def _factors(term: Expression, opaque: Collection[Expression]) -> Iterator[Expression]:
    """Yield the sums inside a product, outermost first."""
    if not isinstance(term, Apply) or _is_one_of(term, opaque):
        return
    if term.operator in ("+", "-"):
        yield term
        for summand in _summands(term, opaque):
            yield from _factors(summand, opaque)
    elif term.operator in ("*", "/", "neg"):
        for operand in term.operands:
            yield from _factors(operand, opaque)


def _summands(factor: Expression, opaque: Collection[Expression]) -> Iterator[Expression]:
    if isinstance(factor, Apply) and factor.operator in ("+", "-", "neg"):
        if not _is_one_of(factor, opaque):
            for operand in factor.operands:
                yield from _summands(operand, opaque)
            return
    yield factor


def _refuse_other_reduction(term: Expression, rank: str) -> None:
    for x in _where_free(term, rank):
        if not isinstance(x, Reduce) or x.reducer == "sum":
            continue
        outside = Reduce("sum", (rank,), term)
        inside = replace(x, body=Reduce("sum", (rank,), x.body))
        raise RankError(
            f"{rank} is to be summed, and it stands inside {x.reducer}[{', '.join(x.ranks)}], so "
            f"the sum is written out: {show_expression(outside)} or {show_expression(inside)}.",
            x.at,
        )


def _where_free(expression: Expression, rank: str) -> Iterator[Expression]:
    """Yield the sub-expressions in which ``rank`` varies and is the term's own."""
    if rank in free_ranks(expression):
        yield expression
        for child in children(expression):
            yield from _where_free(child, rank)
