"""Flatten: every einsum is pointwise, or one reduction or selection, or one concatenation.

This is the normal form on which later passes rest. A nested reduction gets a name and an einsum of
its own, in front of the einsum that it stood in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import networkx

from ..ir.cascade import Cascade, Einsum, dependencies
from ..ir.errors import PassError
from ..ir.expression import (
    Access,
    Concatenate,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
    tensors,
    walk,
)
from .align import fresh
from .product import factors


def flatten(cascade: Cascade) -> Cascade:
    """Give every nested reduction a name of its own.

    ::

        S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e]) / sqrt(size(e)) - slope * (p - m)
        O[p] = max[m](S[p, m] * sum[e](Q[p, e]))
        -->
        S_dot[p, m] = sum[e](Q[p, e] * K[m, e])
        S[p, m: m <= p] = S_dot[p, m] / sqrt(size(e)) - slope * (p - m)
        O_sum[p] = sum[e](Q[p, e])
        O[p] = max[m](S[p, m] * O_sum[p])

    Afterwards no reduction stands in a filter, in a coordinate, or under anything else. What is
    equal within one einsum gets one name.

    A reduction exists everywhere, also over nothing, so its einsum needs no filter: it is read
    where the filters around it keep points, and no point appears or goes. What reads an iterative
    tensor, from within the iteration, keeps the iterative rank: it is computed generation by
    generation.

    Requires: nothing. Keeps: every output's value, and its absent points. A flat einsum stays the
    same object, and so does a flat cascade.

    Raises
    ------
    PassError
        for a selection or a concatenation inside an expression, which notation does not have.
    """
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    iterations = _iterations(cascade)
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        hoist = _Hoist(einsum, iterations.get(einsum.name, {}), taken)
        flat = hoist.flat()
        einsums += [*hoist.made, flat]
    if all(a is b for a, b in zip(einsums, cascade.einsums, strict=False)):
        return cascade
    return replace(cascade, einsums=tuple(einsums))


_Generations = Mapping[tuple[str, int], tuple[str, tuple[Expression, ...]]]
"""By tensor and place: the rank that counts generations there, and the coordinate of the first."""


def _iterations(cascade: Cascade) -> dict[str, _Generations]:
    """Return, for each tensor that depends on itself, where the tensors on the way iterate."""
    found: dict[str, _Generations] = {}
    for names in networkx.strongly_connected_components(dependencies(cascade)):
        places: dict[tuple[str, int], tuple[str, tuple[Expression, ...]]] = {}
        for einsum in cascade.einsums:
            others = [e for e in cascade.einsums if e.name == einsum.name and e is not einsum]
            for place, coordinate in enumerate(einsum.output.coordinates):
                firsts = [e.output.coordinates[place] for e in others]
                first = tuple(c for c in firsts if not free_ranks(c))
                for rank in free_ranks(coordinate):
                    if einsum.name in names and first:
                        places[einsum.name, place] = (rank, first)
        found |= dict.fromkeys(names, places)
    return found


@dataclass(slots=True)
class _Hoist:
    """One einsum on its way to the flat form, and the einsums that it gives rise to."""

    einsum: Einsum
    generations: _Generations
    taken: set[str]
    made: list[Einsum] = field(default_factory=list)
    known: dict[str, Access] = field(default_factory=dict)

    def flat(self) -> Einsum:
        """Return the einsum without what was hoisted from it."""
        filter = self.optional(self.einsum.filter)
        body = self.whole(self.einsum.body)
        if body is self.einsum.body and filter is self.einsum.filter:
            return self.einsum
        return replace(self.einsum, body=body, filter=filter)

    def whole(self, x: Expression) -> Expression:
        """Return a right side with nothing but pointwise expressions below its outermost node."""
        new: Expression
        match x:
            case Reduce(body=body, filter=filter):
                new = replace(x, body=self.pointwise(body), filter=self.optional(filter))
            case Populate():
                new = replace(
                    x,
                    argument=self.pointwise(x.argument),
                    body=self.pointwise(x.body),
                    forced=self.optional(x.forced),
                    forbidden=self.optional(x.forbidden),
                )
            case Concatenate(parts=parts):
                new = replace(x, parts=tuple(self.pointwise(part) for part in parts))
            case _:
                return self.pointwise(x)
        return x if new == x else new

    def optional(self, x: Expression | None) -> Expression | None:
        """Return a filter, if there is one, without reductions in it."""
        return None if x is None else self.pointwise(x)

    def pointwise(self, x: Expression) -> Expression:
        """Return the expression with names in place of its reductions, the innermost first."""
        for inner in walk(x):
            if isinstance(inner, Populate | Concatenate):
                word = inner.selector if isinstance(inner, Populate) else "concat"
                raise PassError(
                    f"{self.einsum.name} holds {word}[...] inside an expression, and it is a whole "
                    f"right side: give it an einsum of its own, and read that."
                )
        return rewrite(x, lambda y: self.named(y) if isinstance(y, Reduce) else None)

    def named(self, x: Reduce) -> Access:
        """Write the reduction as an einsum and return the reading of it."""
        varying = dict.fromkeys((*free_ranks(x), *self.carried(x)))
        ranks = [r for r in self.einsum.ranks if r in varying]
        ranks += [r for r in varying if r not in ranks]
        key = repr(x)  # as text, since 1 and True and 1.0 are equal in Python
        if key not in self.known:
            name = fresh(f"{self.einsum.name}_{_word(x)}", self.taken)
            access = Access(name, tuple(RankVariable(r) for r in ranks), x.at)
            self.made.append(Einsum(access, x, None, x.at))
            self.known[key] = access
        return self.known[key]

    def carried(self, x: Reduce) -> list[str]:
        """Return the iterative ranks that do not vary in what reads a generation beyond the first.

        Such as ``i`` in ``sum[e](H[2, e])``: what is there of H[2] depends on the generation.
        """
        return [
            rank
            for access in accesses(x)
            for place, coordinate in enumerate(access.coordinates)
            for rank, first in [self.generations.get((access.tensor, place), ("", ()))]
            if rank in self.einsum.ranks and coordinate not in first
        ]


def _word(x: Reduce) -> str:
    """Return what a reduction is called after the tensor that it serves."""
    reading = [f for f in factors(x.body)[1] if tensors(f.expression)]
    return "dot" if x.reducer == "sum" and len(reading) > 1 else x.reducer
