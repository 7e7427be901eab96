"""The last resort for a mask function that cannot be traced: its points, as bits of partial tiles.

::

    Tile[b, h, i, j]     0 for an empty tile, 1 for a full one, else a row of Bits
    Bits[k, r, c]        the points of a partial tile, 8 in a byte

Points are evaluated some tiles at a time and never held all at once; equal tiles share their bits.
So the table takes 4 bytes for each tile and a bit for each point of those partial tiles that differ
from one another. It follows what the function reads no more: a captured tensor that changes later
does not change it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..ir.errors import BackendError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable
from .trace_filter import RANKS, Filter, Ranks
from .tracing import captured

POINTS_AT_ONCE = 1 << 22

CALLS = 1 << 20
"""Points of a function that has to be called for each of them."""

log = logging.getLogger("einfall")

Bools = NDArray[np.bool_]


def tile_table(
    mask_mod: Callable[..., Any],
    sizes: Mapping[str, int],
    *,
    ranks: Ranks = RANKS,
    tile: int = 64,
    names: tuple[str, str] = ("Tile", "Bits"),
    device: Any = None,
) -> Filter:
    """Return the filter that a mask function is, with its points evaluated and stored in tiles.

    Parameters
    ----------
    mask_mod : ``(b, h, q, kv) -> bool`` of numbers, which may branch. It is run on many points at
        once where torch's vmap can do that, else point by point.
    sizes : of the four ranks. A batch or head of 1 holds for all.
    tile : rows and columns of a tile, a multiple of 8.
    device : of the tables, and of the coordinates that the function is called with; that of the
        first tensor that it captures if None, else the host.

    A line in the log says how many bytes were stored. ``trace_filter`` stores none, so it comes
    first.

    Raises
    ------
    BackendError : the function branches, and there are too many points to call it for each.
    """
    if tile % 8 or tile <= 0:
        raise BackendError(f"tiles of bits have a multiple of 8 columns; {tile} given")
    if device is None:
        device = next((x.device for x, _ in captured(mask_mod)), "cpu")
    b, h, p, m = ranks
    batch, heads, rows, columns = (sizes[r] for r in ranks)
    many = (-(-rows // tile), -(-columns // tile))
    tiles = np.zeros((batch, heads, *many), np.int32)
    bits = [np.zeros((tile, tile // 8), np.uint8), np.full((tile, tile // 8), 255, np.uint8)]
    known = {bits[0].tobytes(): 0, bits[1].tobytes(): 1}
    wide = max(1, POINTS_AT_ONCE // tile // tile) * tile
    looked_up = evaluated(mask_mod, batch * heads * rows * columns, device)
    for at in np.ndindex(batch, heads, many[0]):
        start = at[2] * tile
        high = min(tile, rows - start)
        for left in range(0, columns, wide):
            width = min(wide, columns - left)
            kept = looked_up(at[0], at[1], (start, high), (left, width))
            for j in range(-(-width // tile)):
                own = kept[:, j * tile : (j + 1) * tile]
                key, packed = tile_bits(own, tile)
                if key not in known:
                    known[key] = len(bits)
                    bits.append(packed)
                tiles[(*at, left // tile + j)] = known[key]
    found = [torch.from_numpy(x).to(device) for x in (tiles, np.stack(bits))]
    stored = sum(x.numel() * x.element_size() for x in found)
    log.warning(
        "a mask function was not traced: its points are stored in %d tiles and %d kinds of partial"
        " ones, %d bytes",
        tiles.size,
        len(bits) - 2,
        stored,
    )
    outer = [RankVariable(r) if n > 1 else Constant(0) for r, n in ((b, batch), (h, heads))]
    return Filter(condition(names, outer, (p, m), tile), tuple(zip(names, found, strict=True)))


def condition(
    names: tuple[str, str], outer: list[Any], ranks: tuple[str, str], tile: int
) -> Expression:
    """Return the condition of a point, by its tile and its bit there."""
    row, column, width = (*map(RankVariable, ranks), Constant(tile))
    which = Access(names[0], (*outer, Apply("//", (row, width)), Apply("//", (column, width))))
    byte = Apply("//", (Apply("%", (column, width)), Constant(8)))
    bits = Access(names[1], (which, Apply("%", (row, width)), byte))
    power = Apply("**", (Constant(2), Apply("%", (column, Constant(8)))))
    bit = Apply("==", (Apply("%", (Apply("//", (bits, power)), Constant(2))), Constant(1)))
    whole = Apply("==", (which, Constant(1)))
    return Apply("and", (Apply(">", (which, Constant(0))), Apply("or", (whole, bit))))


def tile_bits(own: Bools, tile: int) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the bits of a tile, also as a key; points behind the ends count as the others do."""
    padded = np.full((tile, tile), bool(own.all()))
    padded[: own.shape[0], : own.shape[1]] = own
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.tobytes(), packed


def evaluated(
    mask_mod: Callable[..., Any], points: int, device: Any
) -> Callable[[int, int, tuple[int, int], tuple[int, int]], Bools]:
    """Return what evaluates a mask function on (start, length) of rows and of columns."""

    def coordinates(start: int, length: int) -> torch.Tensor:
        return torch.arange(start, start + length, device=device)

    def number(x: int) -> torch.Tensor:
        return torch.tensor(x, device=device)

    along = torch.vmap(mask_mod, in_dims=(None, None, None, 0))
    both = torch.vmap(along, in_dims=(None, None, 0, None))

    def together(b: int, h: int, rows: tuple[int, int], columns: tuple[int, int]) -> Bools:
        found = both(number(b), number(h), coordinates(*rows), coordinates(*columns))
        found = torch.broadcast_to(torch.as_tensor(found), (rows[1], columns[1]))
        kept: Bools = found.to(torch.bool).cpu().numpy()
        return kept

    def one_by_one(b: int, h: int, rows: tuple[int, int], columns: tuple[int, int]) -> Bools:
        at = [number(b), number(h)]
        ys, xs = coordinates(*rows), coordinates(*columns)
        return np.array([[bool(mask_mod(*at, y, x)) for x in xs] for y in ys])

    def either(b: int, h: int, rows: tuple[int, int], columns: tuple[int, int]) -> Bools:
        try:
            return together(b, h, rows, columns)
        except Exception as reason:  # whatever the function or vmap raises
            if points <= CALLS:
                return one_by_one(b, h, rows, columns)
            raise BackendError(
                f"a mask function cannot be run on many points at once ({reason}), and calling it"
                f" for {points} points one by one would take too long; write its choices with"
                " torch.where, & and |"
            ) from reason

    return either
