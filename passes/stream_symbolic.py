"""Symbolic algebra: rewrite an expression whose structure hides that it separates.

The one border to sympy. It is asked only after structural separation failed and no minor shows that
there is nothing to find, so that no time is spent where the answer is no.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
    walk,
)
from .separate import Roles, Stuck, separate
from .stream_refusal import minor
from .stream_terms import size

LARGEST = 60
"""Nodes beyond which an expression is not handed on: algebra would take too long."""

_CALLS = ("exp", "log", "tanh", "sin", "cos", "erf", "sqrt", "sigmoid", "exp2", "log2", "rsqrt")


@lru_cache(maxsize=512)
def simplified(expression: Expression, roles: Roles) -> Expression | None:
    """Return an equal expression that separates, or None.

    Divisors may cancel in it: where one is 0, the quotient by 0 that was 0 is continued. Cached by
    expression and roles.
    """
    inside = [x for x in walk(expression) if isinstance(x, Apply)]
    plain = {"+", "-", "*", "/", "neg", "**", *_CALLS}
    if size(expression) > LARGEST or any(x.operator not in plain for x in inside):
        return None
    if minor(expression, roles) is not None:
        return None
    import sympy  # type: ignore[import-untyped]

    leaves: dict[Expression, Any] = {}
    whole = to_sympy(expression, leaves)
    if whole is None:
        return None
    back = {symbol: leaf for leaf, symbol in leaves.items()}
    for attempt in (sympy.cancel, sympy.expand, sympy.factor, sympy.powsimp):
        other = from_sympy(attempt(whole), back)
        if other is not None and not isinstance(separate(other, roles), Stuck):
            return other
    return None


def to_sympy(expression: Expression, leaves: dict[Expression, Any]) -> Any:
    """Return a sympy expression; readings become real symbols, recorded in ``leaves``."""
    import sympy

    match expression:
        case Constant(value=value):
            if isinstance(value, bool):
                return None
            return sympy.Integer(value) if isinstance(value, int) else sympy.Float(value)
        case Access() | Parameter() | RankVariable() | Size():
            if expression not in leaves:
                leaves[expression] = sympy.Symbol(f"x{len(leaves)}", real=True)
            return leaves[expression]
        case Apply(operator=operator, operands=operands):
            inner = [to_sympy(x, leaves) for x in operands]
            if any(x is None for x in inner):
                return None
            match operator, inner:
                case "+", [a, b]:
                    return a + b
                case "-", [a, b]:
                    return a - b
                case "*", [a, b]:
                    return a * b
                case "/", [a, b]:
                    return a / b
                case "neg", [a]:
                    return -a
                case "**", [a, b]:
                    return a**b
                case "rsqrt", [a]:
                    return 1 / sympy.sqrt(a)
                case "exp2", [a]:
                    return sympy.Integer(2) ** a
                case "log2", [a]:
                    return sympy.log(a) / sympy.log(2)
                case "sigmoid", [a]:
                    return 1 / (1 + sympy.exp(-a))
                case _, [a] if operator in _CALLS:
                    return getattr(sympy, operator)(a)
    return None


def from_sympy(x: Any, back: dict[Any, Expression]) -> Expression | None:
    """Return our expression of a sympy one, or None where it has no counterpart."""
    import sympy

    if x in back:
        return back[x]
    if x.is_Integer:
        return Constant(int(x))
    if x.is_Number:
        return Constant(float(x))
    inner = [from_sympy(y, back) for y in x.args]
    parts = [y for y in inner if y is not None]
    if not parts or len(parts) != len(inner):
        return None
    if isinstance(x, sympy.Add | sympy.Mul):
        operator = "+" if isinstance(x, sympy.Add) else "*"
        total = parts[0]
        for part in parts[1:]:
            total = Apply(operator, (total, part))
        return total
    if isinstance(x, sympy.Pow):
        base, exponent = parts
        if isinstance(exponent, Constant) and isinstance(exponent.value, int):
            if exponent.value < 0:
                below = base if exponent.value == -1 else _power(base, -exponent.value)
                return Apply("/", (Constant(1), below))
            return _power(base, exponent.value)
        return Apply("exp2", (exponent,)) if base == Constant(2) else None
    name = type(x).__name__
    return Apply(name, tuple(parts)) if name in _CALLS else None


def _power(base: Expression, n: int) -> Expression:
    return Apply("**", (base, Constant(n)))
