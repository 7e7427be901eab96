"""Tests of a tile's points that ask each row for its limits, and each point for one bit.

Of a row a thread holds pairs of columns, eight columns apart, 32 of 128. So what limits leave of a
row is a number of 32 bits for each thread that shares the row, made once a tile from the limits and
the thread's place among the four. A point then takes one selection: seven bits at a time become
predicates by one instruction, if the bits are asked for one after the other::

    m_first + m_row < limit    -->    below(limit, m_first, M0)
    where(live, s, -inf)       -->    kept(s, live, ...)

A limit far outside the tile is brought to its edge, so that no difference overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bounds import MIRRORED, bound, conjuncts, stepped
from .loop_nest import Cast, Index, Number, Op, Ref, Scalar, Value, value_axes

if TYPE_CHECKING:
    from .gluon_values import GluonPrinter

WIDEST = 128
"""The most columns of a tile of which a thread holds no more than a number has bits."""

PIECES = {
    "below": '''@gluon.jit
def below(limit, first, WIDTH: gl.constexpr):
    """The columns of a tile that lie below a limit of each row: a bit for each a thread holds."""
    ROW: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    FOUR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(3, held(WIDTH))))
    reach = (gl.minimum(gl.maximum(limit, first), first + WIDTH) - first).to(gl.int32)
    reach = gl.convert_layout(reach, ROW, assert_trivial=True)[:, None, None, None]
    reach = gl.maximum(reach - 2 * gl.arange(0, 4, layout=FOUR)[None, None, :, None], 0)
    return first_bits(2 * (reach // 8) + gl.minimum(reach % 8, 2))''',
    "first_bits": '''@gluon.jit
def first_bits(count):
    """Numbers whose first bits are set; the count may be 32."""
    return gl.inline_asm_elementwise(
        "bmsk.clamp.b32 $0, 0, $1;", "=r,r", [count], dtype=gl.int32, is_pure=True, pack=1
    )''',
    "as_tile": '''@gluon.jit
def as_tile(x, WIDTH: gl.constexpr, LAYOUT: gl.constexpr):
    """What was made for each column that a thread holds, as a tile; nothing changes threads."""
    return gl.convert_layout(x.reshape([ROWS, WIDTH]), LAYOUT, assert_trivial=True)''',
    "column_bits": '''@gluon.jit
def column_bits(WIDTH: gl.constexpr):
    """The bit of each column among those that a thread holds."""
    EIGHTS: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, gl.SliceLayout(3, held(WIDTH))))
    PAIR: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(2, held(WIDTH))))
    eights = gl.arange(0, WIDTH // 8, layout=EIGHTS)[None, :, None, None]
    return 1 << (2 * eights + gl.arange(0, 2, layout=PAIR)[None, None, None, :])''',
    "live_points": '''@gluon.jit
def live_points(bits, WIDTH: gl.constexpr, LAYOUT: gl.constexpr):
    """Whether the bit of a point's column is set."""
    return as_tile((bits & column_bits(WIDTH)) != 0, WIDTH, LAYOUT)''',
    "kept": '''@gluon.jit
def kept(x, bits, OTHER: gl.constexpr, WIDTH: gl.constexpr, LAYOUT: gl.constexpr):
    """A tile where the bit of a point's column is set, and another number elsewhere."""
    bits, one = gl.broadcast(bits, column_bits(WIDTH))
    return gl.inline_asm_elementwise(
        keeping(OTHER),
        "=f,f,r,r",
        [x, as_tile(bits, WIDTH, LAYOUT), as_tile(one, WIDTH, LAYOUT)],
        dtype=gl.float32,
        is_pure=True,
        pack=1,
    )''',
    "keeping": '''@gluon.constexpr_function
def keeping(other):
    """Assembly that asks for a bit and selects by it at once; the other number is 0 or -inf."""
    return (
        "{ .reg .pred p; .reg .b32 t; and.b32 t, $2, $3; setp.ne.s32 p, t, 0; "
        "selp.f32 $0, $1, " + ("0f00000000" if other == 0 else "0fFF800000") + ", p; }"
    )''',
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

NEEDED_BY = {
    "below": ("first_bits", "held"),
    "live_points": ("as_tile", "column_bits", "held"),
    "kept": ("as_tile", "column_bits", "held", "keeping"),
}
"""Which functions a function calls."""

WHOLE = ("+", "-", "*", "//", "%", "min", "max", "neg", "cdiv")
"""Operators that make whole numbers of whole numbers."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A test of a tile's points: bits for each row as text, and tests that ask more of a point."""

    bits: str
    others: tuple[Value, ...]


def point_test(printer: GluonPrinter, value: Value) -> Tested | None:
    """Return what a test of a tile's points asks of columns by bits; None if it is nothing."""
    if printer.axes[printer.columns].width > WIDEST:
        return None
    found = [(x, asked(printer, x)) for x in conjuncts([value])]
    bits = [text for _, text in found if text]
    if not bits:
        return None
    joined = bits[0] if len(bits) == 1 else " & ".join(map(bracketed, bits))
    return Tested(joined, tuple(x for x, text in found if not text))


def asked(printer: GluonPrinter, value: Value) -> str:
    """Return bits of a test that asks of columns and limits alone, "" if it asks more."""
    match value:
        case Op("and" | "or" as operator, operands):
            texts = [asked(printer, x) for x in operands]
            sign = {"and": " & ", "or": " | "}[operator]
            return sign.join(map(bracketed, texts)) if all(texts) else ""
    at = Index(printer.columns)
    sign, limit = bound(value, at)
    if sign not in MIRRORED or not value_axes(limit) <= {printer.rows} or not whole(limit):
        return ""
    if sign in ("<=", ">"):
        limit = stepped(limit, 1)
    rows = (printer.rows,)
    text = printer.value(limit, rows) if value_axes(limit) else printer.spread(limit, rows, "int32")
    width = printer.extent(printer.columns)
    bits = f"below({text}, {printer.plan.columns.first}, {width})"
    return bits if sign[0] == "<" else f"~{bits}"


def bracketed(text: str) -> str:
    """Return bits as an operand of others."""
    return f"({text})" if " | " in text or " & " in text else text


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
