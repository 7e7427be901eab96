"""Bands: products of rows with what is read along diagonals of a tile of rows and columns.

::

    Y[p, m] = sum[e](Q[p, e] * R[m - p + size(m) - 1, e])

Of a tile of rows and columns the second operand is not a number for each point and e: it is as many
rows of R as the tile has diagonals. The product with all of those, one row of results for each p,
holds Y along its own diagonals. A sum over the columns is the other way round::

    Z[p, e] = sum[m](Y[p, m] * R[m - p + size(m) - 1, e])

There rows of Y are laid along the diagonals, and multiplied by what is read along them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .expression import Access, Expression, RankVariable, free_ranks
from .linear import delinear, linear


@dataclass(frozen=True, slots=True)
class Band:
    """A sum over ``along`` of ``sides`` times ``access``, of which one coordinate is a diagonal.

    That coordinate, number ``position``, is ``signs`` times the two ranks, plus ``rest``. ``own``
    is the one of them that the other factors may have, ``across`` the one that they have not, or,
    if it is ``along``, the one that is summed.
    """

    access: Access
    position: int
    signs: tuple[tuple[str, int], tuple[str, int]]
    rest: Expression
    sides: tuple[Expression, ...]
    along: str
    own: str
    across: str


def band(terms: Sequence[Expression], along: str, ranks: frozenset[str]) -> Band | None:
    """Return the band that the factors of a sum over ``along`` are, None if they are none.

    ``ranks`` are those of which a program has a tile; the factors have just two of them.
    """
    spans = [ranks & set(free_ranks(x)) for x in terms]
    both = frozenset().union(*spans)
    found = [(x, signs_of(x, both)) for x in terms if isinstance(x, Access)]
    read = [(x, signs) for x, signs in found if signs is not None]
    if len(both) != 2 or len(read) != 1:
        return None
    access, (position, signs, rest) = read[0]
    if along in free_ranks(rest):
        return None
    sides = tuple(x for x in terms if x is not access)
    reached = [both & set(free_ranks(x)) for x in sides]
    if along in both:
        # what is laid along diagonals is multiplied by rows that have something of their own
        plain = [c for k, c in enumerate(access.coordinates) if k != position]
        if not any(isinstance(c, RankVariable) for c in plain) or not sides:
            return None
        (own,) = both - {along}
        return Band(access, position, signs, rest, sides, along, own, along)
    owned = frozenset().union(*reached)
    tied = any(along in free_ranks(x) and r for x, r in zip(sides, reached, strict=True))
    if len(owned) != 1 or not tied or RankVariable(along) not in access.coordinates:
        return None
    (own,), (across,) = owned, both - owned
    return Band(access, position, signs, rest, sides, along, own, across)


def signs_of(
    access: Access, both: frozenset[str]
) -> tuple[int, tuple[tuple[str, int], tuple[str, int]], Expression] | None:
    """Return which coordinate is a diagonal of two ranks that no other one has, signs and rest."""
    here = [k for k, c in enumerate(access.coordinates) if both & set(free_ranks(c))]
    if len(here) != 1:
        return None
    form = linear(access.coordinates[here[0]])
    ranks = {m[0].rank: n for m, n in form.terms if len(m) == 1 and isinstance(m[0], RankVariable)}
    found = tuple((r, int(ranks[r])) for r in sorted(both & ranks.keys()) if ranks[r] in (1, -1))
    if len(found) != 2:
        return None
    other = tuple((m, n) for m, n in form.terms if m not in [(RankVariable(r),) for r in both])
    rest = delinear(replace(form, terms=other))
    return None if both & set(free_ranks(rest)) else (here[0], (found[0], found[1]), rest)


def half_band(one: int, other: int) -> int:
    """Return half of how many diagonals are held for a tile of so many rows and columns.

    Powers of two, of which the greater one is as many as a row has points, or more.
    """
    return max(one, other)
