"""Sections of a loop: from where to where a tile of rows walks, and which of its tiles are whole.

A walk has the ranges of a domain, and each range up to three loops: tiles that may be cut at the
front, whole tiles, tiles that may be cut at the end. Loops begin at multiples of the tile.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.domain import Range
from ..ir.expression import Access, Expression, Reduce, Size, rewrite, tensors
from ..ir.mapping import Traversal
from ..ir.show import show_expression
from .additions import all_rows
from .begins import begins_tile, down, up
from .loop_nest import Cast, Number, Op, Ref, Value, nonnegative
from .select import Selections


class Sections(Selections):
    """Lowering of where loops begin and end."""

    several: bool

    def sections(self, traversal: Traversal, width: Value) -> Iterator[tuple[Value, Value, bool]]:
        """Yield (begin, end, cut) of each loop in order; loops begin at multiples of the tile."""
        for k, (r, tag, begin, end) in enumerate(self.spans(traversal.domain.ranges, width)):
            if r.full_begin == r.full_end or self.several:
                yield begin, end, True
                continue
            whole = begin
            whole_first = k == 0 and self.whole(self.limit(r.begin))
            if r.full_begin != r.begin or not whole_first:
                start = Op("max", (begin, up(self.limit(r.full_begin), width)))
                whole = self.bound(f"{self.rank}_whole_begin{tag}", start)
                yield begin, Op("min", (whole, end)), True
            stop = self.limit(r.full_end)
            stop = stop if self.whole(stop) else down(stop, width)
            if whole != Number(0) or not nonnegative(stop):
                stop = Op("max", (whole, stop))
            for rank in dict.fromkeys(
                r for f in traversal.streaming.additions for r in f.ranks_reduced
            ):
                stop = Op("where", (all_rows(self, rank), stop, whole))
            stop = self.bound(f"{self.rank}_whole_end{tag}", stop)
            yield whole, stop, False
            yield stop, end, True

    def spans(
        self, ranges: tuple[Range, ...], width: Value
    ) -> Iterator[tuple[Range, str, Value, Value]]:
        """Yield ranges with a name's ending and their bounds; no tile is in two of them."""
        visited: Value | None = None
        for k, r in enumerate(ranges):
            tag = f"_{k}" if len(ranges) > 1 else ""
            begin = self.limit(r.begin)
            begin = begin if self.whole(begin) else down(begin, width)
            if visited is not None:
                begin = Op("max", (begin, visited))
            begin = self.bound(f"{self.rank}_begin{tag}", begin)
            end = self.bound(f"{self.rank}_end{tag}", self.limit(r.end))
            yield r, tag, begin, end
            visited = Op("max", (begin, up(end, width)))

    def whole(self, value: Value) -> bool:
        """Whether a tile of the streamed rank begins there, whatever its width."""
        return begins_tile(value, self.kernel.aligned)

    def limit(self, x: Expression) -> Value:
        """Return a bound over a tile of rows; an extremum of what the rows hold is made first."""

        def rule(part: Expression) -> Expression | None:
            if not isinstance(part, Reduce):
                return None
            name = show_expression(part)  # no tensor's name has a bracket
            if (name, ()) not in self.made:
                word = {"min": "least", "max": "greatest"}[part.reducer]
                var = self.names.take(f"{tensors(part)[0].lower()}_{word}")
                found = self.reduce(var, part.reducer, part.ranks, part.body, {})
                self.made[(name, ())] = found
            return Access(name, ())

        value = self.tile(rewrite(x, rule), {})
        if self.dtype(value) != "float32":
            return value
        # a limit that is a fraction was rounded already; what no whole number holds ends the rank
        size = self.tile(Size(self.rank), {})
        ends = isinstance(value, Op) and value.operator == "min" and size in value.operands
        return Cast(value if ends else Op("min", (size, value)), "int32")

    def bound(self, name: str, value: Value) -> Value:
        """Name a loop bound."""
        if isinstance(value, Number | Ref):
            return value
        return Ref(self.let(self.names.take(name), value, (), "int32"))
