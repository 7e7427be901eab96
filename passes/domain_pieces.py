"""A solved filter as a union of pieces: in each, every row has one run of coordinates.

::

    m <= p and (m < 4 or m >= p - W + 1)
    -->
    piece 1:  upper p + 1, 4
    piece 2:  upper p + 1, lower p - W + 1

A piece is the conjunction of its limits, its conditions (on rows and on whole programs, free of the
streamed rank) and its residual (what could not be solved, to be tested point by point).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from ..ir.expression import Apply, Constant, Expression
from .domain_known import Known
from .domain_limits import depends, is_limit
from .domain_simplify import plus

MOST_PIECES = 12
"""Beyond this many the loops of a kernel would be more text than anyone reads; one is kept."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A conjunction: m >= each of ``lower``, m < each of ``upper``, and the rest."""

    lower: tuple[Expression, ...] = ()
    upper: tuple[Expression, ...] = ()
    conditions: tuple[Expression, ...] = ()
    residual: tuple[Expression, ...] = ()

    def __and__(self, other: Piece) -> Piece:
        return Piece(
            tuple(dict.fromkeys(self.lower + other.lower)),
            tuple(dict.fromkeys(self.upper + other.upper)),
            tuple(dict.fromkeys(self.conditions + other.conditions)),
            tuple(dict.fromkeys(self.residual + other.residual)),
        )


def pieces(solved: Expression, known: Known) -> tuple[Piece, ...]:
    """Return pieces whose union is the solved filter; () where it never holds.

    A part that would give more than ``MOST_PIECES`` stands in one piece, as its residual.
    """
    match solved:
        case Constant(value=value):
            return (Piece(),) if value else ()
        case Apply("or", operands):
            found = tuple(p for x in operands for p in pieces(x, known))
        case Apply("and", operands):
            found = (Piece(),)
            for x in operands:
                found = tuple(a & b for a, b in product(found, pieces(x, known)))
        case Apply("!=", (_, limit)) if is_limit(solved, known):
            found = (Piece(upper=(limit,)), Piece(lower=(plus(limit, 1),)))
        case Apply(symbol, (_, limit)) if is_limit(solved, known):
            low = (limit,) if symbol in (">=", "==") else ()
            high = {"<": (limit,), "==": (plus(limit, 1),)}.get(symbol, ())
            found = (Piece(low, high),)
        case _ if depends(solved, known):
            found = (Piece(residual=(solved,)),)
        case _:
            found = (Piece(conditions=(solved,)),)
    found = tuple(dict.fromkeys(found))
    return found if len(found) <= MOST_PIECES else (Piece(residual=(solved,)),)
