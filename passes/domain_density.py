"""Executed density: how many tiles a domain visits, how many are full, how many points are live.

The bounds of all tiles of rows are evaluated at once, so the tiles are counted in O(tiles); live
points are counted by the domain's test on the partial tiles, a bounded number of points at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..ir.domain import Domain, Table
from ..ir.errors import PassError
from ..ir.expression import Expression
from .domain_values import Names, NotGivenError, Numbers, Tensors, value_at

Array = NDArray[Any]

NO_PAIRS: Array = np.zeros((0, 2), np.int64)

POINTS_AT_ONCE = 1 << 20
POINTS_COUNTED = 1 << 26
"""Beyond this many points of partial tiles the live ones are not counted."""

TILES_COUNTED = 1 << 24
"""Tiles that are looked at, one by one, where a table lists those that have points."""


class Density(NamedTuple):
    """Tiles visited, of them full and partial, and the points that exist.

    ``live_points`` is None where a tensor of the test is not given, or counting costs too much.
    """

    visited_tiles: int
    full_tiles: int
    partial_tiles: int
    live_points: int | None


def executed_density(
    domain: Domain,
    *,
    streamed: str,
    tiles: Mapping[str, int],
    sizes: Mapping[str, int],
    parameters: Numbers | None = None,
    coordinates: Mapping[str, int] | None = None,
    tensors: Tensors | None = None,
) -> Density:
    """Count what a domain visits, for one coordinate of every rank that is not in ``tiles``.

    Parameters
    ----------
    tiles : tile sizes of the streamed rank and of the tiled ranks.
    sizes : sizes of every rank in the filter.
    coordinates : the coordinate of each other rank that the filter reads.
    tensors : arrays that the filter reads, by name; bounds need theirs, the count of live points
        needs the rest.

    Raises
    ------
    PassError : a bound reads a name that is not given; too many tiles would have to be looked at.
    """
    found = _walked(domain, streamed, tiles, sizes, parameters, coordinates, tensors)
    if found is None:
        return Density(0, 0, 0, 0)
    points, last, inside, spans = found
    area = np.prod(last - points.first + 1, axis=1)
    if domain.table is not None:
        _refuse_many(spans, streamed)
        try:
            ends = [(a, b) for a, _, _, b in spans]
            return _of_table(domain.table, ends, area, points, inside)
        except NotGivenError as missing:
            raise PassError(
                f"the tiles of {streamed} follow {missing}, which is not given"
            ) from None
    full = sum(int((fb - fa).sum()) for _, fa, fb, _ in spans)
    full_points = sum(int(((fb - fa) * area).sum()) for _, fa, fb, _ in spans) * points.tile
    cut = [_pairs(a, fa) for a, fa, _, _ in spans] + [_pairs(fb, b) for _, _, fb, b in spans]
    pairs = np.concatenate(cut) if cut else NO_PAIRS
    try:
        counts = live_points(points, pairs)
    except NotGivenError:
        counts = None
    live = None if counts is None else int(counts.sum()) + full_points
    return Density(full + len(pairs), full, len(pairs), live)


def tiles_of_rows(
    domain: Domain,
    *,
    streamed: str,
    tiles: Mapping[str, int],
    sizes: Mapping[str, int],
    parameters: Numbers | None = None,
    coordinates: Mapping[str, int] | None = None,
    tensors: Tensors | None = None,
) -> Array:
    """Count the tiles that each tile of rows visits: as ``executed_density``, in the same order.

    Where a table lists tiles, those count about which the ends of a tile leave a doubt.
    """
    found = _walked(domain, streamed, tiles, sizes, parameters, coordinates, tensors)
    if found is None:
        return np.zeros(0, np.int64)
    points, _, inside, spans = found
    if domain.table is None:
        return sum((b - a for a, _, _, b in spans), np.zeros(len(points.first), np.int64))
    total = np.zeros(len(points.first), np.int64)
    _refuse_many(spans, streamed)
    for a, _, _, b in spans:
        for at in row_chunks(b - a):
            pairs = _pairs(a[at], b[at]) + np.array([at.start, 0])
            try:
                some, _ = truths(domain.table, pairs, points, inside)
            except NotGivenError as missing:
                raise PassError(
                    f"the tiles of {streamed} follow {missing}, which is not given"
                ) from None
            np.add.at(total, pairs[some, 0], 1)
    return total


Spans = list[tuple[Array, Array, Array, Array]]


def _refuse_many(spans: Spans, streamed: str) -> None:
    """Refuse to look at more tiles, one by one, than can be looked at in seconds."""
    many = sum(int((b - a).sum()) for a, _, _, b in spans)
    if many > TILES_COUNTED:
        raise PassError(f"{many} tiles of {streamed} may have points, too many to look at each")


def _walked(
    domain: Domain,
    streamed: str,
    tiles: Mapping[str, int],
    sizes: Mapping[str, int],
    parameters: Numbers | None,
    coordinates: Mapping[str, int] | None,
    tensors: Tensors | None,
) -> tuple[TilePoints, Array, Names, Spans] | None:
    """Evaluate the bounds of all tiles of rows: for each range its tiles, and its full ones."""
    rows = {rank: tile for rank, tile in tiles.items() if rank != streamed}
    names = Names(coordinates or {}, parameters or {}, sizes, tensors or {})
    starts = list(product(*(range(0, sizes[rank], tile) for rank, tile in rows.items())))
    if not starts or not sizes[streamed]:
        return None
    first = np.array(starts, np.int64).reshape(len(starts), len(rows))
    extent = np.array([[sizes[rank] for rank in rows]], np.int64).reshape(1, len(rows))
    last = np.minimum(first + np.array([[*rows.values()]], np.int64).reshape(1, -1), extent) - 1
    ends = {f"{rank}_first": first[:, i] for i, rank in enumerate(rows)}
    ends |= {f"{rank}_last": last[:, i] for i, rank in enumerate(rows)}
    inside = Names(names.ranks, {**names.parameters, **ends}, sizes, names.tensors)
    shape, tile = (len(starts),), tiles[streamed]

    def bound(x: Expression) -> Array:
        try:
            return np.broadcast_to(np.asarray(value_at(x, inside)[0], np.int64), shape)
        except NotGivenError as missing:
            raise PassError(f"A bound of {streamed} reads {missing}, which is not given.") from None

    reached = np.zeros(shape, np.int64)
    spans: Spans = []
    for x in domain.ranges:
        begin, end = bound(x.begin), bound(x.end)
        a = np.maximum(begin // tile, reached)
        b = np.where(begin < end, -(-end // tile), a)
        b = np.maximum(a, b)
        fa = np.clip(-(-bound(x.full_begin) // tile), a, b)
        fb = np.clip(bound(x.full_end) // tile, fa, b)
        reached = np.where(b > a, b, reached)
        spans.append((a, fa, fb, b))
    points = TilePoints(domain.test, first, rows, streamed, tile, names)
    return points, last, inside, spans


@dataclass(frozen=True, slots=True)
class TilePoints:
    """Where the points of tiles lie, and the test of one."""

    test: Expression | None
    first: Array
    rows: Mapping[str, int]
    streamed: str
    tile: int
    names: Names

    @property
    def each(self) -> int:
        """Points of a tile."""
        return prod(self.rows.values()) * self.tile


def _of_table(
    table: Table,
    spans: Sequence[tuple[Array, Array]],
    area: Array,
    points: TilePoints,
    inside: Names,
) -> Density:
    """Count what a table lists, some tiles at a time; where its conditions differ, by its points.

    Too many tiles in doubt count as partial.
    """
    points = replace(points, test=table.test)
    full = partial = 0
    live: int | None = 0
    checked = 0
    for begin, end in spans:
        for at in row_chunks(end - begin):
            pairs = _pairs(begin[at], end[at])
            pairs[:, 0] += at.start
            some, every = truths(table, pairs, points, inside)
            full += int(every.sum())
            live = None if live is None else live + int(area[pairs[every, 0]].sum()) * points.tile
            pairs = pairs[some & ~every]
            checked += len(pairs) * points.each
            if table.test is None or checked > POINTS_COUNTED:
                partial, live = partial + len(pairs), None
                continue
            counts = live_points(points, pairs)
            assert counts is not None
            whole = counts == area[pairs[:, 0]] * points.tile
            full, partial = full + int(whole.sum()), partial + int(((counts > 0) & ~whole).sum())
            live = None if live is None else live + int(counts.sum())
    return Density(full + partial, full, partial, live)


def row_chunks(counts: Array) -> Iterator[slice]:
    """Cut rows so that each part has about ``POINTS_AT_ONCE`` tiles."""
    start, total = 0, 0
    for row, count in enumerate(counts):
        total += int(count)
        if total >= POINTS_AT_ONCE or row + 1 == len(counts):
            yield slice(start, row + 1)
            start, total = row + 1, 0


def truths(table: Table, pairs: Array, points: TilePoints, inside: Names) -> tuple[Array, Array]:
    """Evaluate a table's conditions on tiles: whether some point may exist, and whether all do."""
    rank, tile = points.streamed, points.tile
    size = inside.sizes[rank]
    start = pairs[:, 1] * tile
    ends = {f"{rank}_first": start, f"{rank}_last": np.minimum(start + tile, size) - 1}
    widths = {**points.rows, rank: tile}
    marks = {f"{r}_{end}" for r in points.rows for end in ("first", "last")}
    own = {n: v[pairs[:, 0]] if n in marks else v for n, v in inside.parameters.items()}
    names = Names(inside.ranks, {**own, **ends}, inside.sizes, inside.tensors, widths)
    some, every = (
        np.broadcast_to(np.asarray(value_at(x, names)[0], np.bool_), start.shape)
        for x in (table.some, table.every)
    )
    every = every & (start + tile <= size)
    return some | every, every


def _pairs(begin: Array, end: Array) -> Array:
    """List (tile of rows, tile of the streamed rank) for every tile in [begin, end)."""
    counts = end - begin
    row = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([row, begin[row] + offset], axis=1)


def live_points(points: TilePoints, pairs: Array) -> Array | None:
    """Count the points of each tile that exist; None where that costs too much."""
    rows, names, each = points.rows, points.names, points.each
    if len(pairs) * each > POINTS_COUNTED:
        return None
    step = max(1, POINTS_AT_ONCE // each)
    counts = np.zeros(len(pairs), np.int64)
    for at in range(0, len(pairs), step):
        chunk = pairs[at : at + step]
        axes = len(rows) + 2
        grid: dict[str, Array] = {}
        exists = np.ones((1,) * axes, np.bool_)
        spans = [
            *((r, points.first[chunk[:, 0], i], width) for i, (r, width) in enumerate(rows.items()))
        ]
        spans.append((points.streamed, chunk[:, 1] * points.tile, points.tile))
        for axis, (rank, start, width) in enumerate(spans, start=1):
            shape = [1] * axes
            shape[0], shape[axis] = len(chunk), width
            grid[rank] = (start[:, None] + np.arange(width)).reshape(shape)
            exists = exists & (grid[rank] < names.sizes[rank])
        if points.test is not None:
            value, present = value_at(points.test, replace(names, ranks={**names.ranks, **grid}))
            exists = exists & np.asarray(value, np.bool_) & present
        whole = np.broadcast_to(exists, (len(chunk), *rows.values(), points.tile))
        counts[at : at + step] = whole.reshape(len(chunk), -1).sum(1)
    return counts
