"""Segments: a traversal of a concatenated rank as one loop for each part, over the part's own rank.

The loops carry one state: where one part ends the next goes on. Each has its part's loads, filters
and lifts, so nothing is ever laid end to end in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import BackendError, underlined
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Expression,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite_outermost,
    substitute,
    tensors,
)
from ..ir.streaming import Field, Streaming
from .align import conjunction, fresh
from .stream_presence import conditions, conjuncts


def part_ranks(einsums: Iterable[Einsum]) -> dict[str, tuple[str, ...]]:
    """Return, for each concatenated rank, the ranks of its parts in order.

    Raises
    ------
    BackendError
        if two tensors along one concatenated rank are put together of different ranks.
    """
    found: dict[str, tuple[str, ...]] = {}
    for einsum in einsums:
        body = einsum.body
        if not isinstance(body, Concatenate):
            continue
        ranks = tuple(own_rank(part, einsum) for part in body.parts)
        old = found.setdefault(body.rank, ranks)
        if old != ranks or len(set(ranks)) < len(ranks):
            raise BackendError(
                f"{einsum.name} lays {', '.join(ranks)} end to end along {body.rank}: every tensor "
                f"along {body.rank} needs the same ranks in the same order "
                f"({', '.join(old)}), each once, so that one loop can walk each; name them "
                f"so{underlined(einsum.at)}"
            )
    return found


def own_rank(part: Expression, einsum: Einsum) -> str:
    """Return the rank of a part that the whole has not."""
    return next(r for r in free_ranks(part) if r not in einsum.ranks)


def segments(cascade: Cascade, streaming: Streaming) -> tuple[Streaming, ...]:
    """Split the traversal of a concatenated rank in one for each part; the state goes through all.

    ::

        C[p, n] = concat[n](S[p, m], T[p, j])
        W[n, f] = concat[n](V[m, f], X[j, f])

        G[p]    = max[n](C[p, n])
        N[p, n] = exp(C[p, n] - G[p])
        O[p, f] = sum[n](N[p, n] * W[n, f])
        -->
        G[p]      = max[m](S[p, m])
        N_m[p, m] = exp(S[p, m] - G[p])
        O[p, f]   = sum[m](N_m[p, m] * V[m, f])
        then
        G[p]      = max[j](T[p, j])
        N_j[p, j] = exp(T[p, j] - G[p])
        O[p, f]   = sum[j](N_j[p, j] * X[j, f])

    A coordinate of n is one of a part's rank, behind the sizes of the parts before it. What a part
    is made of along its rank joins its traversal. The last traversal ends them all.

    Requires: ``streaming`` walks a rank that ``cascade`` concatenates. Keeps: every tensor's value.

    Raises
    ------
    BackendError
        if an accumulator keeps a rank of the name that a part has for its own.
    """
    ranks = part_ranks(cascade.einsums)[streaming.rank]
    for one in streaming.fields:
        for rank in set(one.ranks) & set(ranks):
            raise BackendError(
                f"{streaming.rank} is a concatenation of {', '.join(ranks)}, and {one.tensor} keeps"
                f" a rank {rank} too, which would mean two things in one loop; give the part's rank"
                " a name of its own"
            )
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums} | {f.tensor for f in streaming.fields}
    made = tuple(
        _Segment(cascade, streaming, k, ranks, taken).streaming() for k in range(len(ranks))
    )
    return (*made[:-1], replace(made[-1], finalise=streaming.finalise))


@dataclass(slots=True)
class _Segment:
    """The traversal of one part."""

    cascade: Cascade
    whole: Streaming
    part: int
    ranks: tuple[str, ...]
    taken: set[str]
    names: dict[str, str] = field(default_factory=dict)
    body: list[Einsum | Field] = field(default_factory=list)
    writers: dict[str, Einsum] = field(default_factory=dict)

    @property
    def rank(self) -> str:
        """The part's rank."""
        return self.ranks[self.part]

    def streaming(self) -> Streaming:
        """Return the traversal without its end."""
        self.writers = {e.name: e for e in self.cascade.einsums}
        for item in self.whole.body:
            if isinstance(item, Field):
                self.accumulate(item)
            elif not isinstance(item.body, Concatenate):
                self.compute(item)
        return Streaming(self.rank, tuple(self.body), (), self.whole.commutative)

    def compute(self, einsum: Einsum) -> None:
        """Write an einsum along the concatenated rank for the part alone."""
        name = fresh(f"{einsum.name}_{self.rank}", self.taken)
        here = {self.whole.rank: RankVariable(self.rank)}
        output = substitute(einsum.output, dict(here))
        assert isinstance(output, Access)
        filter = self.filtered(einsum.filter)
        new = Einsum(replace(output, tensor=name), self.placed(einsum.body), filter, einsum.at)
        self.names[einsum.name] = name
        self.append(new)

    def accumulate(self, item: Field) -> None:
        """Write a field's contribution from the part."""
        reduced = tuple(self.rank if r == self.whole.rank else r for r in item.ranks_reduced)
        lift, filter = self.placed(item.lift), self.filtered(item.filter)
        self.append(replace(item, ranks_reduced=reduced, lift=lift, filter=filter))

    def append(self, item: Einsum | Field) -> None:
        """Append an item behind what it reads along the part's rank."""
        inside = [item.lift, item.filter] if isinstance(item, Field) else [item.body, item.filter]
        for x in inside:
            for name in () if x is None else tensors(x):
                self.along(name)
        self.body.append(item)
        if isinstance(item, Einsum):
            self.writers[item.name] = item

    def along(self, name: str) -> None:
        """Append what a part is made of, if it has the part's rank."""
        writer = self.writers.get(name)
        if writer is None or writer in self.body or self.rank not in writer.ranks:
            return
        self.append(writer)

    def placed(self, x: Expression) -> Expression:
        """Return an expression along the concatenated rank at a coordinate of the part."""
        whole, own = self.whole.rank, RankVariable(self.rank)
        flat: Expression = own
        for rank in reversed(self.ranks[: self.part]):
            flat = Apply("+", (Size(rank), flat))

        def rule(y: Expression) -> Expression | None:
            match y:
                case Access(tensor=tensor, coordinates=coordinates):
                    writer = self.writers.get(tensor)
                    if writer is not None and isinstance(writer.body, Concatenate):
                        values = dict(zip(writer.ranks, coordinates, strict=True))
                        part = substitute(writer.body.parts[self.part], values)
                        return self.placed(part) if whole in free_ranks(part) else part
                    at = own if tensor in self.names or tensor in self.writers else flat
                    inner = tuple(
                        at if c == RankVariable(whole) else self.placed(c) for c in coordinates
                    )
                    return Access(self.names.get(tensor, tensor), inner, y.at)
                case RankVariable(rank=rank):
                    return flat if rank == whole else y
                case Reduce(body=body, filter=filter):
                    return replace(y, body=self.placed(body), filter=self.filtered(filter))
                case Apply(operands=operands):
                    return replace(y, operands=tuple(self.placed(z) for z in operands))
                case _:
                    return y

        return rewrite_outermost(x, rule)

    def filtered(self, filter: Expression | None) -> Expression | None:
        """Return a filter at the part; that a tensor is there is said by what makes it so."""
        found: list[Expression] = []
        for x in conjuncts(filter):
            y = self.placed(x)
            match y:
                case Apply("==", (Access() as a, b)) if a == b:
                    found += conditions(a, self.writers, frozenset())
                case _:
                    found.append(y)
        return conjunction(found)
