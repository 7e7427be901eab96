"""Presence in a traversal: which points take part in a reduction, whatever its lift reads.

Splitting a body over several accumulators may leave a tensor out of a lift, and with it the points
that do not exist. What is lost so is written as a filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir.cascade import Einsum
from ..ir.expression import Apply, Concatenate, Constant, Expression, RankVariable, substitute
from .facts import is_plain, needed, pointwise
from .stream_terms import canonical


def conditions(
    expression: Expression,
    writers: Mapping[str, Einsum],
    present: frozenset[str],
    behind: frozenset[str] = frozenset(),
) -> tuple[Expression, ...]:
    """Return conditions whose conjunction says where an expression exists.

    ``writers`` are the einsums by name; ``present`` tensors whose points are taken to exist:
    results of reductions. An input is there at plain ranks; at other coordinates it has to say
    itself whether it is (``X == X``), and so has an iterative or concatenated tensor. ``behind``
    are the tensors gone through on the way.
    """
    found: list[Expression] = []
    for access in needed(expression):
        if access.tensor in present:
            continue
        writer = writers.get(access.tensor)
        if writer is None:
            if not all(isinstance(c, RankVariable) for c in access.coordinates):
                found.append(Apply("==", (access, access)))
            continue
        whole = is_plain(writer) and not isinstance(writer.body, Concatenate)
        if access.tensor in behind or not whole:
            found.append(Apply("==", (access, access)))
            continue
        through = behind | {access.tensor}
        values = dict(zip(writer.ranks, access.coordinates, strict=False))
        inner = [] if writer.filter is None else list(conjuncts(writer.filter))
        if writer.filter is not None:
            inner += conditions(writer.filter, writers, present, through)
        if pointwise(writer.body):
            inner += conditions(writer.body, writers, present, through)
        found += [substitute(x, values) for x in inner]
        if not all(isinstance(c, RankVariable) for c in access.coordinates):
            found.append(Apply("==", (access, access)))
    return distinct(found)


def conjuncts(filter: Expression | None) -> tuple[Expression, ...]:
    """Return the parts of a conjunction; of no filter, none."""
    match filter:
        case None | Constant(value=True):
            return ()
        case Apply("and", operands):
            return tuple(x for y in operands for x in conjuncts(y))
        case _:
            return (filter,)


def distinct(parts: Iterable[Expression]) -> tuple[Expression, ...]:
    """Return the conditions, each once, in order of sight."""
    found: dict[Expression, Expression] = {}
    for part in parts:
        found.setdefault(canonical(part), part)
    return tuple(found.values())


def without(parts: Iterable[Expression], held: Iterable[Expression]) -> tuple[Expression, ...]:
    """Return the conditions that are not among those that hold anyway."""
    known = {canonical(x) for x in held}
    return tuple(x for x in parts if canonical(x) not in known)
