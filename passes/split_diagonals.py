"""Split diagonals: a sum along each diagonal adds up tiles first, then their own diagonals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    walk,
)
from ..ir.linear import delinear, linear
from .align import conjunction, fresh
from .diagonals import Diagonal, crossing, diagonal, placed, small, turned
from .facts import NO_SIZES, unsized
from .stream_presence import conjuncts

WIDTH = 64
"""Rows and columns of a tile."""


def split_diagonals(
    cascade: Cascade, *, short: frozenset[str] = frozenset(), sizes: Mapping[str, int] = NO_SIZES
) -> Cascade:
    """Add up the tiles that lie along a diagonal, as they are, and sum their diagonals afterwards.

    ::

        S[p, m] = sum[e](Q[p, e] * K[m, e])
        C[d]    = sum[p: 0 <= p - d and p - d < size(m)](exp(S[p, p - d]))
        return S, C
        -->
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        C_tiles[d_high, p_low, d_low: d_high < (size(d) + 126) // 64
                and p_low < 64 and d_low < 64] = sum[
            p_high: p_high < (size(p) + 63) // 64 and p_high * 64 + p_low < size(p)
                and 0 <= 64 * p_high + d_low - 64 * d_high
                and 64 * p_high + d_low - 64 * d_high < size(m)
        ](exp(S[p_high * 64 + p_low, 64 * p_high + d_low - 64 * d_high]))
        C[d]    = sum[p_low: p_low < 64](C_tiles[(63 - (p_low - d)) // 64, p_low, (p_low - d) % 64])
        return S, C

    With rows p = 64 p_high + p_low, the columns of a diagonal lie in tiles that move along with
    those of the rows, and where in its tile a point of the diagonal lies depends on p_low alone. So
    a walk along p_high adds tile to tile without moving anything inside, and S is a product of two
    tiles, as tensor cores make it; at p and p - d for a tile of p and d it would be a sum for each
    point. What lies between the two sums has 64 numbers for every diagonal.

    Applies to a sum over one rank of which a body reads a tensor at ``p`` and at ``s * p + t * d``,
    s and t 1 or -1, plus what is one number for the whole cascade; only where that tensor comes
    from a sum of products of something along its one rank and something along its other one, and
    where the sums have no ``short`` rank, which would be as long for every point of a tile, and
    where something else gives d its size. A product with a side that ``sizes`` show to be small is
    left to memory, and read there along its diagonals (``align``).

    Requires: a flat cascade, one long rank a sum. Keeps: every output's value up to rounding.
    """
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    writers = {e.name: e for e in cascade.einsums}
    for einsum in cascade.einsums:
        found = diagonal(einsum, writers, short)
        if found is not None and not small(found, sizes):
            at = cascade.einsums.index(einsum)
            both = split(*turned(einsum, found, writers), taken)
            changed = (*cascade.einsums[:at], *both, *cascade.einsums[at + 1 :])
            after = replace(cascade, einsums=changed)
            cascade = cascade if unsized(cascade, after) else after
    return cascade


def split(einsum: Einsum, found: Diagonal, taken: set[str]) -> tuple[Einsum, Einsum]:
    """Write a sum along diagonals as one over tiles and one over the rows of a tile."""
    body = einsum.body
    assert isinstance(body, Reduce)
    width = Constant(WIDTH)
    row, name = found.row, found.name
    high, low = fresh(f"{row}_high", taken), fresh(f"{row}_low", taken)
    tile, place = fresh(f"{name}_high", taken), fresh(f"{name}_low", taken)
    # along * p_low + across * d is 64 * (sign * d_high + shift) + d_low
    sign, shift = found.across, -1 if found.along < found.across else 0
    step = linear(RankVariable(tile)).scaled(sign * WIDTH) + linear(Constant(shift * WIDTH))
    step += linear(RankVariable(place))
    across = (step - linear(RankVariable(low)).scaled(found.along)).scaled(found.across)
    rows = Apply("+", (Apply("*", (RankVariable(high), width)), RankVariable(low)))
    values: dict[str, Expression] = {row: rows, name: delinear(across)}
    tiles = (
        Apply("//", (Apply("+", (Size(row), Constant(WIDTH - 1))), width)),
        Apply("//", (Apply("+", (Size(name), Constant(tiles_beyond(found)))), width)),
    )
    inner: list[Expression] = [
        Apply("<", (RankVariable(high), tiles[0])),
        Apply("<", (rows, Size(row))),
    ]
    if reads_itself(body, found):
        inner += [Apply("<=", (Constant(0), values[name])), Apply("<", (values[name], Size(name)))]
    inner += [placed(c, values) for c in conjuncts(body.filter)]
    outer: list[Expression] = [
        Apply("<", (RankVariable(r), bound))
        for r, bound in ((tile, tiles[1]), (low, width), (place, width))
    ]
    ranks = [x for r in einsum.ranks for x in ((tile, low, place) if r == name else (r,))]
    sums = Access(fresh(f"{einsum.name}_tiles", taken), tuple(map(RankVariable, ranks)))
    first = Einsum(
        sums,
        Reduce("sum", (high,), placed(body.body, values), conjunction(inner), body.at),
        conjunction(outer),
        einsum.at,
    )
    whole = delinear(
        linear(RankVariable(low)).scaled(found.along)
        + linear(RankVariable(name)).scaled(found.across)
    )
    up = Apply("//", (Apply("-", (Constant(WIDTH - 1), whole)), width))  # of -whole, rounded up
    down = Apply("//", (whole, width))
    down = Apply("+", (down, Constant(-shift))) if shift else down
    where: dict[str, Expression] = {
        tile: up if sign < 0 else down,
        place: Apply("%", (whole, width)),
    }
    read = replace(sums, coordinates=tuple(where.get(r, RankVariable(r)) for r in ranks))
    bounded = Apply("<", (RankVariable(low), width))
    return first, replace(einsum, body=Reduce("sum", (low,), read, bounded, body.at))


def tiles_beyond(found: Diagonal) -> int:
    """Return what to add to the number of diagonals, for a quotient that counts their tiles."""
    if found.along == found.across:
        return 2 * WIDTH - 2 if found.along > 0 else 3 * WIDTH - 3
    return 2 * WIDTH - 2 if found.along > 0 else 2 * WIDTH - 1


def reads_itself(body: Reduce, found: Diagonal) -> bool:
    """Whether a body needs the diagonal's number beside the columns that lie along it."""
    for x in walk(body.body):
        if isinstance(x, Access):
            for c in x.coordinates:
                ranks = free_ranks(c)
                if found.name in ranks and crossing(c, found.row, (found.name,)) is None:
                    return True
    return False
