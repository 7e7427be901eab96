"""Stream: derive the state with which a chain of dependent reductions takes one traversal.

This is theory 3.6. Each reduction over the rank is written as a sum of accumulators times weights
that are known at the end (``stream_plan``); the accumulators, what they read and what makes the
cascade's tensors from them are then written down by need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import PassError
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    free_ranks,
    tensors,
)
from ..ir.operators import REDUCERS
from ..ir.streaming import Field, Reason, Streaming
from .align import conjunction, fresh
from .closure import Accumulator, lift, lower, transport
from .stream_groups import grouped, nested, split_groups
from .stream_pieces import Piece, Plan
from .stream_plan import Planner
from .stream_presence import conditions, without
from .stream_roles import backward_slice, find_roles
from .stream_terms import write_terms


def stream(
    cascade: Cascade, *, rank: str, outputs: tuple[str, ...] | None = None
) -> Streaming | Reason:
    """Fuse every reduction over one rank that the outputs need into a single traversal.

    ::

        G[p]    = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D[p]    = sum[m](N[p, m])
        A[p, m] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * V[m, f])
        -->
        G     = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D     = sum[m](N[p, m])             D * exp(G - G_next)
        O_sum = sum[m](N[p, m] * V[m, f])   O_sum * exp(G - G_next)
        O[p, f] = O_sum[p, f] / D[p]

    ``outputs`` are the tensors wanted, the cascade's own if None. The result covers the part of
    their backward slice that stands at or after the rank; einsums before it are read by name.

    Where late results are read by groups of the rank, ``W[p, m // B]``, the rank is split in groups
    g and places in them, and the traversal that is returned walks g (theory 3.3, F7).

    A transport assumes a *safe* frame: a frame still at the identity of ``max`` or ``min`` is read
    as the new one in its place, so that nothing moves, and a new one still at the identity as 0.
    Then no infinity meets another, and an accumulator at its identity stays there.

    Requires: a flat cascade. Keeps: every output's value; where it exists.
    See: FuseMax (Nayak et al., MICRO 2024), sections 3 and 4; Neptune (arXiv 2510.08726), equations
    3 and 4; theory 3.2 and 3.6.

    Raises
    ------
    PassError
        if the rank or an output is not the cascade's, or if nothing wanted touches the rank.
    """
    wanted = cascade.outputs if outputs is None else outputs
    made = {e.name for e in cascade.einsums}
    for name in wanted:
        if name not in made:
            raise PassError(f"stream wants {name}, which no einsum of {cascade.name} writes")
    if rank not in cascade.ranks:
        listing = ", ".join(cascade.ranks)
        raise PassError(f"stream walks {rank}, which is no rank of {cascade.name} ({listing})")
    slice = backward_slice(cascade, wanted)
    for einsum in slice:
        if einsum.name in wanted and rank in einsum.ranks:
            return Reason(
                "STREAM_OUTPUT",
                einsum.name,
                f"{einsum.name} keeps {rank}, so it is written element by element and cannot wait "
                f"for the end of {rank}.",
                f"{einsum.output.tensor} has ranks {', '.join(einsum.ranks)}",
                (
                    f"make {einsum.name} in a second traversal of {rank}",
                    f"return what {einsum.name} is made of, and finish it outside",
                ),
            )
    split = grouped(slice, rank)
    if split is not None:
        parted = split_groups(replace(cascade, einsums=slice, outputs=wanted), rank=rank)
        if parted.einsums != slice:
            return stream(parted, rank=split.group, outputs=wanted)
    roles = find_roles(slice, rank)
    if isinstance(roles, Reason):
        return roles
    if not roles.streaming and not roles.reductions:
        raise PassError(f"nothing that {', '.join(wanted)} needs touches rank {rank}")
    taken = {*cascade.inputs, *cascade.ranks, *made, *(n for n, _ in cascade.parameters)}
    planner = Planner(replace(cascade, einsums=slice), roles, taken)
    reason = planner.plan()
    if reason is not None:
        return reason
    writer = _Writer(planner)
    writer.write(wanted)
    closed = nested(x for x in writer.body if isinstance(x, Einsum))
    body = tuple(closing(x, closed) for x in writer.body)
    commutative = all(REDUCERS[x.reducer].commutative for x in writer.body if isinstance(x, Field))
    return Streaming(rank, body, tuple(writer.finalise), commutative)


def closing(item: Einsum | Field, closed: Mapping[str, frozenset[str]]) -> Einsum | Field:
    """Say of a field that it takes in groups which are reduced, and closed, on the way."""
    if not isinstance(item, Field):
        return item
    ranks = frozenset(r for t in tensors(item.lift) for r in closed.get(t, ()))
    if not ranks & set(item.ranks_reduced):
        return item
    text = f"{item.proof}; each group is closed before it is taken in"
    return replace(item, family="F7", proof=text)


@dataclass(slots=True)
class _Writer:
    """The traversal as it is written, by need; every item after what it reads."""

    planner: Planner
    body: list[Einsum | Field] = field(default_factory=list)
    finalise: list[Einsum] = field(default_factory=list)
    done: set[object] = field(default_factory=set)

    def write(self, wanted: tuple[str, ...]) -> None:
        """Write what gives the wanted tensors, in the cascade's order."""
        roles, plans = self.planner.roles, self.planner.plans
        needed: set[str] = set()
        front = [name for name in wanted if name in roles.late]
        while front:
            name = front.pop()
            needed.add(name)
            pieces = plans[name].pieces if name in plans else ()
            reads = [r for piece in pieces for r in piece.reads()]
            reads += [] if name in plans else roles.writers[name].reads
            front += [r for r in reads if r in roles.late and r not in needed]
        for name, einsum in roles.writers.items():
            if name not in needed:
                continue
            if name not in plans:
                self.finalise.append(einsum)
                continue
            for piece in plans[name].pieces:
                self.accumulate(piece.accumulator, name)
            direct = plans[name].direct
            if direct is None or self.planner.name(direct, name) != name:
                self.finalise += self.finish(einsum, plans[name])

    def finish(self, einsum: Einsum, plan: Plan) -> list[Einsum]:
        """Write a reduction's result from its accumulators and their weights."""
        before: list[Einsum] = []
        total: Expression | None = None
        for piece in plan.pieces:
            part = self.weighted(piece, einsum)
            kept = tuple(r for r in piece.accumulator.ranks if r not in einsum.ranks)
            if kept:
                part = Reduce(piece.accumulator.reducer, kept, part)
            if kept and len(plan.pieces) > 1:
                name = fresh(f"{einsum.name}_part", self.planner.taken)
                before.append(Einsum(replace(einsum.output, tensor=name), part))
                part = before[-1].output
            match part:
                case _ if total is None:
                    total = part
                case Apply("neg", (inner,)):
                    total = Apply("-", (total, inner))
                case _:
                    total = Apply("+", (total, part))
        assert total is not None
        return [*before, Einsum(einsum.output, total, einsum.filter, einsum.at)]

    def weighted(self, piece: Piece, einsum: Einsum) -> Expression:
        """Return an accumulator with its weight; a maximum over nothing stays what it is."""
        access = self.planner.access(piece.accumulator, einsum.name)
        value = piece.applied(access)
        if self.planner.is_place(einsum.name):
            nowhere = Apply("==", (access, Constant(REDUCERS[piece.accumulator.reducer].identity)))
            return Apply("where", (nowhere, Constant(-1), value))
        if piece.accumulator.reducer in ("max", "min") and not piece.bare:
            identity = Constant(REDUCERS[piece.accumulator.reducer].identity)
            value = Apply("where", (Apply("==", (access, identity)), identity, value))
        return value

    def accumulate(self, one: Accumulator, for_: str) -> None:
        """Write the field of an accumulator, after its frame, its siblings and what it reads."""
        planner = self.planner
        if one.key in self.done:
            return
        self.done.add(one.key)
        name = planner.name(one, for_)
        frame = one.frame(planner.all_late())
        for read in frame:
            self.accumulate(planner.accumulators[read], read)
        if frame:
            for _, sibling in lower(one):
                if sibling is not None:
                    self.accumulate(sibling, for_)
        literal = planner.literal(name)
        if literal is not None:
            value, filter = literal
        else:
            value = lift(one, self.named(one, for_))
            held = conditions(value, self.known(), planner.all_late())
            filter = conjunction(list(without(one.presence, held)))
        for read in (*tensors(value), *(() if filter is None else tensors(filter))):
            self.streaming(read)
        moved = None
        if frame:
            moved = transport(one, lambda x: planner.access(x, for_), frame)
        family, proof = planner.classify(one, frame)
        self.body.append(
            Field(
                tensor=name,
                ranks=one.ranks,
                reducer=one.reducer,
                ranks_reduced=one.reduced,
                lift=value,
                filter=filter,
                frame=frame,
                transport=moved,
                family=family,
                proof=proof,
            )
        )

    def known(self) -> dict[str, Einsum]:
        """Return the einsums that a lift may read, those made here included."""
        return {**self.planner.roles.writers, **self.planner.made}

    def named(self, one: Accumulator, for_: str) -> tuple[tuple[Access, Accumulator], ...]:
        """Return tensors that hold factors of a lift; an exponential without one gets one."""
        for e in one.exponentials:
            bare = Accumulator("", (), (), exponentials=(e,))
            if not e.late or any(held.key == bare.key for held in self.held()):
                continue
            expression = Apply(e.operator, (write_terms((*e.early, *e.late)),))
            ranks = tuple(r for r in (*one.ranks, *one.reduced) if r in free_ranks(expression))
            name = fresh(f"{for_}_{e.operator}", self.planner.taken)
            access = Access(name, tuple(RankVariable(r) for r in ranks))
            self.planner.add_named(access, bare, Einsum(access, expression))
        return self.planner.named

    def held(self) -> tuple[Accumulator, ...]:
        """Return what the named tensors hold, without the ranks that they keep."""
        return tuple(
            replace(held, reducer="", ranks=(), reduced=(), presence=())
            for _, held in self.planner.named
        )

    def streaming(self, name: str) -> None:
        """Write an einsum that keeps the rank, after what it reads."""
        einsum = self.planner.body_einsum(name)
        if einsum is None or name in self.done:
            return
        self.done.add(name)
        for read in einsum.reads:
            self.streaming(read)
            if read in self.planner.accumulators:
                self.accumulate(self.planner.accumulators[read], read)
        self.body.append(einsum)
