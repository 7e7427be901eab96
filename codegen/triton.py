"""Print a loop nest as a Triton kernel: a file that imports only Triton, for people to read.

A tile's address is a base pointer, fixed by the coordinates that are scalars, plus the offsets
along its axes. Where a tile begins is a 64-bit scalar in the base, so that offsets inside a tile
stay in 32 bits whatever a tensor's size.
"""

from __future__ import annotations

from .kernel import Kernel
from .layout import comment, folded, lay_out, needed
from .loop_nest import (
    Axis,
    Cast,
    Comment,
    Dot,
    Fold,
    Gather,
    Histogram,
    Index,
    Let,
    Load,
    Loop,
    Nest,
    Number,
    Op,
    Order,
    Place,
    Ref,
    Scalar,
    Scan,
    Statement,
    Store,
    Value,
    When,
    statements,
    value_axes,
)
from .names import Names
from .positions import uses_coordinate
from .triton_operators import HELPERS
from .triton_order import print_histogram, print_order
from .triton_values import Values


def print_triton(nest: Nest) -> Kernel:
    """Print a nest; the kernel carries the text and the launch data."""
    text = Printer(nest).text()
    return Kernel(
        nest.name,
        text,
        nest.arguments,
        nest.grid,
        nest.tiles,
        nest.reads,
        nest.writes,
        nest.num_warps,
        nest.num_stages,
        any(isinstance(s, Load) and s.described for s in statements(nest.statements)),
        lengths=lengths(nest),
        follows=nest.follows,
    )


def lengths(nest: Nest) -> tuple[str, ...]:
    """Return the sizes of ranks that are walked or tiled, and of the grid's slowest rank.

    Whole tiles are loaded without a look at where a loop ends, rows are kept inside one by one, and
    nothing counts the slowest rank: it makes no difference whether such a size is a multiple of
    something.
    """
    ranks = {s.rank for s in statements(nest.statements) if isinstance(s, Loop)}
    ranks |= {g.rank for k, g in enumerate(nest.grid) if g.tile or not k}
    return tuple(a.name for a in nest.arguments if a.kind == "size" and a.rank in ranks)


