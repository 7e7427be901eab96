"""Print statements of a loop nest in Gluon, where every tile says which threads hold it.

A tile's layout follows from its axes. Rows and columns of a product lie as tensor cores leave them;
a vector along one of the axes lies as a reduction of such a tile leaves it, so that no value ever
changes threads: a row's values stay with the threads that hold the row.
"""

from __future__ import annotations

import re

from .gluon_spare import spare
from .gluon_text import PIECES
from .gluon_told import told_of
from .gluon_turns import taking_turns
from .in_order import carrier
from .loop_nest import Axis, Fold, Let, Load, Nest, Number, Statement, Value, value_axes
from .operands import of_every_row
from .schedule import Schedule
from .triton import Printer
from .triton_operators import number


class GluonPrinter(Printer):
    """The text of one function of a Gluon kernel while it is written."""

    def __init__(self, nest: Nest, plan: Schedule) -> None:
        super().__init__(nest)
        assert nest.crew is not None
        self.plan, self.crew = plan, nest.crew
        self.told = told_of(nest, plan)
        self.spare = spare(nest, plan, self.told)
        self.paired = self.crew.persistent and self.crew.paired
        if self.warps > 1:
            self.warps = self.crew.warps
        self.depth = 1 + self.crew.persistent + self.paired
        self.rows, self.columns = plan.rows.name, plan.columns.name
        self.layouts: dict[tuple[str, ...], None] = {}
        self.pieces: dict[str, None] = {}

    def carrier(self, load: Load) -> str:
        """Return the name of the tile whose barriers a fetched tile or vector comes under."""
        return load.var.name if self.crew.rotated else carrier(self.plan, load).var.name

    def overlap(self) -> None:
        """Say nothing of other kernels: the main function does."""

    def header(self) -> None:
        """Decode a tile's coordinates; a pair is the last left and the first.

        Where programs take turns, some coordinates' first tiles come ahead of their second ones.
        """
        super().header()
        rank = self.plan.rows.rank
        if self.crew.in_turn:
            self.lines = taking_turns(self.lines, self.nest, self.plan.columns, self.sizes)
        if not self.paired:
            return
        k = next(k for k, x in enumerate(self.lines) if x.strip().startswith(f"{rank}_tile = "))
        line = self.lines.pop(k)
        order = line.partition(" = ")[2].rpartition(" - 1 - ")[2]
        count = order.partition(" % ")[2]
        indent = "    " * self.depth
        half = f"{rank}_order // 2"
        self.lines.insert(k, f"{indent}{rank}_order = {order}")
        last = f"{count} - 1 - {half}"
        test = f"{rank}_order % 2 == 0"
        self.lines.insert(k + 1, f"{indent}{rank}_tile = gl.where({test}, {last}, {half})")

    def add(self, line: str) -> None:
        """Append a line; Gluon has the same functions as Triton, in a module of its own."""
        line = re.sub(r"\btl\.", "gl.", line)
        for name in PIECES:
            if f"{name}(" in line and re.search(rf"(?<![.\w]){name}\(", line):
                self.pieces.setdefault(name)
        super().add(line)

    # layouts

    def layout(self, axes: tuple[str, ...]) -> str:
        """Return the name of a tile's layout."""
        if len(axes) == 1:
            axis = axes[0]
            other = self.columns if axis == self.rows else axis
            self.layouts.setdefault((self.rows, other))
        self.layouts.setdefault(axes)
        return layout_name(axes)

    def extent(self, axis: str) -> str:
        """Return how wide a tile is along an axis, as text."""
        if axis == self.rows:
            return "ROWS"
        return self.axes[axis].constant or str(self.axes[axis].width)

    def arange(self, axis: Axis) -> str:
        """Return the places along an axis; of the rows each consumer has its share."""
        places = f"tl.arange(0, {self.extent(axis.name)}, layout={self.layout((axis.name,))})"
        return f"CONSUMER * ROWS + {places}" if axis.name == self.rows else places

    def expand(self, text: str, own: tuple[str, ...], axes: tuple[str, ...]) -> str:
        """Give a value of fewer axes the shape, and the layout, in which it broadcasts."""
        if own == (self.rows,) and len(axes) == 2 and axes[1] != self.columns:
            return f"across({text}, {self.layout(axes)})"
        return super().expand(text, own, axes)

    def spread(self, value: Value, axes: tuple[str, ...], dtype: str) -> str:
        """Return a value repeated over axes along which it does not vary."""
        if not axes:
            return super().spread(value, axes, dtype)
        shape = ", ".join(self.extent(a) for a in axes)
        kind = "gl." + dtype.replace("bool", "int1")
        if isinstance(value, Number):
            text = number(value.value)
            return f"tl.full([{shape}], {text}, {kind}, {self.layout(axes)})"
        zero = f"tl.full([{shape}], 0, {kind}, {self.layout(axes)})"
        return f"{self.broadcast(value, axes, tight=True)} + {zero}"

    # statements

    warps = 4
    """Warps of the group that runs the function."""

    def statement(self, statement: Statement) -> None:
        """Print one statement."""
        match statement:
            case Fold(axis=axis) if axis == self.rows:
                self.fold_rows(statement)
            case Fold(var=var, value=value) if (axes := self.ordered(value_axes(value))) != (
                self.rows,
                self.columns,
            ) and len(axes) == 2:
                super().statement(statement)
                line = self.lines.pop().strip()
                name, _, text = line.partition(" = ")
                self.add(f"{name} = tl.convert_layout({text}, {self.layout(var.axes)})")
            case _:
                super().statement(statement)

    def fold_rows(self, fold: Fold) -> None:
        """Print a reduction over all rows of a tile, which every group of warps makes alone."""
        load, rank = of_every_row(fold, self.plan.setup, self.rows), self.plan.rows.rank
        assert load is not None
        places = f"{rank}_every"
        last = f"{rank}_last - {rank}_first"
        self.add(f"{places} = every_row({self.plan.rows.constant}, {last}, {self.warps})")
        address = self.address(load.tensor, load.coordinates, load.var.axes)
        address = re.sub(rf"\b{rank}_safe\b", places, address)
        self.add(f"{fold.var.name} = tl.{fold.reducer}(tl.load({address}), axis=0)")

    def defined(self, statement: Statement) -> str:
        """Return the name that a statement defines, "" if none."""
        return statement.var.name if isinstance(statement, Let | Fold) else ""


def layout_name(axes: tuple[str, ...]) -> str:
    """Return the constant that holds the layout of tiles over these axes."""
    words = [a.upper() for a in axes]
    return f"ALONG_{words[0]}" if len(words) == 1 else "_BY_".join(words)


def layout_text(
    axes: tuple[str, ...], rows: str, columns: str, width: int, *, wide: bool = False
) -> str:
    """Return the definition of a layout; ``width`` is that of its last axis."""
    if len(axes) == 1:
        axis = axes[0]
        place, other = (1, columns) if axis == rows else (0, axis)
        return f"gl.SliceLayout({place}, {layout_name((rows, other))})"
    halves = 2 if wide else 1
    return f"gl.NVMMADistributedLayout([3, 0], [4, {halves}], [16, {width // halves}, 16])"
