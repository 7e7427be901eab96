"""Find: what the kernels of a search ask about the numbers of a tile, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir.cascade import Einsum
from ..ir.expression import Populate
from ..ir.mapping import MappedKernel, Search
from ..ir.selection import find_count, list_rank
from .loop_nest import (
    Axis,
    Cast,
    Fold,
    Index,
    Load,
    Loop,
    Number,
    Op,
    Ref,
    Scalar,
    Scan,
    Value,
    Var,
    value_axes,
)
from .lower import Lowering
from .select import both

MOST = 2.0**30
"""More members than any list has."""


class Finder(Lowering):
    """Lowering of one kernel of a search: a program has a row, or a tile of one."""

    value: Value
    group: Value | None
    open: Value

    def __init__(self, kernel: MappedKernel, dtypes: Mapping[str, str], rank: str, tile: int):
        super().__init__(kernel, dtypes)
        assert kernel.search is not None
        self.search: Search = kernel.search
        self.einsum: Einsum = next(e for e in kernel.before if e.name == self.search.selection)
        assert isinstance(self.einsum.body, Populate)
        self.body: Populate = self.einsum.body
        counted = find_count(kernel.before, self.einsum)
        assert counted is not None
        self.counted: Einsum = counted
        self.fills, self.selected, self.frames = {}, set(), set()
        self.along, self.chunk = rank, tile
        self.row: tuple[Value, ...] = tuple(Scalar(r) for r in kernel.ranks("grid"))

    # names and loops

    def named(self, what: str, k: int | None = None) -> str:
        """Return the name of a tensor between the kernels."""
        return f"{self.search.stem}_{what}" + ("" if k is None else f"_{k}")

    def fresh(self, name: str, axes: tuple[str, ...] = (), dtype: str = "int32") -> Var:
        """Return a new variable."""
        return Var(self.names.take(name), axes, dtype)

    def fetch(self, tensor: str, place: tuple[Value, ...], guard: Value | None = None) -> Value:
        """Read what another kernel of the search has written."""
        axes = self.ordered(frozenset().union(*(value_axes(c) for c in place)))
        name = tensor.removeprefix(f"{self.search.stem}_").lower()
        var = self.fresh(name, axes, self.dtypes[tensor])
        self.say(Load(var, tensor, place, guard))
        return Ref(var)

    def total(self, name: str, value: Value, axis: str, dtype: str = "int32") -> Value:
        """Return the sum of a value along an axis."""
        left = tuple(a for a in self.ordered(value_axes(value)) if a != axis)
        var = self.fresh(name, left, dtype)
        self.say(Fold(var, value, axis, "sum"))
        return Ref(var)

    def upto(self, name: str, value: Value, axis: str, dtype: str = "int32") -> Value:
        """Return the running sum of a value, each coordinate's own included."""
        var = self.fresh(name, (axis,), dtype)
        self.say(Scan(var, value, axis))
        return Ref(var)

    def digits(self, width: int) -> Axis:
        """Return an axis for the values of a digit."""
        name = self.names.take("digit")
        self.axes[name] = Axis(name, name, width, valid=width)
        return self.axes[name]

    def tiles(self, width: int, name: str = "") -> Axis:
        """Return an axis along which tiles, of the rank or what is named, are seen together."""
        name = name or f"{self.along}_tile"
        axis = Axis(name, name, width, f"{name.upper()}S", f"{name}_first", valid=width)
        self.axes = {name: axis, **self.axes}
        return axis

    def loop(self, axis: Axis, begin: Value, end: Value, body: Callable[[], None]) -> None:
        """Write a loop over tiles."""
        self.enter(cut=True)
        body()
        statements = tuple(self.leave())
        self.say(Loop(axis.rank, axis.first, begin, end, axis.constant, statements, True))

    @property
    def chunks(self) -> Value:
        """How many tiles the rank has."""
        return Op("cdiv", (self.size(self.along), Number(self.chunk)))

    @property
    def here(self) -> tuple[Value, ...]:
        """The row of this program, and its tile."""
        return (*self.row, Scalar(f"{self.along}_tile"))

    @property
    def length(self) -> Value:
        """How many places a list has."""
        return Scalar(f"size({list_rank(self.einsum)})")

    def listed(self, at: Value) -> tuple[Value, ...]:
        """Return the coordinates of a place in this row's list."""
        slots = list_rank(self.einsum)
        return tuple(at if r == slots else Scalar(r) for r in self.einsum.ranks)

    # what is asked of a tile's numbers

    def look(self) -> None:
        """Make a tile's numbers, which may be chosen and which must be."""
        for einsum in self.kernel.before:
            if einsum.name not in (self.einsum.name, self.counted.name):
                self.compute(einsum)
        axis = self.axes[self.along]
        value = self.real(self.wide(self.body.body, {}))
        if not isinstance(value, Ref):
            value = Ref(self.let(self.names.take("value"), value, (axis.name,), "float32"))
        self.value = value
        inside = Op("<", (Index(axis.name), self.size(self.along)))
        condition = self.taking.get(self.einsum.name)
        able: Value = inside
        if condition is not None:
            able = both(inside, self.tile(condition, {}))
        self.open = Ref(self.let(self.names.take("able"), able, (axis.name,), "bool"))
        self.group = None
        if self.body.forced is not None:
            forced = self.tile(self.body.forced, {})
            if self.body.selector == "threshold":
                forced = Op("where", (forced, Number(True), Number(False)))
            self.group = Op("where", (forced, Number(0), Number(1)))

    def lead(self, count: int) -> Value:
        """Return the first bits of the numbers' codes, behind their group."""
        bits = Op("falling", (self.value, Number(0), Number(count)))
        if self.group is None:
            return bits
        return Op("+", (Op("*", (self.group, Number(2**count))), bits))

    def digit(self, k: int) -> Value:
        """Return digit number k of the numbers' codes."""
        start, count = sum(self.search.digits[:k]), self.search.digits[k]
        if k == 0:
            return self.lead(count)
        return Op("falling", (self.value, Number(start), Number(count)))

    def members(  # type: ignore[override]
        self, found: tuple[Value, Value] | None = None
    ) -> tuple[Value, Value | None]:
        """Return which numbers lie beyond the bound, and which are equal to it.

        ``found`` are the bound's bits, the last digit apart, where they are not in memory.
        """
        axes = (self.along,)
        if self.body.selector == "threshold":
            beyond: Value = Op(">", (self.value, self.wide(self.body.argument, {})))
            if self.group is not None:
                beyond = Op("or", (beyond, Op("==", (self.group, Number(0)))))
            above = self.let(self.names.take("above"), both(beyond, self.open), axes, "bool")
            return Ref(above), None
        last = len(self.search.digits) - 1
        if found is None:
            prefix = self.fetch(self.named("prefix", last - 1), self.row)
            found = (prefix, self.fetch(self.named("prefix", last), self.row))
        prefix, bound = found
        lead = self.lead(sum(self.search.digits[:last]))
        lead = Ref(self.let(self.names.take("lead"), lead, axes, "int32"))
        digit = Ref(self.let(self.names.take("last"), self.digit(last), axes, "int32"))
        same = Op("==", (lead, prefix))
        beyond = Op("or", (Op("<", (lead, prefix)), Op("and", (same, Op("<", (digit, bound))))))
        above = self.let(self.names.take("above"), both(beyond, self.open), axes, "bool")
        equal = Op("and", (same, Op("==", (digit, bound)), self.open))
        return Ref(above), Ref(self.let(self.names.take("ties"), equal, axes, "bool"))

    # what is asked of a row

    def wanted(self) -> Value:
        """Return what is needed of a row: how many, or how much."""
        argument = self.wide(self.body.argument, {})
        if self.search.mass:
            return self.real(argument)
        if self.dtype(argument) != "int32":
            argument = Cast(argument, "int32")
        return Op("min", (argument, self.length))

    def ties_taken(self) -> Value:
        """Return how many of the numbers equal to the bound are members."""
        digits = self.search.digits
        if not digits:
            return Number(0)
        last = len(digits) - 1
        need = self.fetch(self.named("need", last), self.row)
        if not self.search.mass:
            return need
        prefix = self.fetch(self.named("prefix", last - 1), self.row)
        digit = self.fetch(self.named("prefix", last), self.row)
        # what overflows is the group
        code = Op("+", (Op("*", (prefix, Number(2 ** digits[last]))), digit))
        value = Ref(self.let(self.names.take("bound"), Op("unfalling", (code,)), (), "float32"))
        count: Value = Op("/", (need, value))
        match self.body.selector:
            case "cover":
                count = Op("ceil", (count,))
            case "exceed":
                count = Op("+", (Op("floor", (count,)), Number(1.0)))
            case _:
                count = Op("floor", (count,))
        count = Op("where", (Op(">", (value, Number(0.0))), count, Number(0.0)))
        least = Op("max", (Number(0.0), Op("min", (count, Number(MOST)))))
        return Ref(self.let(self.names.take("limit"), Cast(least, "int32"), (), "int32"))
