"""Lists declared ``unique``, held to it: kernels believe the word, the interpreter looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import ShapeError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable, Reduce
from ..ir.scalar import scalar
from .interpreter_space import Bindings


def unique_lists(cascade: Cascade) -> dict[str, str]:
    """Return the lists that hold no number twice if an input does not, with the input's name."""
    found = {name: name for name in cascade.unique}
    for einsum in cascade.einsums:
        if isinstance(einsum.body, Access) and einsum.body.tensor in found:
            found[einsum.name] = found[einsum.body.tensor]
    return found


def check_lists(einsum: Einsum, lists: Mapping[str, str], bindings: Bindings) -> None:
    """Raise ShapeError where a list that an einsum asks names a coordinate twice.

    Numbers outside the rank name no coordinate, and may stand there as often as they like.
    """
    for name, item in asked(einsum) if lists else ():
        if name not in lists:
            continue
        held = bindings.tensors[name]
        live = held.mask() & (held.values >= 0)
        limit = end(item, bindings)
        if limit is not None:
            live = live & (held.values < limit)
        order = numpy.sort(numpy.where(live, held.values, -1), axis=-1)
        twice = (order[..., 1:] == order[..., :-1]) & (order[..., 1:] >= 0)
        if twice.any():
            at = tuple(int(i) for i in numpy.argwhere(twice)[0])
            raise ShapeError(
                f"{lists[name]} is declared unique, and the list at {at[:-1]} names "
                f"{int(order[..., 1:][at])} twice; leave a coordinate out, or drop the word, so "
                "that lists are taken for sets"
            )


def asked(einsum: Einsum) -> Iterator[tuple[str, Expression]]:
    """Yield the lists that an einsum looks for coordinates in, with what it looks for."""
    for x in einsum.expressions():
        match x:
            case Apply("in", (item, Access(tensor=name))):
                yield name, item
            case Reduce(filter=Apply() as filter):
                tests = filter.operands if filter.operator == "and" else (filter,)
                for test in tests:
                    match test:
                        case Apply("==", (Access(tensor=name), RankVariable() as item)):
                            yield name, item
                        case Apply("==", (RankVariable() as item, Access(tensor=name))):
                            yield name, item


def end(item: Expression, bindings: Bindings) -> int | None:
    """Return where the coordinates, or the blocks of a rank, end that are looked for."""
    match item:
        case RankVariable(rank=rank):
            return bindings.sizes.get(rank)
        case Apply("//", (RankVariable(rank=rank), by)):
            width = scalar(by, bindings.sizes, bindings.parameters)
            if width and rank in bindings.sizes:
                return -(-bindings.sizes[rank] // int(width))
        case Constant():
            return None
    return None
