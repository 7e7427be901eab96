"""Which tiles the loops of a mapped kernel visit, counted over all programs, and what is known.

Loop bounds are evaluated for every tile of rows and for every coordinate of the ranks that they
follow; where a size, a parameter or a tensor is missing, the answer is a sentence that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy

from ..ir.cascade import Scalar
from ..ir.domain import Domain
from ..ir.errors import PassError, ShapeError
from ..ir.expression import Expression, RankVariable, Size, walk
from ..ir.mapping import MappedKernel, Traversal
from ..ir.show import show_expression
from ..ir.sizes import tensor_shape
from ..passes.domains import executed_density
from .explain_lists import listed_tiles

if TYPE_CHECKING:
    from .lowered import Lowered

WIDTHS = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of an element; whatever is not named here has one."""

COMBINATIONS = 4096
"""Coordinates of grid ranks for which a domain is counted one by one."""

POINTS = 1 << 27
"""Points of partial tiles that are counted over all coordinates."""


@dataclass(frozen=True, slots=True)
class Visits:
    """Tiles of one loop over all programs; ``points`` are theirs, ``live`` those that exist.

    every : points of the whole iteration space. live is None where it was not counted. listed :
    tiles that lists name. exact : False where lists are not given and count at their longest.
    """

    total: int
    full: int
    partial: int
    points: int
    live: int | None
    every: int
    listed: int = 0
    exact: bool = True

    @property
    def visited(self) -> int:
        """Tiles that are visited at all."""
        return self.full + self.partial + self.listed

    @property
    def skipped(self) -> int:
        """Tiles that no program visits."""
        return max(0, self.total - self.visited)

    @property
    def executed_density(self) -> float:
        """Visited tiles among all."""
        return self.visited / self.total if self.total else 0.0

    @property
    def live_density(self) -> float | None:
        """Points that exist among all."""
        return None if self.live is None or not self.every else self.live / self.every


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when work is counted: sizes, parameters, dtypes in memory, shapes, values.

    static : inputs that seldom change.
    """

    sizes: Mapping[str, int]
    parameters: Mapping[str, Scalar]
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    tensors: Mapping[str, Any]
    static: tuple[str, ...] = ()

    @classmethod
    def of(cls, lowered: Lowered, sizes: Mapping[str, int], tensors: Mapping[str, Any]) -> Facts:
        """Collect what a lowering and these sizes tell; a shape that they do not is left out."""
        cascade, known, mapping = lowered.cascade, lowered.known, lowered.mapping
        shapes = dict(known.shapes)
        for tensor in cascade.inputs:
            if tensor not in shapes:
                with suppress(KeyError, ShapeError):
                    shapes[tensor] = tensor_shape(cascade, tensor, sizes)
        for kernel in mapping.kernels:
            for tensor in kernel.writes:
                ranks = mapping.cascade.einsum(tensor).ranks
                if all(r in sizes for r in ranks):
                    shapes[tensor] = tuple(sizes[r] for r in ranks)
        shapes |= {t: numpy.shape(x) for t, x in tensors.items()}
        defaults = {n: v for n, v in cascade.parameters if v is not None}
        dtypes = {**known.dtypes, **dict(mapping.dtypes)}
        values = {**defaults, **known.parameters}
        return cls(sizes, values, dtypes, shapes, tensors, known.static)

    def with_parameters(self, values: Mapping[str, Scalar]) -> Facts:
        """Return the same with more parameters."""
        return replace(self, parameters={**self.parameters, **values})

    def missing(self, kernel: MappedKernel) -> tuple[str, ...]:
        """Return the ranks of a kernel whose size is open."""
        return tuple(r for r, _ in kernel.roles if r not in self.sizes)

    def bytes_of(self, tensor: str, elements: float) -> float:
        """Return the bytes of some elements of a tensor."""
        return elements * WIDTHS.get(self.dtypes.get(tensor, "float32"), 1)


def programs(kernel: MappedKernel, sizes: Mapping[str, int]) -> int:
    """Return how many programs a launch has."""
    tiled = [-(-sizes[r] // kernel.partition(r).tile) for r in kernel.ranks("tiled")]
    return prod([*tiled, *(sizes[r] for r in kernel.ranks("grid"))])


def visits(kernel: MappedKernel, traversal: Traversal, facts: Facts) -> Visits | str:
    """Count the tiles of a loop over all programs, or say what has to be known for that."""
    missing = facts.missing(kernel)
    if missing:
        return f"sizes of {', '.join(missing)} are open"
    unknown = [w.entry for w in traversal.walks if w.rank not in facts.sizes]
    if unknown:
        return f"{', '.join(map(show_expression, unknown))} decides"
    sizes, domain, rank = facts.sizes, traversal.domain, traversal.streaming.rank
    tiled = kernel.ranks("tiled")
    tiles = {r: kernel.partition(r).tile for r in (*tiled, rank)}
    read = ranks_of_domain(domain)
    open_sizes = [r for r in sizes_of_domain(domain) if r not in sizes]
    if open_sizes:
        return f"sizes of {', '.join(open_sizes)} are open"
    followed = tuple(r for r in kernel.ranks("grid") if r in read)
    combinations = prod(sizes[r] for r in followed)
    if combinations > COMBINATIONS:
        return f"the loop bounds follow {', '.join(followed)}, of {combinations} coordinates"
    extents = {f"{t}_size_{k}": n for t, shape in facts.shapes.items() for k, n in enumerate(shape)}
    numbers = {**extents, **facts.parameters}
    area = prod(tiles.values())
    lists = listed_tiles(kernel, traversal, facts, numbers)
    listed = lists.tiles
    full = partial = 0
    live: int | None = 0
    counted = domain
    for at in product(*(range(sizes[r]) for r in followed)):
        try:
            found = executed_density(
                counted,
                streamed=rank,
                tiles=tiles,
                sizes=sizes,
                parameters=numbers,
                coordinates=dict(zip(followed, at, strict=True)),
                tensors=facts.tensors,
            )
        except PassError as error:
            return str(error).rstrip(".")
        full, partial = full + found.full_tiles, partial + found.partial_tiles
        if found.live_points is None or counted is not domain:
            live = None
        elif live is not None:
            live += found.live_points
        if counted is domain and found.partial_tiles * area * combinations > POINTS:
            live, counted = (live if combinations == 1 else None), replace(domain, test=None)
    alike = prod(sizes[r] for r in kernel.ranks("grid") if r not in followed)
    every = prod(-(-sizes[r] // t) for r, t in tiles.items()) * combinations * alike
    full, partial = full * alike, partial * alike
    points = (full + partial + listed) * area
    space = prod(sizes[r] for r in (*kernel.ranks("grid"), *tiles))
    counts = None if live is None or lists.points is None else live * alike + lists.points
    return Visits(every, full, partial, points, counts, space, listed, lists.exact)


def ranks_of_domain(domain: Domain) -> frozenset[str]:
    """Return the ranks whose coordinates loop bounds and test read."""
    return frozenset(
        x.rank for y in _expressions(domain) for x in walk(y) if isinstance(x, RankVariable)
    )


def sizes_of_domain(domain: Domain) -> tuple[str, ...]:
    """Return the ranks whose sizes loop bounds and test read."""
    found = (x.rank for y in _expressions(domain) for x in walk(y) if isinstance(x, Size))
    return tuple(dict.fromkeys(found))


def _expressions(domain: Domain) -> Iterator[Expression]:
    for r in domain.ranges:
        yield from (r.begin, r.end, r.full_begin, r.full_end)
    if domain.test is not None:
        yield domain.test
