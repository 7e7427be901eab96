"""Membership: a test against a list becomes a reduction over the list's positions.

Afterwards a filter says itself where a list stands in memory and how many of its positions exist,
and a loop may walk the positions (``walk_lists``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    rewrite,
    substitute,
)
from ..ir.selection import find_count
from .align import NOTHING, conjunction, fresh, holds, inside
from .facts import plain_writers, pointwise


def expand_membership(
    cascade: Cascade,
    *,
    sizes: Mapping[str, int] = NOTHING,
    shapes: Mapping[str, tuple[int, ...]] = NOTHING,
    parameters: Mapping[str, Scalar] = NOTHING,
) -> Cascade:
    """Write ``x in List[...]`` as a reduction over the positions of the list.

    ::

        L[i, j: j < Count[i]] = Blocks[i, j]
        S[p, m: m in L[p]] = Q[p] * K[m]
        return S
        -->
        L[i, j: j < Count[i]] = Blocks[i, j]
        L_first[i, j: j < Count[i]] = all[k: k < j](Blocks[i, k] != Blocks[i, j])
        S[p, m: any[j: j < Count[p] and L_first[p, j]](Blocks[p, j] == m)] = Q[p] * K[m]
        return S

    A list that is a pointwise tensor is written out, so that it needs no memory of its own. One
    that a selection wrote, or an input declared ``unique``, holds no coordinate twice; of any other
    ``L_first`` marks the positions at which a coordinate stands for the first time, so that walking
    those meets each point once.

    Requires: a flat cascade. Keeps: every output's value. A test whose list lies outside its
    tensor's ``shapes`` finds no point, and says so by a condition of its own.
    """
    writers = plain_writers(cascade)
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    positions: dict[str, str] = {}
    firsts: dict[str, Einsum] = {}
    made: list[Einsum] = []

    def position(tensor: str, fiber: Access) -> str:
        if tensor not in positions:
            writer = writers.get(tensor)
            own = None if writer is None else writer.output.coordinates[-1]
            plain = own.rank if isinstance(own, RankVariable) else ""
            positions[tensor] = plain or fresh("j", taken)
        return positions[tensor]

    def written(fiber: Access, rank: str) -> tuple[Expression, list[Expression]]:
        """Return what stands at a position of a fiber, and when there is something."""
        entry: Expression = Access(fiber.tensor, (*fiber.coordinates, RankVariable(rank)), fiber.at)
        found: list[Expression] = []
        while isinstance(entry, Access) and entry.tensor in writers:
            writer = writers[entry.tensor]
            count = None
            if isinstance(writer.body, Populate):
                count = find_count(cascade.einsums, writer)
            if count is not None:
                length = Access(count.name, entry.coordinates[:-1], fiber.at)
                found.append(Apply("<", (entry.coordinates[-1], length)))
            values = dict(zip(writer.ranks, entry.coordinates, strict=True))
            if writer.filter is not None:
                found.append(substitute(writer.filter, values))
            if not pointwise(writer.body):
                break
            entry = substitute(writer.body, values)
        return entry, found

    def first(fiber: Access, rank: str) -> Einsum:
        """Mark where a coordinate stands for the first time in its fiber."""
        if fiber.tensor not in firsts:
            writer = writers.get(fiber.tensor)
            ranks = [fresh(f"i{k}", taken) for k in range(len(fiber.coordinates))]
            if writer is not None:
                ranks = list(writer.ranks[:-1])
            own = tuple(RankVariable(r) for r in ranks)
            other = fresh("k", taken)
            one, found = written(Access(fiber.tensor, own), rank)
            two, also = written(Access(fiber.tensor, own), other)
            earlier = Apply("<", (RankVariable(other), RankVariable(rank)))
            extra = [c for c in also if c not in found]
            body = Reduce(
                "all", (other,), Apply("!=", (two, one)),
                conjunction([earlier, *(x for x in extra if not implied(x, found, other, rank))]),
            )  # fmt: skip
            name = fresh(f"{fiber.tensor}_first", taken)
            output = Access(name, (*own, RankVariable(rank)))
            firsts[fiber.tensor] = Einsum(output, body, conjunction(found))
            made.append(firsts[fiber.tensor])
        return firsts[fiber.tensor]

    def rule(x: Expression) -> Expression | None:
        match x:
            case Apply("in", (item, Access() as fiber)):
                rank = position(fiber.tensor, fiber)
                entry, found = written(fiber, rank)
                if not distinct(entry, writers, cascade):
                    mark = first(fiber, rank)
                    found.append(
                        Access(mark.name, (*fiber.coordinates, RankVariable(rank)), fiber.at)
                    )
                member = Reduce("any", (rank,), Apply("==", (entry, item)), conjunction(found))
                tests = [
                    test
                    for k, c in enumerate(fiber.coordinates)
                    if fiber.tensor in shapes and not isinstance(c, RankVariable)
                    for test in inside(c, Constant(shapes[fiber.tensor][k]))
                    if not holds(test, sizes, parameters)
                ]
                return conjunction([*tests, member])
            case _:
                return None

    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        made.clear()
        filter = None if einsum.filter is None else rewrite(einsum.filter, rule)
        body = einsum.body
        if isinstance(body, Reduce) and body.filter is not None:
            inner = rewrite(body.filter, rule)
            body = body if inner is body.filter else replace(body, filter=inner)
        einsums += made
        if filter is not einsum.filter or body is not einsum.body:
            einsum = replace(einsum, filter=filter, body=body)
        einsums.append(einsum)
    if not positions:
        return cascade
    return replace(cascade, einsums=tuple(einsums))


def implied(x: Expression, found: list[Expression], other: str, rank: str) -> bool:
    """Whether a condition on an earlier position follows from that on a later one: ``j < n``."""
    match x:
        case Apply("<" | "<=", (RankVariable(rank=r), bound)) if r == other:
            return replace(x, operands=(RankVariable(rank), bound)) in found
        case _:
            return False


def distinct(entry: Expression, writers: Mapping[str, Einsum], cascade: Cascade) -> bool:
    """Whether a fiber holds no coordinate twice: a selection wrote it, or it is declared so."""
    match entry:
        case Access(tensor=tensor) if tensor in writers:
            return isinstance(writers[tensor].body, Populate)
        case Access(tensor=tensor):
            return tensor in cascade.unique
        case _:
            return False
