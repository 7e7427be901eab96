"""Tile classes: which tiles of two ranks a filter leaves empty, which it cuts, which it fills.

::

    p // 8 == m // 8, tiles of 8 by 16, 16 rows, 32 columns
    -->
    partial  empty
    partial  empty

The three-valued truth of a tile (``domain_table.truth``) decides; a tile about which it leaves a
doubt is decided by its points, so many at a time as memory is meant for. A tile that the end of a
rank cuts is not full.

Requires: the filter says itself where its tensors hold a point. Keeps: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.domain import Table
from ..ir.errors import PassError
from ..ir.expression import Expression, tensors
from .domain_density import POINTS_AT_ONCE, TilePoints, live_points, truths
from .domain_known import Known
from .domain_limits import positive_parameters
from .domain_normal import normal
from .domain_table import truth
from .domain_values import Names, NotGivenError, Numbers, Tensors

EMPTY, PARTIAL, FULL = 0, 1, 2


def tile_classes(
    filter: Expression | None,
    *,
    tiles: Mapping[str, int],
    sizes: Mapping[str, int],
    parameters: Numbers | None = None,
    coordinates: Mapping[str, int] | None = None,
    tensors: Tensors | None = None,
    real: Collection[str] = (),
) -> NDArray[np.int8]:
    """Return 0 for an empty tile, 1 for a partial and 2 for a full one: [rows, columns] of tiles.

    Parameters
    ----------
    tiles : tile sizes of the two ranks, rows first; any sizes.
    coordinates : the coordinate of each other rank that the filter reads.
    tensors : arrays that the filter reads, by name. real : those that hold fractions.

    Raises
    ------
    PassError : the filter reads a name that is not given.
    """
    (row, row_tile), (column, tile) = tiles.items()
    size = (sizes[row], sizes[column])
    counts = (-(-size[0] // row_tile), -(-size[1] // tile))
    cut = np.zeros(counts, np.bool_)
    cut[size[0] // row_tile :, :] = True
    cut[:, size[1] // tile :] = True
    classes = np.full(counts, FULL, np.int8)
    if filter is not None:
        names = Names(coordinates or {}, parameters or {}, sizes, tensors or {})
        first = np.arange(0, size[0], row_tile).reshape(-1, 1)
        points = TilePoints(filter, first, {row: row_tile}, column, tile, names)
        try:
            for pairs, found in classified(table_of(filter, (row, column), real, names), points):
                classes[pairs[:, 0], pairs[:, 1]] = found
        except NotGivenError as missing:
            raise PassError(f"the tiles of {column} follow {missing}, which is not given") from None
    classes[cut & (classes == FULL)] = PARTIAL
    return classes


def table_of(
    filter: Expression, ranks: tuple[str, str], real: Collection[str], names: Names
) -> Table:
    """Return what decides about a tile by its ends alone."""
    positive = positive_parameters(filter, streamed=ranks[1])
    sure = frozenset(n for n in positive if names.parameters.get(n, 0) >= 1)
    known = Known("", ranks, frozenset(real), sure, boxed=True)
    some, every = truth(normal(filter), known, tensors(filter))
    return Table(some, every, filter, ranks, not tensors(filter))


def classified(table: Table, points: TilePoints) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
    """Yield some tiles at a time, as (row, column) pairs, with the class of each."""
    names, (row,) = points.names, points.rows
    extent = {r: names.sizes[r] for r in (row, points.streamed)}
    first = points.first[:, 0]
    last = np.minimum(first + points.rows[row], extent[row]) - 1
    ends = {f"{row}_first": first, f"{row}_last": last}
    inside = Names(names.ranks, {**names.parameters, **ends}, names.sizes, names.tensors)
    columns = -(-extent[points.streamed] // points.tile)
    step = max(1, POINTS_AT_ONCE // max(1, columns))
    for start in range(0, len(first), step):
        rows = np.arange(start, min(start + step, len(first)))
        pairs = np.stack([np.repeat(rows, columns), np.tile(np.arange(columns), len(rows))], 1)
        some, every = truths(table, pairs, points, inside)
        classes = np.where(every, FULL, np.where(some, PARTIAL, EMPTY)).astype(np.int8)
        doubt = np.flatnonzero(some & ~every)
        many = max(1, POINTS_AT_ONCE // points.each)
        for at in range(0, len(doubt), many):
            chunk = doubt[at : at + many]
            live = live_points(points, pairs[chunk])
            assert live is not None
            width = np.minimum(points.tile, extent[points.streamed] - pairs[chunk, 1] * points.tile)
            area = (last - first + 1)[pairs[chunk, 0]] * width
            classes[chunk] = np.where(live == 0, EMPTY, np.where(live == area, FULL, PARTIAL))
        yield pairs, classes
