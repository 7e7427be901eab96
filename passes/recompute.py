"""Recompute: which results a kernel reads from memory, though it could make them again.

A result that lacks one of a kernel's ranks is made once for each tile of that rank. Where making it
reads what nothing else there reads, a kernel of its own makes it once: a mean of rows, say, that a
product takes for each of its columns. The cost is one store and one load of what a reduction
leaves, which is little beside what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from ..ir.cascade import Einsum
from ..ir.expression import Expression, RankVariable, Reduce, accesses, free_ranks
from .facts import pointwise
from .short_ranks import accesses_of
from .tile_work import all_ranks, folded_body, is_product

ROWS = 16
"""Rows that a kernel should have room for: what a dot takes at least."""

HELD = 1 << 16
"""Elements of one input that a program may hold for that many rows."""


def pooled(
    target: str,
    slice: tuple[Einsum, ...],
    parallel: tuple[str, ...],
    short: frozenset[str],
    sizes: Mapping[str, int],
) -> set[str]:
    """Return results of reductions over short ranks that are made elsewhere, to be read here.

    Nothing else in the slice has the ranks that they reduce, and they read what nothing else reads,
    as ``Km[n, e] = sum[s](K[n * B + s, e])`` in a kernel for ``sum[e](Qm[i, e] * Km[n, e])``. Those
    that lack a parallel rank would be made again for each of its tiles; of the others, sums whose
    rows are so wide that a program has no room for several.
    """
    made = {e.name for e in slice}
    writers = {e.name: e for e in slice}
    order = {e.name: k for k, e in enumerate(slice)}
    found: set[str] = set()
    for rank in dict.fromkeys(r for e in slice for r in reduced(e) if r in short):
        exits = [e for e in slice if rank in reduced(e)]
        inside = closure_reads_of(exits, slice)
        outside = [e for e in slice if e.name not in inside]
        if target in inside or any(rank in all_ranks(e) for e in outside):
            continue
        apart = [
            e
            for e in exits
            if again(e, parallel, sizes) or (any(map(reduced, outside)) and folds_rows(e))
        ]
        left = closure(target, writers, order, {e.name for e in apart})
        elsewhere = loads(left, made, short)
        for einsum in apart:
            own = [e for e in slice if e.name in closure_reads_of([einsum], slice)]
            read = loads(own, made, short)
            wide = max((prod(sizes.get(r, 1) for r in x) for x in read.values()), default=0)
            if set(read) - set(elsewhere) and (
                again(einsum, parallel, sizes) or ROWS * wide > HELD
            ):
                found.add(einsum.name)
    return {n for n in found if not any(n in closure_reads(writers[m], slice) for m in found - {n})}


def again(einsum: Einsum, parallel: tuple[str, ...], sizes: Mapping[str, int]) -> bool:
    """Whether an einsum lacks a rank for whose tiles it would be made one by one."""
    return any(sizes.get(r, ROWS) > 1 for r in set(parallel) - set(einsum.ranks))


def folds_rows(einsum: Einsum) -> bool:
    """Whether an einsum reduces something else than a product."""
    body = folded_body(einsum)
    return body is not None and not is_product(body)


def loads(
    einsums: Iterable[Einsum], made: set[str], short: frozenset[str]
) -> dict[tuple[str, tuple[Expression | None, ...]], tuple[str, ...]]:
    """Return what some einsums of a slice read from memory, and the short ranks of each tile.

    Short ranks that stand alone have no names: whoever reads a row reads it whole.
    """
    found: dict[tuple[str, tuple[Expression | None, ...]], tuple[str, ...]] = {}
    for x in (x for e in einsums for x in (*accesses(e.body), *accesses_of(e.filter))):
        if x.tensor in made:
            continue
        plain = tuple(
            None if isinstance(c, RankVariable) and c.rank in short else c for c in x.coordinates
        )
        found[x.tensor, plain] = tuple(r for r in free_ranks(x) if r in short)
    return found


def statistics(
    target: str,
    slice: tuple[Einsum, ...],
    parallel: tuple[str, ...],
    streamed: tuple[str, ...],
    short: frozenset[str],
) -> set[str]:
    """Return sums over short ranks that are cheaper read than made again, tile after tile.

    Such as ``R[p] = sum[f](U[p, f] * O[p, f])`` in a kernel that walks p for each tile of m, if
    nothing else there reads O: a number a row is read in place of a row.
    """
    found: set[str] = set()
    for einsum in slice:
        again = set(streamed) <= set(einsum.ranks) and set(parallel) - set(einsum.ranks)
        if einsum.name == target or not isinstance(einsum.body, Reduce) or not again:
            continue
        made = {e.name for e in slice}
        others = {r for e in slice if e is not einsum for r in e.reads}
        if streamed and set(einsum.reads) - others - made and not long_reduced(einsum, short):
            found.add(einsum.name)
    return found


def summed_up(repeated: set[str], slice: tuple[Einsum, ...], target: str) -> set[str]:
    """Return what crosses memory in place of several results that one number is made of.

    ``L[p] = G[p] + log(D[p])``, if nothing else there reads G or D: it is made once, where they
    are, and read in place of both.
    """
    for einsum in reversed(slice):
        plain = einsum.filter is None and pointwise(einsum.body)
        if not plain or einsum.name in (*repeated, target):
            continue
        ahead = tuple(e for e in slice if e.name not in repeated)
        own = closure_reads(einsum, ahead)
        own |= repeated & {r for e in ahead if e.name in {*own, einsum.name} for r in e.reads}
        covered = [e for e in slice if e.name in own & repeated]
        outside = [e for e in slice if e.name not in own and e is not einsum]
        small = any(set(einsum.ranks) <= set(e.ranks) for e in covered)
        behind = closure_reads_of(covered, slice)
        outside = [e for e in outside if e.name not in behind]
        if len(covered) < 2 or not small or any(own & set(e.reads) for e in outside):
            continue
        return summed_up((repeated - own) | {einsum.name}, slice, target)
    return repeated


def closure(
    target: str, writers: Mapping[str, Einsum], order: Mapping[str, int], cut: set[str]
) -> tuple[Einsum, ...]:
    """Return the einsums that ``target`` needs, in order, not going behind tensors in ``cut``."""
    needed, front = {target}, [target]
    while front:
        for name in writers[front.pop()].reads:
            if name in writers and name not in cut and name not in needed:
                needed.add(name)
                front.append(name)
    return tuple(writers[name] for name in sorted(needed, key=order.__getitem__))


def closure_reads(einsum: Einsum, slice: tuple[Einsum, ...]) -> set[str]:
    """Return the einsums of a slice that one of them is made of."""
    writers = {e.name: e for e in slice}
    needed: set[str] = set()
    front = [einsum.name]
    while front:
        for name in writers[front.pop()].reads:
            if name in writers and name not in needed:
                needed.add(name)
                front.append(name)
    return needed


def closure_reads_of(einsums: list[Einsum], slice: tuple[Einsum, ...]) -> set[str]:
    """Return some einsums of a slice with all that they are made of."""
    return {n for e in einsums for n in (e.name, *closure_reads(e, slice))}


def reduced(einsum: Einsum) -> tuple[str, ...]:
    """Return the ranks over which an einsum reduces."""
    return einsum.body.ranks if isinstance(einsum.body, Reduce) else ()


def long_reduced(einsum: Einsum, short: frozenset[str]) -> tuple[str, ...]:
    """Return the long ranks over which an einsum reduces."""
    if not isinstance(einsum.body, Reduce):
        return ()
    return tuple(r for r in einsum.body.ranks if r not in short)
