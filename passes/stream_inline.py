"""Inline: what a reduction's body is made of, down to early tensors, late ones and accumulators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    rewrite,
    substitute,
    tensors,
    walk,
)
from ..ir.streaming import Reason
from .align import fresh
from .closure import Accumulator
from .facts import pointwise
from .separate import Roles, late_tensors
from .stream_pieces import Plan
from .stream_presence import conditions, conjuncts, without
from .stream_roles import SliceRoles, positive_late


@dataclass(slots=True)
class Inliner:
    """A slice, the plans made so far, and the names that they gave to accumulators."""

    cascade: Cascade
    roles: SliceRoles
    taken: set[str]
    plans: dict[str, Plan] = field(default_factory=dict)
    names: dict[object, str] = field(default_factory=dict)
    accumulators: dict[str, Accumulator] = field(default_factory=dict)
    tell: Roles = field(init=False)

    def __post_init__(self) -> None:
        self.tell = Roles(self.roles.rank, self.roles.late, positive_late(self.roles))

    def inline(
        self, body: Expression, filters: list[Expression], reduction: str
    ) -> Expression | Reason:
        """Replace mixed tensors by what they are made of; collect the filters on the way."""
        blocked: list[str] = []

        def rule(x: Expression) -> Expression | None:
            match x:
                case Access(tensor=tensor, coordinates=coordinates) if tensor in mixed:
                    writer = self.roles.writers[tensor]
                    if not pointwise(writer.body):
                        blocked.append(tensor)
                        return None
                    values = dict(zip(writer.ranks, coordinates, strict=True))
                    if writer.filter is not None:
                        filters.extend(substitute(f, values) for f in conjuncts(writer.filter))
                        if under_choice(body, tensor):
                            blocked.append(tensor)
                    inner = self.inline(substitute(writer.body, values), filters, reduction)
                    if isinstance(inner, Reason):
                        blocked.append(tensor)
                        return None
                    return inner
                case Apply("exp" | "exp2", (inner,)) if self.tell.reads_late(inner):
                    return replace(x, operands=(self.resolve(inner),))
                case _:
                    return None

        mixed = set(self.roles.mixed)
        found = rewrite(body, rule)
        if blocked:
            return self.not_yet(
                reduction, f"{blocked[0]} reduces, selects or filters what depends on results"
            )
        return found

    def resolve(self, expression: Expression) -> Expression:
        """Replace late tensors by what they are made of, down to accumulators."""

        def rule(x: Expression) -> Expression | None:
            if not isinstance(x, Access) or x.tensor not in self.roles.late:
                return None
            writer = self.roles.writers[x.tensor]
            values = dict(zip(writer.ranks, x.coordinates, strict=False))
            plan = self.plans.get(x.tensor)
            if plan is None:
                if not pointwise(writer.body):
                    return None
                return self.resolve(substitute(writer.body, values))
            if plan.direct is not None:
                own = self.names[plan.direct.key]
                return None if own == x.tensor else replace(x, tensor=own)
            if any(set(p.accumulator.ranks) - set(writer.ranks) for p in plan.pieces):
                return None
            parts = [p.applied(self.access(p.accumulator, x.tensor)) for p in plan.pieces]
            total = parts[0]
            for part in parts[1:]:
                total = Apply("+", (total, part))
            return substitute(self.resolve(total), values)

        return rewrite(expression, rule)

    def access(self, one: Accumulator, for_: str) -> Access:
        """Return the reading of an accumulator, naming it if it has no name."""
        return Access(self.name(one, for_), tuple(RankVariable(r) for r in one.ranks))

    def name(self, one: Accumulator, for_: str) -> str:
        """Return an accumulator's name: that of the tensor it is, else one made of ``for_``."""
        found = self.names.get(one.key)
        if found is None:
            word = one.reducer if one.powers() else "count"
            word = word if one.located is None else "at"
            found = fresh(f"{for_}_{word}", self.taken)
            self.names[one.key] = found
            self.accumulators[found] = one
            self.tell = replace(self.tell, late=self.tell.late | {found})
        return found

    def settled(self, x: Expression, filters: list[Expression]) -> Expression:
        """Replace choices that are no choices; what they say of existence becomes a filter.

        ``where(X == X, 1, 1)`` is 1 at the points of X.
        """
        match x:
            case Apply("+" | "-" | "*" | "/" | "neg", operands):
                new = tuple(self.settled(y, filters) for y in operands)
                return x if new == operands else replace(x, operands=new)
            case Apply("where", (condition, a, b)) if a == b or _always(condition):
                filters += conditions(condition, self.roles.writers, self.roles.late)
                return self.settled(a, filters)
            case _:
                return x

    def behind(self, body: Expression) -> Iterator[Expression]:
        """Yield what the mixed tensors in an expression are made of, as it is written."""
        for name in tensors(body):
            if name in self.roles.mixed:
                yield self.roles.writers[name].body
                yield from self.behind(self.roles.writers[name].body)

    def partial(
        self, expressions: Iterable[Expression], held: tuple[Expression, ...] = ()
    ) -> str | None:
        """Return a late tensor that has absent points where the conditions ``held`` hold."""
        for name in late_tensors(expressions, self.roles.late):
            writer = self.roles.writers[name]
            if without(conjuncts(writer.filter), held):
                return name
            if pointwise(writer.body):
                known = frozenset(self.roles.reductions)
                if without(conditions(writer.body, self.roles.writers, known), held):
                    return name
                inner = self.partial((writer.body,), held)
                if inner is not None:
                    return inner
        return None

    def not_yet(self, tensor: str, text: str) -> Reason:
        """Say that a construct has no derivation here."""
        return Reason(
            "NOT_YET",
            tensor,
            f"No state is derived: {text}.",
            alternatives=(f"compute {tensor} in a second traversal of {self.roles.rank}",),
        )


def _always(condition: Expression) -> bool:
    """Whether a condition holds wherever it exists (and is a number)."""
    match condition:
        case Constant(value=True):
            return True
        case Apply("==", (a, b)):
            return a == b
        case _:
            return False


def under_choice(body: Expression, tensor: str) -> bool:
    """Whether a tensor is read where its presence is not needed."""
    for x in walk(body):
        match x:
            case Apply("where", (_, *branches)):
                if any(tensor in tensors(b) for b in branches):
                    return True
            case Apply("default", operands):
                if any(tensor in tensors(y) for y in operands):
                    return True
            case _:
                continue
    return False
