"""Domains: which tiles of a streamed rank a tile of rows visits, as closed loop bounds.

Bounds are expressions over sizes, parameters, ranks that are one coordinate in a program, and the
first and last coordinate of a tile of a tiled rank ``p``: ``Parameter("p_first")`` and
``Parameter("p_last")``, both inclusive, as the generated kernel defines them. What a tensor holds
along p comes as its minimum or maximum over the tile, ``Reduce("min", ("p",), ...)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .expression import Expression


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open run of coordinates of the streamed rank.

    Tiles that intersect [begin, end) are visited; a tile inside [full_begin, full_end) has all its
    points, for every row of the tile.
    """

    begin: Expression
    end: Expression
    full_begin: Expression
    full_end: Expression


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what is tested on the points of a tile (``passes/part_tests.py``).

    test : a condition on a point; None where only the end of the rank is asked for.
    every : a condition over the first and last coordinates of a tile, under which all points have
        it. The first part of a test asks for the end of the rank too, of which this says nothing.
    """

    test: Expression | None
    every: Expression


@dataclass(frozen=True, slots=True)
class Table:
    """What a kernel evaluates for each tile in order to list those that have points.

    some, every : conditions over the first and last coordinates of a tile, the streamed rank's too,
        and over what is one coordinate in a program: whether any point may exist, and whether all
        do. Where they differ ``test`` decides, point by point, unless it is None.
    ranks : the ranks that the filter reads; the table is the same along all others.
    name : of the tensor that lists tiles: for a tile of rows the numbers of the full ones in
        ascending order, and those of the partial ones from the end backwards, ascending too. How
        many there are stand in tensors of their own, ``full`` and ``partial``.
    fixed : no tensor is read, so that the same sizes and parameters give the same table.
    whole : a tile that is listed has all its points, but for one that the end of a rank cuts.
    most : how many tiles of a row are listed, 0 for all. Of a row that has more, the last one that
        is listed, as partial, stands for all from there on to the last that may have points.
    parts : of the test; none where it is not parted.
    marked : a tile's number is times 2 ** parts, and bit k of what is added says that the tile
        needs part k of the test; full ones need none.
    """

    some: Expression
    every: Expression
    test: Expression | None
    ranks: tuple[str, ...]
    fixed: bool
    name: str = ""
    whole: bool = False
    most: int = 0
    parts: tuple[Part, ...] = ()
    marked: bool = False

    @property
    def full(self) -> str:
        """The tensor that holds how many tiles are full, for each tile of rows."""
        return f"{self.name}_full"

    @property
    def partial(self) -> str:
        """The tensor that holds how many tiles are partial, for each tile of rows."""
        return f"{self.name}_partial"


@dataclass(frozen=True, slots=True)
class Domain:
    """What is visited of a streamed rank.

    ranges : in ascending order of ``begin``; their union covers every existing point. Where two
        overlap, the consumer clips the later one to begin where the earlier one ended.
    test : the condition under which a point of a partial tile exists (None: the end of the rank
        alone can cut a tile).
    exact : False where a part of the filter could not be solved, so that ``test`` is needed on
        every tile.
    hulled : ranges whose order is open were joined in one, which also covers what lies between.
    table : where ``ranges`` visit tiles without points: how to find those that have some.
    """

    ranges: tuple[Range, ...]
    test: Expression | None = None
    exact: bool = True
    notes: tuple[str, ...] = ()
    hulled: bool = False
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """Coordinates of a streamed rank that a list names, each once, in the order of the list.

    rank : the rank of the list's positions.
    entry : what stands at a position: the number of a block of ``width`` coordinates, or the
        coordinate itself (width 1).
    positions : which positions are visited; its ``test`` says which of those count.
    within : the list exists for these rows (None: always).
    tests : for each condition of the traversal, what is left of it at a point of the list.
    sure : every entry lies in the streamed rank; else those outside name no point.
    parts : of what is left of the one condition, if there is one.

    Expressions here follow a tile of rows by ``p_first``, as bounds do: the rows of a tile have one
    list.
    """

    rank: str
    entry: Expression
    width: int
    positions: Domain
    within: Expression | None = None
    tests: tuple[tuple[Expression | None, Expression | None], ...] = ()
    sure: bool = False
    parts: tuple[Part, ...] = ()
