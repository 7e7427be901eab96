"""Tests of a tile's points that compare each column with a constant.

Of a row a thread holds pairs of columns, eight columns apart. So a column is a number that the text
knows, but for the thread's place among the four that share a row. With that place on the side of
the limit, which is one number a row, a point takes one comparison with a constant::

    m_first + m_row < limit    -->    columns(M0) < reach(limit, m_first, M0)

A limit far outside the tile is brought to its edge, so that no difference overflows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bounds import MIRRORED, bound, conjuncts
from .loop_nest import Cast, Index, Number, Op, Ref, Scalar, Value, value_axes

if TYPE_CHECKING:
    from .gluon_values import GluonPrinter

PIECES = {
    "columns": '''@gluon.jit
def columns(WIDTH: gl.constexpr):
    """The columns of a tile, less twice the thread's place among those that share a row."""
    EIGHTS: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    PAIR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(2, held(WIDTH))))
    eights = gl.arange(0, WIDTH // 8, layout=EIGHTS)[None, :, None, None]
    return 8 * eights + gl.arange(0, 2, layout=PAIR)[None, None, None, :]''',
    "reach": '''@gluon.jit
def reach(limit, first, WIDTH: gl.constexpr):
    """How far into a tile a limit of each row reaches, in terms of ``columns``."""
    ROW: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    FOUR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(3, held(WIDTH))))
    limit = gl.minimum(gl.maximum(limit, first - 1), first + WIDTH) - first
    limit = gl.convert_layout(limit, ROW, assert_trivial=True)[:, None, None, None]
    return limit - 2 * gl.arange(0, 4, layout=FOUR)[None, None, :, None]''',
    "as_tile": '''@gluon.jit
def as_tile(x, WIDTH: gl.constexpr, LAYOUT: gl.constexpr):
    """What was asked of ``columns``, as a tile; nothing changes threads."""
    return gl.convert_layout(x.reshape([ROWS, WIDTH]), LAYOUT, assert_trivial=True)''',
    "lowest": '''@gluon.jit
def lowest():
    """Minus infinity, of which no compiler knows what a product makes: it would ask again there."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, 0fFF800000;",
        "=f,r",
        [gl.to_tensor(0)],
        dtype=gl.float32,
        is_pure=True,
        pack=1,
    )''',
    "held": '''@gluon.constexpr_function
def held(width):
    """Which thread holds what of a tile: rows, columns by eights, by places, and pairs."""
    eights = [[0, 2**k, 0, 0] for k in range((width // 8).bit_length() - 1)]
    return gl.DistributedLinearLayout(
        [[0, 0, 0, 1], [8, 0, 0, 0], *eights],
        [[0, 0, 1, 0], [0, 0, 2, 0], [1, 0, 0, 0], [2, 0, 0, 0], [4, 0, 0, 0]],
        [[16, 0, 0, 0], [32, 0, 0, 0]],
        [],
        [64, width // 8, 4, 2],
    )''',
}
"""The functions by name."""

NEEDED_BY = {"columns": ("held",), "reach": ("held",)}
"""Which functions a function calls."""

WHOLE = ("+", "-", "*", "//", "%", "min", "max", "neg", "cdiv")
"""Operators that make whole numbers of whole numbers."""


def point_test(printer: GluonPrinter, value: Value) -> str:
    """Return a test of a tile's points as text, "" if it compares no column with a limit."""
    axes = (printer.rows, printer.columns)
    found = [(x, asked(printer, x)) for x in conjuncts([value])]
    columns = [text for _, text in found if text]
    if not columns:
        return ""
    joined = columns[0] if len(columns) == 1 else " & ".join(f"({x})" for x in columns)
    width = printer.extent(printer.columns)
    first = f"as_tile({joined}, {width}, {printer.layout(axes)})"
    others = [f"({printer.broadcast(x, axes)})" for x, text in found if not text]
    return " & ".join([first, *others])


def asked(printer: GluonPrinter, value: Value) -> str:
    """Return what a test asks of columns and limits alone, "" if it asks more."""
    match value:
        case Op("and" | "or" as operator, operands):
            texts = [asked(printer, x) for x in operands]
            sign = {"and": " & ", "or": " | "}[operator]
            return sign.join(f"({x})" for x in texts) if all(texts) else ""
    at = Index(printer.columns)
    sign, limit = bound(value, at)
    if sign not in MIRRORED or not value_axes(limit) <= {printer.rows}:
        return ""
    if not whole(limit):
        return ""
    rows = (printer.rows,)
    text = printer.value(limit, rows) if value_axes(limit) else printer.spread(limit, rows, "int32")
    width = printer.extent(printer.columns)
    return f"columns({width}) {sign} reach({text}, {printer.plan.columns.first}, {width})"


def whole(value: Value) -> bool:
    """Whether a value is made of whole numbers of 32 bits alone."""
    match value:
        case Number(value=number):
            return type(number) is int
        case Op(operator=operator, operands=operands):
            return operator in WHOLE and all(whole(x) for x in operands)
        case Cast(dtype=dtype) | Scalar(dtype=dtype):
            return dtype == "int32"
        case Ref(var=var):
            return var.dtype == "int32"
        case Index():
            return True
