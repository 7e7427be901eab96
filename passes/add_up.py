"""Add up in memory what a second kernel would compute all over again.

rewrite::

    kernel 1, tiles of p, walks m:    T[p, m];  Y = sum[m](T * K)
    kernel 2, tiles of m, walks p:    T[p, m];  X = sum[p](T * Q)
    -->
    kernel 1:                         Y = 0
    kernel 2, tiles of m, walks p:    T[p, m];  X = sum[p](T * Q);  Y += sum[m](T * K), in memory
    kernel 3:                         what is made of Y

*Requires* that the second kernel makes all that the sums of the first read, and that nothing but
what is made of them for each coordinate stands behind them. *Keeps* every target. Programs add in
whatever order they come, so that a sum in floating point is no longer the same bits every time; for
that reason it is done only where it was asked for. Or they add in turn (``in_turn``), in the order
of their tiles. Where each of them adds to all of Y, the first sets it, and there is no kernel 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Constant, Reduce
from .divide import Group, reads_of
from .pack_rows import conditions
from .tile_work import all_ranks

SHORTEST = 128
"""The fewest coordinates, of what is walked and of what is tiled, that are worth it."""


WIDE = 64
"""The fewest features at which it is worth it. On an H100, TFLOP/s of five products and, with all
seven made, 64 features: 458 and 418 (4096 rows), 493 and 417 (16384), 413 and 364 (walks that
follow the rows); 128 features: 520 and 475, 547 and 503 (16384, walks that follow the rows)."""


IN_TURN = (64, 128)
"""The features at which adding in turn is worth it. On an H100, TFLOP/s of five products in turn
and, with all seven made, 64 features: 429 and 411 (4096 rows), 462 and 427 (16384); 128 features:
396 and 392 (1024), 473 and 448 (2048), 526 and 476 (4096), 573 and 486 (16384). Where rows are
walked from elsewhere, 128 features: 446 and 434 (4096), 535 and 493 (16384), of heads that share
keys 437 and 414 (4096); 64 features: 295 and 391, 334 and 424."""


WIDE_ALONE = 128
"""The same where threads add numbers one by one, not the memory engine tiles. That was slower at
any width (255 and 327 at 64 features, 204 and 351 at 128), and is done where it was asked for."""


def add_up(
    groups: tuple[Group, ...],
    cascade: Cascade,
    *,
    sizes: Mapping[str, int],
    least: int = WIDE,
    in_turn: bool = False,
) -> tuple[Group, ...]:
    """Return groups of which some add to what others would have reduced.

    ``least`` : the fewest features, of a rank that a program holds, at which they do.
    ``in_turn`` : only in turn.
    """
    for again in groups:
        for other in groups:
            found: tuple[Group, ...] | None = None
            if again is not other:
                found = joined(again, other, groups, sizes, least)
            if found is not None and in_turn:
                found = taking_turns(again, found, sizes)
            if found is not None:
                kept = [g for g in groups if g is not again]
                k = kept.index(other)
                done = (*kept[:k], *found, *kept[k + 1 :])
                return add_up(done, cascade, sizes=sizes, least=least, in_turn=in_turn)
    return groups


def joined(
    again: Group,
    other: Group,
    groups: tuple[Group, ...],
    sizes: Mapping[str, int],
    least: int,
) -> tuple[Group, Group, Group] | None:
    """Return a group that sets sums to 0, ``other`` that adds to them, and what is made of them.

    None where ``other`` does not make what the sums of ``again`` read.
    """
    walked, rows = again.streamed, other.streamed
    if walked is None or rows is None or again.segments or other.segments or other.added:
        return None
    if rows not in again.parallel or walked not in other.parallel:
        return None
    if set(again.parallel) - {rows} != set(other.parallel) - {walked}:
        return None
    if any(sizes.get(r, SHORTEST) < SHORTEST for r in (rows, walked)):
        return None
    if max((sizes.get(r, 0) for r in again.resident), default=0) < least:
        return None
    sums = tuple(e for e in again.slice if reduced_over(e, walked))
    behind = tuple(e for e in again.slice if e.name in after(again, sums))
    made = {e.name: e for e in other.slice}
    known = {*made, *reads_of(other.slice)}
    if not sums or not behind or any(e.name in again.targets for e in sums):
        return None
    for e in sums:
        assert isinstance(e.body, Reduce)
        alone = e.body.reducer == "sum" and e.body.ranks == (walked,) and rows in e.ranks
        if not alone or set(e.reads) - known:
            return None
    shared = [e for e in again.slice if e.name in made]
    if any(made[e.name] != e for e in shared):
        return None
    names = {e.name for e in sums}
    if any(walked in e.ranks or set(e.reads) - names for e in behind):
        return None
    if any(set(again.targets) & set(reads_of(g.slice)) for g in groups if g is not again):
        return None
    short = tuple(r for r in again.resident if any(r in all_ranks(e) for e in behind))
    zeros = tuple(replace(e, body=Constant(0.0), filter=None) for e in sums)
    start = Group(tuple(e.name for e in sums), zeros, again.parallel, short, None)
    finish = Group(again.targets, behind, again.parallel, short, None)
    return start, replace(other, added=sums), finish


def taking_turns(
    again: Group, found: tuple[Group, ...], sizes: Mapping[str, int]
) -> tuple[Group, ...] | None:
    """Return groups that add in turn and finish, where that was measured to be worth it."""
    start, adds, finish = found
    features = max((sizes.get(r, 0) for r in again.resident), default=0)
    filtered = any(True for e in adds.slice for _ in conditions(e))
    whole = all(set(again.parallel) <= set(e.ranks) for e in adds.added)
    if features not in IN_TURN[filtered:] or not whole:
        return None
    adds = replace(adds, in_turn=True)
    # the first program sets sums, where there is one that adds to all of them
    return (start, adds, finish) if filtered else (adds, finish)


def reduced_over(einsum: Einsum, rank: str) -> bool:
    """Whether an einsum is a reduction over a rank."""
    return isinstance(einsum.body, Reduce) and rank in einsum.body.ranks


def after(group: Group, sums: tuple[Einsum, ...]) -> set[str]:
    """Return the einsums of a group that are made of its sums."""
    names = {e.name for e in sums}
    found: set[str] = set()
    for e in group.slice:
        if (names | found) & set(e.reads):
            found.add(e.name)
    return found
