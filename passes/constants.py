"""Constants: what an operator gives on numbers, by the rules of the language.

A quotient by 0 is 0; integers stay integers where the operator allows it; where integers meet
floats they become floats; truth values count as 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.cascade import Scalar

_COMPARE: dict[str, Callable[[Scalar, Scalar], bool]] = {
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
}

_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "exp2": lambda x: 2.0**x,
    "log": lambda x: math.log(x) if x else -math.inf,
    "log2": lambda x: math.log2(x) if x else -math.inf,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x else math.inf,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)),
    "erf": math.erf,
    "sin": math.sin,
    "cos": math.cos,
}
"""Functions whose last bit may differ from one machine to another."""


def compute(operator: str, operands: Sequence[Scalar], *, exact: bool = False) -> Scalar | None:
    """Return what an operator of ``OPERATORS`` gives on numbers, or None where that stays open.

    Open are results that are not a number or no 64-bit integer, and, where ``exact`` is asked for,
    functions that are not rounded alike everywhere.
    """
    try:
        result = _compute(operator, list(operands), exact)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    if isinstance(result, complex) or result is None:
        return None
    if isinstance(result, float) and math.isnan(result):
        return None
    if isinstance(result, int) and not -(2**63) <= result < 2**63:
        return None
    return result


def _compute(operator: str, x: list[Scalar], exact: bool) -> Scalar | None:
    match operator, x:
        case "and", _:
            return all(x)
        case "or", _:
            return any(x)
        case "not", [a]:
            return not a
        case "where", [condition, a, b]:
            one, two = _unify([a, b])
            return one if condition else two
        case ("default", [a, _]) | ("stop_gradient", [a]):
            return a
        case _:
            pass
    if operator in _COMPARE:
        a, b = _unify(x)
        return _COMPARE[operator](a, b)
    if operator in _FUNCTIONS:
        return None if exact else _FUNCTIONS[operator](float(x[0]))
    return _arithmetic(operator, [_number(a) for a in _unify(x)])


def _arithmetic(operator: str, x: list[int | float]) -> int | float | None:
    match operator, x:
        case "+", [a, b]:
            return a + b
        case "-", [a, b]:
            return a - b
        case "*", [a, b]:
            return a * b
        case "/", [a, b]:
            return float(a) / float(b) if b else 0.0
        case "//", [a, b]:
            return a // b if b else a * 0
        case "%", [a, b]:
            return a % b if b else a * 0
        case "**", [a, b]:
            whole = isinstance(a, int) and isinstance(b, int) and b >= 0
            return a**b if whole else math.pow(a, b)
        case "neg", [a]:
            return -a
        case "abs", [a]:
            return abs(a)
        case "relu", [a]:
            return max(a, a * 0)
        case "sqrt", [a]:
            return math.sqrt(a)
        case "floor", [a]:
            return a if isinstance(a, int) else float(math.floor(a))
        case "ceil", [a]:
            return a if isinstance(a, int) else float(math.ceil(a))
        case "bit_length", [a]:
            return abs(math.floor(a)).bit_length()
        case "min", [_, *_]:
            return min(x)
        case "max", [_, *_]:
            return max(x)
        case _:
            return None


def _number(x: Scalar) -> int | float:
    return int(x) if isinstance(x, bool) else x


def _unify(x: Sequence[Scalar]) -> list[Scalar]:
    """Bring numbers to one kind: all truth values, all integers or all floats."""
    if any(isinstance(a, float) for a in x):
        return [float(a) for a in x]
    return list(x) if all(isinstance(a, bool) for a in x) else [int(a) for a in x]
