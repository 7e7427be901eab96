"""Bounds of one coordinate, joined: a point is compared once, whatever number of bounds it has.

rewrite::

    m < M and m <= p + c   -->   m < min(M, p + c + 1)

The minimum varies along other axes alone, so it is taken once for many points.
"""

from __future__ import annotations

from collections.abc import Callable

from .loop_nest import Index, Number, Op, Value, value_axes

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def join_bounds(tests: list[Value], at: Value, dtype: Callable[[Value], str]) -> tuple[Value, ...]:
    """Return tests that all have to hold, with all upper bounds of ``at`` in one, and all lower.

    ``at`` is a coordinate along an axis; ``dtype`` tells whole numbers from others.
    """
    if not isinstance(at, Index):
        return tuple(tests)
    above: list[Value] = []
    below: list[Value] = []
    rest: list[Value] = []
    for test in conjuncts(tests):
        sign, other = bound(test, at)
        if not sign or dtype(other) != "int32":
            rest.append(test)
        elif sign[0] == "<":
            above.append(other if sign == "<" else stepped(other, 1))
        else:
            below.append(other if sign == ">" else stepped(other, -1))
    if max(len(above), len(below)) < 2:
        return tuple(tests)
    found: list[Value] = []
    for sign, name, limits in (("<", "min", above), (">", "max", below)):
        if limits:
            limit = limits[0] if len(limits) == 1 else Op(name, tuple(limits))
            found.append(Op(sign, (at, limit)))
    return (*found, *rest)


def conjuncts(tests: list[Value]) -> list[Value]:
    """Return tests that all have to hold, none of them several in one."""
    found: list[Value] = []
    for test in tests:
        match test:
            case Op("and", operands):
                found += conjuncts(list(operands))
            case _:
                found.append(test)
    return found


def bound(test: Value, at: Index) -> tuple[str, Value]:
    """Return how a test compares a coordinate with what does not vary along it, "" if not so."""
    match test:
        case Op("<" | "<=" | ">" | ">=" as sign, (x, y)):
            if x == at and at.axis not in value_axes(y):
                return sign, y
            if y == at and at.axis not in value_axes(x):
                return MIRRORED[sign], x
    return "", test


def stepped(value: Value, step: int) -> Value:
    """Return a whole number and one more, or one less."""
    match value:
        case Number(value=int(number)):
            return Number(number + step)
        case Op("-", (x, Number(value=int(number)))) if number == step:
            return x
        case Op("+", (x, Number(value=int(number)))) if number == -step:
            return x
    return Op("+" if step > 0 else "-", (value, Number(1)))
