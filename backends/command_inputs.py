"""Inputs for the command line: sizes that were not given, and tensors of the right kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Scalar
from ..ir.errors import EinfallError
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    walk,
)
from .save_check import equalised, shape

LONG, SHORT, FEW = 1024, 64, 2
"""Sizes of ranks that were not given: of sequences, of features, of everything else."""

EXTENT = 8
"""Coordinates along a rank of which nothing tells the size."""

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def default_sizes(cascade: Cascade, given: Mapping[str, Scalar]) -> dict[str, int]:
    """Return a size for every rank: as given, or by how the inputs have it.

    A rank that stands last wherever an input has it holds features. One that is reduced is long,
    and so is one that some input lacks, if it stands before the last or is compared with a long
    one.
    """
    places = {rank: list(found) for rank, found in by_rank(cascade).items()}
    features = {r for r, at in places.items() if at and all(k == n - 1 and n > 1 for k, n in at)}
    reduced = {
        r
        for e in cascade.einsums
        for x in e.expressions()
        if isinstance(x, Reduce)
        for r in x.ranks
        if r not in features
    }
    compared = {
        r
        for x in filters(cascade)
        if reduced & set(free_ranks(x))
        for r in free_ranks(x)
        if r not in features
    }
    wide = [t for t in cascade.inputs if len(ranks_of(cascade, t)) > 1]
    everywhere = {
        r for r in cascade.ranks if wide and all(r in ranks_read(cascade, t) for t in wide)
    }
    sizes = {}
    for rank in cascade.ranks:
        late = any(k >= n - 2 and n > 1 for k, n in places.get(rank, []))
        if rank in given:
            sizes[rank] = int(given[rank])
        elif rank in features:
            sizes[rank] = SHORT
        elif rank in reduced or (rank not in everywhere and (late or rank in compared)):
            sizes[rank] = LONG
        else:
            sizes[rank] = FEW
    unknown = [r for r in given if r not in sizes]
    if unknown:
        raise EinfallError(
            f"{cascade.name} has the ranks {', '.join(sizes)}; --size {unknown[0]}=... names none"
        )
    return equalised(cascade, sizes, fixed=given)


def by_rank(cascade: Cascade) -> dict[str, list[tuple[int, int]]]:
    """Return where inputs have each rank: (position, number of ranks)."""
    places: dict[str, list[tuple[int, int]]] = {}
    for tensor in cascade.inputs:
        ranks = ranks_of(cascade, tensor)
        for k, rank in enumerate(ranks):
            if rank is not None:
                places.setdefault(rank, []).append((k, len(ranks)))
    return places


def ranks_read(cascade: Cascade, tensor: str) -> frozenset[str]:
    """Return the ranks that occur in any coordinate at which an input is read."""
    return frozenset(
        r
        for e in cascade.einsums
        for x in e.expressions()
        if isinstance(x, Access) and x.tensor == tensor
        for r in free_ranks(x)
    )


def filters(cascade: Cascade) -> Iterator[Expression]:
    """Yield every condition of a cascade."""
    for einsum in cascade.einsums:
        if einsum.filter is not None:
            yield einsum.filter
        for x in einsum.expressions():
            inside: tuple[Expression | None, ...] = ()
            if isinstance(x, Reduce):
                inside = (x.filter,)
            elif isinstance(x, Populate):
                inside = (x.forced, x.forbidden)
            yield from (c for c in inside if c is not None)


def shapes_of(
    cascade: Cascade, sizes: Mapping[str, int], parameters: Mapping[str, Scalar]
) -> dict[str, tuple[int, ...]]:
    """Return a shape for every input; what only computed coordinates reach is just reached."""
    defaults = {n: v for n, v in cascade.parameters if v is not None}
    values = {**defaults, **parameters}
    return {t: shape(cascade, t, sizes, values, {}, EXTENT) for t in cascade.inputs}


def example_inputs(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], seed: int = 0
) -> list[Any]:
    """Return random inputs: normal, and integers where a coordinate or a filter reads them."""
    draw = np.random.default_rng(seed)
    ends = integer_ends(cascade, shapes, sizes)
    return [
        draw.permuted(np.broadcast_to(np.arange(shapes[t][-1]), shapes[t]), axis=-1)
        if t in cascade.unique
        else draw.integers(0, ends[t] + 1, shapes[t])
        if t in ends
        else draw.standard_normal(shapes[t])
        for t in cascade.inputs
    ]


def integer_ends(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Return the largest value of each input of integers.

    As a coordinate it stays inside what it indexes; compared with a coordinate it reaches the size
    of that rank; otherwise it is a small number.
    """
    ends: dict[str, int] = {}
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access):
                extents = shapes.get(x.tensor) or [
                    sizes.get(r or "", EXTENT) for r in ranks_of(cascade, x.tensor)
                ]
                for coordinate, extent in zip(x.coordinates, extents, strict=False):
                    for inner in accesses(coordinate):
                        ends[inner.tensor] = max(0, extent - 1)
    for condition in filters(cascade):
        for x in walk(condition):
            if isinstance(x, Apply) and x.operator in COMPARISONS:
                ranks = {y.rank for side in x.operands for y in own_variables(side)}
                end = max((sizes[r] for r in ranks if r in sizes), default=3)
                for read in accesses(x):
                    ends.setdefault(read.tensor, end)
        for read in accesses(condition):
            ends.setdefault(read.tensor, 3)
    return {t: n for t, n in ends.items() if t in cascade.inputs}


def own_variables(x: Expression) -> Iterator[RankVariable]:
    """Yield the rank variables of an expression that are not coordinates of a tensor."""
    match x:
        case RankVariable():
            yield x
        case Apply(operands=operands):
            for y in operands:
                yield from own_variables(y)
        case _:
            return
