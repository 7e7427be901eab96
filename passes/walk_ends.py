"""How the walks of a kernel's tiles of rows differ: in where they begin and end, or as data say."""

from __future__ import annotations

from ..ir.expression import (
    Apply,
    Constant,
    Expression,
    Parameter,
    Size,
    accesses,
    free_ranks,
    walk,
)
from ..ir.mapping import MappedKernel


def short(kernel: MappedKernel, rows: str) -> bool:
    """Whether walks begin and end elsewhere for other tiles of rows, as bands do: they are short.

    Measured on an H100, 32768 rows of 128 features, milliseconds of joined tiles and of others:
    bands of 512, 1024 and 4096 0.294 and 0.305, 0.460 and 0.460, 1.43 and 1.39, a band of 1024
    beside the first four 0.508 and 0.556. Rows that walk from the beginning take 6 % longer joined,
    for whole tiles have a branch more.
    """
    return ends_moving(kernel, rows) == (True, True)


def named(kernel: MappedKernel) -> bool:
    """Whether a table or a list names all tiles that are walked."""
    (traversal,) = kernel.traversals
    domain, walks = traversal.domain, traversal.walks
    return not walks if domain.table is not None else len(walks) == 1 and not domain.ranges


def slanted(kernel: MappedKernel, rows: str) -> bool:
    """Whether later tiles of rows walk ever further, or ever less far, for some of the grid.

    Where begins and ends move alike, what a tensor adds to one of them may hold it back.
    """
    begins, ends = ends_moving(kernel, rows)
    ranges = kernel.traversals[0].domain.ranges
    reads = any(True for r in ranges for x in (r.begin, r.end) for _ in accesses(x))
    return begins != ends or (begins and reads)


def ends_moving(kernel: MappedKernel, rows: str) -> tuple[bool, bool]:
    """Whether the begin of a walk, and its end, are others for other tiles of rows."""
    marks = {f"{rows}_first", f"{rows}_last"}
    ranges = kernel.traversals[0].domain.ranges

    def move(sides: list[Expression]) -> bool:
        return any(isinstance(y, Parameter) and y.name in marks for x in sides for y in walk(x))

    return move([r.begin for r in ranges]), move([r.end for r in ranges])


def rising(kernel: MappedKernel, rows: str) -> bool:
    """Whether a later tile of rows begins its walk no earlier, and all end at the same place."""
    marks = {f"{rows}_first", f"{rows}_last"}
    domain, walks = kernel.traversals[0].domain, kernel.traversals[0].walks
    if domain.table is not None or walks or len(domain.ranges) != 1:
        return False

    def moves(x: Expression) -> bool:
        return any(isinstance(y, Parameter) and y.name in marks for y in walk(x))

    def rises(x: Expression) -> bool:
        match x:
            case Apply(operator="min" | "max" | "+", operands=operands):
                return all(map(rises, operands))
            case Apply(operator="-", operands=(left, right)):
                return rises(left) and not moves(right)
        return isinstance(x, Parameter) or not moves(x)

    (found,) = domain.ranges
    return rises(found.begin) and not moves(found.end)


def uneven(kernel: MappedKernel) -> bool:
    """Whether only the data say how far each row walks: then no program is given rows beforehand.

    Measured on an H100, 32768 rows of 128 features, milliseconds of programs that draw tiles of
    rows, of programs that take one, and of programs that stay for theirs: lists of 5 and 10 % of
    all blocks 0.66, 0.68 and 0.75, 1.20, 1.27 and (before frames rested) 1.42; documents of 2048 by
    labels 0.68, 0.72 and 1.03, by their begins 0.58, 0.63 and 0.70. A band, whose rows walk alike,
    takes 0.48 and 0.52 and, of programs that stay, 0.46; rows that walk ever further 6.09, and
    5.97 in pairs.
    """
    (traversal,) = kernel.traversals
    (rows,) = kernel.ranks("tiled")
    return traversal.domain.table is not None or bool(traversal.walks) or limited(kernel, rows)


def limited(kernel: MappedKernel, rows: str) -> bool:
    """Whether a tensor says of each row how far it walks, and no list names its tiles."""
    (traversal,) = kernel.traversals
    if traversal.domain.table is not None or traversal.walks:
        return False
    bounds = (b for r in traversal.domain.ranges for b in (r.begin, r.end))
    return any(rows in free_ranks(x) for b in bounds for x in accesses(b))


def walks_all(kernel: MappedKernel) -> bool:
    """Whether every tile of rows walks the whole rank."""
    (walked,) = kernel.ranks("streamed")
    domain = kernel.traversals[0].domain
    bounds = [(r.begin, r.end) for r in domain.ranges]
    return domain.test is None and domain.table is None and bounds == [(Constant(0), Size(walked))]
