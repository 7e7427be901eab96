"""Existence: the conditions under which a point of an expression exists, written in the notation.

Each condition is a truth value over the ranks of the expression. What no formula says, such as
whether a computed coordinate lies inside an input of unknown extent, is asked of the point itself:
``default(R[i] == R[i], False)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    children,
    substitute,
)
from .align import conjunction

Conditions = tuple[Expression, ...]


@dataclass(slots=True)
class Existence:
    """What is known of where the tensors of a cascade exist; grows with ``add``."""

    cascade: Cascade
    found: dict[str, Conditions] = field(default_factory=dict)
    writers: dict[str, Einsum] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)

    @staticmethod
    def of_cascade(cascade: Cascade) -> Existence:
        """Return what is known of every tensor of a cascade."""
        known = Existence(cascade)
        for einsum in cascade.einsums:
            known.add(einsum)
        return known

    def add(self, einsum: Einsum) -> None:
        """Learn where the tensor of one more einsum exists."""
        outer = self.of_filter(einsum.filter)
        self.writers[einsum.name] = einsum
        if isinstance(einsum.body, Populate | Concatenate):
            self.opaque.add(einsum.name)
        self.found[einsum.name] = unique((*outer, *self.of(einsum.body)))

    def give(self, access: Access) -> None:
        """Learn of a tensor from outside that exists everywhere, by a reading at its ranks."""
        self.writers[access.tensor] = Einsum(access, access)
        self.found[access.tensor] = ()

    def of_filter(self, filter: Expression | None) -> Conditions:
        """Return the conditions of a filter: that it exists and that it holds."""
        return () if filter is None else unique((*self.of(filter), *conjuncts(filter)))

    def of(self, x: Expression) -> Conditions:
        """Return the conditions under which a point of the expression exists."""
        match x:
            case Access():
                return unique(self._of_access(x))
            case Apply("in", (item, Access(coordinates=coordinates))):
                return unique(c for y in (item, *coordinates) for c in self.of(y))
            case Apply("default", (_, other)):
                return self.of(other)
            case Apply("where", (test, yes, no)):
                found = list(self.of(test))
                for side, branch in ((Apply("not", (test,)), yes), (test, no)):
                    held = (*found, *conjuncts(test)) if branch is yes else found
                    more = conjunction([c for c in self.of(branch) if c not in held])
                    if more is not None:
                        found.append(Apply("or", (side, more)))
                return unique(found)
            case Reduce():
                return ()
            case _:
                return unique(c for y in children(x) for c in self.of(y))

    def _of_access(self, x: Access) -> Iterable[Expression]:
        for c in x.coordinates:
            yield from self.of(c)
        if x.tensor not in self.writers:
            ranks = ranks_of(self.cascade, x.tensor)
            for rank, c in zip(ranks, x.coordinates, strict=True):
                if isinstance(c, RankVariable):
                    continue
                if rank is None:
                    yield exists(x)
                    return
                yield from inside(c, rank)
            return
        if x.tensor in self.opaque:
            yield exists(x)
            return
        ranks = self.writers[x.tensor].ranks
        for rank, c in zip(ranks, x.coordinates, strict=True):
            yield from inside(c, rank)
        values = dict(zip(ranks, x.coordinates, strict=True))
        yield from (substitute(c, values) for c in self.found[x.tensor])


def inside(coordinate: Expression, rank: str) -> Conditions:
    """Return the conditions under which a coordinate lies in a rank, without those that hold."""
    match coordinate:
        case RankVariable(rank=name):
            own = name == rank
            return () if own else (Apply("<", (coordinate, Size(rank))),)
        case Apply("%", (_, Size(rank=name))) if name == rank:
            return ()
        case _:
            above = Apply("<=", (Constant(0), coordinate))
            return (above, Apply("<", (coordinate, Size(rank))))


def exists(x: Access) -> Expression:
    """Return the condition that asks a point whether it exists."""
    return Apply("default", (Apply("==", (x, x)), Constant(False)))


def conjuncts(filter: Expression) -> Conditions:
    """Return the parts of a conjunction."""
    match filter:
        case Apply("and", operands):
            return tuple(c for x in operands for c in conjuncts(x))
        case _:
            return (filter,)


def unique(conditions: Iterable[Expression]) -> Conditions:
    """Return conditions, each once."""
    return tuple(dict.fromkeys(conditions))
