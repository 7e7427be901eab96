"""Presence: the condition under which a point of each tensor exists, as one expression.

The meaning is that of ``ir/cascade.py``: a point exists where its filter holds and everything that
it reads exists; a reduction's result exists wherever its einsum's filter holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    children,
    rewrite,
    substitute,
    tensors,
)
from ..ir.interval import surely_present
from ..ir.mapping import View
from .align import conjunction, holds, inside

EXTENT = "{tensor}_size_{position}"
"""Name of the run-time extent of an input's rank position, where no rank names it."""


class Facts:
    """What is known of sizes while conditions are collected."""

    def __init__(
        self,
        cascade: Cascade,
        sizes: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        parameters: Mapping[str, float],
        found: dict[str, Expression | None],
        writers: Mapping[str, Einsum],
        promised: frozenset[str] = frozenset(),
        views: tuple[View, ...] = (),
    ) -> None:
        self.promised = promised
        self.views = frozenset(v.coordinate for v in views)
        self.inputs = frozenset(cascade.inputs)
        self.writers = {**writers, **{e.name: e for e in cascade.einsums}}
        self.sizes, self.shapes, self.parameters = sizes, shapes, parameters
        self.found = found
        self.taking: dict[str, Expression | None] = {}
        self.home = home_ranks(cascade)

    def conditions(self, expression: Expression) -> list[Expression]:
        """Collect the conditions under which a point of the expression exists."""
        match expression:
            case Access():
                return self.of_access(expression)
            case Apply("default", (_, other)):
                return self.conditions(other)
            case Apply("where", (test, yes, no)):
                held = explicit(test, self)
                chosen = [
                    Apply("or", (side, *(conjunction(found),)))  # type: ignore[arg-type]
                    for side, branch in ((Apply("not", (held,)), yes), (held, no))
                    if (found := self.conditions(branch))
                ]
                return self.conditions(test) + list(chosen)
            case Reduce():
                return []  # it exists over nothing too
            case _:
                return [c for x in children(expression) for c in self.conditions(x)]

    def of_filter(self, filter: Expression | None) -> list[Expression]:
        """Conditions of a filter: it holds, and what it reads exists."""
        if filter is None:
            return []
        held = explicit(filter, self)
        return [*self.conditions(filter), *([] if held == Constant(True) else [held])]

    def of_access(self, access: Access) -> list[Expression]:
        """Conditions of one access: its coordinates lie inside and the point there exists."""
        conditions: list[Expression] = []
        writer = self.writers.get(access.tensor)
        for position, coordinate in enumerate(access.coordinates):
            conditions += self.conditions(coordinate)
            stored = access.tensor in self.inputs
            if tensors(coordinate) and surely_present(Access("", (coordinate,)), self.promised):
                continue
            if stored and not self.is_home(access.tensor, position, coordinate):
                name = EXTENT.format(tensor=access.tensor, position=position)
                bound: Expression = Parameter(name)
                if access.tensor in self.shapes:
                    known: Expression = Constant(self.shapes[access.tensor][position])
                    tests = list(inside(coordinate, known))
                    if all(self.always(x) for x in tests):
                        continue
                conditions += inside(coordinate, bound)
        inner = self.found.get(access.tensor)
        if inner is not None and writer is not None:
            values = dict(zip(writer.ranks, access.coordinates, strict=False))
            conditions.append(substitute(inner, values))
        return conditions

    def is_home(self, tensor: str, position: int, coordinate: Expression) -> bool:
        """Whether the coordinate is a rank whose size this position of the input gives.

        A rank of memory that is walked under other ranks stands bare where it is viewed.
        """
        return (
            coordinate in self.views
            or isinstance(coordinate, RankVariable)
            and ((tensor, position) in self.home.get(coordinate.rank, ()))
        )

    def settle(self, conditions: list[Expression]) -> Expression | None:
        """Join conditions, each once; None where there are none."""
        return conjunction(conditions)

    def always(self, condition: Expression) -> bool:
        """Whether a condition holds at every point, by interval evaluation."""
        return holds(condition, self.sizes, self.parameters)


def explicit(expression: Expression, facts: Facts) -> Expression:
    """Write every ``default(x, y)`` inside as x where it exists, else y.

    ``default(x == x, False)`` asks whether x exists, and reads nothing.
    """

    def rule(x: Expression) -> Expression | None:
        match x:
            case Apply("default", (Apply("==", (a, b)) as inner, Constant(value=False))) if a == b:
                return facts.settle(facts.conditions(inner)) or Constant(True)
            case Apply("default", (inner, other)):
                test = facts.settle(facts.conditions(inner))
                return inner if test is None else Apply("where", (test, inner, other), x.at)
            case Apply("and", operands) if Constant(True) in operands:
                kept = [y for y in operands if y != Constant(True)]
                return conjunction(kept) or Constant(True)
            case _:
                return None

    return rewrite(expression, rule)


def home_ranks(cascade: Cascade) -> dict[str, set[tuple[str, int]]]:
    """For each rank, the (input, position) pairs at which it stands bare: they give its size."""
    home: dict[str, set[tuple[str, int]]] = {}
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor in cascade.inputs:
                for position, coordinate in enumerate(x.coordinates):
                    if isinstance(coordinate, RankVariable):
                        home.setdefault(coordinate.rank, set()).add((x.tensor, position))
    return home
