"""Selection tiles: how kernels are cut that choose from a rank, whole or tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ..ir.expression import Populate
from ..ir.mapping import MappedKernel
from ..ir.selection import list_rank

SMALLEST = 16
"""Coordinates in the narrowest tile that a tensor core takes."""

RANK_IS_LONG = 1 << 20
"""The size that a rank of open size is taken for."""

REGISTERS = 216
"""32-bit registers of a thread that tiles may fill; the rest is for addresses and limits."""

ORDERED = 2048
"""Elements that a program of several rows puts in order."""

FEW_ELEMENTS = 512
"""Elements that a program of several rows puts in order even if others stand idle."""

PROGRAMS = 128
"""Programs that keep most multiprocessors busy."""

ALONE = 8192
"""Coordinates of a rank, at most, in which one program searches alone.

Measured on an H100: 32 rows of 4096 in 18 us in place of 32, 256 of 8192 in 55 in place of 97; but
8 of 16384 in 77 in place of 37.
"""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to cut a kernel: tile by rank, warps, stages of the loop's loads in flight."""

    tiles: tuple[tuple[str, int], ...]
    num_warps: int
    num_stages: int


def order_width(kernel: MappedKernel) -> int:
    """Return the width of the tiles of a rank that is put in order, and of its list."""
    sizes = dict(kernel.static)
    most = max(sizes[r] for pair in kernel.ordered for r in pair)
    return max(SMALLEST, 1 << max(most - 1, 0).bit_length())


def list_width(kernel: MappedKernel, rank: str, size: int) -> int:
    """Return the width of the tiles of a rank that is put in order, or of its list.

    A list of the first few is as wide as they are; where a sum of values ends it, it is not known
    beforehand how many they are.
    """
    width = order_width(kernel)
    few = any(
        isinstance(e.body, Populate) and e.body.selector == "topk" and list_rank(e) == rank
        for e in kernel.before
    )
    return min(width, max(SMALLEST, 1 << max(size - 1, 0).bit_length())) if few else width


def order_configurations(
    kernel: MappedKernel,
    tiled: tuple[str, ...],
    widest: Mapping[str, int],
    sizes: Mapping[str, int],
) -> Iterator[Configuration]:
    """Yield configurations of a kernel that puts rows in order.

    An element takes two registers, and as many again while it is exchanged. Few rows are spread
    over programs, unless they are short.
    """
    width = order_width(kernel)
    many = prod(sizes.get(r, RANK_IS_LONG) for r in (*kernel.ranks("grid"), *tiled))
    for rows in (16, 8, 4, 2, 1):
        warps = min(16, max(4, rows * width // 512))
        if rows > 1 and rows * width > FEW_ELEMENTS and many < rows * PROGRAMS:
            continue
        if rows * width <= ORDERED or (rows == 1 and 8 * width <= REGISTERS * 32 * warps):
            yield Configuration(tuple((r, min(rows, widest[r])) for r in tiled), warps, 1)


def search_configuration(kernel: MappedKernel, sizes: Mapping[str, int]) -> Configuration:
    """Return how a rank is cut that members are searched in: in about a hundred tiles, or not.

    Sums lie in registers beside the numbers, once for each digit, so their tiles are narrow. Where
    values are counted and a program can hold the rank, it searches alone.
    """
    assert kernel.search is not None
    (rank,) = kernel.ranks("tiled")
    if not kernel.search.mass and 0 < kernel.search.most <= ALONE:
        width = max(2048, kernel.search.most)
        return Configuration(((rank, width),), min(16, width // 512), 1)
    width = 2048
    while not kernel.search.mass and width < 16384 and 128 * width < sizes.get(rank, RANK_IS_LONG):
        width *= 2
    return Configuration(((rank, width),), min(16, width // 512), 1)
