"""Exact places: how long a rank may be of which a kernel keeps coordinates in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir.errors import BackendError
from ..ir.expression import Apply, Constant, Expression, Size, free_ranks, tensors
from ..ir.mapping import MappedKernel

LARGEST = 2**24
"""Up to which every whole number is a float32."""


def exact_places(
    kernels: Iterable[MappedKernel], sizes: Mapping[str, int]
) -> tuple[Expression, ...]:
    """Return what must hold of sizes for every place of an extremum to be told exactly.

    A place is the least coordinate among infinities, so it is kept as a float.

    Raises
    ------
    BackendError
        where a size that is known is too large.
    """
    found: dict[str, None] = {}
    for kernel in kernels:
        walked = set(kernel.ranks("streamed"))
        for traversal in kernel.traversals:
            for field in traversal.streaming.fields:
                if field.reducer in ("min", "max"):
                    found |= dict.fromkeys(r for r in numbers(field.lift) if r in walked)
    for rank in found:
        if sizes.get(rank, 0) > LARGEST:
            raise BackendError(
                f"places along {rank} are exact up to {LARGEST:,} coordinates, and {rank} has"
                f" {sizes[rank]:,}; find the place in each of several parts of {rank}, and then"
                " the part"
            )
    return tuple(Apply("<=", (Size(r), Constant(LARGEST))) for r in found)


def numbers(x: Expression) -> tuple[str, ...]:
    """Return the ranks whose coordinates an expression has for its value, and nothing beside."""
    match x:
        case Apply("where", (_, yes, no)):
            return (*numbers(yes), *numbers(no))
        case _ if tensors(x):
            return ()
        case _:
            return free_ranks(x)
