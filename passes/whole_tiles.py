"""Whole tiles: a filter that every tile fills or leaves empty needs no test of points.

::

    m: Keep[abs(p // 256 - m // 256), p % 256 // 128 - m % 256 // 128 + 1]    (tiles of 128 by 128)
    -->
    a table of its tiles, of which the end of a rank alone cuts some

A filter reads a tiled or streamed rank in steps, ``m // 256`` or ``m % 256 // 128``, of multiples
of the tile's width, and a tile begins at a multiple of its width, so all its points read the same.

Requires: tiles are cut, and a table lists all that have points. Keeps: which points exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.cascade import Scalar
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
    free_ranks,
)
from ..ir.mapping import MappedKernel, Traversal
from .walk_lists import number


def whole_tiles(kernel: MappedKernel, parameters: Mapping[str, Scalar]) -> MappedKernel:
    """Say of a kernel's tables whether every tile that they list is whole; see above."""
    walked = (*kernel.ranks("tiled"), *kernel.ranks("streamed"))
    widths = {r: kernel.partition(r).tile for r in walked}

    def said(t: Traversal) -> Traversal:
        table = t.domain.table
        if table is None or table.test is None or table.most:
            return t
        if not alike(table.test, widths, parameters):
            return t
        return replace(t, domain=replace(t.domain, table=replace(table, whole=True)))

    found = tuple(said(t) for t in kernel.traversals)
    return kernel if found == kernel.traversals else replace(kernel, traversals=found)


def alike(x: Expression, widths: Mapping[str, int], parameters: Mapping[str, Scalar]) -> bool:
    """Whether an expression has one value on all points of a tile."""
    match x:
        case Constant() | Parameter() | Size():
            return True
        case RankVariable(rank=rank):
            return rank not in widths
        case Apply("//", (inner, by)) if free_ranks(inner) & widths.keys():
            return in_steps(inner, number(by, parameters), widths, parameters)
        case Apply(operands=parts) | Access(coordinates=parts):
            return all(alike(part, widths, parameters) for part in parts)
        case _:
            return not free_ranks(x) & widths.keys()


def in_steps(
    x: Expression, step: int | None, widths: Mapping[str, int], parameters: Mapping[str, Scalar]
) -> bool:
    """Whether ``x // step`` has one value on a tile: x is a coordinate, or its remainder."""
    match x:
        case RankVariable(rank=rank):
            return step is not None and step % widths[rank] == 0
        case Apply("%", (RankVariable(rank=rank), by)):
            period = number(by, parameters)
            return (
                None not in (step, period)
                and not (step or 1) % widths[rank]
                and not (period or 1) % widths[rank]
            )
        case _:
            return False
