"""Arithmetic on intervals: what an operator gives when its operands lie between bounds.

Bounds are inclusive, and integers stay integers, so nothing is rounded where the filter is made of
coordinates. Division, floor division and modulo follow Python, with the language's quotient by 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil, erf, exp, floor, inf, isfinite, isnan, log, log2, sqrt, tanh

from .operators import OPERATORS

Number = int | float
Interval = tuple[Number, Number]

UNKNOWN: Interval = (-inf, inf)


def apply_to_intervals(name: str, operands: list[Interval]) -> Interval:
    """Return bounds of an operator's result from bounds of its operands.

    A result that cannot be bounded, and one that is not a number at some end, is unknown.
    """
    result = _apply(name, operands)
    return UNKNOWN if any(isnan(x) for x in result) else result


def _apply(name: str, operands: list[Interval]) -> Interval:
    match name, operands:
        case "+", [(a, b), (c, d)]:
            return a + c, b + d
        case "-", [(a, b), (c, d)]:
            return a - d, b - c
        case "neg", [(a, b)]:
            return -b, -a
        case "*", [x, y]:
            return times(x, y)
        case "/", [x, (c, d)]:
            if c <= 0 <= d:
                return (0, 0) if c == d else UNKNOWN
            corners = [a / b for a, b in product(x, (c, d)) if not (_endless(a) and _endless(b))]
            return (min(corners), max(corners)) if len(corners) == 4 else UNKNOWN
        case "//", [x, y]:
            return _floor_divide(x, y)
        case "%", [x, y]:
            return _modulo(x, y)
        case "**", [x, y]:
            return _power(x, y)
        case "abs", [(a, b)]:
            return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
        case "min", _:
            return min(a for a, _ in operands), min(b for _, b in operands)
        case "max", _:
            return max(a for a, _ in operands), max(b for _, b in operands)
        case "bit_length", [x]:
            low, high = _apply("abs", [x])
            return _bit_length(low), _bit_length(high)
        case "floor" | "ceil", [(a, b)]:
            whole: Callable[[Number], int] = floor if name == "floor" else ceil
            return (a if _endless(a) else whole(a)), (b if _endless(b) else whole(b))
        case "stop_gradient", [x]:
            return x
        case _, [x] if name in _RISING:
            low, high = OPERATORS[name].bounds
            a, b = (_widened(name, end, sign) for end, sign in zip(x, (-1, 1), strict=True))
            return max(a, low), min(b, high)
        case _:
            return OPERATORS[name].bounds


_RISING: dict[str, Callable[[float], float]] = {
    "exp": exp,
    "exp2": lambda x: 2.0**x,
    "log": lambda x: log(x) if x > 0 else -inf,
    "log2": lambda x: log2(x) if x > 0 else -inf,
    "sqrt": lambda x: sqrt(x) if x > 0 else 0.0,
    "tanh": tanh,
    "erf": erf,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + exp(-x)) if x > -700 else 0.0,
}


def _widened(name: str, x: Number, sign: int) -> float:
    """Apply a rising operator to one end; another library may round it a little differently."""
    try:
        y = _RISING[name](x)
    except OverflowError:
        return inf
    return y + sign * 1e-12 * abs(y) if isfinite(y) else y


def _endless(x: Number) -> bool:
    return not isfinite(x)


def times(x: Interval, y: Interval) -> Interval:
    """Return bounds of a product; 0 times anything is 0, even where the other has no bound."""
    corners = [0 if a == 0 or b == 0 else a * b for a, b in product(x, y)]
    return min(corners), max(corners)


def _floor_divide(x: Interval, y: Interval) -> Interval:
    if y[0] <= 0 <= y[1]:
        if y == (0, 0):
            return 0, 0
        reach = max(abs(x[0]), abs(x[1]))
        return (-reach, reach) if isinstance(y[0], int) and isinstance(y[1], int) else UNKNOWN
    corners: list[Number] = []
    for a, b in product(x, y):
        if _endless(b):
            corners += [0, -1] if isfinite(a) else [-inf, inf]
        else:
            corners.append(a // b if isfinite(a) else (a if b > 0 else -a))
    return min(corners), max(corners)


def _modulo(x: Interval, y: Interval) -> Interval:
    (a, b), (c, d) = x, y
    if c <= 0 or not all(isinstance(v, int) for v in (*x, *y)):
        return (0, d) if c > 0 else UNKNOWN
    if c == d and a // c == b // c:
        return a % c, b % c
    return 0, min(d - 1, b) if a >= 0 else d - 1


def _power(x: Interval, y: Interval) -> Interval:
    (a, b), (c, d) = x, y
    if not all(map(isfinite, (*x, *y))) or max(abs(c), abs(d)) > 256:
        return (0, inf) if a >= 0 else UNKNOWN
    if a <= 0 and (c < 0 or c != d or isinstance(c, float)):
        return UNKNOWN
    if a <= 0 and c % 2 == 0:
        reach = max(abs(a), abs(b)) ** c
        return (0 if a <= 0 <= b and c else min(a**c, b**c)), reach
    corners = [p**q for p, q in product(x, y)]
    return min(corners), max(corners)


def _bit_length(x: Number) -> Number:
    return int(x).bit_length() if isfinite(x) else 64
