"""Band tiles: what products along the diagonals of a tile hold, as far as its size is concerned."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.band import Band, band, half_band
from ..ir.cascade import Einsum
from ..ir.expression import Expression, Reduce
from ..ir.mapping import MappedKernel
from ..ir.streaming import Field
from .product import factors
from .tile_work import contracts


def bands(kernel: MappedKernel) -> tuple[Band, ...]:
    """Return the products of a kernel with what is read along the diagonals of its tiles."""
    tiled = frozenset((*kernel.ranks("tiled"), *kernel.ranks("streamed")))
    found: dict[Band, None] = {}
    for item in kernel.einsums():
        reduced = summed(item)
        if reduced is None or not contracts(item):
            continue
        body, along = reduced
        terms = tuple(f.expression for f in factors(body)[1])
        made = band(terms, along, tiled)
        if made is not None and made.access.tensor in kernel.reads:
            found[made] = None
    return tuple(found)


def summed(item: Einsum | Field) -> tuple[Expression, str] | None:
    """Return what an item sums over its one rank, and the rank."""
    match item:
        case Field(lift=body, ranks_reduced=(along,)):
            return body, along
        case Einsum(body=Reduce(body=body, ranks=(along,))):
            return body, along
        case _:
            return None


def band_elements(found: Band, width: Mapping[str, int]) -> int:
    """Return how many numbers rows have along all diagonals of a tile."""
    return 2 * width[found.own] * half_band(width[found.own], width[found.across])


def band_bytes(found: Band, width: Mapping[str, int], size: int, stages: int) -> int:
    """Return the shared memory of a band: what is read, once a stage, and what points take from."""
    half = half_band(width[found.own], width[found.across])
    return 2 * half * width[found.along] * size * stages + 2 * band_elements(found, width)
