"""Selections as einsums: the rank of the list that one writes, and how long its lists are.

::

    Sel[p, j] = topk[m, k](X[p, m])
    Sel_count[p] = sum[j](where(Sel[p, j] >= 0, 1, 0))

A list ends where its points do; the second einsum counts them. A kernel that selects knows the
count, and stores it beside the list for those who read the list.
"""

from __future__ import annotations

from collections.abc import Iterable

from .cascade import Einsum
from .expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    free_ranks,
)

WHOLE = 2048
"""Coordinates of a rank, at most, from which one program chooses: it holds and sorts them all.

Above, kernels that look at tiles are faster, and compile faster (measured on an H100: 32 rows of
4096 take 80 us to sort).
"""

LONGEST = 8192
"""Members of a list, at most, that one program puts in order."""


def list_rank(einsum: Einsum) -> str:
    """Return the rank of the list that a selection writes: the one that its body has not."""
    return next(r for r in einsum.ranks if r not in free_ranks(einsum.body))


def count_body(einsum: Einsum) -> Expression:
    """Return how many points a selection's list has, as an expression of the list."""
    rank = list_rank(einsum)
    read = Access(einsum.name, tuple(RankVariable(r) for r in einsum.ranks))
    there = Apply(">=", (read, Constant(0)))
    return Reduce("sum", (rank,), Apply("where", (there, Constant(1), Constant(0))))


def count_ranks(einsum: Einsum) -> tuple[str, ...]:
    """Return the ranks of a selection's lists."""
    return tuple(r for r in einsum.ranks if r != list_rank(einsum))


def find_count(einsums: Iterable[Einsum], selection: Einsum) -> Einsum | None:
    """Return the einsum that counts a selection's lists, if there is one."""
    body, ranks = count_body(selection), count_ranks(selection)
    for einsum in einsums:
        if einsum.body == body and einsum.ranks == ranks and einsum.filter is None:
            return einsum
    return None


def selections(einsums: Iterable[Einsum]) -> tuple[Einsum, ...]:
    """Return the einsums that select."""
    return tuple(e for e in einsums if isinstance(e.body, Populate))
