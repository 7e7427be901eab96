"""Align: every tensor made inside a kernel is read where it was written, rank by rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite,
    substitute,
    tensors,
    walk,
)
from ..ir.interval import Truth, evaluate
from ..ir.linear import delinear, linear
from .product import factors
from .tile_work import all_ranks

NOTHING: Mapping[str, Any] = MappingProxyType({})

SHORT = 256
"""Coordinates of a rank that may stand beside any other one in memory, as features do."""


def align(
    cascade: Cascade,
    *,
    sizes: Mapping[str, int] = NOTHING,
    parameters: Mapping[str, Scalar] = NOTHING,
    short: frozenset[str] | None = None,
) -> Cascade:
    """Give a reading at other coordinates a twin einsum at those coordinates.

    ::

        X[c, m] = K[c, m] * K[c, m]
        S[h, m] = Q[h] * X[h // 4, m]
        R[c]    = sum[m](K[c, m])
        return S, R
        -->
        X[c, m] = K[c, m] * K[c, m]
        X_hm[h, m: 0 <= h // 4 < size(c)] = K[h // 4, m] * K[h // 4, m]
        S[h, m] = Q[h] * X_hm[h, m]
        R[c]    = sum[m](K[c, m])
        return S, R

    A condition that ``sizes`` and ``parameters`` prove is left out.

    With ``short``, the ranks that a program holds whole, the result of a reduction over a long rank
    is left to memory where a twin would walk that rank once more: if the result is needed where it
    was written too, or if the twin would have as many points. What follows from several such
    results, point by point, is left to memory in their place; so is a sum over short ranks with no
    more points than an input has, as over the features of a row, where it would be made anew for
    each point of another long rank.

    Requires: a flat cascade. Keeps: every output's value. A reading that would capture a rank that
    the tensor reduces, an iterative tensor and a list-valued one are left as they are: they have to
    cross memory. So does the result of reductions on top of reductions that is read at computed
    coordinates, by a list or a quotient, say: its rows belong together as they were written. So
    does a product of tiles that would be none elsewhere, read along its diagonals, say, if one of
    its sides is short.
    """
    einsums: list[Einsum] = []
    writers: dict[str, Einsum] = {}
    written = Counter(e.name for e in cascade.einsums)
    repeated = {e.name for e in cascade.einsums if e.generation is not None or written[e.name] > 1}
    twins: dict[tuple[str, tuple[Expression, ...]], str] = {}
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    made = made_in_place(cascade)
    spanned: frozenset[str] = frozenset()

    def twin(access: Access) -> Expression | None:
        writer = writers.get(access.tensor)
        if writer is None or writer.name in repeated or aligned(access, writer):
            return None
        if len(access.coordinates) != len(writer.ranks):
            return None
        if isinstance(writer.body, Populate | Concatenate):
            return None
        if costly(access, writers) or loses_sides(access, writer, sizes):
            return None
        if short is not None and walks_again(access, writer, short, sizes, made):
            return None
        if short is not None and made_of_walks(access, writer, writers, short, sizes, made):
            return None
        if short is not None and repeated_by(spanned, access, writer, short):
            return None
        key = (access.tensor, access.coordinates)
        ranks = tuple(dict.fromkeys(r for c in access.coordinates for r in free_ranks(c)))
        if key not in twins:
            moved = move(writer, access.coordinates, ranks, sizes, parameters)
            if moved is None or (not ranks and moved.filter is not None):
                return None  # without a rank there is nothing for a filter to stand on
            letters = "".join(ranks) if all(len(r) == 1 for r in ranks) else "there"
            twins[key] = fresh(f"{access.tensor}_{letters or 'at'}", taken)
            visit(replace(moved, output=replace(moved.output, tensor=twins[key])))
        return Access(twins[key], tuple(RankVariable(r) for r in ranks), access.at)

    def rule(x: Expression) -> Expression | None:
        return twin(x) if isinstance(x, Access) else None

    def visit(einsum: Einsum) -> None:
        nonlocal spanned
        before, spanned = spanned, frozenset(all_ranks(einsum))
        body = rewrite(einsum.body, rule)
        filter = None if einsum.filter is None else outside(einsum.filter, rule)
        if body is not einsum.body or filter is not einsum.filter:
            einsum = replace(einsum, body=body, filter=filter)
        spanned = before
        einsums.append(einsum)
        writers[einsum.name] = einsum

    for einsum in cascade.einsums:
        visit(einsum)
    if not twins:
        return cascade
    return replace(cascade, einsums=tuple(einsums))


def made_in_place(cascade: Cascade) -> frozenset[str]:
    """Return the tensors that the outputs need at the ranks at which they are written."""
    writers = {e.name: e for e in cascade.einsums}
    found: set[str] = set()
    front = [name for name in cascade.outputs if name in writers]
    while front:
        name = front.pop()
        if name not in found:
            found.add(name)
            front += [
                x.tensor
                for x in writers[name].expressions()
                if isinstance(x, Access)
                and x.tensor in writers
                and x.coordinates == writers[x.tensor].output.coordinates
            ]
    return frozenset(found)


def walks_again(
    access: Access,
    writer: Einsum,
    short: frozenset[str],
    sizes: Mapping[str, int],
    made: frozenset[str],
) -> bool:
    """Whether a twin would walk a long rank that is walked for its original anyway."""
    if not isinstance(writer.body, Reduce) or set(writer.body.ranks) <= short:
        return False
    if writer.name in made:
        return True
    ranks = {r for c in access.coordinates for r in free_ranks(c)}
    if not {*ranks, *writer.ranks} <= set(sizes):
        return False
    return prod(sizes[r] for r in ranks) >= prod(sizes[r] for r in writer.ranks)


def repeated_by(
    spanned: frozenset[str], access: Access, writer: Einsum, short: frozenset[str]
) -> bool:
    """Whether a reader that spans these ranks would repeat a sum over short ones.

    Only of a sum whose points an input has too, read at a sum of ranks such as ``p + m``.
    """
    body = writer.body
    if not isinstance(body, Reduce) or not set(body.ranks) <= short:
        return False
    read = [x.coordinates for x in walk(body) if isinstance(x, Access)]
    if not any({RankVariable(r) for r in writer.ranks} <= set(c) for c in read):
        return False
    if not any(len(free_ranks(c)) > 1 and not tensors(c) for c in access.coordinates):
        return False
    return bool(spanned - short - {r for c in access.coordinates for r in free_ranks(c)})


def made_of_walks(
    access: Access,
    writer: Einsum,
    writers: Mapping[str, Einsum],
    short: frozenset[str],
    sizes: Mapping[str, int],
    made: frozenset[str],
) -> bool:
    """Whether a tensor follows, point by point, from several results that are left to memory.

    Then it is left to memory in their place: what two sums over a row give is one number to read.
    """
    roots: set[str] = set()

    def left(writer: Einsum) -> bool:
        if isinstance(writer.body, Reduce):
            roots.add(writer.name)
            there = replace(access, tensor=writer.name)
            return costly(there, writers) or walks_again(there, writer, short, sizes, made)
        read = [x for x in walk(writer.body) if isinstance(x, Access)]
        own = set(writer.output.coordinates)
        return all(set(x.coordinates) == own and x.tensor in writers for x in read) and all(
            left(writers[x.tensor]) for x in read
        )

    return not isinstance(writer.body, Reduce) and left(writer) and len(roots) > 1


def outside(condition: Expression, rule: Callable[[Expression], Expression | None]) -> Expression:
    """Rewrite a condition, but not its tests of lists: those stay where they are in memory."""
    match condition:
        case Apply("and" | "or" | "not", operands):
            changed = tuple(outside(x, rule) for x in operands)
            same = all(a is b for a, b in zip(changed, operands, strict=True))
            return condition if same else replace(condition, operands=changed)
        case Reduce():
            return condition
        case _:
            return rewrite(condition, rule)


def aligned(access: Access, writer: Einsum) -> bool:
    """Whether the access names the writer's own ranks, in the writer's order."""
    return access.coordinates == writer.output.coordinates


def costly(access: Access, writers: Mapping[str, Einsum]) -> bool:
    """Whether a reading at computed coordinates would repeat a chain of reductions there.

    Or one that says yes or no, which a filter would ask again at each of its points.
    """
    moved = {
        rank
        for rank, c in zip(writers[access.tensor].ranks, access.coordinates, strict=True)
        if not isinstance(c, RankVariable | Constant)
    }

    def chained(name: str) -> int:
        writer = writers.get(name)
        if writer is None or not moved & set(writer.ranks):
            return 0
        inner = max((chained(r) for r in writer.reads if r != name), default=0)
        return inner + isinstance(writer.body, Reduce)

    body = writers[access.tensor].body
    if not isinstance(body, Reduce):
        return False
    asks = isinstance(body, Reduce) and body.reducer in ("any", "all")
    return asks or (bool(moved) and chained(access.tensor) > 1)


def loses_sides(access: Access, writer: Einsum, sizes: Mapping[str, int]) -> bool:
    """Whether a product of two sides would, elsewhere, have a factor with the ranks of both.

    As along a diagonal, where each row meets another column at every point. One side has to be
    short, or the product is too large for memory.
    """
    body = writer.body
    if not isinstance(body, Reduce) or body.reducer != "sum":
        return False
    at = dict(zip(writer.ranks, access.coordinates, strict=True))
    spans = [set(free_ranks(f.expression)) & set(at) for f in factors(body.body)[1]]
    pairs = [(x - y, y - x) for x in spans for y in spans if x - y and y - x]
    moved = [{r for rank in s for r in free_ranks(at[rank])} for s in spans]
    if not pairs or any(x - y and y - x for x in moved for y in moved):
        return False
    return any(prod(sizes.get(r, SHORT + 1) for r in one) <= SHORT for one, _ in pairs)


def move(
    writer: Einsum,
    at: tuple[Expression, ...],
    ranks: tuple[str, ...],
    sizes: Mapping[str, int] = NOTHING,
    parameters: Mapping[str, Scalar] = NOTHING,
) -> Einsum | None:
    """Write ``writer`` at other coordinates; None if a rank reduced inside would be captured."""
    bound = {r for x in walk(writer.body) if isinstance(x, Reduce) for r in x.ranks}
    if bound & set(ranks):
        return None
    values = dict(zip(writer.ranks, at, strict=True))
    conditions = [
        test
        for rank, coordinate in values.items()
        if coordinate != RankVariable(rank)
        for test in inside(coordinate, Size(rank))
        if not holds(test, sizes, parameters)
    ]
    if writer.filter is not None:
        conditions.append(substitute(writer.filter, values))
    return Einsum(
        Access(writer.name, tuple(RankVariable(r) for r in ranks), writer.output.at),
        rewrite(substitute(writer.body, values), cancelled),
        conjunction(conditions),
        writer.at,
    )


def cancelled(x: Expression) -> Expression | None:
    """Return a reading whose coordinates say no rank twice that cancels: ``R[p - (p - d)]``."""
    if not isinstance(x, Access) or all(len(free_ranks(c)) < 2 for c in x.coordinates):
        return None
    shorter = tuple(delinear(linear(c)) for c in x.coordinates)
    pairs = tuple(zip(x.coordinates, shorter, strict=True))
    if all(len(free_ranks(a)) == len(free_ranks(b)) for a, b in pairs):
        return None
    fewer = (b if len(free_ranks(b)) < len(free_ranks(a)) else a for a, b in pairs)
    return replace(x, coordinates=tuple(fewer))


def inside(coordinate: Expression, size: Expression) -> tuple[Expression, ...]:
    """Return the conditions under which a coordinate lies in a rank of that size."""
    zero = Constant(0)
    return (Apply("<=", (zero, coordinate)), Apply("<", (coordinate, size)))


def holds(
    condition: Expression, sizes: Mapping[str, int], parameters: Mapping[str, Scalar]
) -> bool:
    """Whether a condition provably holds at every point of ranks of these sizes."""
    if any(size <= 0 for size in sizes.values()):
        return False
    if any(r not in sizes for r in free_ranks(condition)):
        return False
    box = {rank: (0, size - 1) for rank, size in sizes.items()}
    return evaluate(condition, box, parameters=parameters, sizes=sizes) is Truth.ALL


def conjunction(conditions: list[Expression]) -> Expression | None:
    """Join conditions with ``and``, each once; None where there are none."""
    parts: list[Expression] = []
    for condition in conditions:
        match condition:
            case Apply("and", operands):
                parts.extend(operands)
            case _:
                parts.append(condition)
    unique = tuple(dict.fromkeys(parts))
    if len(unique) <= 1:
        return unique[0] if unique else None
    return Apply("and", unique)


def fresh(name: str, taken: set[str]) -> str:
    """Return ``name``, numbered if it is taken, and take it."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate
