"""Executed density: how many tiles a domain visits, how many are full, how many points are live.

The bounds of all tiles of rows are evaluated at once, so the tiles are counted in O(tiles); live
points are counted by the domain's test on the partial tiles, a bounded number of points at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..ir.domain import Domain
from ..ir.errors import PassError
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
)

Numbers = Mapping[str, int | float]
Tensors = Mapping[str, Any]

POINTS_AT_ONCE = 1 << 20
POINTS_COUNTED = 1 << 26
"""Beyond this many points of partial tiles the live ones are not counted."""


class Density(NamedTuple):
    """Tiles visited, of them full and partial, and the points that exist.

    ``live_points`` is None where a tensor of the test is not given, or counting costs too much.
    """

    visited_tiles: int
    full_tiles: int
    partial_tiles: int
    live_points: int | None


class _NotGivenError(Exception):
    """A name that is not given; caught where live points are counted."""


@dataclass(frozen=True, slots=True)
class _Names:
    ranks: Mapping[str, Any]
    parameters: Mapping[str, Any]
    sizes: Mapping[str, int]
    tensors: Tensors


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
    PassError : a bound reads a name that is not given.
    """
    rows = {rank: tile for rank, tile in tiles.items() if rank != streamed}
    names = _Names(coordinates or {}, parameters or {}, sizes, tensors or {})
    starts = list(product(*(range(0, sizes[rank], tile) for rank, tile in rows.items())))
    if not starts or not sizes[streamed]:
        return Density(0, 0, 0, 0)
    first = np.array(starts, np.int64).reshape(len(starts), len(rows))
    extent = np.array([[sizes[rank] for rank in rows]], np.int64).reshape(1, len(rows))
    last = np.minimum(first + np.array([[*rows.values()]], np.int64).reshape(1, -1), extent) - 1
    ends = {f"{rank}_first": first[:, i] for i, rank in enumerate(rows)}
    ends |= {f"{rank}_last": last[:, i] for i, rank in enumerate(rows)}
    inside = _Names(names.ranks, {**names.parameters, **ends}, sizes, names.tensors)
    shape, tile = (len(starts),), tiles[streamed]

    def bound(x: Expression) -> np.ndarray[Any, Any]:
        try:
            return np.broadcast_to(np.asarray(_value(x, inside)[0], np.int64), shape)
        except _NotGivenError as missing:
            raise PassError(f"A bound of {streamed} reads {missing}, which is not given.") from None

    area = np.prod(last - first + 1, axis=1)
    reached = np.zeros(shape, np.int64)
    visited = full = full_points = 0
    partial: list[np.ndarray[Any, Any]] = []
    for x in domain.ranges:
        begin, end = bound(x.begin), bound(x.end)
        a = np.maximum(begin // tile, reached)
        b = np.where(begin < end, -(-end // tile), a)
        b = np.maximum(a, b)
        fa = np.clip(-(-bound(x.full_begin) // tile), a, b)
        fb = np.clip(bound(x.full_end) // tile, fa, b)
        reached = np.where(b > a, b, reached)
        visited += int((b - a).sum())
        full += int((fb - fa).sum())
        full_points += int(((fb - fa) * area).sum()) * tile
        partial += [_pairs(a, fa), _pairs(fb, b)]
    pairs = np.concatenate(partial) if partial else np.zeros((0, 2), np.int64)
    try:
        live = _live(domain.test, pairs, first, rows, streamed, tile, names)
    except _NotGivenError:
        live = None
    return Density(visited, full, visited - full, None if live is None else live + full_points)


def _pairs(begin: np.ndarray[Any, Any], end: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """List (tile of rows, tile of the streamed rank) for every tile in [begin, end)."""
    counts = end - begin
    row = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([row, begin[row] + offset], axis=1)


def _live(
    test: Expression | None,
    pairs: np.ndarray[Any, Any],
    first: np.ndarray[Any, Any],
    rows: Mapping[str, int],
    streamed: str,
    tile: int,
    names: _Names,
) -> int | None:
    points = prod(rows.values()) * tile
    if len(pairs) * points > POINTS_COUNTED:
        return None
    live, step = 0, max(1, POINTS_AT_ONCE // points)
    for at in range(0, len(pairs), step):
        chunk = pairs[at : at + step]
        axes = len(rows) + 2
        grid: dict[str, np.ndarray[Any, Any]] = {}
        exists = np.ones((1,) * axes, np.bool_)
        spans = [
            *((rank, first[chunk[:, 0], i], width) for i, (rank, width) in enumerate(rows.items()))
        ]
        for axis, (rank, start, width) in enumerate(
            [*spans, (streamed, chunk[:, 1] * tile, tile)], start=1
        ):
            shape = [1] * axes
            shape[0], shape[axis] = len(chunk), width
            grid[rank] = (start[:, None] + np.arange(width)).reshape(shape)
            exists = exists & (grid[rank] < names.sizes[rank])
        if test is not None:
            at_points = _Names(
                {**names.ranks, **grid}, names.parameters, names.sizes, names.tensors
            )
            value, present = _value(test, at_points)
            exists = exists & np.asarray(value, np.bool_) & present
        live += int(np.broadcast_to(exists, (len(chunk), *rows.values(), tile)).sum())
    return live


def _value(x: Expression, names: _Names) -> tuple[Any, Any]:
    """Return values and where they are present, broadcast over the arrays in ``names``."""
    match x:
        case Constant(value=value):
            return value, True
        case Parameter(name=name):
            return _given(names.parameters, name), True
        case Size(rank=rank):
            return _given(names.sizes, rank), True
        case RankVariable(rank=rank):
            return _given(names.ranks, rank), True
        case Access(tensor=tensor, coordinates=coordinates):
            return _read(np.asarray(_given(names.tensors, tensor)), coordinates, names)
        case Reduce(reducer=reducer, ranks=ranks, body=body):
            return _over_rows(reducer, ranks, body, names), True
        case Apply("in", (item, Access(tensor=tensor, coordinates=coordinates))):
            sought, present = _value(item, names)
            fibers, there = _read(np.asarray(_given(names.tensors, tensor)), coordinates, names)
            return (fibers == np.asarray(sought)[..., None]).any(axis=-1), present & there
        case Apply("where", (condition, yes, no)):
            chosen, present = _value(condition, names)
            (a, has_a), (b, has_b) = _value(yes, names), _value(no, names)
            return np.where(chosen, a, b), present & np.where(chosen, has_a, has_b)
        case Apply(operator=name, operands=operands) if name in _NUMPY:
            found = [_value(o, names) for o in operands]
            present = found[0][1]
            for _, there in found[1:]:
                present = present & there
            return _NUMPY[name]([np.asarray(v) for v, _ in found]), present
        case _:
            raise _NotGivenError(str(x))


def _over_rows(reducer: str, ranks: tuple[str, ...], body: Expression, names: _Names) -> Any:
    """Return the extremum over each tile's rows; what is not there counts as 0, as in a kernel."""
    grid: dict[str, Any] = {}
    for axis, rank in enumerate(ranks, start=1):
        first, last = (_given(names.parameters, f"{rank}_{end}") for end in ("first", "last"))
        places = np.minimum(first[:, None] + np.arange((last - first).max() + 1), last[:, None])
        shape = [len(first)] + [1] * len(ranks)
        shape[axis] = places.shape[1]
        grid[rank] = places.reshape(shape)
    at_rows = _Names({**names.ranks, **grid}, names.parameters, names.sizes, names.tensors)
    value, present = _value(body, at_rows)
    value = np.where(present, value, 0)
    return getattr(value, reducer)(axis=tuple(range(1, value.ndim)))


def _given(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise _NotGivenError(name)
    return table[name]


def _read(
    array: np.ndarray[Any, Any], coordinates: tuple[Expression, ...], names: _Names
) -> tuple[Any, Any]:
    present: Any = True
    places = []
    for coordinate, size in zip(coordinates, array.shape, strict=False):
        value, there = _value(coordinate, names)
        place = np.asarray(value)
        present = present & there & (place >= 0) & (place < size)
        places.append(np.clip(place, 0, max(size - 1, 0)))
    return array[tuple(places)], present


def _over(a: Any, b: Any, divide: Any) -> Any:
    """Divide, a quotient by 0 being 0."""
    return np.where(b == 0, 0, divide(a, np.where(b == 0, 1, b)))


def _bit_length(x: Any) -> Any:
    return np.frexp(np.abs(x).astype(np.float64))[1].astype(np.int64)


def _all(operands: list[Any]) -> Any:
    return np.logical_and.reduce(np.broadcast_arrays(*operands))


def _any(operands: list[Any]) -> Any:
    return np.logical_or.reduce(np.broadcast_arrays(*operands))


_NUMPY: dict[str, Any] = {
    "and": _all,
    "or": _any,
    "not": lambda x: np.logical_not(x[0]),
    "==": lambda x: x[0] == x[1],
    "!=": lambda x: x[0] != x[1],
    "<": lambda x: x[0] < x[1],
    "<=": lambda x: x[0] <= x[1],
    ">": lambda x: x[0] > x[1],
    ">=": lambda x: x[0] >= x[1],
    "+": lambda x: x[0] + x[1],
    "-": lambda x: x[0] - x[1],
    "*": lambda x: x[0] * x[1],
    "/": lambda x: _over(x[0], x[1], np.true_divide),
    "//": lambda x: _over(x[0], x[1], np.floor_divide),
    "%": lambda x: _over(x[0], x[1], np.mod),
    "**": lambda x: x[0] ** x[1],
    "neg": lambda x: -x[0],
    "abs": lambda x: np.abs(x[0]),
    "floor": lambda x: np.floor(x[0]),
    "ceil": lambda x: np.ceil(x[0]),
    "sqrt": lambda x: np.sqrt(x[0]),
    "exp": lambda x: np.exp(x[0]),
    "log": lambda x: np.log(x[0]),
    "exp2": lambda x: np.exp2(x[0]),
    "log2": lambda x: np.log2(x[0]),
    "tanh": lambda x: np.tanh(x[0]),
    "bit_length": lambda x: _bit_length(x[0]),
    "min": lambda x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "max": lambda x: np.maximum.reduce(np.broadcast_arrays(*x)),
}
