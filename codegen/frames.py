"""Frames: how accumulators are carried along when the frame that they are relative to moves.

A frame is an accumulator that others depend on, the running maximum of a row say. In a step its
value before and its value after are both needed: contributions are taken relative to the new one,
and what was accumulated relative to the old one is carried over by the field's transport (theory
3.2).
"""

from __future__ import annotations

from math import inf

from ..ir.expression import (
    Access,
    Expression,
    Parameter,
    RankVariable,
    free_ranks,
    rewrite,
    rewrite_outermost,
    tensors,
    walk,
)
from ..ir.streaming import NEXT, Field
from .absent import ZERO, abstract, obviously_positive
from .contract import Contractions, identity_value
from .loop_nest import Cast, Number, Op, Ref, Value, value_vars
from .tiles import Parts

LOW = -3.4028234e38
"""The lowest number of 32 bits: no frame is lower, and differences with it are no NaN.

Times a factor of at most 1e-36 it would make no infinite weights; scores are not so small.
"""

OLD = "_old"
"""Inside a transport, a field before the step; ``NEXT`` marks it after."""


class Frames(Contractions):
    """Lowering of what depends on frames."""

    frames: set[str]
    rests = False
    """Whether frames stay what they were while a tile is taken in."""

    reducer: dict[str, str]

    def transported(self, field: Field, parts: Parts) -> Value:
        """Return the accumulator carried to the new frame; shared factors are named once.

        A frame that is still at its identity, -inf say, is replaced where it would make a NaN: the
        new one by 0, as in lifts, the old one by the new one, so that nothing moves.
        """
        assert field.transport is not None
        mine = [t for t in tensors(field.transport) if not t.endswith(NEXT)]
        values: dict[str | Access, str] = {t: ZERO for t in mine if t not in self.frames}
        values |= {
            t: {"max": "-inf", "min": "+inf"}.get(self.reducer[t], ZERO) for t in field.frame
        }
        fragile = abstract(field.transport, values, obviously_positive) != ZERO
        after = {f + NEXT for f in self.frames}

        def rule(x: Expression) -> Expression | None:
            read = set(tensors(x))
            if read and read <= after | self.rows(x) and read & after:
                return self.settled(renamed(x, NEXT, ""), parts)
            if read and read <= self.frames | self.rows(x) and read & self.frames:
                return self.before(x, parts, fragile)
            if isinstance(x, Access) and self.remember(x, parts):
                return Access(x.tensor + OLD, x.coordinates, x.at)
            return None

        return self.share(self.tile(rewrite_outermost(field.transport, rule), parts))

    def rows(self, x: Expression) -> set[str]:
        """Return the tensors from memory that an expression reads alike in every step."""
        return {
            a.tensor
            for a in walk(x)
            if isinstance(a, Access)
            and a.tensor in self.kernel.reads
            and not depends(a, {self.rank})
        }

    def remember(self, access: Access, parts: Parts) -> bool:
        """Bind the value that an accumulator had before this step; False for other tensors."""
        ranks = tuple(c.rank for c in access.coordinates if isinstance(c, RankVariable))
        key = (access.tensor, self.key(ranks, parts))
        var = self.old.get(key) or self.made.get(key)
        if var is None or access.tensor.endswith(OLD):
            return False
        self.made[(access.tensor + OLD, key[1])] = var
        return True

    def guarded(self, x: Expression, parts: Parts) -> Expression:
        """Return an expression in which frames that may be at their identity are made safe."""
        crew = self.kernel.crew
        if self.rests and crew is not None and crew.joined and crew.drawn:
            return rewrite(x, lambda part: self.low(part, parts))
        if not self.cut or self.rests or not self.frames & set(tensors(x)):
            return x

        def rule(part: Expression) -> Expression | None:
            read = set(tensors(part))
            if self.frames & read and read <= self.frames | self.rows(part):
                if not depends(part, {self.rank}):
                    return self.settled(part, parts)
            return None

        return rewrite_outermost(x, rule)

    def low(self, x: Expression, parts: Parts) -> Expression | None:
        """Return a frame at rest, a very low number where nothing was taken in yet.

        A point that exists makes an infinite weight there as ever, by which it is told that the
        frame has to move; one that is left out, minus infinity, weighs 0. Where data say which
        tiles rows walk, some may walk many without a point.
        """
        if not isinstance(x, Access) or x.tensor not in self.frames:
            return None
        return self.bind(Op("max", (self.tile(x, parts), Number(LOW))), x, "low", parts)

    def settled(self, x: Expression, parts: Parts) -> Expression:
        """Return an expression of new frames, 0 where it is infinite: nothing was taken in."""
        if not self.cut:
            return x
        value = self.tile(x, parts)
        return self.bind(Op("where", (self.empty(x, value), Number(0.0), value)), x, "safe", parts)

    def before(self, x: Expression, parts: Parts, fragile: bool) -> Expression:
        """Return an expression of old frames; if need be, the new one where it is infinite."""

        def rule(part: Expression) -> Expression | None:
            if isinstance(part, Access) and self.remember(part, parts):
                return Access(part.tensor + OLD, part.coordinates, part.at)
            return None

        old = rewrite(x, rule)
        if not fragile:
            return old
        value = self.tile(old, parts)
        new = self.tile(self.settled(x, parts), parts)
        return self.bind(Op("where", (self.empty(x, value), new, value)), x, "before", parts)

    def empty(self, x: Expression, value: Value) -> Value:
        """Return the condition that an expression of frames is at its identity."""
        if isinstance(x, Access):
            return Op("==", (value, identity_value(self.reducer[x.tensor])))
        return Op("==", (Op("abs", (value,)), Number(inf)))

    def bind(self, value: Value, x: Expression, end: str, parts: Parts) -> Expression:
        """Name a value once a step, and stand for it by an access."""
        if value not in self.shared:
            first = next(t for t in tensors(x) if t in self.frames)
            self.shared[value] = self.let(self.names.take(f"{first.lower()}_{end}"), value)
        var = self.shared[value]
        ranks = free_ranks(x)
        name = f"{var.name} {end}"  # no tensor's name has a space
        self.made[(name, self.key(ranks, parts))] = var
        return Access(name, tuple(RankVariable(r) for r in ranks))

    def share(self, value: Value) -> Value:
        """Name the exponentials and quotients of frames, which several accumulators use."""
        match value:
            case Op("exp" | "exp2" | "/" | "quotient" as operator, operands) if self.pure(value):
                if value not in self.shared:
                    name = self.names.take("rescale")
                    self.shared[value] = self.let(name, Op(operator, operands))
                return Ref(self.shared[value])
            case Op(operator=operator, operands=operands):
                return Op(operator, tuple(self.share(x) for x in operands))
            case Cast(value=inner, dtype=dtype):
                return Cast(self.share(inner), dtype)
            case _:
                return value

    def pure(self, value: Value) -> bool:
        """Whether a value reads frames only."""
        plain = {
            v.name
            for (tensor, _), v in self.made.items()
            if tensor.removesuffix(OLD) in self.reducer
            and tensor.removesuffix(OLD) not in self.frames
        }
        return not value_vars(value) & plain


def renamed(x: Expression, end: str, other: str) -> Expression:
    """Return an expression with the ending of its tensors' names exchanged."""

    def rule(part: Expression) -> Expression | None:
        if isinstance(part, Access) and part.tensor.endswith(end):
            return Access(part.tensor.removesuffix(end) + other, part.coordinates, part.at)
        return None

    return rewrite(x, rule)


def depends(expression: Expression, ranks: set[str]) -> bool:
    """Whether an expression varies with some of the ranks, or with the place of their tiles."""
    marks = {f"{r}{end}" for r in ranks for end in ("_first", "_last")}
    for x in walk(expression):
        match x:
            case RankVariable(rank=rank) if rank in ranks:
                return True
            case Parameter(name=name) if name in marks:
                return True
            case _:
                continue
    return False
