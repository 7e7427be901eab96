"""Tile work: what the einsums of a kernel do on a tile, as far as its size is concerned."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.cascade import Einsum
from ..ir.expression import Access, Apply, Expression, RankVariable, Reduce, walk
from ..ir.mapping import MappedKernel
from ..ir.streaming import Field


def contracts(item: Einsum | Field) -> bool:
    """Whether an item sums products, as tensor cores do."""
    return (isinstance(item, Field) and item.reducer == "sum") or (
        isinstance(item, Einsum) and isinstance(item.body, Reduce) and item.body.reducer == "sum"
    )


def folds(item: Einsum | Field, width: Mapping[str, int]) -> bool:
    """Whether an item reduces a tile that is no product of two sides; ``width`` has its ranks."""
    body = folded_body(item)
    if body is None:
        return False
    sides = [r for r in item.ranks if r in width]
    return not (contracts(item) and is_product(body) and len(sides) > 1)


def folded_body(item: Einsum | Field) -> Expression | None:
    """Return what an item reduces, or None if it reduces nothing."""
    match item:
        case Field(lift=lift):
            return lift
        case Einsum(body=Reduce(body=inner)):
            return inner
        case _:
            return None


def is_product(body: Expression) -> bool:
    """Whether an expression multiplies two things."""
    match body:
        case Apply("*", _):
            return True
        case Apply("/", (over, _)):
            return is_product(over)
        case _:
            return False


def all_ranks(item: Einsum | Field) -> tuple[str, ...]:
    """Every rank of an item's iteration space."""
    if isinstance(item, Field):
        return tuple(dict.fromkeys((*item.ranks, *item.ranks_reduced)))
    inner = item.body.ranks if isinstance(item.body, Reduce) else ()
    return tuple(dict.fromkeys((*item.ranks, *inner)))


def element_bytes(tensor: str, dtypes: Mapping[str, str]) -> int:
    """Return the bytes of an element of a tile; what has no dtype yet counts as half precision."""
    return {"float32": 4, "float64": 8}.get(dtypes.get(tensor, "float16"), 2)


def operands(kernel: MappedKernel) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the tiles that are loaded: tensor and the ranks along which it varies."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    for item in kernel.einsums():
        body = item.lift if isinstance(item, Field) else item.body
        for x in walk(body):
            if isinstance(x, Access) and x.tensor in kernel.reads:
                ranks = dict.fromkeys(
                    y.rank for c in x.coordinates for y in walk(c) if isinstance(y, RankVariable)
                )
                found.setdefault((x.tensor, tuple(ranks)))
    return tuple(found)
