"""Operators and reducers: their names, how they print, and the facts that passes may use.

A pass asks this table, never a list of names of its own: whether a reducer commutes, what it gives
over nothing, whether an operator keeps zero. The numbers behind the names (numpy, Triton) belong to
the back ends.

Two conventions of the language: a quotient by 0 is 0 (EDGE's division takes part only where the
divisor is not empty, and an absent sum is 0), and comparisons of two integers are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Operator:
    """A pointwise operator.

    ``symbol`` and ``precedence`` say how it prints (Python's own, 0 for a call). ``boolean`` is
    whether it gives a truth value. ``monotone`` is +1 (never falls), -1 (never rises) or 0 in a
    single operand. ``bounds`` hold for every finite operand.
    """

    name: str
    arity: int | None
    symbol: str = ""
    precedence: int = 0
    boolean: bool = False
    monotone: int = 0
    bounds: tuple[float, float] = (-inf, inf)


OPERATORS: dict[str, Operator] = {
    x.name: x
    for x in (
        Operator("or", None, "or", 1, boolean=True),
        Operator("and", None, "and", 2, boolean=True),
        Operator("not", 1, "not", 3, boolean=True),
        Operator("in", 2, "in", 4, boolean=True),
        Operator("==", 2, "==", 4, boolean=True),
        Operator("!=", 2, "!=", 4, boolean=True),
        Operator("<", 2, "<", 4, boolean=True),
        Operator("<=", 2, "<=", 4, boolean=True),
        Operator(">", 2, ">", 4, boolean=True),
        Operator(">=", 2, ">=", 4, boolean=True),
        Operator("+", 2, "+", 5),
        Operator("-", 2, "-", 5),
        Operator("*", 2, "*", 6),
        Operator("/", 2, "/", 6),
        Operator("//", 2, "//", 6),
        Operator("%", 2, "%", 6),
        Operator("neg", 1, "-", 7, monotone=-1),
        Operator("**", 2, "**", 8),
        Operator("exp", 1, monotone=1, bounds=(0.0, inf)),
        Operator("exp2", 1, monotone=1, bounds=(0.0, inf)),
        Operator("log", 1, monotone=1),
        Operator("log2", 1, monotone=1),
        Operator("sqrt", 1, monotone=1, bounds=(0.0, inf)),
        Operator("rsqrt", 1, monotone=-1, bounds=(0.0, inf)),
        Operator("tanh", 1, monotone=1, bounds=(-1.0, 1.0)),
        Operator("sigmoid", 1, monotone=1, bounds=(0.0, 1.0)),
        Operator("relu", 1, monotone=1, bounds=(0.0, inf)),
        Operator("erf", 1, monotone=1, bounds=(-1.0, 1.0)),
        Operator("sin", 1, bounds=(-1.0, 1.0)),
        Operator("cos", 1, bounds=(-1.0, 1.0)),
        Operator("abs", 1, bounds=(0.0, inf)),
        Operator("floor", 1, monotone=1),
        Operator("ceil", 1, monotone=1),
        Operator("bit_length", 1, bounds=(0.0, 64.0)),
        Operator("min", None),
        Operator("max", None),
        Operator("where", 3),
        Operator("default", 2),
        Operator("stop_gradient", 1, monotone=1),
        Operator("random", None, bounds=(0.0, 1.0)),
    )
}


@dataclass(frozen=True, slots=True)
class Reducer:
    """An associative reduction.

    ``identity`` is what it gives over nothing. ``operator`` is the pointwise operator that merges
    two partial results, or "" where the merge needs the coordinate too (argmax, argmin).
    ``idempotent`` reducers may see an element twice. ``extremum`` is the reducer whose result
    stands at the coordinate that this one gives.
    """

    name: str
    identity: float | bool
    operator: str
    commutative: bool = True
    idempotent: bool = False
    extremum: str = ""


REDUCERS: dict[str, Reducer] = {
    x.name: x
    for x in (
        Reducer("sum", 0.0, "+"),
        Reducer("prod", 1.0, "*"),
        Reducer("max", -inf, "max", idempotent=True),
        Reducer("min", inf, "min", idempotent=True),
        Reducer("any", False, "or", idempotent=True),
        Reducer("all", True, "and", idempotent=True),
        Reducer("argmax", -1, "", extremum="max"),
        Reducer("argmin", -1, "", extremum="min"),
    )
}

SELECTORS = ("topk", "threshold", "cover", "exceed", "within")
"""Coordinate operators of EDGE's populate: how a list-valued rank is written."""
