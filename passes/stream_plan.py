"""Plan: write each reduction over the rank as accumulators times weights known at the end.

For every reduction the body is inlined until it reads early tensors and late ones, separated in
monomials, and each monomial is given a *frame*: the late terms that keep its exponentials in range.
What depends on late results and is not in the frame is deferred (theory 3.3, F1), the rest moves
with the frame (F2 to F4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import comb, isfinite

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    children,
    free_ranks,
)
from ..ir.operators import REDUCERS
from ..ir.streaming import Reason
from .align import fresh
from .closure import Accumulator
from .facts import is_positive, pointwise
from .monomial import Exponential, Monomial, Shift, join_powers
from .ranges import Ranges, ranges
from .separate import Parts, Stuck, late_tensors, separate, sum_parts
from .stream_inline import Inliner
from .stream_locate import located, standing
from .stream_pieces import Piece, Plan, expand, join_pieces
from .stream_presence import conditions, conjuncts, distinct, without
from .stream_refusal import refuse
from .stream_roles import compares_whole_fiber, reads_elsewhere
from .stream_symbolic import simplified
from .stream_terms import Power, Scaled, flatten_product, scaled_terms, write_powers, write_terms


@dataclass(slots=True)
class Planner(Inliner):
    """Plans of all the reductions of a slice, and the names that they gave."""

    named: tuple[tuple[Access, Accumulator], ...] = ()
    made: dict[str, Einsum] = field(default_factory=dict)
    known: Ranges = field(init=False)

    def __post_init__(self) -> None:
        Inliner.__post_init__(self)
        self.known = ranges(self.cascade)

    def plan(self) -> Reason | None:
        """Plan every reduction in dependence order; return why one has no plan."""
        for name in self.roles.streaming:
            compared = compares_whole_fiber(self.roles.writers[name], self.roles.rank)
            if compared is not None:
                return refuse(name, compared, compared, self.tell, threshold=compared)
        # an extremum that is a tensor has its name before a coordinate beside it is looked for
        for name in sorted(self.roles.reductions, key=self.is_place):
            found = self.plan_reduction(self.roles.writers[name])
            if isinstance(found, Reason):
                return found
            self.plans[name] = found
            if found.direct is not None and found.direct.key not in self.names:
                self.names[found.direct.key] = name
                self.accumulators[name] = found.direct
        for name in self.roles.mixed:
            self.name_product(name)
        # The longest first, so that a lift reads as much as possible of what has a name.
        self.named = tuple(sorted(self.named, key=lambda x: -len(x[1].powers())))
        return None

    def plan_reduction(self, einsum: Einsum) -> Plan | Reason:
        """Write one reduction as accumulators and weights."""
        reduce = einsum.body
        assert isinstance(reduce, Reduce)
        filters = list(conjuncts(reduce.filter))
        inlined = self.inline(reduce.body, filters, einsum.name)
        if isinstance(inlined, Reason):
            return inlined
        body = self.settled(inlined, filters)
        found_at = self.extremum_test(filters, body, reduce.reducer)
        if found_at is not None:
            filters, body, at = found_at
        for x in filters:
            if self.tell.reads_late(x):
                return refuse(einsum.name, x, x, self.tell, threshold=x)
        # of a result that is itself absent where a late one is, no point misses it
        held = conjuncts(einsum.filter)
        partial = self.partial((reduce.body, *self.behind(reduce.body)), held)
        if partial is not None:
            return self.not_yet(einsum.name, f"{partial} has points that do not exist")
        elsewhere = reads_elsewhere(body, self.roles.rank, self.roles.late)
        if elsewhere is not None:
            return self.not_yet(
                einsum.name, f"{elsewhere.tensor} is read at coordinates that move with the rank"
            )
        read = (body,) if found_at is None else (body, found_at[2][0])
        exists = [c for x in read for c in conditions(x, self.roles.writers, self.roles.late)]
        presence = distinct((*filters, *exists))
        others = tuple(r for r in reduce.ranks if r != self.roles.rank)
        start = Accumulator(
            reduce.reducer,
            einsum.ranks,
            (self.roles.rank, *others),
            presence=tuple(y for x in presence for y in conjuncts(x)),
        )
        if found_at is not None:
            standing_there = replace(start, early=(Power(body),), located=at)
            if self.reached(at[1], start.presence):
                direct = standing_there if einsum.filter is None else None
                return Plan((Piece(standing_there),), direct)
            return self.not_yet(einsum.name, f"{at[1].tensor} is taken over fewer points")
        if REDUCERS[reduce.reducer].extremum:
            return self.place(start, body, einsum)
        if not self.tell.reads_late(body):
            return self.independent(start, body, einsum)
        if reduce.reducer in ("max", "min"):
            found = self.extremum(start, body, einsum)
        elif reduce.reducer == "sum":
            found = self.sum(start, body, einsum)
        else:
            return self.foreign(einsum, body)
        if isinstance(found, Reason):
            return found
        one = found[0]
        plain = len(found) == 1 and one.bare and one.accumulator.ranks == einsum.ranks
        plain &= einsum.filter is None
        return Plan(tuple(found), one.accumulator if plain else None)

    def independent(self, start: Accumulator, body: Expression, einsum: Einsum) -> Plan | Reason:
        """Accumulate what reads no other accumulator as it stands."""
        found = separate(body, self.tell)
        assert not isinstance(found, Stuck)
        one = found[0]
        number = () if one.coefficient == 1 else (Power(Constant(one.coefficient)),)
        held = replace(start, early=(*number, *one.early), exponentials=one.exponentials)
        # Points that a filter takes from the result are taken at the end.
        return Plan((Piece(held),), held if einsum.filter is None else None)

    def is_place(self, name: str) -> bool:
        """Whether a reduction gives the coordinate of an extremum."""
        body = self.roles.writers[name].body
        return isinstance(body, Reduce) and bool(REDUCERS[body.reducer].extremum)

    def extremum_test(
        self, filters: list[Expression], body: Expression, reducer: str
    ) -> tuple[list[Expression], Expression, tuple[Expression, Access]] | None:
        """Find the one condition that a point stands at an extremum, and what is left without it.

        It is a filter, ``sum[m: S[p, m] == G[p]](V[m])``, or a choice against the identity.
        """
        late = [x for x in filters if self.tell.reads_late(x)]
        at = standing(late[0], self.extrema(), self.resolve) if len(late) == 1 else None
        if at is not None:
            rest = [x for x in filters if x is not late[0]]
            return None if self.tell.reads_late(body) else (rest, body, at)
        match body:
            case Apply("where", (test, value, Constant(value=other))) if not late:
                at = standing(test, self.extrema(), self.resolve)
                neutral = other == REDUCERS[reducer].identity
                if at is not None and neutral and not self.tell.reads_late(value):
                    return filters, value, at
        return None

    def extrema(self) -> dict[str, Accumulator]:
        """Return the accumulators that are extrema, by name."""
        return {n: x for n, x in self.accumulators.items() if x.reducer in ("max", "min")}

    def place(self, start: Accumulator, body: Expression, einsum: Einsum) -> Plan | Reason:
        """Carry the coordinate of an extremum beside it, under one name for both."""
        value = located(body, self.tell)
        if value is None:
            return self.not_yet(einsum.name, "the order of its values depends on results")
        if not (isinstance(value, Access) and self.tell.streams(value)):
            ranks = tuple(r for r in (*start.ranks, *start.reduced) if r in free_ranks(value))
            named = fresh(f"{einsum.name}_of", self.taken)
            access = Access(named, tuple(RankVariable(r) for r in ranks))
            self.made[named], value = Einsum(access, value), access
        word = REDUCERS[start.reducer].extremum
        extremum = replace(start, reducer=word, early=(Power(value),))
        held = replace(
            start,
            reducer="min",
            early=(Power(RankVariable(self.roles.rank)),),
            located=(value, self.access(extremum, einsum.name)),
        )
        return Plan((Piece(held),))

    def foreign(self, einsum: Einsum, body: Expression) -> Reason:
        """Refuse a reducer that no frame is known for."""
        reason = refuse(einsum.name, body, body, self.tell)
        assert isinstance(einsum.body, Reduce)
        if reason.code == "UNBOUNDED_SUPPORT":
            return reason
        return self.not_yet(
            einsum.name, f"{einsum.body.reducer} of what depends on results over the rank"
        )

    def sum(
        self, start: Accumulator, body: Expression, einsum: Einsum
    ) -> tuple[Piece, ...] | Reason:
        """Carry every monomial of a sum."""
        found = self.separated(body)
        if isinstance(found, Stuck):
            return refuse(einsum.name, body, found.expression, self.tell)
        pieces: list[Piece] = []
        for one in found:
            carried = self.carry(start, one, einsum)
            if isinstance(carried, Reason):
                return carried
            pieces += carried
        return join_pieces(pieces)

    def separated(self, body: Expression) -> tuple[Monomial, ...] | Stuck:
        """Separate by structure, and after rewriting by algebra where that fails."""
        found = separate(body, self.tell)
        if isinstance(found, Stuck):
            other = simplified(body, self.tell)
            if other is not None:
                again = separate(other, self.tell)
                return found if isinstance(again, Stuck) else again
        return found

    def extremum(
        self, start: Accumulator, body: Expression, einsum: Einsum
    ) -> tuple[Piece, ...] | Reason:
        """Carry a maximum or minimum: what is added or a positive factor moves out."""
        parts = sum_parts(body, self.tell)
        if isinstance(parts, Parts):
            ranks = self.kept(start, [t.expression for t in parts.late])
            held = replace(ranks, early=(Power(write_terms(parts.early)),))
            late = scaled_terms(write_terms(parts.late))
            return (Piece(held, added=late),)
        found = self.separated(body)
        if isinstance(found, Stuck):
            return refuse(einsum.name, body, found.expression, self.tell)
        one = found[0]
        positive = all(is_positive(p.base, self.tell.positive) for p in one.late)
        if len(found) > 1 or one.shifts or not positive:
            return self.not_yet(einsum.name, "the sign of a factor of a maximum is not known")
        number = () if one.coefficient == 1 else (Power(Constant(one.coefficient)),)
        return self.carry(start, replace(one, coefficient=1, early=(*number, *one.early)), einsum)

    def carry(
        self, start: Accumulator, one: Monomial, einsum: Einsum
    ) -> tuple[Piece, ...] | Reason:
        """Choose a monomial's frame; return accumulators and weights."""
        weight = list(one.late)
        early = one.early
        if start.reducer == "sum":
            # What no reduced rank moves is multiplied once, at the end.
            still = [p for p in early if not set(start.reduced) & set(free_ranks(p.base))]
            weight += still
            early = tuple(p for p in early if p not in still)
        kept: list[Exponential] = []
        for e in one.exponentials:
            if e.late and not any(self.tell.streams(t.expression) for t in e.early):
                weight.append(Power(Apply(e.operator, (write_terms((*e.early, *e.late)),))))
                continue
            stay, leave = self.choose(e)
            kept.append(replace(e, late=stay))
            if leave:
                weight.append(Power(Apply(e.operator, (write_terms(leave),))))
        frame = late_tensors((t.expression for e in kept for t in e.late), self.all_late())
        for name in frame:
            if name not in self.accumulators:
                return self.not_yet(
                    einsum.name, f"its frame {name} is more than accumulators over the rank"
                )
        shifts: list[Shift] = []
        rests: list[tuple[Scaled, ...]] = []
        for s in one.shifts:
            stay, rest = self.frame_terms(s, frozenset(frame))
            shifts.append(replace(s, late=stay))
            rests.append(rest)
        moving = [t.expression for e in kept for t in e.late]
        moving += [t.expression for x in shifts for t in x.late]
        # a product alone takes no points in
        narrow = [x for x in moving if start.reduced and not self.reached(x, start.presence)]
        if narrow:
            name = late_tensors(narrow, frozenset(frame))[0]
            return self.not_yet(einsum.name, f"its frame {name} is taken over fewer points")
        inside = [p.base for p in weight] + [t.expression for rest in rests for t in rest]
        inside += [t.expression for e in kept for t in e.late]
        start = self.kept(start, inside)
        start = replace(start, early=early, exponentials=tuple(kept))
        scale = Piece(start, one.coefficient, tuple(weight))
        centred = len(shifts) == 1 and shifts[0].power > 1 and bool(rests[0])
        if centred and all(is_positive(p.base, self.tell.positive) for p in early):
            late = (*shifts[0].late, *rests[0])
            return tuple(self.moments(scale, replace(shifts[0], late=late), einsum))
        return tuple(expand(scale, shifts, rests))

    def reached(self, frame: Expression, presence: tuple[Expression, ...]) -> bool:
        """Whether a frame has left its identity as soon as a point with this presence is taken in.

        Until then it is read as 0, and what was taken relative to that would not move with it.
        """
        match frame:
            case Access(tensor=tensor) if tensor in self.accumulators:
                one = self.accumulators[tensor]
                return one.reducer not in ("max", "min") or not without(one.presence, presence)
            case Apply("max" | "min", operands):
                return any(self.reached(x, presence) for x in operands)
            case _:
                return all(self.reached(x, presence) for x in children(frame))

    def kept(self, start: Accumulator, weights: Iterable[Expression]) -> Accumulator:
        """Keep the other reduced ranks in which a weight or a frame varies."""
        varying = {r for x in weights for r in free_ranks(x)}
        kept = tuple(r for r in start.reduced[1:] if r in varying)
        return replace(
            start,
            ranks=(*start.ranks, *kept),
            reduced=tuple(r for r in start.reduced if r not in kept),
        )

    def choose(self, e: Exponential) -> tuple[tuple[Scaled, ...], tuple[Scaled, ...]]:
        """Split late exponents in the frame that bounds the exponential and what can wait."""
        if len(e.late) > 1:
            for k, term in enumerate(e.late):
                if isfinite(self.known.bounded_above(write_terms((*e.early, term)))):
                    return (term,), (*e.late[:k], *e.late[k + 1 :])
        return e.late, ()

    def frame_terms(
        self, s: Shift, frame: frozenset[str]
    ) -> tuple[tuple[Scaled, ...], tuple[Scaled, ...]]:
        """Split a shift's late terms in those of the frame and the rest."""
        if not frame:
            return (), s.late
        terms = scaled_terms(self.resolve(write_terms(s.late)))
        stay = tuple(
            t for t in terms if set(late_tensors((t.expression,), self.all_late())) <= frame
        )
        if not stay:
            return (), s.late
        return stay, tuple(t for t in terms if t not in stay)

    def all_late(self) -> frozenset[str]:
        """Return the late tensors, accumulators of derived names included."""
        return self.roles.late | frozenset(self.accumulators)

    def moments(self, scale: Piece, s: Shift, einsum: Einsum) -> list[Piece]:
        """Carry a power of a shift about the running mean, which is where it loses no digits.

        With c the weighted mean of u, the first moment about c is 0, and
        (u + w) ** n is the sum over k of binomial(n, k) * (c + w) ** (n - k) * (u - c) ** k
        (Chan, Golub and LeVeque, 1979, for n = 2).
        """
        count = scale.accumulator
        number, powers = flatten_product(write_terms(s.early))
        factors = (*((Power(Constant(number)),) if number != 1 else ()), *powers)
        total = replace(count, early=join_powers(count.early, factors))
        mean = Apply("/", (self.access(total, einsum.name), self.access(count, einsum.name)))
        centre = Shift(s.early, (Scaled(-1, mean),), s.power, centred=True)
        left = scaled_terms(Apply("+", (mean, self.resolve(write_terms(s.late)))))
        if left:
            left = (Scaled(1, mean), *s.late)
        pieces = []
        for k in range(s.power, -1, -1):
            if k == 1 or (k < s.power and not left):
                continue
            held = replace(count, shifts=(replace(centre, power=k),)) if k else count
            factor = (Power(write_terms(left), s.power - k),) if k < s.power else ()
            pieces.append(
                Piece(
                    held,
                    scale.coefficient * comb(s.power, k),
                    join_powers(scale.factors, factor),
                )
            )
        return pieces

    def name_product(self, name: str) -> None:
        """Record a mixed tensor that moves with its frame alone, so that lifts can read it."""
        writer = self.roles.writers[name]
        if not pointwise(writer.body):
            return
        body = self.inline(writer.body, [], name)
        if isinstance(body, Reason):
            return
        found = separate(body, self.tell)
        if isinstance(found, Stuck) or len(found) != 1:
            return
        start = Accumulator("sum", writer.ranks, ())
        carried = self.carry(start, found[0], writer)
        if isinstance(carried, Reason) or len(carried) != 1 or not carried[0].bare:
            return
        held = carried[0].accumulator
        if not held.frame(self.all_late()) or any(s.centred for s in held.shifts):
            return
        access = Access(name, tuple(RankVariable(r) for r in writer.ranks))
        reads = set(late_tensors((writer.body,), self.roles.late))
        literal = reads <= set(self.accumulators)
        self.made[name] = writer if literal else replace(writer, body=write_powers(held.powers()))
        self.named = (*self.named, (access, held))

    def add_named(self, access: Access, held: Accumulator, einsum: Einsum) -> None:
        """Record a tensor made for an exponential that has none."""
        self.made[access.tensor] = einsum
        self.named = (*self.named, (access, held))

    def body_einsum(self, name: str) -> Einsum | None:
        """Return the einsum that makes a streaming tensor inside the traversal."""
        if name in self.made:
            return self.made[name]
        streams = name in self.roles.streaming and name not in self.roles.mixed
        return self.roles.writers[name] if streams else None

    def classify(self, one: Accumulator, frame: tuple[str, ...]) -> tuple[str, str]:
        """Return an accumulator's family (theory 3.3) and how T1 and T2 were shown."""
        rank = self.roles.rank
        read = ", ".join(frame)
        if one.located is not None:
            return "F6", f"a coordinate counts while the extremum {read} that it stands at stands"
        if one.shifts:
            n = sum(s.power for s in one.shifts)
            text = (
                f"a power of a sum moves with {read} by the binomial theorem, over {n} lower powers"
            )
            return "F4", text
        if frame:
            word = "F2" if one.reducer == "sum" else "F3"
            text = f"an exponential of a sum moves with {read} by a factor free of {rank}"
            return word, text
        for plan in self.plans.values():
            mine = [p for p in plan.pieces if p.accumulator.key == one.key and not p.bare]
            if mine and plan.direct is None:
                word = "F1" if len(plan.pieces) == 1 else "F1'"
                return word, f"what depends on results is constant along {rank} and is deferred"
        return "F0", "independent of every other accumulator"

    def literal(self, name: str) -> tuple[Expression, Expression | None] | None:
        """Return body and filter of a reduction that reads no late tensor, as they are written."""
        if name not in self.roles.reductions:
            return None
        reduce = self.roles.writers[name].body
        assert isinstance(reduce, Reduce)
        late = self.roles.late | frozenset(self.roles.mixed)
        inside = (reduce.body,) if reduce.filter is None else (reduce.body, reduce.filter)
        return None if late_tensors(inside, late) else (reduce.body, reduce.filter)
