"""Selections: a row of values in one tile, put in order, of which a prefix is the list.

The elements of a row fall in three groups: forced members, other candidates, and what cannot be
chosen. Ordered by group, then by descending value, then by coordinate, every list that a selector
writes is a prefix; only its length differs.
"""

from __future__ import annotations

from ..ir.cascade import Einsum
from ..ir.errors import BackendError
from ..ir.expression import Expression, Populate
from ..ir.selection import count_ranks, find_count, list_rank
from .lists import Lists
from .loop_nest import (
    Axis,
    Cast,
    Comment,
    Index,
    Number,
    Op,
    Order,
    Ref,
    Scan,
    Value,
    Var,
    value_axes,
)
from .tiles import Parts

FORCED, OPEN, OUT = Number(0), Number(1), Number(2)
"""Groups, in the order in which they stand in a list."""

ENDS = {"cover": ">=", "exceed": ">", "within": ">"}
"""How a running sum compares with the bound where a list of a selector ends."""


class Selections(Lists):
    """Lowering of selections."""

    def select(self, einsum: Einsum, selection: Populate) -> None:
        """Write the list of each row, and its length."""
        parts: Parts = {selection.rank: 0, list_rank(einsum): 0}
        source = self.resident(selection.rank)
        target = self.resident(list_rank(einsum))
        name = self.names.tile(einsum.name)
        value: Value = self.real(self.wide(selection.body, parts))
        argument = self.wide(selection.argument, parts)
        able = self.able(einsum, source, parts)
        forced = None if selection.forced is None else self.tile(selection.forced, parts)
        if selection.selector == "threshold":
            wanted: Value = Op(">", (value, argument))
            wanted = wanted if forced is None else Op("or", (wanted, forced))
            able, forced = both(able, wanted), None
        group: Value = OPEN if forced is None else Op("where", (forced, FORCED, OPEN))
        if able is not None:
            group = Op("where", (able, group, OUT))
        axes = self.ordered(value_axes(value) | value_axes(group) | {source.name})
        grouped = self.let(self.names.take(f"{name}_group"), group, axes, "int32")
        ranked = None if selection.selector == "threshold" else value
        kept = tuple(target.name if a == source.name else a for a in axes)
        place = Var(name, kept, "int32")
        mass = selection.selector in ENDS
        valued = Var(self.names.take(f"{name}_values"), kept) if mass else None
        self.say(Order(place, source.name, Ref(grouped), ranked, valued))
        found = find_count(self.kernel.before, einsum)
        if found is None:
            raise BackendError(f"{einsum.name} selects and its members are not counted")
        self.say(Comment(f"{found}, the length of each list"))
        members = self.members(f"{name}_able", Op("<", (Ref(grouped), OUT)), source)
        count = members
        if valued is not None:
            leading: Value = Number(0)
            if forced is not None:
                first = Op("==", (Ref(grouped), FORCED))
                leading = self.members(f"{name}_forced", first, source)
            selector = selection.selector
            count = self.prefix(selector, name, argument, target, valued, members, leading)
        elif selection.selector == "topk":
            count = Op("min", (count, argument))
        if selection.ascending and selection.selector != "threshold":
            place = self.by_place(place, count, target)
        count = Op("min", (count, Number(target.valid)))
        if self.dtype(count) != "int32":
            count = Cast(count, "int32")
        var = self.let(self.names.tile(found.name), count, dtype="int32")
        self.keep(einsum.name, einsum.ranks, parts, place)
        self.keep(found.name, count_ranks(einsum), parts, var)

    def by_place(self, place: Var, count: Value, target: Axis) -> Var:
        """Put the members of each list in the order of their coordinates."""
        behind = Op("where", (Op("<", (Index(target.name), count)), Number(0), Number(1)))
        least = Op("neg", (Cast(Ref(place), "float32"),))
        found = Var(self.names.take(f"{place.name}_again"), place.axes, "int32")
        sorted_ = Var(self.names.take(f"{place.name}_places"), place.axes)
        self.say(Order(found, target.name, behind, least, sorted_))
        name = self.names.take(f"{place.name}_rising")
        return self.let(name, Cast(Op("neg", (Ref(sorted_),)), "int32"), place.axes, "int32")

    def members(self, name: str, test: Value, source: Axis) -> Value:
        """Count the elements of a row for which a test holds."""
        return self.fold(
            name, Op("where", (test, Number(1), Number(0))), source.name, "sum", named=False
        )

    def prefix(
        self,
        selector: str,
        name: str,
        argument: Value,
        target: Axis,
        value: Var,
        members: Value,
        leading: Value,
    ) -> Value:
        """Return how long the prefix is whose sum reaches, exceeds or stays within a bound.

        Running sums are compared as they are: what stands before an element is never got back by
        subtracting it, which would round.
        """
        at: Value = Index(target.name)
        live = Op("<", (at, members))
        mass = Op("where", (live, Ref(value), Number(0.0)))
        axes = self.ordered(value_axes(mass))
        total = Var(self.names.take(f"{name}_sums"), axes)
        self.say(Scan(total, mass, target.name))
        met = Op(ENDS[selector], (Ref(total), argument))
        after: Value = Op("+", (at, Number(1)))
        if selector == "within":
            after = at
        # forced members are in, whatever their sum
        ends = Op("where", (Op("and", (live, met, Op("<=", (leading, after)))), after, members))
        count = self.fold(f"{name}_end", ends, target.name, "min", named=False)
        if selector == "within":
            return count
        # nothing is needed for what is reached without a member
        wanted = {">=": "<", ">": "<="}[ENDS[selector]]
        if isinstance(argument, Number):
            if 0 < argument.value or (wanted == "<=" and argument.value == 0):
                return count
            needed: Value = Op("<", (Number(0), leading))
        else:
            needed = Op(wanted, (Number(0), argument))
            if leading != Number(0):
                needed = Op("or", (needed, Op("<", (Number(0), leading))))
        if leading == Number(0) and isinstance(argument, Number):
            return Number(0)
        return Op("where", (needed, count, Number(0)))

    def able(self, einsum: Einsum, source: Axis, parts: Parts) -> Value | None:
        """Return the condition under which an element may be chosen."""
        condition: Expression | None = self.taking.get(einsum.name)
        found = None if condition is None else self.tile(condition, parts)
        if source.padded:
            inside = Op("<", (Index(source.name), Number(source.valid)))
            found = inside if found is None else both(inside, found)
        return found

    def resident(self, rank: str) -> Axis:
        """Return the one axis of a rank that is held whole."""
        return next(a for a in self.axes.values() if a.rank == rank)


def both(one: Value | None, other: Value) -> Value:
    """Return the conjunction of conditions."""
    return other if one is None else Op("and", (one, other))
