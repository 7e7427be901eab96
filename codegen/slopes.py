"""Numbers that grow by equal steps along a tile's columns, in one fused multiplication a point.

Of a row a thread holds columns that the text knows, but for its place among the threads of the row
(``gluon_columns.py``). So of a coordinate's multiple only the beginning is computed, once a row,
with everything else that is one number a row; a column is a constant then::

    X * c - (w * (p - m) + G)
    -->
    X * c + fma(column, w, -(w * (p - m_first)) - G)

Integers are subtracted ahead of that, so that no digit is lost where coordinates are large.
"""

from __future__ import annotations

from functools import reduce

from .at_rest import changed, factors, terms
from .gluon_columns import whole
from .loop_nest import (
    Axis,
    Cast,
    Index,
    Let,
    Number,
    Op,
    Scalar,
    Statement,
    Value,
    value_axes,
)

Slope = tuple[Value, Value]
"""A step from column to column, one number for the tile, and a beginning, one for each row."""


def sloped(statement: Statement, columns: Axis) -> Statement:
    """Return a statement whose terms that grow along columns are fused multiplications."""

    def rule(x: Value) -> Value | None:
        match x:
            case Op("+" | "-") if columns.name in value_axes(x):
                return joined(x, columns)
            case Cast(value=inner, dtype="float32") if len(value_axes(x)) == 2:
                found = growing(inner, columns)
                return None if found is None else fma(found, columns)
            case Op("*", (Op("abs", (inner,)), factor)) | Op(
                "*", (factor, Op("abs", (inner,)))
            ) if not whole(factor):
                found = growing(inner, columns) if len(value_axes(inner)) == 2 else None
                if found is not None:
                    return Op("*", (Op("abs", (fma(found, columns),)), factor))
        return None

    return changed(statement, rule) if isinstance(statement, Let) else statement


def joined(value: Value, columns: Axis) -> Value | None:
    """Join a sum's terms that grow along columns with those that are one number a row."""
    parts = [(x, away, slope_of(x, columns)) for x, away in terms(value)]
    if len(value_axes(value)) != 2 or all(found is None for _, _, found in parts):
        return None
    if growing(value, columns) is not None:
        return None  # whole numbers stay such
    steps: list[tuple[Value, bool]] = []
    begins: list[tuple[Value, bool]] = []
    others: list[tuple[Value, bool]] = []
    for x, away, found in parts:
        if found is not None:
            steps.append((found[0], away))
            begins.append((found[1], away))
        elif columns.name not in value_axes(x):
            begins.append((x, away))
        else:
            others.append((sloped_inside(x, columns), away))
    grown = fma((total(steps), total(begins)), columns)
    return reduce(
        lambda y, z: Op("-" if z[1] else "+", (y, z[0])), others[1:], first(others, grown)
    )


def first(others: list[tuple[Value, bool]], grown: Value) -> Value:
    """Return what grows, and the first of the other terms."""
    if not others:
        return grown
    value, away = others[0]
    return Op("-", (grown, value)) if away else Op("+", (value, grown))


def sloped_inside(value: Value, columns: Axis) -> Value:
    """Return a term with its own sums joined."""
    match value:
        case Op(operator=operator, operands=operands) if operator not in ("+", "-"):
            inside = tuple(
                (joined(x, columns) if isinstance(x, Op) and x.operator in "+-" else None) or x
                for x in operands
            )
            return Op(operator, inside)
    return value


def total(parts: list[tuple[Value, bool]]) -> Value:
    """Return a sum; terms that are taken away come last where there are others."""
    ordered = sorted(parts, key=lambda part: part[1])
    value, away = ordered[0]
    found: Value = Op("neg", (value,)) if away else value
    for value, away in ordered[1:]:
        found = Op("-" if away else "+", (found, value))
    return found


def fma(slope: Slope, columns: Axis) -> Value:
    """Return beginning + step * column."""
    return Op("fma", (Index(columns.name, row=True), *slope))


def slope_of(value: Value, columns: Axis) -> Slope | None:
    """Return how a term grows along columns, None if it does not, or not by equal steps."""
    match value:
        case Op("/", (x, y)) if not value_axes(y):
            inside = slope_of(x, columns)
            return inside and (Op("/", (inside[0], y)), Op("/", (inside[1], y)))
    parts = factors(value)
    moving = [x for x in parts if columns.name in value_axes(x)]
    if len(moving) != 1 or len(value_axes(value)) != 2:
        return None
    still = [x for x in parts if x is not moving[0]]
    if any(value_axes(x) for x in still):
        return None
    found = growing(bare(moving[0]), columns)
    if found is None:
        return None
    step, begin = found
    both = [reduce(lambda y, z: Op("*", (y, z)), [*still, x]) for x in (step, begin)]
    return both[0], both[1]


def bare(value: Value) -> Value:
    """Return a whole number that was made a real one as a whole number."""
    return value.value if isinstance(value, Cast) and value.dtype == "float32" else value


def growing(value: Value, columns: Axis) -> Slope | None:
    """Return how a whole number grows along columns, as real numbers; None if it does not."""
    step = step_of(value, columns)
    if not step:
        return None
    return Number(float(step)), Cast(begin_of(value, columns), "float32")


def step_of(value: Value, columns: Axis) -> int | None:
    """Return by how much a whole number grows from column to column, None if nobody knows."""
    if columns.name not in value_axes(value):
        return 0 if whole(value) else None
    match value:
        case Index(clamped=False, row=False):
            return 1
        case Op("+" | "-" | "neg" as operator, operands):
            steps = [step_of(x, columns) for x in operands]
            if any(s is None for s in steps):
                return None
            signs = [1, 1] if operator == "+" else [1, -1] if operator == "-" else [-1]
            return sum(sign * s for sign, s in zip(signs, steps, strict=True) if s is not None)
    return None


def begin_of(value: Value, columns: Axis) -> Value:
    """Return a whole number at the first column."""
    match value:
        case Index(axis=axis) if axis == columns.name:
            return Scalar(columns.first)
        case Op(operator=operator, operands=operands):
            return Op(operator, tuple(begin_of(x, columns) for x in operands))
    return value
