"""Part tests: what is tested on a listed tile's points, in parts, each with when a tile is without.

::

    m: m <= p and doc[p] == doc[m]
    -->
    m <= p              every point of a tile has it where m_last <= p_first
    doc[p] == doc[m]    where max doc[p] <= min doc[m] and min doc[p] >= max doc[m] over the tile

A tile that one of them cuts is not tested by the others. There are three parts at most, and what
several conditions of one ask is asked together: limits of the walked rank, with the rank's own end;
what reads a tensor along it; all else.

Requires: a table that has a test, or a list of a traversal that has one condition. Keeps: which
points exist; a part that a tile is without holds everywhere on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..ir.domain import Part, Table, Walk
from ..ir.expression import Apply, Expression, RankVariable, accesses, free_ranks
from ..ir.mapping import Traversal
from .align import conjunction
from .domain_known import Known
from .domain_limits import positive_parameters
from .domain_normal import normal
from .domain_simplify import TRUE, simplify
from .domain_table import cut, truth
from .stream_presence import conjuncts


def part_tests(
    traversal: Traversal,
    *,
    tiled: tuple[str, ...],
    readable: Collection[str],
    real: Collection[str],
) -> Traversal:
    """Return a traversal whose table, and whose lists, have their tests in parts; see above.

    ``readable`` : tensors in memory when the kernel starts. ``real`` : what holds fractions.
    """
    rank, domain = traversal.streaming.rank, traversal.domain

    def parts(test: Expression | None, readable: Collection[str]) -> tuple[Part, ...]:
        positive = () if test is None else positive_parameters(test, streamed=rank)
        known = Known("", (*tiled, rank), frozenset(real), frozenset(positive), boxed=True)
        groups: tuple[list[Expression], ...] = ([], [], [])
        for condition in conjuncts(test):
            groups[kind(condition, rank)].append(condition)
        return tuple(
            Part(conjunction(group), every(group, known, readable))
            for k, group in enumerate(groups)
            if group or k == 0
        )

    def of_table(table: Table) -> Table:
        if table.test is None:
            return table
        whole = [t for t in readable if not shorter(t, table.test)]
        return replace(table, parts=parts(table.test, whole))

    def of_list(walk: Walk) -> Walk:
        tests = tuple(dict(walk.tests).values())
        # what fetches reads the list, and no other tensor
        return replace(walk, parts=parts(tests[0], ())) if len(tests) == 1 else walk

    if domain.table is not None:
        domain = replace(domain, table=of_table(domain.table))
    return replace(traversal, domain=domain, walks=tuple(map(of_list, traversal.walks)))


def every(group: list[Expression], known: Known, readable: Collection[str]) -> Expression:
    """Return a condition on a tile under which all its points have all of some conditions."""
    found = [truth(normal(c), known, readable)[1] for c in group]
    return simplify(Apply("and", tuple(found)), known) if found else TRUE


def shorter(tensor: str, test: Expression) -> bool:
    """Whether a tensor may end before the rank does that walks it."""
    return any(x.tensor == tensor and cut(x, test) for x in accesses(test))


def kind(condition: Expression, streamed: str) -> int:
    """Return which part a condition belongs to."""
    match condition:
        case Apply("<" | "<=" | ">" | ">=", (left, right)):
            plain = RankVariable(streamed)
            other = right if left == plain else left
            if plain in (left, right) and streamed not in free_ranks(other):
                return 0
    read = any(streamed in free_ranks(c) for x in accesses(condition) for c in x.coordinates)
    return 1 if read else 2
