"""The order of execution: einsums once, and loops over the generations of iterative ranks.

::

    step = Einsum | Loop(rank, steps)

Einsums that depend on each other run generation by generation. Within one generation the reads of
earlier ones no longer count as dependences; what still depends on itself then iterates over a
further rank, inside the loop. This is loop distribution by strongly connected components (Allen and
Kennedy, "Automatic translation of FORTRAN programs to vector form", 1987) with einsums for
statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import RankError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable, free_ranks


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that run once per generation of ``rank``, from 0 to size - 1."""

    rank: str
    steps: tuple[Einsum | Loop, ...]


def execution_order(cascade: Cascade) -> tuple[Einsum | Loop, ...]:
    """Return the steps that compute a cascade, each after what it reads.

    Raises RankError where einsums depend on each other within one generation.
    """
    return _order(cascade.einsums, ())


_Running = tuple[tuple[str, bool], ...]
"""The loops around: each rank, and whether reads of unclear age count as reads of earlier ones."""


def _order(einsums: Sequence[Einsum], loops: _Running) -> tuple[Einsum | Loop, ...]:
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(einsums)))
    for w, writer in enumerate(einsums):
        for r, reader in enumerate(einsums):
            if any(_waits(writer, access, loops) for access in _accesses(reader, writer.name)):
                graph.add_edge(w, r)
    groups = networkx.condensation(graph)
    members = {group: sorted(nodes) for group, nodes in groups.nodes(data="members")}
    steps: list[Einsum | Loop] = []
    for group in networkx.lexicographical_topological_sort(groups, key=lambda g: members[g][0]):
        nodes = members[group]
        if len(nodes) == 1 and not graph.has_edge(nodes[0], nodes[0]):
            steps.append(einsums[nodes[0]])
        else:
            steps.append(_loop([einsums[node] for node in nodes], loops))
    return tuple(steps)


def _loop(group: Sequence[Einsum], loops: _Running) -> Loop:
    """Run einsums that depend on each other over the first rank that makes that possible."""
    outer = {rank for rank, _ in loops}
    ranks = dict.fromkeys(rank for einsum in group for rank in _generations(einsum))
    candidates = [r for r in ranks if r not in outer and all(r in e.ranks for e in group)]
    # A read whose age is unclear, such as H[j] with a filter j <= i, is taken to be of an earlier
    # generation only if no rank explains every read.
    for lenient in (False, True):
        for rank in candidates:
            try:
                return Loop(rank, _order(group, (*loops, (rank, lenient))))
            except RankError:
                continue
    names = ", ".join(dict.fromkeys(einsum.name for einsum in group))
    raise RankError(
        f"{names} depend on each other within one generation: an iterative tensor is written at "
        f"i + 1 and reads generation i.",
        group[0].at,
    )


def _accesses(reader: Einsum, tensor: str) -> list[Access]:
    return [x for x in reader.expressions() if isinstance(x, Access) and x.tensor == tensor]


def _generations(einsum: Einsum) -> list[str]:
    offsets = (_offset(c) for c in einsum.output.coordinates)
    return [rank for rank, offset in (x for x in offsets if x is not None) if rank and offset == 1]


def _waits(writer: Einsum, access: Access, loops: _Running) -> bool:
    """Whether what the access reads may be written by ``writer`` in this run of the loops."""
    pairs = list(zip(writer.output.coordinates, access.coordinates, strict=False))
    if any(_disjoint(written, read) for written, read in pairs):
        return False
    return not any(_earlier(writer, access, rank, lenient) for rank, lenient in loops)


def _earlier(writer: Einsum, access: Access, rank: str, lenient: bool) -> bool:
    """Whether the access reads what an earlier generation of ``rank`` wrote."""
    for axis, written in enumerate(writer.output.coordinates):
        if rank in free_ranks(written):
            read = access.coordinates[axis] if axis < len(access.coordinates) else None
            to, of = _offset(written), None if read is None else _offset(read)
            if to is None or of is None or of[0] != rank:
                return lenient
            return of[1] < to[1]
    return False


def _disjoint(written: Expression, read: Expression) -> bool:
    """Whether two coordinates can never be equal: ranks start at 0."""
    to, of = _offset(written), _offset(read)
    if to is None or of is None:
        return False
    if to[0] == "" and of[0] == "":
        return to[1] != of[1]
    return (to[0] == "" and to[1] < of[1]) or (of[0] == "" and of[1] < to[1])


def _offset(coordinate: Expression) -> tuple[str, int] | None:
    """Return ``i + 1`` as ("i", 1) and ``0`` as ("", 0); None for anything else."""
    match coordinate:
        case Constant(value=int(value)):
            return "", value
        case RankVariable(rank=rank):
            return rank, 0
        case Apply(operator="+", operands=(RankVariable(rank=rank), Constant(value=int(value)))):
            return rank, value
        case Apply(operator="-", operands=(RankVariable(rank=rank), Constant(value=int(value)))):
            return rank, -value
        case _:
            return None
