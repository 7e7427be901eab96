"""Expressions that are one number everywhere: constants, parameters, sizes and their like."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, isfinite, sqrt

from .cascade import Scalar
from .expression import Apply, Constant, Expression, Parameter, Size


def scalar(
    expression: Expression, sizes: Mapping[str, int], parameters: Mapping[str, Scalar]
) -> Scalar | None:
    """Return the number that the expression is everywhere, or None where it varies or is unknown.

    Follows the interpreter: a quotient by 0 is 0, integers stay exact.
    """
    match expression:
        case Constant(value=value):
            return value
        case Parameter(name=name):
            return parameters.get(name)
        case Size(rank=rank):
            return sizes.get(rank)
        case Apply(operator=operator, operands=operands):
            values = [scalar(x, sizes, parameters) for x in operands]
            numbers = [x for x in values if x is not None]
            return _fold(operator, numbers) if len(numbers) == len(operands) else None
        case _:
            return None


def _fold(operator: str, x: list[Scalar]) -> Scalar | None:
    match operator, x:
        case "+", [a, b]:
            return a + b
        case "-", [a, b]:
            return a - b
        case "*", [a, b]:
            return a * b
        case "/", [a, b]:
            return a / b if b else 0.0
        case "//", [a, b]:
            return a // b if b else 0
        case "%", [a, b]:
            return a % b if b else 0
        case "neg", [a]:
            return -a
        case "abs", [a]:
            return abs(a)
        case "floor", [a] if isfinite(a):
            return floor(a)
        case "ceil", [a] if isfinite(a):
            return ceil(a)
        case "sqrt", [a] if a >= 0:
            return sqrt(a)
        case "bit_length", [a]:
            return int(a).bit_length()
        case "min", [_, *_]:
            return min(x)
        case "max", [_, *_]:
            return max(x)
        case _:
            return None
