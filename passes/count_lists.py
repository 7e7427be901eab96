"""Count lists: beside each selection, how many members its lists have."""

from __future__ import annotations

from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Access, RankVariable
from ..ir.selection import count_body, count_ranks, find_count, selections
from .align import fresh


def count_lists(cascade: Cascade) -> Cascade:
    """Give every selection an einsum that counts the members of its lists.

    ::

        T[p, j] = topk[m, 4](X[p, m])
        O[p] = sum[j](V[T[p, j]])
        return O
        -->
        T[p, j] = topk[m, 4](X[p, m])
        T_count[p] = sum[j](where(T[p, j] >= 0, 1, 0))
        O[p] = sum[j](V[T[p, j]])
        return O

    A list in memory does not tell where it ends; the count does. One that is there already moves to
    its selection, for whoever reads the list may read it too.

    Requires: a flat cascade. Keeps: every output's value.
    """
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    counts: dict[str, Einsum] = {}
    for selection in selections(cascade.einsums):
        found = find_count(cascade.einsums, selection)
        if found is None:
            ranks = tuple(RankVariable(r) for r in count_ranks(selection))
            name = fresh(f"{selection.name}_count", taken)
            found = Einsum(Access(name, ranks), count_body(selection))
        counts[selection.name] = found
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        if einsum not in counts.values():
            einsums.append(einsum)
        if einsum.name in counts:
            einsums.append(counts[einsum.name])
    if tuple(einsums) == cascade.einsums:
        return cascade
    return replace(cascade, einsums=tuple(einsums))
