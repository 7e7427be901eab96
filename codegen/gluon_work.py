"""The functions that do the work on one tile, between its early products and its late ones."""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING

from .arithmetic import value_dtype
from .at_rest import at_rest
from .gluon_columns import Tested, point_test
from .gluon_quick import LN_2, LOG2_E, times
from .gluon_slopes import slope_text
from .gluon_values import GluonPrinter
from .loop_nest import (
    Cast,
    Fold,
    Index,
    Let,
    Load,
    Nest,
    Number,
    Op,
    Ref,
    Statement,
    Value,
    Var,
    statements,
    value_axes,
)
from .schedule import Schedule, Section
from .signature import values
from .slopes import sloped
from .triton_values import ATOM

if TYPE_CHECKING:
    from .gluon_rows import Rows


class Work(GluonPrinter):
    """The work on one tile: what stands between its early products and its late ones."""

    def __init__(
        self,
        nest: Nest,
        plan: Schedule,
        section: Section,
        outer: Rows,
        *,
        rests: bool = False,
        work: tuple[Statement, ...] | None = None,
        results: tuple[str, ...] = (),
    ) -> None:
        super().__init__(nest, plan)
        self.section, self.depth, self.rests = section, 1, rests
        if rests:
            assert section.resting is not None
            work = at_rest(work or section.resting.body, outer.rested(section))
        elif work is None:
            work = section.work
        work = tuple(sloped(s, plan.columns) for s in work)
        fetched = {x.var.name for x in plan.vectors}
        self.bases, self.names = outer.bases, outer.names
        self.layouts, self.pieces, self.helpers = outer.layouts, outer.pieces, outer.helpers
        self.work = work = tuple(
            s for s in work if not (isinstance(s, Load) and s.var.name in fetched)
        )
        self.tested: dict[str, tuple[Value, ...]] = {}
        for s in work:
            self.statement(s)
        if any(re.search(rf"\b{self.columns}\b", x) for x in self.lines if x.lstrip()[:1] != "#"):
            first = plan.columns.first
            self.lines.insert(0, f"    {self.columns} = {first} + {plan.columns.rank}_row")
        results = results or (outer.rested if rests else outer.returned)(section)
        self.add(f"return {', '.join(results)}")

    def statement(self, statement: Statement) -> None:
        """Print a statement; while frames rest, each thread adds up its own share of a row."""
        both = (self.rows, self.columns)
        match statement:
            case Let(var=Var(dtype="bool", axes=axes) as var, value=value) if axes == both:
                tested = point_test(self, value)
                if tested is not None:
                    self.test(var, tested)
                    return
            case Let(var=Var(axes=axes), value=Op("where", (test, _, Number(value=number)))) if (
                axes == both and number == -inf and not self.by_bits(test)
            ):
                super().statement(statement)
                self.add(self.lines.pop().strip().replace('float("-inf")', "lowest()"))
                return
        super().statement(statement)
        if self.rests and isinstance(statement, Fold):
            name, _, folded = self.lines.pop().strip().partition(" = ")
            tile = folded.removeprefix("gl.sum(").removesuffix(", axis=1)")
            product = isinstance(statement.value, Op) and statement.value.operator == "*"
            self.add(f"{name} = by_thread{'_fused' if product else ''}({tile})")

    def test(self, var: Var, tested: Tested) -> None:
        """Print a test of points: bits for each row, if all that read it select by it."""
        if not any(asks(v, var) for s in statements(self.work) for v in values(s)):
            self.tested[var.name] = tested.others
            self.add(f"{var.name} = {tested.bits}")
            return
        width, layout = self.extent(self.columns), self.layout((self.rows, self.columns))
        others = [f"({self.broadcast(x, var.axes)})" for x in tested.others]
        points = f"live_points({tested.bits}, {width}, {layout})"
        self.add(f"{var.name} = {' & '.join([points, *others])}")

    def by_bits(self, test: Value) -> bool:
        """Whether a test of points is bits for each row."""
        return isinstance(test, Ref) and test.var.name in self.tested

    def kept(self, asked: Var, x: Value, other: Number) -> str:
        """Return a selection by bits, and by what else was asked of points."""
        axes = asked.axes
        if value_dtype(x) != "float32":  # a register is selected as the number that it holds
            x = Cast(x, "float32")
        for test in self.tested[asked.name]:
            x = Op("where", (test, x, other))
        width, layout = self.extent(self.columns), self.layout(axes)
        number = self.value(other, axes)
        return f"kept({self.broadcast(x, axes)}, {asked.name}, {number}, {width}, {layout})"

    def operation(self, op: Op, axes: tuple[str, ...]) -> tuple[str, int]:
        """Return the text of an operator; that of points need not be exact.

        They are as exact as their operands in half precision, and so is ``quick_tanh``;
        ``quick_logistic`` and ``quick_log2`` are as exact as the functions for vectors.
        """
        if len(axes) == 2 and self.ordered(value_axes(op)) == axes:
            match op:
                case Op("where", (Ref(var=asked) as test, x, Number() as other)) if self.by_bits(
                    test
                ):
                    return self.kept(asked, x, other), ATOM
                case Op("fma", (Index(), step, begin)):
                    return slope_text(self, step, begin), ATOM
                case Op("tanh", (x,)):
                    return f"quick_tanh({self.value(x, axes)})", ATOM
                case Op("log2", (x,)):
                    return f"quick_log2({self.value(x, axes)})", ATOM
                case Op("log", (x,)):
                    return super().operation(Op("*", (Op("log2", (x,)), Number(LN_2))), axes)
                case Op("sigmoid", (x,)):
                    return f"quick_logistic({self.value(times(x, -LOG2_E), axes)})", ATOM
        return super().operation(op, axes)


def asks(value: Value, test: Var) -> bool:
    """Whether a value reads a test otherwise than to select a tile's numbers, or nothing, by it."""
    match value:
        case Op("where", (Ref(var=var), x, Number(value=float(number)))) if (
            var == test and number in (0, -inf) and value_axes(x) == frozenset(test.axes)
        ):
            return asks(x, test)
        case Op(operands=operands):
            return any(asks(x, test) for x in operands)
        case Cast(value=inner):
            return asks(inner, test)
        case _:
            return value == Ref(test)
