"""Printing: every expression, einsum and cascade as notation that parses back to the same thing.

Parentheses stand where Python's own precedence asks for them and nowhere else. Three forms have one
spelling each, so that nothing is lost on the way through text:

::

    Constant(-1)               -1      the minus touches the number
    Apply("neg", Constant(1))  -(1)
    Access("T", ())            T[()]   a tensor of no ranks, written and read
"""

from __future__ import annotations

from math import inf

from .cascade import Cascade, Einsum, Scalar
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    Size,
)
from .operators import OPERATORS

_CALL = 9
_POWER = OPERATORS["**"].precedence
_NEGATIVE = OPERATORS["neg"].precedence
_COMPARISON = OPERATORS["<"].precedence


def show_expression(expression: Expression) -> str:
    """Return the expression as notation, without parentheses around the whole."""
    match expression:
        case Constant(value=value):
            return show_number(value)
        case Parameter(name=name) | RankVariable(rank=name):
            return name
        case Size(rank=rank):
            return f"size({rank})"
        case Access(tensor=tensor, coordinates=coordinates):
            return f"{tensor}[{_coordinates(coordinates)}]"
        case Apply(operator=operator, operands=operands):
            return _apply(expression, operator, operands)
        case Reduce(reducer=reducer, ranks=ranks, body=body, filter=filter):
            return f"{reducer}[{', '.join(ranks)}{_filter(filter)}]({show_expression(body)})"
        case Populate():
            more = [
                f", {word}={show_expression(x)}"
                for word, x in (("forced", expression.forced), ("forbidden", expression.forbidden))
                if x is not None
            ]
            more += [", ascending=True"] if expression.ascending else []
            head = f"{expression.selector}[{expression.rank}, "
            head += show_expression(expression.argument)
            return f"{head}]({show_expression(expression.body)}{''.join(more)})"
        case Concatenate(rank=rank, parts=parts):
            return f"concat[{rank}]({', '.join(show_expression(x) for x in parts)})"


def show_einsum(einsum: Einsum) -> str:
    """Return the einsum as one line; its filter stands on the last rank of the output."""
    output = f"{einsum.name}[{_coordinates(einsum.output.coordinates)}{_filter(einsum.filter)}]"
    return f"{output} = {show_expression(einsum.body)}"


def show_cascade(cascade: Cascade) -> str:
    """Return the cascade as a ``def``, one einsum a line, parameters after the star."""
    arguments = [f"{x}: unique" if x in cascade.unique else x for x in cascade.inputs]
    if cascade.parameters:
        arguments.append("*")
    for name, default in cascade.parameters:
        arguments.append(name if default is None else f"{name}={show_number(default)}")
    lines = [f"def {cascade.name}({', '.join(arguments)}):"]
    lines += [f"    {show_einsum(einsum)}" for einsum in cascade.einsums]
    lines.append(f"    return {', '.join(cascade.outputs)}")
    return "\n".join(lines)


def show_number(value: Scalar) -> str:
    """Return a number as the notation writes it: Python's, with ``inf`` for infinity."""
    if value == inf:
        return "inf"
    if value == -inf:
        return "-inf"
    return repr(value)


def _coordinates(coordinates: tuple[Expression, ...]) -> str:
    return ", ".join(show_expression(x) for x in coordinates) if coordinates else "()"


def _filter(filter: Expression | None) -> str:
    return "" if filter is None else f": {show_expression(filter)}"


def _apply(whole: Apply, operator: str, operands: tuple[Expression, ...]) -> str:
    facts = OPERATORS[operator]
    level = facts.precedence
    if not level:
        return f"{operator}({', '.join(show_expression(x) for x in operands)})"
    if (chain := _chain(whole)) is not None:
        return chain
    if operator in ("and", "or"):
        return f" {operator} ".join(_at_least(level + 1, x) for x in operands)
    if operator == "not":
        if (membership := _membership(operands[0])) is not None:
            item, fiber = membership
            return f"{_at_least(level + 2, item)} not in {_at_least(level + 2, fiber)}"
        return f"not {_at_least(level, operands[0])}"
    if operator == "neg":
        if isinstance(operands[0], Constant) and _level(operands[0]) == _CALL:
            return f"-({show_expression(operands[0])})"
        return f"-{_at_least(level, operands[0])}"
    left, right = operands
    if operator == "**":
        return f"{_at_least(_CALL, left)} ** {_at_least(_NEGATIVE, right)}"
    tighter = level + 1 if level == _COMPARISON else level
    return f"{_at_least(tighter, left)} {facts.symbol} {_at_least(level + 1, right)}"


def _chain(expression: Expression) -> str | None:
    """Return ``a < b <= c`` for the conjunction ``a < b and b <= c``, None for anything else."""
    match expression:
        case Apply(operator="and", operands=links) if len(links) > 1:
            pass
        case _:
            return None
    text, last = "", None
    for link in links:
        if not (isinstance(link, Apply) and OPERATORS[link.operator].precedence == _COMPARISON):
            return None
        left, right = link.operands
        if last is None:
            text = _at_least(_COMPARISON + 1, left)
        elif repr(left) != repr(last):  # repr, since 1 == True == 1.0
            return None
        text += f" {OPERATORS[link.operator].symbol} {_at_least(_COMPARISON + 1, right)}"
        last = right
    return text


def _at_least(level: int, expression: Expression) -> str:
    text = show_expression(expression)
    return text if _level(expression) >= level else f"({text})"


def _level(expression: Expression) -> int:
    """Return how tightly the printed form binds, in Python's order of precedence."""
    match expression:
        case Constant(value=value):
            return _NEGATIVE if show_number(value).startswith("-") else _CALL
        case Apply(operator="not", operands=(inner,)) if _membership(inner) is not None:
            return _COMPARISON
        case Apply(operator=operator):
            if _chain(expression) is not None:
                return _COMPARISON
            return OPERATORS[operator].precedence or _CALL
        case _:
            return _CALL


def _membership(expression: Expression) -> tuple[Expression, Expression] | None:
    match expression:
        case Apply(operator="in", operands=(item, fiber)):
            return item, fiber
        case _:
            return None
