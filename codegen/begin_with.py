"""Let a product begin with what its result is added to, so that nothing is added afterwards.

rewrite::

    t = start 0 + sum of a * b;  r = s * (t - d)    -->    t = start -d + sum of a * b;  r = s * t

A tensor core adds to its accumulator in any case. What the work had to hold until the product was
there, ``d``, a number for each row or column, is held no longer. Two products that are added up
have one accumulator::

    t = sum of a * b;  u = sum of c * d;  r = s * (t + u)
    -->
    t = sum of a * b;  t = start t + sum of c * d;  r = s * t
"""

from __future__ import annotations

from dataclasses import replace

from .loop_nest import (
    Dot,
    Fold,
    Let,
    Load,
    Number,
    Op,
    Ref,
    Statement,
    Value,
    Var,
    value_axes,
    value_vars,
)
from .signature import values


def begin_with(
    early: tuple[Statement, ...], works: tuple[tuple[Statement, ...], ...], fixed: frozenset[str]
) -> tuple[tuple[Statement, ...], tuple[tuple[Statement, ...], ...]]:
    """Return early products with what they begin with, and the work on tiles without it.

    ``works`` is the work of each section; ``fixed`` are variables from ahead of the loop.
    """
    early, works = in_one(early, works)
    found: list[Statement] = []
    for s in early:
        alone = (
            isinstance(s, Dot) and [x.var for x in early if isinstance(x, Dot)].count(s.var) == 1
        )
        if isinstance(s, Dot) and s.start is None and alone:
            ends = [added_to(s, work, fixed) for work in works]
            if ends[0] is not None and all(x == ends[0] for x in ends):
                works = tuple(tuple(without(s, x) for x in work) for work in works)
                s = replace(s, start=ends[0])
        found.append(s)
    return tuple(found), works


def in_one(
    early: tuple[Statement, ...], works: tuple[tuple[Statement, ...], ...]
) -> tuple[tuple[Statement, ...], tuple[tuple[Statement, ...], ...]]:
    """Return products, and work, with one accumulator for neighbours that are only added up."""
    found: list[Statement] = []
    last: Dot | None = None
    for s in early:
        if isinstance(s, Dot):
            if last is not None and all(only_sum(last.var, s, work) for work in works):
                works = tuple(tuple(summed(x, s.var, last.var) for x in work) for work in works)
                s = replace(s, var=last.var, start=Ref(last.var))
            last = s
        found.append(s)
    return tuple(found), works


def only_sum(one: Var, dot: Dot, work: tuple[Statement, ...]) -> bool:
    """Whether work reads one result and that of a new product as their sum, once, and no more."""
    if dot.start is not None or one.axes != dot.var.axes or one.dtype != dot.var.dtype:
        return False
    names = {one.name, dot.var.name}
    if any(isinstance(s, Let | Fold | Load) and s.var.name in names for s in work):
        return False
    readers = [s for s in work if any(value_vars(v) & names for v in values(s))]
    if len(readers) != 1 or not isinstance(readers[0], Let):
        return False
    sums = {Op("+", (Ref(one), Ref(dot.var))), Op("+", (Ref(dot.var), Ref(one)))}
    value = readers[0].value
    return count(value, one.name) == count(value, dot.var.name) == 1 and holds(value, sums)


def holds(value: Value, sums: set[Op]) -> bool:
    """Whether one of several sums is a value, or a part of it."""
    return value in sums or (isinstance(value, Op) and any(holds(x, sums) for x in value.operands))


def summed(statement: Statement, name: Var, one: Var) -> Statement:
    """Return a statement that reads one variable where it read its sum with another."""
    if not isinstance(statement, Let) or name.name not in value_vars(statement.value):
        return statement

    def within(value: Value) -> Value:
        match value:
            case Op("+", (Ref(var=a), Ref(var=b))) if {a, b} == {name, one}:
                return Ref(one)
            case Op(operands=operands):
                return replace(value, operands=tuple(map(within, operands)))
            case _:
                return value

    return replace(statement, value=within(statement.value))


def added_to(dot: Dot, work: tuple[Statement, ...], fixed: frozenset[str]) -> Value | None:
    """Return what the result of a product is added to by all that reads it, None if nothing is."""
    name = dot.var.name
    readers = [v for s in work for v in values(s) if name in value_vars(v)]
    if len(readers) != 1 or any(isinstance(s, Let) and s.var.name == name for s in work):
        return None
    loaded = {s.var.name for s in work if isinstance(s, Load)}
    places = sums(readers[0], name)
    if len(places) != 1 or count(readers[0], name) != 1:
        return None
    (start,) = places
    lies = value_axes(start)
    if len(lies) != 1 or not value_vars(start) <= fixed | loaded:
        return None
    return start


def sums(value: Value, name: str) -> list[Value]:
    """Return what stands beside a variable in sums and differences inside a value."""
    match value:
        case Op("-", (Ref(var=var), other)) if var.name == name:
            return [Op("-", (Number(0.0), other))]
        case Op("+", (Ref(var=var), other)) if var.name == name:
            return [other]
        case Op("+", (other, Ref(var=var))) if var.name == name:
            return [other]
        case Op(operands=operands):
            return [x for o in operands for x in sums(o, name)]
        case _:
            return []


def count(value: Value, name: str) -> int:
    """Return how often a value reads a variable."""
    match value:
        case Ref(var=var):
            return int(var.name == name)
        case Op(operands=operands):
            return sum(count(x, name) for x in operands)
        case _:
            return int(name in value_vars(value))


def without(dot: Dot, statement: Statement) -> Statement:
    """Return a statement that reads a product's result where it read a sum with it."""
    if not isinstance(statement, Let) or dot.var.name not in value_vars(statement.value):
        return statement
    return replace(statement, value=bare_of_sum(statement.value, dot))


def bare_of_sum(value: Value, dot: Dot) -> Value:
    """Return a value with a product's result in place of a sum with it."""
    match value:
        case Op("+" | "-", operands) if Ref(dot.var) in operands:
            return Ref(dot.var)
        case Op(operands=operands):
            return replace(value, operands=tuple(bare_of_sum(x, dot) for x in operands))
        case _:
            return value
