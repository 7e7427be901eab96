"""Slices: masks as lists of rectangles of queries by keys, each whole or cut along a diagonal.

A slice ``(q_start, q_end, k_start, k_end, kind)`` keeps, in its rectangle, the points that its kind
keeps; a mask keeps what any of its slices keeps.

::

    full            all of the rectangle
    causal          at or below the diagonal through its lower right corner
    inverse         at or above the diagonal through its upper left corner
    both            those between the two diagonals

Each row of a slice is one run of keys, so a list of slices is a few runs for each row:
``slice_filter`` gives the filter and the two tensors that hold where runs begin and end, a number
for each row and run. ``slices`` goes the other way.

The kinds are those of MagiAttention's AttnSlice, numbered as there from 0 to 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import ShapeError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable, free_ranks
from ..passes.domain_known import Known
from ..passes.domain_limits import solve
from ..passes.domain_pieces import Piece, pieces
from ..passes.domain_values import Names, value_at
from .block_mask import points_of
from .trace_filter import Filter

KINDS = ("full", "causal", "inverse", "both")

CELLS = 1 << 22
"""Rows times slices that are looked at together, or rows times columns."""

POINTS = 1 << 28
"""Points of a mask beyond which a filter without runs in closed form is not evaluated."""

FAR = 2**31 - 1

Array = NDArray[np.int64]


class Slice(NamedTuple):
    """Queries from ``q_start`` to ``q_end``, keys from ``k_start`` to ``k_end``, and the kind."""

    q_start: int
    q_end: int
    k_start: int
    k_end: int
    kind: str


def slice_filter(
    q_ranges: Any,
    k_ranges: Any,
    kinds: Any = None,
    *,
    rows: int,
    ranks: tuple[str, str] = ("p", "m"),
    names: tuple[str, str] = ("Begin", "End"),
    most: int | None = None,
) -> Filter:
    """Return the filter that a list of slices is, with the tensors that it reads.

    Parameters
    ----------
    q_ranges, k_ranges : starts and ends, [slices, 2], as lists or tensors of integers.
    kinds : names or numbers of ``KINDS``, one for each slice; all full if None.
    rows : queries of the whole mask.
    names : of the tensors, int32 [runs, rows]. Their device is that of ``q_ranges``.
    most : runs of keys that a row has at most. It is counted where the slices are on the host; on a
        device counting would wait for it, so there it is given, and checked on the device.

    Slices that overlap keep their points once, as a mask does.

    Raises
    ------
    ShapeError : the lists do not fit one another, or ``most`` is too small or missing.
    """
    q, k = (torch.as_tensor(x, dtype=torch.int64).reshape(-1, 2) for x in (q_ranges, k_ranges))
    number = torch.as_tensor(_numbers(kinds, len(q)), dtype=torch.int64, device=q.device)
    if len(k) != len(q) or len(number) != len(q):
        raise ShapeError(
            f"slices have a range of queries, one of keys and a kind each; {len(q)}, {len(k)} and"
            f" {len(number)} given"
        )
    if q.device.type != "cpu" and most is None:
        raise ShapeError(
            "these slices are on a device, where counting how many runs a row has would wait for"
            " it; give most=..., or the slices as lists"
        )
    step = max(1, CELLS // max(1, len(q)))
    chunks = [
        runs_of_rows(q, k.to(q.device), number, start, min(start + step, rows), most)
        for start in range(0, rows, step)
    ]
    width = max((x.shape[1] for x in chunks), default=1)
    whole = torch.zeros((2, width, rows), dtype=torch.int32, device=q.device)
    for k_, x in enumerate(chunks):
        whole[:, : x.shape[1], k_ * step : k_ * step + x.shape[2]] = x
    row, column = map(RankVariable, ranks)
    conditions: list[Expression] = []
    for r in range(width):
        begin, end = (Access(n, (Constant(r), row)) for n in names)
        conditions.append(Apply("and", (Apply("<=", (begin, column)), Apply("<", (column, end)))))
    union = conditions[0] if width == 1 else Apply("or", tuple(conditions))
    return Filter(union, ((names[0], whole[0].contiguous()), (names[1], whole[1].contiguous())))


def _numbers(kinds: Any, many: int) -> Any:
    if kinds is None:
        return [0] * many
    if isinstance(kinds, torch.Tensor):
        return kinds
    wrong = [x for x in kinds if x not in KINDS and x not in range(len(KINDS))]
    if wrong:
        raise ShapeError(f"the kinds of slices are {', '.join(KINDS)}, or 0 to 3; {wrong[0]} given")
    return [KINDS.index(x) if isinstance(x, str) else x for x in kinds]


def runs_of_rows(
    q: torch.Tensor, k: torch.Tensor, kind: torch.Tensor, start: int, end: int, most: int | None
) -> torch.Tensor:
    """Return the runs of some rows, in order and apart: [begin or end, runs, rows]."""
    row = torch.arange(start, end, device=q.device)[None, :]
    first, last = q[:, :1], q[:, 1:]
    low, high = k[:, :1], k[:, 1:]
    kind = kind[:, None]
    begin = torch.where(kind >= 2, low + row - first, low)
    stop = torch.where((kind == 1) | (kind == 3), high - (last - 1 - row), high)
    begin, stop = torch.maximum(begin, low), torch.minimum(stop, high)
    there = (first <= row) & (row < last) & (begin < stop)
    begin, order = torch.where(there, begin, FAR).sort(dim=0)
    stop = torch.where(there, stop, 0).gather(0, order)
    if not len(q):
        return torch.zeros((2, 1, end - start), dtype=torch.int32, device=q.device)
    reached = stop.cummax(0).values
    before = torch.cat([torch.full_like(reached[:1], -1), reached[:-1]])
    opens = (begin > before) & (begin < FAR)
    number = opens.cumsum(0) - 1
    needed = number[-1].max() + 1
    width = most
    if q.device.type != "cpu":
        assert width is not None
        torch._assert_async(needed <= width)
    else:
        width = max(1, int(needed))
        if most is not None and width > most:
            raise ShapeError(f"a row has {width} separate runs of keys, and most is {most}")
    found = torch.zeros((2, width + 1, end - start), dtype=torch.int64, device=q.device)
    place = torch.where(begin < FAR, number, width).clamp(0, width)
    found[0].scatter_(0, torch.where(opens, place, width), begin)
    found[1].scatter_reduce_(0, place, reached, "amax")
    return found[:, :width].to(torch.int32)


def slices(
    cascade: Any,
    *tensors: Any,
    sizes: Mapping[str, int] | None = None,
    reads: Mapping[str, Any] | None = None,
    of: str | None = None,
    at: Mapping[str, int] | None = None,
    **parameters: Scalar,
) -> list[Slice]:
    """Return slices that keep, together and each point once, what a cascade's filter keeps.

    Arguments are those of ``block_mask``; ``at`` gives the coordinate of each rank besides rows and
    columns that the filter reads, such as a batch.

    Where the filter has loop bounds the work is linear in the rows; else its points are evaluated,
    some rows at a time.

    Raises
    ------
    ShapeError : arguments do not fit; a rank in the filter has no coordinate in ``at``; the filter
        has no closed form and too many points.
    """
    declared: Cascade = getattr(cascade, "declared", cascade)
    points = points_of(declared, tensors, sizes, reads, of, parameters)
    row, column = points.ranks[-2:]
    filter = Constant(True) if points.filter is None else points.filter
    missing = [r for r in free_ranks(filter) if r not in (row, column, *(at or {}))]
    if missing:
        raise ShapeError(
            f"the filter of {declared.name} follows {missing[0]} too; say which one, as in"
            f" at={{{missing[0]!r}: 0}}"
        )
    arrays = {n: x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
              for n, x in points.tensors.items()}  # fmt: skip
    names = Names(dict(at or {}), points.parameters, points.sizes, arrays)
    return list(merged(runs(filter, row, column, names)))


def runs(filter: Expression, row: str, column: str, names: Names) -> list[tuple[Array, Array]]:
    """Return the runs of columns of each row, as (begins, ends): the k-th of every row together."""
    height, width = names.sizes[row], names.sizes[column]
    real = {n for n, x in names.tensors.items() if np.asarray(x).dtype.kind == "f"}
    real |= {n for n, x in names.parameters.items() if isinstance(x, float)}
    positive = frozenset(n for n, x in names.parameters.items() if x >= 1)
    known = Known(column, (), frozenset(real), positive)
    parts = pieces(solve(filter, known), known)
    rows = np.arange(height)
    if not any(p.residual for p in parts):
        inside = replace(names, ranks={**names.ranks, row: rows})
        found = [limits(p, width, inside, height) for p in parts]
        return apart(found, height)
    if height * width > POINTS:
        raise ShapeError(
            f"this filter has no runs in closed form, and {height} x {width} points are too many to"
            " evaluate; give it a smaller part"
        )
    step = max(1, CELLS // max(1, width))
    chunks = []
    for start in range(0, height, step):
        some = rows[start : start + step]
        grid = {**names.ranks, row: some[:, None], column: np.arange(width)[None, :]}
        value, present = value_at(filter, replace(names, ranks=grid))
        kept = np.broadcast_to(np.asarray(value, np.bool_) & present, (len(some), width))
        edge = np.diff(np.pad(kept, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        chunks.append(edges(edge, start))
    return numbered(np.concatenate(chunks, 1), height)


def limits(part: Piece, width: int, inside: Names, height: int) -> tuple[Array, Array]:
    """Return the one run of a piece in each row."""
    begin, end = np.zeros(height, np.int64), np.full(height, width, np.int64)
    for expression in part.lower:
        begin = np.maximum(begin, np.ceil(value_at(expression, inside)[0]).astype(np.int64))
    for expression in part.upper:
        end = np.minimum(end, np.ceil(value_at(expression, inside)[0]).astype(np.int64))
    for condition in part.conditions:
        value, present = value_at(condition, inside)
        end = np.where(np.asarray(value, np.bool_) & present, end, 0)
    return begin, end


def apart(found: Sequence[tuple[Array, Array]], height: int) -> list[tuple[Array, Array]]:
    """Order the runs of each row, and join those that touch."""
    if not found:
        return []
    begin, end = (np.stack(x) for x in zip(*found, strict=True))
    empty = begin >= end
    begin, end = np.where(empty, FAR, begin), np.where(empty, 0, end)
    order = np.argsort(begin, axis=0, kind="stable")
    begin, end = np.take_along_axis(begin, order, 0), np.take_along_axis(end, order, 0)
    reached = np.maximum.accumulate(end, 0)
    before = np.concatenate([np.full_like(reached[:1], -1), reached[:-1]])
    opens = (begin > before) & (begin < FAR)
    number = np.cumsum(opens, 0) - 1
    most = int(number[-1].max()) + 1
    starts, ends = np.zeros((most, height), np.int64), np.zeros((most, height), np.int64)
    at, rows = np.nonzero(opens)
    starts[number[at, rows], rows] = begin[at, rows]
    at, rows = np.nonzero(begin < FAR)
    np.maximum.at(ends, (number[at, rows], rows), reached[at, rows])
    return [(starts[k], ends[k]) for k in range(most)]


def edges(edge: NDArray[np.int8], start: int) -> Array:
    """Return (row, begin, end) of each run, from where rows begin and end to be kept."""
    rows, begins = np.nonzero(edge == 1)
    _, ends = np.nonzero(edge == -1)
    return np.stack([rows + start, begins, ends])


def numbered(found: Array, height: int) -> list[tuple[Array, Array]]:
    """Return runs (row, begin, end) by their number in the row."""
    rows = found[0]
    number = np.arange(len(rows)) - np.searchsorted(rows, rows)
    many = int(number.max()) + 1 if len(rows) else 0
    whole = np.zeros((2, many, height), np.int64)
    whole[:, number, rows] = found[1:]
    return [(whole[0, k], whole[1, k]) for k in range(many)]


def merged(found: list[tuple[Array, Array]]) -> Iterator[Slice]:
    """Yield slices: consecutive rows whose runs stay, or move by one, at either end."""
    for begin, end in found:
        there = begin < end
        step = np.diff(begin) + 2 * np.diff(end)  # a run moves by 0 or 1 at either end
        slow = np.isin(np.diff(begin), (0, 1)) & np.isin(np.diff(end), (0, 1))
        step = np.where(slow & there[1:] & there[:-1], step, -1)
        change = np.flatnonzero(np.diff(step)) + 1
        row, height = 0, len(begin)
        while row < height:
            if not there[row]:
                following = np.flatnonzero(there[row:])
                if not len(following):
                    break
                row += int(following[0])
            kind, last = 0, row
            if row + 1 < height and step[row] >= 0:
                k = np.searchsorted(change, row, "right")
                last = int(change[k]) if k < len(change) else height - 1
                kind = (0, 2, 1, 3)[int(step[row])]
            low, high = int(begin[row]), int(end[last])
            yield Slice(row, last + 1, low, high, KINDS[kind])
            row = last + 1