class Printer(Values):
    """The text of one kernel while it is written."""

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.nest = nest
        self.dtypes = dict(nest.dtypes)
        self.strides = {
            (a.tensor, a.position): a.name for a in nest.arguments if a.kind == "stride"
        }
        taken = [a.name for a in nest.arguments] + [g.rank for g in nest.grid]
        taken += [v for a in nest.axes for v in (a.name, a.first)]
        taken += [s.first for s in statements(nest.statements) if isinstance(s, Loop)]
        taken += [s.var.name for s in statements(nest.statements) if hasattr(s, "var")]
        self.names = Names(tuple(taken))
        self.bases: dict[str, str] = {}
        self.moving = {s.first for s in statements(nest.statements) if isinstance(s, Loop)}
        self.placed: set[str] = set()
        self.lines: list[str] = []
        self.depth = 1

    def text(self) -> str:
        """Return the whole file."""
        self.header()
        start = len(self.lines)
        for statement in self.nest.statements:
            self.statement(statement)
        body, self.lines, self.depth = needed(self.lines, start), [], 0
        self.lines += self.docstring()
        self.lines += ["", "import triton", "import triton.language as tl", ""]
        for helper in self.helpers:
            self.lines += ["", *HELPERS[helper].splitlines(), ""]
        self.lines += ["", "@triton.jit", f"def {self.nest.name}("]
        for a in self.nest.arguments:
            self.lines.append(
                f"    {a.name}: tl.constexpr," if a.kind == "tile" else f"    {a.name},"
            )
        self.lines.append("):")
        flat = [x for line in (*self.lines, *body) for x in lay_out(line)]
        return "\n".join(x.rstrip() for x in flat) + "\n"

    def docstring(self) -> list[str]:
        """Return the file's first words: what it computes and how it is launched."""
        title = self.nest.title or (f"{self.nest.name}: one kernel.",)
        if len(title) == 1:
            return [f'"""{title[0]}"""']
        return [f'"""{title[0]}', *(x for line in title[1:] for x in folded(line)), '"""']

    def add(self, line: str) -> None:
        """Append a line at the present depth."""
        self.lines.append("    " * self.depth + line if line else "")

    # what every program begins with

    def overlap(self) -> None:
        """Let the next kernel begin, and wait for the one before."""
        if self.nest.leads:
            self.add("# the next kernel may begin, and waits for this one where it says so")
            self.add("tl.extra.cuda.gdc_launch_dependents()")
            self.add("")
        if self.nest.follows:
            self.add("# what is read here may still be on its way from the kernel before")
            self.add("tl.extra.cuda.gdc_wait()")
            self.add("")

    def header(self) -> None:
        """Decode the program's coordinates and lay out the axes that do not move."""
        self.overlap()
        self.add("# the coordinates of this program")
        self.add("pid = tl.program_id(0)")
        grid = self.nest.grid
        for k, g in reversed(list(enumerate(grid))):
            size = self.sizes[g.rank]
            count = f"tl.cdiv({size}, {g.tile})" if g.tile else size
            target = f"{g.rank}_tile" if g.tile else g.rank
            place = f"pid % {count}" if k else "pid"
            if g.rank in self.nest.reverse:
                place = f"{count} - 1 - {place}"
            self.add(f"{target} = {place}")
            if k:
                self.add(f"pid = pid // {count}")
        for g in grid:
            if g.tile:
                r, size = g.rank, self.sizes[g.rank]
                self.add(f"{r}_first = {r}_tile * {g.tile}")
                self.add(f"{r}_last = tl.minimum({r}_first + {g.tile}, {size}) - 1")
                self.add(f"{r}_row = {self.arange(self.axes[r])}")
                self.add(f"{r} = {r}_first + {r}_row")
                self.add(f"{r}_safe = tl.minimum({r}_row, {r}_last - {r}_first)")
        for a in self.nest.axes:
            if not a.first:
                start = f"{a.offset} + " if a.offset else ""
                self.add(f"{a.name} = {start}{self.arange(a)}")
            elif a.rank not in {g.rank for g in grid}:
                self.add(f"{a.rank}_row = {self.arange(a)}")

    def arange(self, axis: Axis) -> str:
        """Return the places along an axis, from 0 on."""
        return f"tl.arange(0, {axis.constant or axis.width})"

    # statements

    def statement(self, statement: Statement) -> None:
        """Print one statement."""
        match statement:
            case Comment(text=text):
                if self.lines and not self.lines[-1].endswith(":"):
                    self.add("")
                for line in comment(text, 100 - 4 * self.depth - 2):
                    self.add(f"# {line}")
            case Let(var=var, value=value):
                missing = set(var.axes) - value_axes(value)
                text = self.value(value, var.axes)
                if missing or (isinstance(value, Number) and var.dtype != "int32"):
                    text = self.spread(value, var.axes, var.dtype)
                self.add(f"{var.name} = {text}")
            case Load(var=var, coordinates=coordinates, described=True):
                rows = next(a.first for a in self.nest.axes if a.name == var.axes[0])
                column = self.axes[var.axes[1]].offset
                self.add(f"{var.name} = {self.descriptor(statement)}.load([{rows}, {column}])")
            case Load(var=var, tensor=tensor, coordinates=coordinates, guard=guard, other=other):
                address = self.address(tensor, coordinates, var.axes)
                rest = ""
                if guard is not None:
                    mask = self.broadcast(guard, var.axes)
                    whole = var.dtype == "bool" or var.dtype.startswith("int")
                    rest = f", mask={mask}, other={0 if whole else other}"
                self.add(f"{var.name} = tl.load({address}{rest})")
            case Dot(var=var, left=left, right=right, axis=axis, start=start):
                self.add(f"{var.name} = {self.dot(var.axes, left, right, axis, start)}")
            case Fold(var=var, value=value, axis=axis, reducer=reducer):
                axes = self.ordered(value_axes(value))
                name = {"any": "max", "all": "min"}.get(reducer, reducer)
                text = self.value(value, axes)
                place = axes.index(axis)
                if reducer == "prod":
                    self.helpers.setdefault("multiply")
                    self.add(f"{var.name} = tl.reduce({text}, {place}, multiply)")
                elif reducer in ("any", "all"):
                    text = self.broadcast(value, axes, tight=True)
                    self.add(f"{var.name} = tl.{name}({text}.to(tl.int32), axis={place}) != 0")
                else:
                    self.add(f"{var.name} = tl.{name}({text}, axis={place})")
            case Order():
                print_order(self, statement)
            case Histogram():
                print_histogram(self, statement)
            case Scan(var=var, value=value, axis=axis):
                axes = self.ordered(value_axes(value))
                self.add(f"{var.name} = tl.cumsum({self.value(value, axes)}, {axes.index(axis)})")
            case Gather(var=var, value=value, place=place, axis=axis):
                axes = self.ordered(value_axes(value))
                texts = (self.value(value, axes), self.broadcast(place, var.axes))
                self.add(f"{var.name} = tl.gather({', '.join(texts)}, {axes.index(axis)})")
            case Store(tensor=tensor, coordinates=coordinates, value=value, guard=guard, add=add):
                axes = self.ordered(frozenset().union(*(value_axes(c) for c in coordinates)))
                address = self.address(tensor, coordinates, axes, clamp=False)
                text = self.broadcast(value, axes)
                stored = f"({text})" if self.loose(value) else text
                rest = "" if guard is None else f", mask={self.broadcast(guard, axes)}"
                if isinstance(value, Number):
                    stored = self.spread(value, axes, "float32")
                stored = f"{stored}.to({tensor}.dtype.element_ty)"
                if add:
                    self.add(f'tl.atomic_add({address}, {stored}{rest}, sem="relaxed")')
                else:
                    self.add(f"tl.store({address}, {stored}{rest})")
            case Loop(rank=rank, first=first, begin=begin, end=end, tile=tile, body=body):
                self.loop(rank, first, begin, end, tile, body)
            case Place(axis=axis, value=value):
                first = self.axes[axis].first
                self.add(f"{first} = {self.value(value, ())}")
                if axis in self.placed:
                    self.add(f"{axis} = {first} + {self.axes[axis].rank}_row")
            case When(condition=condition, body=body):
                self.add(f"if {self.value(condition, ())}:")
                self.depth += 1
                for s in body:
                    self.statement(s)
                self.depth -= 1

    def loop(
        self,
        rank: str,
        first: str,
        begin: Value,
        end: Value,
        tile: str,
        body: tuple[Statement, ...],
    ) -> None:
        """Print a loop; base pointers that it would need are set up ahead of it."""
        for s in statements(body):
            if isinstance(s, Load | Store):
                self.base(s.tensor, s.coordinates)
            if isinstance(s, Load) and s.described:
                self.descriptor(s)
        bounds = f"{self.value(begin, ())}, {self.value(end, ())}"
        self.add("")
        self.add(f"for {first} in tl.range({bounds}{f', {tile}' if tile else ''}):")
        self.depth += 1
        axis = next(a.name for a in self.nest.axes if a.rank == rank and a.first)
        if any(uses_coordinate(s, axis) for s in statements(body)):
            if first == self.axes[axis].first:
                self.add(f"{axis} = {first} + {rank}_row")
            else:
                self.placed.add(axis)
        for s in body:
            self.statement(s)
        self.depth -= 1

    def dot(
        self, axes: tuple[str, ...], left: Value, right: Value, axis: str, start: Value | None
    ) -> str:
        """Return the text of a dot: operands turned so that the contracted axis is inside."""
        a, b = axes
        sides = []
        for value, wanted in ((left, (a, axis)), (right, (axis, b))):
            own = self.ordered(value_axes(value))
            text = self.value(value, own)
            sides.append(text if own == wanted else f"tl.trans({text})")
        options = "" if start is None else f", {self.broadcast(start, axes)}"
        if isinstance(start, Number):
            options = ""
        wide = any(self.dtype32(v) for v in (left, right))
        options += f', input_precision="{self.nest.precision}"' if wide else ""
        return f"tl.dot({sides[0]}, {sides[1]}{options})"

    def dtype32(self, value: Value) -> bool:
        """Whether an operand of a dot is in float32."""
        match value:
            case Ref(var=var):
                return var.dtype == "float32"
            case Cast(dtype=dtype):
                return dtype == "float32"
            case _:
                return True

    # addresses

    def address(
        self,
        tensor: str,
        coordinates: tuple[Value, ...],
        axes: tuple[str, ...],
        *,
        clamp: bool = True,
    ) -> str:
        """Return the addresses of a tile, as text."""
        base, moving, terms = self.base(tensor, coordinates), [], []
        for k, c in enumerate(coordinates):
            stride = self.strides[(tensor, k)]
            match c:
                case Index(axis=name) if self.axes[name].first:
                    axis = self.axes[name]
                    tiled = any(g.rank == axis.rank for g in self.nest.grid)
                    if not tiled:
                        moving.append(f"tl.cast({axis.first}, tl.int64) * {stride}")
                    row = f"{axis.rank}_safe" if tiled and clamp else f"{axis.rank}_row"
                    terms.append(f"{self.expand(row, (name,), axes)} * {stride}")
                case Index(axis=name):
                    terms.append(f"{self.expand(name, (name,), axes)} * {stride}")
                case Op("+", (begin, Index(axis=name, row=True))) if not value_axes(begin):
                    moving.append(f"tl.cast({self.value(begin, ())}, tl.int64) * {stride}")
                    row = self.expand(f"{self.axes[name].rank}_row", (name,), axes)
                    terms.append(f"{row} * {stride}")
                case _ if value_axes(c):
                    text = self.broadcast(c, axes, tight=True)
                    terms.append(f"{text}.to(tl.int64) * {stride}")
                case _ if self.varies(c):
                    moving.append(f"tl.cast({self.value(c, ())}, tl.int64) * {stride}")
        return " + ".join([base, *moving, *terms])

    def descriptor(self, load: Load) -> str:
        """Return the descriptor of a tensor's rows and columns under the program's coordinates."""
        base = self.base(load.tensor, load.coordinates)
        rows, columns = (self.axes[a] for a in load.var.axes)
        key = f"{base} {rows.name} {columns.width}"
        if key not in self.bases:
            place = next(k for k, c in enumerate(load.coordinates) if value_axes(c))
            width = max(a.offset + a.valid for a in self.nest.axes if a.rank == columns.rank)
            name = self.names.take(f"{load.tensor}_box")
            shape = f"[{self.sizes[rows.rank]}, {width}], [{self.strides[load.tensor, place]}, 1]"
            box = f"[{rows.constant}, {columns.width}]"
            self.add(f"{name} = tl.make_tensor_descriptor({base}, {shape}, {box})")
            self.bases[key] = name
        return self.bases[key]

    def base(self, tensor: str, coordinates: tuple[Value, ...]) -> str:
        """Return the pointer to a tile, as far as the program's coordinates fix it."""
        terms = []
        for k, c in enumerate(coordinates):
            stride = self.strides[(tensor, k)]
            if isinstance(c, Index) and any(
                g.rank == self.axes[c.axis].rank and g.tile for g in self.nest.grid
            ):
                terms.append(f"tl.cast({self.axes[c.axis].first}, tl.int64) * {stride}")
            elif not value_axes(c) and not self.varies(c) and c != Number(0):
                terms.append(f"tl.cast({self.value(c, ())}, tl.int64) * {stride}")
        if not terms:
            return tensor
        text = f"{tensor} + " + " + ".join(terms)
        if text not in self.bases:
            name = self.names.take(f"{tensor}_at")
            self.add(f"{name} = {text}")
            self.bases[text] = name
        return self.bases[text]

    def varies(self, value: Value) -> bool:
        """Whether a scalar changes while the program runs: it reads a variable or a loop."""
        match value:
            case Ref():
                return True
            case Scalar(name=name):
                still = any(f"{g.rank}_first" == name for g in self.nest.grid)
                walked = any(a.first == name for a in self.nest.axes)
                return name in self.moving or (walked and not still)
            case Op(operands=operands):
                return any(self.varies(x) for x in operands)
            case Cast(value=inner):
                return self.varies(inner)
            case _:
                return False
