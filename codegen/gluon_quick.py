"""Functions of a tile's points in Gluon that are as exact as operands in half precision."""

from __future__ import annotations

from .loop_nest import Number, Op, Value, value_axes

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

QUICK: dict[str, str] = {
    "quick_tanh": '''@gluon.jit
def quick_tanh(x):
    """The hyperbolic tangent to 11 bits, as many as operands in half precision have."""
    return gl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
    )''',
    "quick_log2": '''@gluon.jit
def quick_log2(x):
    """The logarithm to base two by one instruction, to 22 bits; of less than 2^-126 that of 0."""
    return gl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
    )''',
    "quick_logistic": '''@gluon.jit
def quick_logistic(x):
    """1 / (1 + 2^x), by the reciprocal that is one instruction."""
    x = 1.0 + gl.exp2(x)
    return gl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
    )''',
}
"""The functions by name."""


def times(value: Value, factor: float) -> Value:
    """Return a value times a number, which is taken into its terms and joined with theirs."""
    match value:
        case Number(value=n):
            return Number(n * factor)
        case Op("+" | "-" | "neg", operands):
            return Op(value.operator, tuple(times(x, factor) for x in operands))
        case Op("*", (x, y)) if not value_axes(y):
            return Op("*", (x, times(y, factor)))
        case Op("*", (x, y)) if not value_axes(x):
            return Op("*", (times(x, factor), y))
        case Op("/", (x, Number(value=n))):
            return Op("*", (x, Number(factor / n)))
        case _:
            return Op("*", (value, Number(factor)))
