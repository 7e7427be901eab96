"""Split a rank: reduce it in parts side by side, and merge the parts' states.

Few rows and a long reduced rank leave most of a machine idle. The rank is cut in parts; each part
reduces its own points to a streaming state, and the derived merge (theory 3.2) joins the states:
every accumulator is carried to the common frame by its transport, then reduced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import PassError
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    free_ranks,
    rewrite,
    tensors,
    walk,
)
from ..ir.mapping import Cut
from ..ir.streaming import Field, Streaming
from .align import conjunction, fresh
from .count_lists import count_lists
from .dead import remove_dead
from .divide import Group
from .merge_states import PART, merge_states
from .pack_rows import moving_accesses
from .stabilise import in_order
from .stream import stream
from .walk_lists import members, sole_list
from .walked_span import walked_span


def split_rank(cascade: Cascade, *, rank: str | None = None) -> Cascade:
    """Reduce a rank in parts, and merge what the parts hold.

    ::

        S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])
        G[p]    = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D[p]    = sum[m](N[p, m])
        return D
        -->
        S_part[
            m_part, p, m: m_part * m_step <= m and m < (m_part + 1) * m_step and m <= p
        ] = sum[e](Q[p, e] * K[m, e])
        G_part[m_part, p]    = max[m](S_part[m_part, p, m])
        N_part[m_part, p, m] = exp(S_part[m_part, p, m] - G_part[m_part, p])
        D_part[m_part, p]    = sum[m](N_part[m_part, p, m])
        G[p] = max[m_part](G_part[m_part, p])
        D[p] = sum[m_part: abs(G_part[m_part, p]) < inf](
            D_part[m_part, p] * exp(G_part[m_part, p] - G[p])
        )
        return D

    ``m_step`` is a new parameter and ``m_part`` a new rank of ceil(size(m) / m_step) coordinates or
    more. A part in which a row has no point holds the identity, and its frame, at the identity too,
    keeps it out of the merge. ``rank`` is the one that is reduced last if None.

    Requires: a flat, aligned cascade in which one traversal of the rank is enough.
    Keeps: every output's value, up to the order in which numbers are added.
    See: theory 3.2 (T1, T2).

    Raises
    ------
    PassError
        if nothing reduces the rank, or no single traversal of it has a state that merges.
    """
    return split(cascade, rank)[0]


def split(
    cascade: Cascade,
    rank: str | None = None,
    *,
    slice: tuple[Einsum, ...] | None = None,
    targets: tuple[str, ...] = (),
    apart: frozenset[str] = frozenset(),
    real: tuple[str, ...] = (),
) -> tuple[Cascade, Cut]:
    """Split a rank in the part of a cascade that makes ``targets``; say how.

    ``slice`` are the einsums of that part, by default all of them. ``apart`` are ranks of which a
    program has one coordinate, so that what it walks may begin elsewhere for each of them; ``real``
    what holds fractions.
    """
    within = cascade.einsums if slice is None else slice
    walked = rank or last_reduced(within)
    if any(isinstance(x, Concatenate) for e in within for x in walk(e.body)):
        raise PassError(
            f"{walked} of {cascade.name} cannot be reduced in parts: it is walked in segments"
        )
    made = {e.name for e in within}
    late = behind(within, walked)
    wanted = tuple(t for t in (targets or cascade.outputs) if t in late)
    inputs = tuple(dict.fromkeys((*cascade.inputs, *(n for e in within for n in e.reads))))
    inner = replace(
        cascade, inputs=tuple(n for n in inputs if n not in made), einsums=within, outputs=wanted
    )
    state = stream(inner, rank=walked, outputs=wanted)
    if not isinstance(state, Streaming) or state.rank != walked:
        why = getattr(state, "text", f"its state is kept by groups of {walked}")
        raise PassError(f"{walked} of {cascade.name} cannot be reduced in parts: {why}")
    taken = {*cascade.inputs, *(e.name for e in cascade.einsums), *cascade.ranks}
    taken |= {n for n, _ in cascade.parameters}
    cut = Cut(walked, fresh(f"{walked}_part", taken), fresh(f"{walked}_step", taken))
    filters = tuple(entries(state, walked))
    span, begin, member = walked_span(filters, rank=walked, real=real), None, None
    if any(member_of for x in filters for member_of in members(x, walked)):
        member = sole_list(filters, walked)
        cut = cut if member is None else replace(cut, positions=member.ranks[0])
    elif span and set(free_ranks(span[0])) <= apart:
        begin, cut = span[0], replace(cut, extent=span[1])
    parts = Parts(state, cut, taken, begin, member)
    written = (*parts.body(), *parts.merged())
    replaced = {e.name for e in written}
    einsums = tuple(e for e in cascade.einsums if e.name not in replaced) + written
    whole = replace(cascade, parameters=(*cascade.parameters, (cut.step, None)), einsums=einsums)
    states = tuple(parts.names[f.tensor] for f in state.fields)
    whole = count_lists(remove_dead(whole))  # counts that nothing reads are needed by kernels
    return replace(whole, einsums=in_order(whole)), replace(cut, states=states)


class Parts:
    """The einsums of one state in parts, and of their merge.

    ``begin`` is where a row's stretch of the rank begins; ``member`` asks whether a list names a
    coordinate, and each part then takes its own positions of the list.
    """

    def __init__(
        self,
        state: Streaming,
        cut: Cut,
        taken: set[str],
        begin: Expression | None = None,
        member: Reduce | None = None,
    ) -> None:
        self.state, self.cut, self.member = state, cut, member
        own = [x.tensor if isinstance(x, Field) else x.name for x in state.body]
        self.names = {name: fresh(name + PART, taken) for name in own}
        step = Parameter(cut.step)
        number: Expression = RankVariable(cut.part)
        if begin is not None:
            number = Apply("+", (Apply("//", (begin, step)), number))
        first = Apply("*", (number, step))
        behind = Apply("*", (Apply("+", (number, Constant(1))), step))
        at = RankVariable(cut.positions or cut.rank)
        self.inside = [Apply("<=", (first, at)), Apply("<", (at, behind))]

    def body(self) -> tuple[Einsum, ...]:
        """Return what every part computes: the traversal, confined to its own coordinates."""
        found = []
        for item in self.state.body:
            if isinstance(item, Einsum):
                filter = self.confined(item.filter, item.reads, item.body)
                found.append(
                    replace(
                        item,
                        output=self.at(item.output),
                        body=self.renamed(item.body),
                        filter=None if filter is None else self.renamed(filter),
                    )
                )
            else:
                filter = self.confined(item.filter, tensors(item.lift), item.lift)
                body = Reduce(
                    item.reducer,
                    item.ranks_reduced,
                    self.renamed(item.lift),
                    None if filter is None else self.renamed(filter),
                )
                ranks = tuple(RankVariable(r) for r in item.ranks)
                found.append(Einsum(self.at(Access(item.tensor, ranks)), body))
        return tuple(found)

    def confined(
        self, filter: Expression | None, reads: tuple[str, ...], body: Expression
    ) -> Expression | None:
        """Return a filter with the condition of being in the part, where a chain enters the rank.

        What reads such a tensor has its points only. A reduction and a ``default`` exist everywhere
        again.
        """
        if not enters(self.state, self.cut.rank, reads, body):
            return filter
        member = self.member
        if member is None or filter is None:
            return conjunction([*self.inside, *([] if filter is None else [filter])])
        own = conjunction([*self.inside, *([] if member.filter is None else [member.filter])])
        return rewrite(filter, lambda x: replace(member, filter=own) if x == member else None)

    def at(self, access: Access) -> Access:
        """Return a tensor of the state or its body as every part has it."""
        ranks = (RankVariable(self.cut.part), *access.coordinates)
        return replace(access, tensor=self.names[access.tensor], coordinates=ranks)

    def renamed(self, x: Expression) -> Expression:
        """Return an expression over the parts' tensors."""

        def rule(part: Expression) -> Expression | None:
            if isinstance(part, Access) and part.tensor in self.names:
                return self.at(part)
            return None

        return rewrite(x, rule)

    def merged(self) -> Iterator[Einsum]:
        """Yield the derived merge of the parts' states, and what the traversal makes at its end."""
        names = {f.tensor + PART: self.names[f.tensor] for f in self.state.fields}

        def rule(x: Expression) -> Expression | None:
            if isinstance(x, Access) and x.tensor in names:
                return replace(x, tensor=names[x.tensor])
            return None

        for einsum in merge_states(self.state, rank=self.cut.part).einsums:
            yield replace(einsum, body=rewrite(einsum.body, rule))


