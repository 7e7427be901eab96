"""Domains: the loop bounds that a filter gives a streamed rank, for a tile of rows.

::

    m: m <= p and m >= p - W + 1                       (p in tiles, m streamed)
    -->
    visited    [max(0, p_first - W + 1), min(size(m), p_last + 1))
    full       [max(0, p_last - W + 1), min(size(m), p_first + 1))
    elsewhere  m >= p - W + 1 and m <= p               tested on the partial tiles alone

The filter is brought to negation normal form, its comparisons are solved for the streamed rank, and
the result is written as a union of pieces with one run of coordinates per row. The bounds of a
piece over a tile are its limits at the ends of the tile. Nothing is stored per tile.

Requires: parameters and tensors in limits hold integers, unless named in ``real``; the ones in
``positive_parameters`` are at least 1. Tensors that the filter reads at plain coordinates hold a
point there.
Keeps: the union of the ranges covers every point that the filter keeps; a tile inside a full part
has all its points. The classification in empty, full and partial is theory 5.2.
"""

from __future__ import annotations

from ..ir.domain import Domain, Range
from ..ir.expression import Expression, Size, walk
from ..ir.interval import surely_present
from ..ir.show import show_expression
from .domain_density import executed_density
from .domain_extremes import End, extreme, solvable
from .domain_known import Known
from .domain_limits import positive_parameters, solve
from .domain_pieces import Piece, pieces
from .domain_points import point_test
from .domain_ranges import Bounds, arranged, bounds
from .domain_simplify import FALSE, TRUE, ZERO

__all__ = ["Domain", "Range", "domain", "executed_density", "positive_parameters"]


def domain(
    filter: Expression | None,
    *,
    streamed: str,
    tiled: tuple[str, ...],
    real: tuple[str, ...] = (),
    sure: frozenset[str] = frozenset(),
) -> Domain:
    """Return what a tile of rows visits of the streamed rank.

    Parameters
    ----------
    filter : which points exist (None: all inside the shape).
    streamed : the rank that the loop walks.
    tiled : ranks of which a program has a tile, ``p_first`` to ``p_last``, both inclusive. Any
        other rank is one coordinate in a program and may stand in a bound.
    real : parameters and tensors of the filter that hold fractions; limits are rounded for them.
    sure : tensors whose values lie inside whatever they index.
    """
    if filter is None:
        return Domain((Range(ZERO, Size(streamed), ZERO, Size(streamed)),))
    positive = positive_parameters(filter, streamed=streamed)
    known = Known(streamed, tiled, frozenset(real), frozenset(positive))
    solved = solve(filter, known)
    parts = pieces(solved, known)
    found = [b for b in (bounds(part, known) for part in parts) if b is not None]
    unsure = [x for x in walk(filter) if not surely_present(x, sure)]
    if unsure:
        found = [Bounds(b.begin, b.end, None, b.tested) for b in found]
    ranges, hulled = arranged(found, known)
    decided = len(parts) == 1 and not unsure
    test = point_test(solved, known, decided=decided) if ranges else FALSE
    notes = [*_taken(positive), *_unsolved(parts, known)]
    if unsure:
        missing = ", ".join(dict.fromkeys(show_expression(x) for x in unsure))
        notes.append(f"no tile is known to be full: {missing} may lie outside its shape")
    if hulled:
        notes.append("ranges whose order is not known before the sizes are were joined in one")
    return Domain(
        tuple(b.range() for b in ranges),
        None if test == TRUE and not unsure else test,
        not unsure and not any(b.tested for b in found),
        tuple(notes),
        hulled,
    )


def _taken(positive: tuple[str, ...]) -> list[str]:
    return [f"taken to be positive: {', '.join(positive)}"] if positive else []


def _unsolved(parts: tuple[Piece, ...], known: Known) -> list[str]:
    """Say what is left to be tested, and what cannot bound a tile."""
    rows: list[Expression] = []
    for part in parts:
        rows += [x for x in part.conditions if not solvable(x, known)]
        ends: tuple[tuple[tuple[Expression, ...], End], ...]
        ends = ((part.lower, "greatest"), (part.upper, "least"))
        for limits, end in ends:
            rows += [x for x in limits if extreme(x, end, known) is None]
    residual = [x for part in parts for x in part.residual]
    notes = [
        f"not solved for {known.streamed}, tested on every tile: {show_expression(x)}"
        for x in residual
    ]
    notes += [
        f"not known for a tile of rows, tested on every tile: {show_expression(x)}" for x in rows
    ]
    return list(dict.fromkeys(notes))
