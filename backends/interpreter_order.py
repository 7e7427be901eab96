"""The order of execution: einsums once, and loops over the generations of iterative ranks.

::

    step = Einsum | Loop(rank, backward, steps)

Einsums that depend on each other run generation by generation. Within one generation the reads of
earlier ones no longer count as dependences; what still depends on itself then iterates over a
further rank, inside the loop. This is loop distribution by strongly connected components (Allen and
Kennedy, "Automatic translation of FORTRAN programs to vector form", 1987) with einsums for
statements. An iteration runs forward (``H[i + 1]`` from ``H[i]``) or backward (``H[i]`` from
``H[i + 1]``, where ``H[size(i)]`` is given).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import RankError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable, Size, free_ranks


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that run once per generation of ``rank``: from 0 to size - 1, or back."""

    rank: str
    backward: bool
    steps: tuple[Einsum | Loop, ...]


def execution_order(cascade: Cascade) -> tuple[Einsum | Loop, ...]:
    """Return the steps that compute a cascade, each after what it reads.

    Raises RankError where einsums depend on each other within one generation.
    """
    return _order(cascade.einsums, ())


_Running = tuple[tuple[str, bool], ...]
"""The loops around: each rank, and whether it runs backward."""


def _order(einsums: Sequence[Einsum], loops: _Running) -> tuple[Einsum | Loop, ...]:
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(einsums)))
    for w, writer in enumerate(einsums):
        for r, reader in enumerate(einsums):
            if any(_waits(writer, access, loops) for access in _accesses(reader, writer.name)):
                graph.add_edge(w, r)
    groups = networkx.condensation(graph)
    members: dict[int, list[int]] = {
        group: sorted(data["members"]) for group, data in groups.nodes(data=True)
    }
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
    ranks = [r for r in group[0].ranks if r not in outer and all(r in e.ranks for e in group)]
    reads = [
        (writer, access)
        for writer in group
        for reader in group
        for access in _accesses(reader, writer.name)
        if _waits(writer, access, loops)
    ]
    for backward in (False, True):
        for rank in ranks:
            lags = [_lag(writer, access, rank, backward) for writer, access in reads]
            # Every read must be of this generation or an earlier one, and some of an earlier one.
            if all(lag is not None and lag >= 0 for lag in lags) and any(lags):
                try:
                    return Loop(rank, backward, _order(group, (*loops, (rank, backward))))
                except RankError:
                    continue  # another rank may be the outer one
    names = ", ".join(dict.fromkeys(einsum.name for einsum in group))
    raise RankError(
        f"{names} depend on each other within one generation: an iterative tensor is written at "
        f"i + 1 and reads generation i.",
        group[0].at,
    )


def _accesses(reader: Einsum, tensor: str) -> list[Access]:
    if tensor not in reader.reads:
        return []
    return [x for x in reader.expressions() if isinstance(x, Access) and x.tensor == tensor]


def _waits(writer: Einsum, access: Access, loops: _Running) -> bool:
    """Whether what the access reads may be written by ``writer`` in this run of the loops."""
    pairs = list(zip(writer.output.coordinates, access.coordinates, strict=False))
    if any(_disjoint(written, read) for written, read in pairs):
        return False
    lags = [_lag(writer, access, rank, backward) for rank, backward in loops]
    return all(lag is None or lag <= 0 for lag in lags)


def _lag(writer: Einsum, access: Access, rank: str, backward: bool) -> int | None:
    """Return how many runs of the loop over ``rank`` ago the access's point was written.

    None where the coordinates do not say, as of ``H[j]``.
    """
    for written, read in zip(writer.output.coordinates, access.coordinates, strict=False):
        if rank in free_ranks(written):
            to, of = _offset(written), _offset(read)
            if to is None or of is None:
                return None
            if of[0] == "":
                return 1  # one fixed generation is read as far as it exists
            if of[0] != rank:
                return None
            return of[1] - to[1] if backward else to[1] - of[1]
    return None


def _disjoint(written: Expression, read: Expression) -> bool:
    """Whether two coordinates can never be equal: ranks start at 0 and end below their size."""
    match written, read:
        case (Size(rank=rank), RankVariable(rank=other)) | (
            RankVariable(rank=other),
            Size(rank=rank),
        ):
            return rank == other
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
