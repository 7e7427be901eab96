"""From pieces to ranges: bounds of one piece, then their order, unions and hulls.

A range's full part may be absent while it is put together: ``full`` is None where no tile can be
proved full. Two ranges that begin alike become one; one that lies inside another goes; two whose
order cannot be decided become their hull.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..ir.domain import Range
from ..ir.expression import Apply, Expression, Size
from .domain_extremes import everywhere, extreme, solvable, somewhere
from .domain_known import Known, at_most
from .domain_pieces import Piece
from .domain_simplify import FALSE, TRUE, ZERO, simplify


@dataclass(frozen=True, slots=True)
class Bounds:
    """Half-open bounds of what is visited and, where provable, of what is full.

    ``tested``: a part of the filter decides points that no bound sees.
    """

    begin: Expression
    end: Expression
    full: tuple[Expression, Expression] | None
    tested: bool = False

    def range(self) -> Range:
        """Return the range; a full part that does not exist is empty, at ``begin``."""
        full_begin, full_end = self.full or (self.begin, self.begin)
        return Range(self.begin, self.end, full_begin, full_end)


def bounds(piece: Piece, known: Known) -> Bounds | None:
    """Return the bounds of one piece for a tile of rows, None if it never has a point."""
    size = Size(known.streamed)
    condition = Apply("and", (TRUE, *piece.conditions))
    some, every = somewhere(condition, known), everywhere(condition, known)
    if some == FALSE:
        return None
    low = [extreme(x, "least", known) for x in piece.lower]
    high = [extreme(x, "greatest", known) for x in piece.upper]
    begin = simplify(Apply("max", (ZERO, *(x for x in low if x is not None))), known)
    end = simplify(Apply("min", (size, *(x for x in high if x is not None))), known)
    # A range whose condition fails ends at 0, so that not even a tile that is cut is visited.
    end = simplify(Apply("where", (some, end, ZERO)), known)
    solved = None not in low and None not in high
    decided = all(solvable(x, known) for x in piece.conditions) and every != FALSE
    tested = bool(piece.residual) or not solved or not decided
    full_low = [extreme(x, "greatest", known) for x in piece.lower]
    full_high = [extreme(x, "least", known) for x in piece.upper]
    if tested or None in full_low or None in full_high:
        return Bounds(begin, end, None, tested)
    full_begin = Apply("max", (ZERO, *(x for x in full_low if x is not None)))
    full_end = Apply("min", (size, *(x for x in full_high if x is not None)))
    full = (
        simplify(full_begin, known),
        simplify(Apply("where", (every, full_end, ZERO)), known),
    )
    return Bounds(begin, end, full, tested)


def arranged(found: Iterable[Bounds], known: Known) -> tuple[tuple[Bounds, ...], bool]:
    """Return ranges in ascending order of ``begin``, and whether some were replaced by a hull."""
    parts = _united(_outermost(tuple(dict.fromkeys(found)), known), known)
    ordered: list[Bounds] = []
    for part in parts:
        place = sum(at_most(x.begin, part.begin, known) for x in ordered)
        ordered.insert(place, part)
    for i, (a, b) in enumerate(zip(ordered, ordered[1:], strict=False)):
        if not at_most(a.begin, b.begin, known):
            hull = _hull(a, b, known)
            rest = (*ordered[:i], hull, *ordered[i + 2 :])
            return arranged(rest, known)[0], True
    return tuple(ordered), False


def _outermost(parts: tuple[Bounds, ...], known: Known) -> tuple[Bounds, ...]:
    """Leave out what another part covers, visited and full alike."""
    kept = list(parts)
    for x in parts:
        if any(y is not x and _covers(y, x, known) for y in kept):
            kept = [y for y in kept if y is not x]
    return tuple(kept)


def _covers(a: Bounds, b: Bounds, known: Known) -> bool:
    if not (at_most(a.begin, b.begin, known) and at_most(b.end, a.end, known)):
        return False
    if b.full is None:
        return True
    if a.full is None:
        return False
    return at_most(a.full[0], b.full[0], known) and at_most(b.full[1], a.full[1], known)


def _united(parts: tuple[Bounds, ...], known: Known) -> tuple[Bounds, ...]:
    """Join parts with one begin (and full begin), or one end (and full end)."""
    for i, a in enumerate(parts):
        for j, b in enumerate(parts[:i]):
            joined = _joined(b, a, known)
            if joined is not None:
                rest = [x for k, x in enumerate(parts) if k not in (i, j)]
                return _united(_outermost((*rest[:j], joined, *rest[j:]), known), known)
    return parts


def _joined(a: Bounds, b: Bounds, known: Known) -> Bounds | None:
    tested = a.tested or b.tested
    if a.begin == b.begin and (a.full is None or b.full is None or a.full[0] == b.full[0]):
        full = _joined_full(a, b, known)
        return Bounds(a.begin, _most(a.end, b.end, known), full, tested)
    if a.end == b.end and (a.full is None or b.full is None or a.full[1] == b.full[1]):
        begin = simplify(Apply("min", (a.begin, b.begin)), known)
        if a.full is None or b.full is None:
            return Bounds(begin, a.end, a.full or b.full, tested)
        full_begin = simplify(Apply("min", (a.full[0], b.full[0])), known)
        return Bounds(begin, a.end, (full_begin, a.full[1]), tested)
    return None


def _joined_full(a: Bounds, b: Bounds, known: Known) -> tuple[Expression, Expression] | None:
    if a.full is None or b.full is None:
        return a.full or b.full
    return a.full[0], _most(a.full[1], b.full[1], known)


def _most(a: Expression, b: Expression, known: Known) -> Expression:
    """Return the greater; a choice stays outermost: ``where(c, max(x, y), max(0, y))``."""
    for x, y in ((a, b), (b, a)):
        match x:
            case Apply("where", (condition, yes, no)):
                chosen = (_most(yes, y, known), _most(no, y, known))
                return simplify(Apply("where", (condition, *chosen)), known)
    return simplify(Apply("max", (a, b)), known)


def _hull(a: Bounds, b: Bounds, known: Known) -> Bounds:
    """Cover two parts and what lies between; of two full parts only one can be kept."""
    begin = simplify(Apply("min", (a.begin, b.begin)), known)
    return replace(
        a,
        begin=begin,
        end=_most(a.end, b.end, known),
        full=a.full or b.full,
        tested=a.tested or b.tested,
    )
