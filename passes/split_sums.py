"""Split sums: a reduction over several long ranks is done one rank after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
    tensors,
)
from .align import fresh
from .facts import NO_SIZES, is_plain
from .short_ranks import lowest_digits, short_ranks
from .stream_presence import conjuncts

LONG = 1024
"""The size that a rank of open size is taken for."""

ASSOCIATIVE = ("sum", "prod", "max", "min", "any", "all")


def split_sums(cascade: Cascade, *, sizes: Mapping[str, int] = NO_SIZES) -> Cascade:
    """Reduce over one long rank at a time.

    ::

        S[b, p, m] = sum[e](Q[b, p, e] * K[b, m, e])
        D[m]       = sum[b, p](S[b, p, m] * X[p, m])
        return D
        -->
        S[b, p, m]  = sum[e](Q[b, p, e] * K[b, m, e])
        D_p[b, m]   = sum[p](S[b, p, m] * X[p, m])
        D[m]        = sum[b](D_p[b, m])
        return D

    A kernel walks one rank; with the others parallel it has as many programs as the largest part of
    the cascade, and the sums that are left are small. The low digit of a coordinate, ``g`` in
    ``Q[k * G + g]``, is left for later too where the high one is kept: it is a rank of programs. If
    both are read only as that number, parts lie along it, and are made of what is there anyway::

        S[h, p, m] = sum[e](Q[h, p, e] * K[h // 4, m, e])
        D[k, m]    = sum[g, p](S[k * 4 + g, p, m] * X[k * 4 + g, p])
        return D
        -->
        S[h, p, m] = sum[e](Q[h, p, e] * K[h // 4, m, e])
        D_p[h, m]  = sum[p](S[h, p, m] * X[h, p])
        D[k, m]    = sum[g](D_p[k * 4 + g, m])
        return D

    ``sizes`` say which ranks a program may hold whole; those are summed at once. The rank that goes
    first is no shorter than a quarter of the longest, so that little is kept in between. Of such
    ranks it is one that something behind the body is reduced over already, so that the new
    reduction joins that walk; else the last one written.

    Requires: a flat cascade. Keeps: every output's value up to rounding; where points exist.
    """
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    short = short_ranks(cascade, sizes)
    writers = {e.name: e for e in cascade.einsums}
    einsums = tuple(x for e in cascade.einsums for x in _split(e, writers, short, sizes, taken))
    if len(einsums) == len(cascade.einsums):
        return cascade
    return replace(cascade, einsums=einsums)


def _split(
    einsum: Einsum,
    writers: Mapping[str, Einsum],
    short: frozenset[str],
    sizes: Mapping[str, int],
    taken: set[str],
) -> tuple[Einsum, ...]:
    """Return an einsum as one or more, each with one long rank to reduce."""
    body = einsum.body
    if not isinstance(body, Reduce) or body.reducer not in ASSOCIATIVE or not is_plain(einsum):
        return (einsum,)
    digits = [r for r in body.ranks if _is_low_digit(r, body, einsum)]
    long = [r for r in body.ranks if r not in short or r in digits]
    if len(long) < 2:
        return (einsum,)
    last = _first_to_go([r for r in long if r not in digits] or long, body, writers, sizes)
    later = tuple(r for r in long if r != last)
    now = tuple(r for r in body.ranks if r not in later)
    number = _number(body, digits, writers)
    inner = body if number is None else _renamed(body, number)
    kept = {*einsum.ranks, *later, *([] if number is None else [number.rank])}
    order = [r for r in free_ranks(inner.body) if r in kept]
    if number is None:
        order += [r for r in (*einsum.ranks, *later) if r not in order]
    # in memory as the sum itself, which is read and written next
    left = iter(r for r in einsum.ranks if r in order)
    order = [next(left) if r in einsum.ranks else r for r in order]
    name = fresh(f"{einsum.name}_{last}", taken)
    part = Access(name, tuple(RankVariable(r) for r in order))
    first = Einsum(part, replace(inner, ranks=now), None, einsum.at)
    read = part if number is None else _read_at(part, number)
    rest = replace(einsum, body=Reduce(body.reducer, later, read, None, body.at))
    return (first, *_split(rest, {**writers, name: first}, short, sizes, taken))


@dataclass(frozen=True, slots=True)
class Number:
    """A coordinate that digits make up, and the rank of a tensor along which it lies."""

    coordinate: Expression
    rank: str


def _number(body: Reduce, digits: list[str], writers: Mapping[str, Einsum]) -> Number | None:
    """Return the number of which one rank is the low digit, if nothing else reads its digits."""
    if len(digits) != 1 or body.reducer != "sum":
        return None
    inside = (body.body, *([] if body.filter is None else [body.filter]))
    found = {
        (c, writers[a.tensor].ranks[k])
        for x in inside
        for a in accesses(x)
        if a.tensor in writers
        for k, c in enumerate(a.coordinates)
        if digits[0] in free_ranks(c) and not isinstance(c, RankVariable)
    }
    if len(found) != 1:
        return None
    ((coordinate, rank),) = found
    renamed = _renamed(body, number := Number(coordinate, rank))
    left = {r for x in (renamed.body, renamed.filter) if x is not None for r in free_ranks(x)}
    inner = {r for x in inside for r in free_ranks(x)}
    return None if left & set(free_ranks(coordinate)) or rank in inner else number


def _renamed(body: Reduce, number: Number) -> Reduce:
    """Return a reduction that reads a rank where it read a number."""

    def rank(x: Expression) -> Expression | None:
        return RankVariable(number.rank) if x == number.coordinate else None

    condition = None if body.filter is None else rewrite(body.filter, rank)
    return replace(body, body=rewrite(body.body, rank), filter=condition)


def _read_at(part: Access, number: Number) -> Access:
    """Return an access that reads a number where it has a rank."""
    own = RankVariable(number.rank)
    return replace(
        part, coordinates=tuple(number.coordinate if c == own else c for c in part.coordinates)
    )


def _first_to_go(
    ranks: list[str], body: Reduce, writers: Mapping[str, Einsum], sizes: Mapping[str, int]
) -> str:
    """Choose the rank over which to reduce first."""
    longest = max(sizes.get(r, LONG) for r in ranks)
    enough = [r for r in ranks if 4 * sizes.get(r, longest) >= longest]
    walked = _reduced_behind(body.body, writers)
    return next((r for r in reversed(enough) if r in walked), enough[-1])


def _reduced_behind(expression: Expression, writers: Mapping[str, Einsum]) -> set[str]:
    """Return the ranks over which anything that an expression needs is reduced."""
    found: set[str] = set()
    seen: set[str] = set()
    front = list(tensors(expression))
    while front:
        name = front.pop()
        if name in seen or name not in writers:
            continue
        seen.add(name)
        if isinstance(body := writers[name].body, Reduce):
            found |= set(body.ranks)
        front += writers[name].reads
    return found


def _is_low_digit(rank: str, body: Reduce, einsum: Einsum) -> bool:
    """Whether a reduced rank is the low digit of a coordinate whose high digit is kept."""
    if any(_bounds(c, rank) for c in conjuncts(body.filter)):
        return False  # the places of a block, which a program holds whole
    inside: list[Expression] = [body.body, *([] if body.filter is None else [body.filter])]
    for x in inside:
        for access in accesses(x):
            for c in access.coordinates:
                if isinstance(c, RankVariable) or rank not in lowest_digits(c):
                    continue
                others = set(free_ranks(c)) - {rank}
                if others and others <= set(einsum.ranks) and _times(c, others):
                    return True
    return False


def _bounds(condition: Expression, rank: str) -> bool:
    """Whether a condition says how many coordinates of a rank there are."""
    match condition:
        case Apply("<", (RankVariable(rank=r), Constant())):
            return r == rank
        case _:
            return False


def _times(coordinate: Expression, ranks: set[str]) -> bool:
    """Whether none of the ranks stands in a coordinate without a factor."""
    return not ranks & lowest_digits(coordinate)
