"""Count lists: beside each selection, how many members its lists have."""

from __future__ import annotations

from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Access, Populate, RankVariable
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

    A list in memory does not tell where it ends; the count does.

    Requires: a flat cascade. Keeps: every output's value.
    """
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    missing = [e for e in selections(cascade.einsums) if find_count(cascade.einsums, e) is None]
    if not missing:
        return cascade
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        einsums.append(einsum)
        if isinstance(einsum.body, Populate) and einsum in missing:
            ranks = tuple(RankVariable(r) for r in count_ranks(einsum))
            name = fresh(f"{einsum.name}_count", taken)
            einsums.append(Einsum(Access(name, ranks), count_body(einsum)))
    return replace(cascade, einsums=tuple(einsums))
