"""Numbers that grow by equal steps along columns (``slopes.py``), as Gluon writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loop_nest import Value, value_axes

if TYPE_CHECKING:
    from .gluon_values import GluonPrinter

PIECES = {
    "along": '''@gluon.jit
def along(begin, step, WIDTH: gl.constexpr, LAYOUT: gl.constexpr):
    """begin + step * column, of each row, by a fused multiplication with a constant."""
    ROW: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    EIGHTS: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    FOUR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(3, held(WIDTH))))
    PAIR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(2, held(WIDTH))))
    begin = gl.convert_layout(begin, ROW, assert_trivial=True)[:, None, None, None]
    begin = begin + step * (2 * gl.arange(0, 4, layout=FOUR)[None, None, :, None])
    eights = 8 * gl.arange(0, WIDTH // 8, layout=EIGHTS)[None, :, None, None]
    column = eights + gl.arange(0, 2, layout=PAIR)[None, None, None, :]
    return as_tile(gl.fma(column.to(gl.float32), step, begin), WIDTH, LAYOUT)''',
}
"""The function: what a thread holds of a row are columns that the text knows but for its place."""

NEEDED_BY = {"along": ("as_tile", "held")}
"""Which functions it calls."""


def slope_text(printer: GluonPrinter, step: Value, begin: Value) -> str:
    """Return ``begin`` + ``step`` * column as text, a tile."""
    rows, axes = (printer.rows,), (printer.rows, printer.columns)
    spread = not value_axes(begin)
    text = printer.spread(begin, rows, "float32") if spread else printer.value(begin, rows)
    width, layout = printer.extent(printer.columns), printer.layout(axes)
    return f"along({text}, {printer.value(step, ())}, {width}, {layout})"
