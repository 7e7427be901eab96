"""Refusal: why a reduction has no bounded state, with evidence.

The evidence that an expression has no separation ``sum of u_k(x) * w_k(r)`` with few terms is a
minor of its values at points x_i, r_j, computed with many digits, that does not vanish (theory
3.4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
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
from ..ir.show import show_expression
from ..ir.streaming import Reason
from .separate import Roles

DIGITS = 120
MOST = 6
"""The largest separation rank that counts as a small state."""

_THRESHOLDS = frozenset(
    ("<", "<=", ">", ">=", "==", "!=", "in", "relu", "max", "min", "where", "abs")
)
_COMPARISONS = frozenset(("<", "<=", ">", ">=", "==", "!=", "in"))


def refuse(
    tensor: str,
    body: Expression,
    stuck: Expression,
    roles: Roles,
    *,
    threshold: Expression | None = None,
) -> Reason:
    """Return the reason why the reduction that writes ``tensor`` cannot stream.

    ``body`` is the reduction's body, ``stuck`` the part of it in which early and late values mix,
    ``threshold`` a comparison that is known to decide which elements count.
    """
    threshold = threshold or _threshold(stuck, roles) or _threshold(body, roles)
    if threshold is not None:
        text = show_expression(threshold)
        return Reason(
            "UNBOUNDED_SUPPORT",
            tensor,
            f"Which elements of {roles.rank} count in {tensor} is decided by {text}, which "
            "takes all of them to answer: until the end any number of elements may matter.",
            text,
            (
                f"compute {tensor} in a second traversal of {roles.rank}",
                "keep the k largest elements in a list and check that more than enough were kept",
                "find the threshold by bisection, one traversal a step",
            ),
        )
    found = minor(stuck, roles)
    text = show_expression(stuck)
    if found is None:
        return Reason(
            "NOT_YET",
            tensor,
            f"{tensor} mixes elements of {roles.rank} with results over it in {text}; it seems to "
            "be separable, and no form of it was found.",
            alternatives=(
                f"write {text} as a sum of products",
                f"compute {tensor} in a second traversal of {roles.rank}",
            ),
        )
    return Reason(
        "NOT_SEPARABLE",
        tensor,
        f"{tensor} needs {text}, which is no short sum of products of an element of "
        f"{roles.rank} and a result over all of them, so no state of a few numbers carries it.",
        found,
        (
            f"compute {tensor} in a second traversal of {roles.rank}",
            "use a function that splits, such as exp",
        ),
    )


def _threshold(expression: Expression, roles: Roles) -> Expression | None:
    """Return the innermost comparison or kink that mixes early and late values."""
    found = None
    for x in walk(expression):
        if isinstance(x, Apply) and x.operator in _THRESHOLDS:
            decides = x.operands[:1] if x.operator == "where" else (x,)
            mixed = all(roles.reads_late(y) and roles.streams(y) for y in decides)
            if mixed and (found is None or x.operator in _COMPARISONS):
                found = x
    return found


@lru_cache(maxsize=512)
def minor(expression: Expression, roles: Roles) -> str | None:
    """Return a minor of order ``MOST + 1`` that does not vanish, as text; None if it vanishes.

    Early values are drawn for each row and late ones for each column, so the matrix of an
    expression of separation rank k has rank at most k.
    """
    import mpmath  # type: ignore[import-untyped]

    order = MOST + 1
    draw = random.Random(20)
    early, late = _leaves(expression, roles)
    with mpmath.workdps(DIGITS):
        rows = [_draws(early, draw, k) for k in range(order)]
        columns = [_draws(late, draw, k + 0.5) for k in range(order)]
        entries = []
        for row in rows:
            line = []
            for column in columns:
                value = number(expression, {**row, **column})
                if value is None:
                    return None
                line.append(value)
            scale = max(abs(v) for v in line)
            entries.append([v / scale for v in line] if scale else line)
        determinant = mpmath.det(mpmath.matrix(entries))
        if abs(determinant) < mpmath.mpf(10) ** (-2 * DIGITS // 3):
            return None
        size = mpmath.nstr(determinant, 3)
    return (
        f"the {order} x {order} minor of {show_expression(expression)} at {order} drawn points of "
        f"each side is {size}, not 0: its separation rank is above {MOST}"
    )


def _leaves(expression: Expression, roles: Roles) -> tuple[list[Expression], list[Expression]]:
    early: dict[Expression, None] = {}
    late: dict[Expression, None] = {}

    def visit(x: Expression) -> None:
        match x:
            case Access(tensor=tensor):
                (late if tensor in roles.late else early).setdefault(x)
            case Parameter() | RankVariable() | Size():
                early.setdefault(x)
            case Apply(operands=operands):
                for y in operands:
                    visit(y)
            case _:
                pass

    visit(expression)
    return list(early), list(late)


def _draws(leaves: list[Expression], draw: random.Random, place: float) -> dict[Expression, float]:
    # Rows and columns interleave, so that x - r takes both signs.
    return {x: 0.4 + 0.35 * place + 0.2 * draw.random() for x in leaves}


def number(expression: Expression, values: Mapping[Expression, float]) -> Any:
    """Evaluate a pointwise expression with many digits; None where it is no real number."""
    import mpmath

    unary: dict[str, Callable[[Any], Any]] = {
        "exp": mpmath.exp,
        "exp2": lambda v: mpmath.power(2, v),
        "log": mpmath.log,
        "log2": lambda v: mpmath.log(v, 2),
        "sqrt": mpmath.sqrt,
        "rsqrt": lambda v: 1 / mpmath.sqrt(v),
        "tanh": mpmath.tanh,
        "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
        "relu": lambda v: max(v, mpmath.mpf(0)),
        "erf": mpmath.erf,
        "sin": mpmath.sin,
        "cos": mpmath.cos,
        "abs": abs,
        "neg": lambda v: -v,
        "stop_gradient": lambda v: v,
    }
    binary: dict[str, Callable[[Any, Any], Any]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b if b else mpmath.mpf(0),
        "**": lambda a, b: a**b,
        "max": max,
        "min": min,
    }

    def visit(x: Expression) -> Any:
        if x in values:
            return mpmath.mpf(values[x])
        match x:
            case Constant(value=value):
                return mpmath.mpf(value)
            case Apply(operator, (a,)) if operator in unary:
                return unary[operator](visit(a))
            case Apply(operator, (a, b)) if operator in binary:
                return binary[operator](visit(a), visit(b))
            case _:
                raise ArithmeticError

    try:
        found = visit(expression)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return found if isinstance(found, mpmath.mpf) and mpmath.isfinite(found) else None
