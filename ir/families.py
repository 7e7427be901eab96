"""Rank families: the ranks that walk one fiber together, because one rank was split in several.

::

    BK[e, m1, m0] = K[e, m1 * M0 + m0]          RankFamily("m0", outer=("m1",))
    C[p, n] = concat[n](S[p, m], T[p, c])       RankFamily("n", also=("m", "c"))

A mixed radix is told from a stride by its form alone: the digit of weight 1 is a plain coordinate
of no input, as ``s`` is in ``X[2 * p + s] * W[s]``. Where that reading is wrong, the family is
given by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .cascade import Cascade
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
    free_ranks,
)
from .linear import linear


@dataclass(frozen=True, slots=True)
class RankFamily:
    """Ranks that are walked together.

    element : the rank along which elements follow one another.
    outer : ranks that count tiles of elements.
    also : other names of the element level, e.g. the rank before it was split.
    """

    element: str
    outer: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def ranks(self) -> tuple[str, ...]:
        """Every rank of the family."""
        return (*self.outer, self.element, *self.also)

    def __str__(self) -> str:
        return ", ".join((*self.outer, self.element))


def families(cascade: Cascade) -> tuple[RankFamily, ...]:
    """Return the families that follow from mixed radices and concatenations, in order of sight."""
    found: list[RankFamily] = []
    for family in (*_splits(cascade), *_concatenations(cascade)):
        kin = [f for f in found if set(f.ranks) & set(family.ranks)]
        first = found.index(kin[0]) if kin else len(found)
        found = [f for f in found if f not in kin]
        found.insert(first, _merged([*kin, family]))
    return tuple(found)


def follows(coordinate: Expression, place: Expression, family: RankFamily) -> bool:
    """Whether reading at ``coordinate`` keeps step with a tensor that is written at ``place``.

    A shift (``i + 1``) and a mixed radix do, and ``m // B`` where tiles were written. A gather, a
    stride or a reversal may want any element, so the whole fiber comes first.
    """
    if isinstance(place, RankVariable) and place.rank in family.outer:
        match coordinate:
            case Apply("//", (RankVariable(rank=rank), Constant() | Parameter())):
                return rank in family.ranks
    digits = _digits(coordinate)
    return bool(digits) and set(digits) <= set(family.ranks) and 1 in digits.values()


def _splits(cascade: Cascade) -> Iterator[RankFamily]:
    plain = {
        coordinate.rank
        for access in _accesses(cascade)
        if access.tensor in cascade.inputs
        for coordinate in access.coordinates
        if isinstance(coordinate, RankVariable)
    }
    for access in _accesses(cascade):
        for place, coordinate in enumerate(access.coordinates):
            digits = _digits(coordinate)
            units = [rank for rank, weight in digits.items() if weight == 1]
            if len(digits) > 1 and len(units) == 1 and units[0] not in plain:
                outer = tuple(rank for rank in digits if rank != units[0])
                also = _unsplit(cascade, access.tensor, place, frozenset(digits))
                yield RankFamily(units[0], outer, also)


def _unsplit(cascade: Cascade, tensor: str, place: int, digits: frozenset[str]) -> tuple[str, ...]:
    """Return the ranks at which a tensor is read or written unsplit, where it is elsewhere split.

    A rank that meets the digits in one einsum is walked beside them, and so is another.
    """
    together = {
        rank
        for einsum in cascade.einsums
        for ranks in [{x.rank for x in einsum.expressions() if isinstance(x, RankVariable)}]
        if ranks & digits
        for rank in ranks
    }
    here = [x for x in _accesses(cascade) if x.tensor == tensor]
    here += [e.output for e in cascade.einsums if e.name == tensor]
    found = (x.coordinates[place] for x in here if place < len(x.coordinates))
    ranks = (c.rank for c in found if isinstance(c, RankVariable))
    return tuple(dict.fromkeys(rank for rank in ranks if rank not in together))


def _concatenations(cascade: Cascade) -> Iterator[RankFamily]:
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Concatenate):
                shared = set.intersection(*(set(free_ranks(part)) for part in x.parts))
                own = (r for part in x.parts for r in free_ranks(part))
                around = {*shared, *einsum.ranks}
                yield RankFamily(
                    x.rank, (), tuple(dict.fromkeys(r for r in own if r not in around))
                )


def _merged(parts: list[RankFamily]) -> RankFamily:
    element = parts[0].element
    outer = tuple(dict.fromkeys(rank for part in parts for rank in part.outer))
    names = dict.fromkeys(rank for part in parts for rank in (part.element, *part.also))
    return RankFamily(element, outer, tuple(r for r in names if r != element and r not in outer))


def _accesses(cascade: Cascade) -> Iterator[Access]:
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x is not einsum.output:
                yield x


def _digits(coordinate: Expression) -> dict[str, int]:
    """Return the ranks of ``m1 * M0 + m0 + W`` with their weights, 0 for a weight that is unknown.

    Nothing where the coordinate is of another form, or reads a rank backwards.
    """
    digits: dict[str, int] = {}
    for monomial, coefficient in linear(coordinate).terms:
        ranks = [x.rank for x in monomial if isinstance(x, RankVariable)]
        rest = [x for x in monomial if not isinstance(x, RankVariable)]
        if any(not isinstance(x, Parameter | Size) for x in rest) or len(ranks) > 1:
            return {}
        if not ranks:
            continue
        if ranks[0] in digits or not isinstance(coefficient, int) or coefficient < 1:
            return {}
        digits[ranks[0]] = 0 if rest else coefficient
    return digits
