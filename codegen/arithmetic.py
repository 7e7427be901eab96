"""Arithmetic on values: what dtype it has, quotients that round down."""

from __future__ import annotations

from .loop_nest import Cast, Index, Number, Op, Ref, Scalar, Value

NARROW = ("float16", "bfloat16")
BOOLEAN = ("and", "or", "not", "==", "!=", "<", "<=", ">", ">=")
ARITHMETIC = ("+", "-", "*", "neg", "abs", "min", "max", "//", "%", "bit_length")
INTEGER = ("//", "%", "cdiv", "bit_length", "falling", "<<", "scramble")
REAL = (
    "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "/",
    "quotient", "fraction",
)  # fmt: skip


def value_dtype(value: Value) -> str:
    """Return the dtype of a value."""
    match value:
        case Ref(var=var):
            return var.dtype
        case Number(value=number):
            kind = type(number)
            return "bool" if kind is bool else "int32" if kind is int else "float32"
        case Scalar(dtype=dtype) | Cast(dtype=dtype):
            return dtype
        case Index():
            return "int32"
        case Op(operator=operator) if operator in BOOLEAN:
            return "bool"
        case Op(operator=operator) if operator in INTEGER:
            return "int32"
        case Op(operator=operator) if operator in REAL:
            return "float32"
        case Op("where", (_, x, y)):
            return joined((x, y))
        case Op(operands=operands):
            return joined(operands)


def joined(values: tuple[Value, ...]) -> str:
    """Return the dtype of arithmetic on several values."""
    found = {value_dtype(v) for v in values}
    if found & {"float32", "float64", *NARROW}:
        return "float32"
    return "int64" if "int64" in found else "int32" if found != {"bool"} else "bool"


def real_quotient(operator: str, x: Value, y: Value) -> Value:
    """Return ``x // y`` or ``x % y`` of real numbers; either is 0 where y is 0."""
    whole = Op("floor", (Op("quotient", (x, y)),))
    if operator == "//":
        return whole
    rest = Op("-", (x, Op("*", (y, whole))))
    return Op("where", (Op("==", (y, Number(0.0))), Number(0.0), rest))


def truth(value: Value) -> Value:
    """Return a number as a condition: whether it is not 0."""
    return value if value_dtype(value) == "bool" else Op("!=", (value, Number(0)))