def enters(state: Streaming, rank: str, reads: tuple[str, ...], body: Expression) -> bool:
    """Whether an expression has points of a rank that no tensor of the traversal gives it."""
    streamed = {x.name for x in state.body if isinstance(x, Einsum) and rank in x.ranks}
    filled = any(
        isinstance(x, Reduce) or (isinstance(x, Apply) and x.operator == "default")
        for x in walk(body)
    )
    return filled or not streamed & set(reads)


def entries(state: Streaming, rank: str) -> Iterator[Expression | None]:
    """Yield the filters under which chains enter a rank."""
    for x in state.body:
        reads, body = (x.reads, x.body) if isinstance(x, Einsum) else (tensors(x.lift), x.lift)
        if enters(state, rank, reads, body):
            yield x.filter


def split_groups(
    cascade: Cascade,
    groups: Iterable[Group],
    parts: Mapping[str, int],
    *,
    whole: tuple[str, ...] = (),
    sizes: Mapping[str, int] | None = None,
    real: tuple[str, ...] = (),
) -> tuple[Cascade, tuple[Cut, ...]]:
    """Split the streamed ranks named in ``parts`` in every group of einsums that walks one.

    Groups that make what is named in ``whole`` stay. ``sizes`` are those that are known, ``real``
    names what holds fractions.
    """
    cuts = []
    for group in groups:
        if set(group.targets) & set(whole):
            continue
        for rank in group.segments and {group.streamed, *group.segments} & set(parts):
            raise PassError(
                f"{rank} of {cascade.name} cannot be reduced in parts side by side: it is walked "
                f"in segments, {', '.join(group.segments)} one after the other with one state"
            )
        if group.views:
            continue  # its sums are put in place as they are
        if group.streamed is not None and group.streamed in parts:
            single = {r for r, n in (sizes or {}).items() if n == 1}
            moving = {r for x in moving_accesses(group) for r in free_ranks(x)}
            cascade, cut = split(
                cascade,
                group.streamed,
                slice=group.slice,
                targets=group.targets,
                apart=frozenset(single | moving) - {group.streamed},
                real=real,
            )
            cuts.append(replace(cut, parts=parts[group.streamed]))
    return cascade, tuple(cuts)


def behind(einsums: tuple[Einsum, ...], rank: str) -> set[str]:
    """Return the tensors that have the rank, reduce over it, or depend on one that does."""
    late: set[str] = set()
    for einsum in einsums:
        inner = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
        if rank in (*einsum.ranks, *inner) or late & set(einsum.reads):
            late.add(einsum.name)
    return late


def last_reduced(einsums: tuple[Einsum, ...]) -> str:
    """Return the rank that is reduced last."""
    for einsum in reversed(einsums):
        if isinstance(einsum.body, Reduce):
            return einsum.body.ranks[0]
    raise PassError("nothing is reduced, so there is no rank to split")
