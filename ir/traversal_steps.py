"""Steps: a cascade as the counting of traversals sees it, one reduction a step.

A nested reduction becomes a step of its own, so that a cascade need not be flat to be counted. What
is kept of an einsum is which ranks it walks, what it reads, and at which coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from .cascade import Cascade, Einsum
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    children,
    free_ranks,
)


@dataclass(frozen=True, slots=True)
class Read:
    """What a step reads: the key of another step or an input, and the coordinates.

    ``tensor`` is its name in the cascade; empty for what has none, such as a nested reduction.
    """

    key: str
    coordinates: tuple[Expression, ...]
    tensor: str = ""

    @property
    def ranks(self) -> frozenset[str]:
        """The ranks that vary in the coordinates."""
        return frozenset(r for c in self.coordinates for r in free_ranks(c))

    def is_earlier(self, place: int, rank: str, written: int) -> bool:
        """Whether this is another generation than the one at ``rank + written``.

        Of those, only the ones before it are there to be read, in the order of the iteration.
        """
        return shift(self.coordinates[place]) != (rank, written)


@dataclass(frozen=True, slots=True)
class Step:
    """One pointwise expression, reduction, selection or concatenation.

    key : the tensor's name for an einsum's last step, another for the steps inside it.
    places : the coordinates at which the step writes; ``touched`` the ranks that it walks.
    iterates : of an iterative tensor, the ranks of its generations, each with the direction: 1 from
        ``H[i]`` to ``H[i + 1]``, -1 from ``H[i + 1]`` to ``H[i]``.
    """

    key: str
    einsum: Einsum
    expression: Expression
    places: tuple[Expression, ...]
    touched: frozenset[str]
    reads: tuple[Read, ...]
    iterates: Mapping[str, int] = field(default_factory=dict)

    @property
    def ranks(self) -> frozenset[str]:
        """The ranks of what the step writes."""
        return frozenset(r for c in self.places for r in free_ranks(c))


def steps(cascade: Cascade) -> tuple[Step, ...]:
    """Return the steps of a cascade, each einsum's after those inside it."""
    made: list[Step] = []
    for number, einsum in enumerate(cascade.einsums):
        # Other writers of a tensor, such as that of H[0], are steps that the last one waits for.
        last = cascade.einsum(einsum.name) is einsum
        key = einsum.name if last else f"{einsum.name} {number}"
        reads = [] if einsum.filter is None else list(_reads(einsum.filter, einsum, key, made))
        iterates: dict[str, int] = {}
        for other, first in enumerate(cascade.einsums):
            if last and first.name == einsum.name and first is not einsum:
                reads.append(Read(f"{first.name} {other}", first.output.coordinates))
                for c, place in zip(
                    first.output.coordinates, einsum.output.coordinates, strict=True
                ):
                    if not free_ranks(c):
                        forward = not isinstance(place, RankVariable)
                        iterates |= dict.fromkeys(free_ranks(place), 1 if forward else -1)
        step = _step(key, einsum, einsum.body, einsum.output.coordinates, reads, made)
        made.append(replace(step, iterates=iterates))
    return tuple(made)


def shift(coordinate: Expression) -> tuple[str, int] | None:
    """Return ``i + 1`` as ("i", 1), None for anything but a rank shifted by a number."""
    match coordinate:
        case RankVariable(rank=rank):
            return rank, 0
        case Apply("+", (RankVariable(rank=rank), Constant(value=int(value)))):
            return rank, value
        case Apply("-", (RankVariable(rank=rank), Constant(value=int(value)))):
            return rank, -value
        case _:
            return None


def _step(
    key: str,
    einsum: Einsum,
    x: Expression,
    places: tuple[Expression, ...],
    reads: list[Read],
    made: list[Step],
) -> Step:
    written = {r for c in places for r in free_ranks(c)}
    parts: tuple[Expression, ...] = (x,)
    touched = set(written)
    match x:
        case Reduce(ranks=ranks):
            parts = children(x)
            touched |= set(ranks)
        case Populate(rank=rank):
            parts = children(x)
            # The list is written at once: its rank is not walked.
            touched = {rank} | (written & {r for part in parts for r in free_ranks(part)})
        case Concatenate():
            parts = x.parts
    for part in parts:
        touched |= set(free_ranks(part))
        reads += _reads(part, einsum, key, made)
    return Step(key, einsum, x, places, frozenset(touched), tuple(reads))


def _reads(x: Expression, einsum: Einsum, key: str, made: list[Step]) -> Iterator[Read]:
    match x:
        case Reduce() | Populate() | Concatenate():
            inner = f"{key} / {len(made)}"
            places = tuple(RankVariable(r) for r in free_ranks(x))
            step = _step(inner, einsum, x, places, [], made)
            made.append(step)
            yield Read(inner, places)
        case Access(tensor=tensor, coordinates=coordinates):
            yield Read(tensor, coordinates, tensor)
            for c in coordinates:
                yield from _reads(c, einsum, key, made)
        case _:
            for child in children(x):
                yield from _reads(child, einsum, key, made)
