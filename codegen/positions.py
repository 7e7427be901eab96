"""Where a kernel needs a variable, or coordinates as numbers and not in addresses alone."""

from __future__ import annotations

from .loop_nest import Cast, Index, Load, Nest, Op, Ref, Statement, Store, Value, Var, statements
from .signature import values


def uses_coordinate(statement: Statement, axis: str) -> bool:
    """Whether a statement needs the coordinates along an axis, other than in an address."""
    found = list(values(statement))
    if isinstance(statement, Load | Store):
        found = [c for c in found if not isinstance(c, Index)]
    return any(has_index(v, axis) for v in found)


def has_index(value: Value, axis: str) -> bool:
    """Whether a value reads the coordinates along an axis."""
    match value:
        case Index(axis=name, row=row):
            return name == axis and not row
        case Op(operands=operands):
            return any(has_index(x, axis) for x in operands)
        case Cast(value=inner):
            return has_index(inner, axis)
        case _:
            return False


def is_read(nest: Nest, var: Var) -> bool:
    """Whether any statement reads a variable."""
    return any(has_variable(v, var) for s in statements(nest.statements) for v in values(s))


def has_variable(value: Value, var: Var) -> bool:
    """Whether a value is made of a variable."""
    match value:
        case Ref(var=read):
            return read == var
        case Op(operands=operands):
            return any(has_variable(x, var) for x in operands)
        case Cast(value=inner):
            return has_variable(inner, var)
        case _:
            return False
