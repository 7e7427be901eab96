"""Negation normal form of a filter: ``not`` pushed down to the atoms, choices spelled out.

::

    not (a and b < c)        -->   not a or b >= c
    where(c, a, b)           -->   c and a or not c and b          (of truth values)
    a == b                   -->   a and b or not a and not b      (of truth values)
"""

from __future__ import annotations

from ..ir.expression import Apply, Constant, Expression
from ..ir.operators import OPERATORS

OPPOSITE = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}


def normal(filter: Expression, *, negated: bool = False) -> Expression:
    """Return the filter, or its negation, over ``and``, ``or``, comparisons and other atoms."""
    match filter:
        case Constant(value=value):
            return Constant(bool(value) is not negated)
        case Apply("not", (inner,)):
            return normal(inner, negated=not negated)
        case Apply("and" | "or" as name, operands):
            dual = {"and": "or", "or": "and"}[name] if negated else name
            return Apply(dual, tuple(normal(x, negated=negated) for x in operands))
        case Apply("where", (condition, yes, no)) if truth_valued(yes) and truth_valued(no):
            chosen = Apply("and", (normal(condition), normal(yes, negated=negated)))
            other = (normal(condition, negated=True), normal(no, negated=negated))
            return Apply("or", (chosen, Apply("and", other)))
        case Apply("==" | "!=" as name, (left, right)) if truth_valued(left) and truth_valued(
            right
        ):
            flipped = negated is (name == "==")
            both = Apply("and", (normal(left), normal(right, negated=flipped)))
            neither = (normal(left, negated=True), normal(right, negated=not flipped))
            return Apply("or", (both, Apply("and", neither)))
        case Apply(operator=name, operands=operands) if name in OPPOSITE:
            return Apply(OPPOSITE[name] if negated else name, operands)
        case _:
            return Apply("not", (filter,)) if negated else filter


def truth_valued(x: Expression) -> bool:
    """Whether an expression is a truth value by its form; a tensor or parameter may be anything."""
    match x:
        case Constant(value=value):
            return isinstance(value, bool)
        case Apply("where", (_, yes, no)):
            return truth_valued(yes) and truth_valued(no)
        case Apply(operator=name):
            return OPERATORS[name].boolean
        case _:
            return False
