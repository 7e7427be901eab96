"""Abstract values hold for the numbers that they stand for."""

from __future__ import annotations

from itertools import product
from math import inf, isfinite, isnan
from typing import Any

import numpy
import pytest

from einfall.codegen.absent import (
    FILLS,
    FINITE,
    HIGHEST,
    LOWEST,
    UNKNOWN,
    ZERO,
    abstract,
    is_identity,
    obviously_positive,
)
from einfall.ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
)
from einfall.ir.operators import OPERATORS, REDUCERS

X, Y = Access("X", (RankVariable("m"),)), Access("Y", (RankVariable("m"),))

SAMPLES: dict[str, tuple[float, ...]] = {
    ZERO: (0.0,),
    LOWEST: (-inf,),
    HIGHEST: (inf,),
    FINITE: (-3.0, -0.5, 0.0, 1.0, 2.5),
}
"""Numbers for which an abstract value stands."""

FUNCTIONS: dict[str, Any] = {
    "+": numpy.add,
    "-": numpy.subtract,
    "*": numpy.multiply,
    "/": lambda x, y: numpy.where(y == 0, 0.0, x / numpy.where(y == 0, 1.0, y)),
    "max": numpy.maximum,
    "min": numpy.minimum,
    "neg": numpy.negative,
    "stop_gradient": lambda x: x,
    "exp": numpy.exp,
    "exp2": numpy.exp2,
    "sigmoid": lambda x: 1 / (1 + numpy.exp(-x)),
    "relu": lambda x: numpy.maximum(x, 0),
    "abs": numpy.abs,
    "sqrt": numpy.sqrt,
    "sin": numpy.sin,
    "cos": numpy.cos,
    "tanh": numpy.tanh,
    "log": numpy.log,
    "log2": numpy.log2,
    "rsqrt": lambda x: 1 / numpy.sqrt(x),
    "floor": numpy.floor,
    "ceil": numpy.ceil,
}


def stands_for(value: str, number: float) -> bool:
    match value:
        case "0":
            return number == 0
        case "-inf" | "+inf":
            return number == float(value)
        case "finite":
            return isfinite(number)
        case _:
            return True


def never(x: Expression) -> bool:
    return False


@pytest.mark.parametrize("operator", FUNCTIONS)
def test_operators_hold_for_every_sample(operator: str) -> None:
    """What is said of a result is true of every choice of numbers; a NaN is never promised."""
    function = FUNCTIONS[operator]
    names = (X, Y)[: OPERATORS[operator].arity or 2]
    promised = 0
    for kinds in product(SAMPLES, repeat=len(names)):
        values: dict[str | Access, str] = {
            x.tensor: kind for x, kind in zip(names, kinds, strict=True)
        }
        said = abstract(Apply(operator, names), values, never)
        if said == UNKNOWN:
            continue
        promised += 1
        for numbers in product(*(SAMPLES[kind] for kind in kinds)):
            with numpy.errstate(all="ignore"):
                got = float(function(*(numpy.float64(n) for n in numbers)))
            assert not isnan(got), (operator, kinds, numbers)
            assert stands_for(said, got), (operator, kinds, numbers, said, got)
    # nothing is promised of a logarithm: what it takes may be negative
    assert promised or operator in ("log", "log2", "rsqrt", "floor", "ceil")


@pytest.mark.parametrize("power", [2, 3, 4])
def test_powers(power: int) -> None:
    for kind, numbers in SAMPLES.items():
        said = abstract(Apply("**", (X, Constant(power))), {"X": kind}, never)
        assert said != UNKNOWN
        assert all(stands_for(said, n**power) for n in numbers)


def test_what_is_behind_the_fill_of_a_weight() -> None:
    """A score filled with -inf makes a weight of 0, and so a contribution of 0."""
    score = abstract(Apply("-", (X, Y)), {"X": LOWEST}, never)
    weight = abstract(Apply("exp2", (Access("S", ()),)), {"S": score}, never)
    assert (score, weight) == (LOWEST, ZERO)
    lift = Apply("*", (Access("N", ()), Y))
    assert is_identity(abstract(lift, {"N": weight}, never), "sum")
    # times a number of unknown sign an infinity has no sign, and times 0 no value
    scaled = Apply("*", (X, Parameter("scale")))
    assert abstract(scaled, {"X": LOWEST}, never) == UNKNOWN
    assert abstract(scaled, {"X": LOWEST}, lambda x: x == Parameter("scale")) == LOWEST
    assert abstract(Apply("*", (X, Y)), {"X": LOWEST, "Y": ZERO}, never) == UNKNOWN


def test_identities() -> None:
    values = {"sum": ZERO, "max": LOWEST, "min": HIGHEST, "any": ZERO}
    for reducer, value in values.items():
        assert [v for v in (ZERO, LOWEST, HIGHEST, FINITE, UNKNOWN) if is_identity(v, reducer)] == [
            value
        ]
    assert not is_identity(FINITE, "prod")
    assert {name for name in values if not float(REDUCERS[name].identity)} == {"sum", "any"}
    assert [label for label, _ in FILLS] == [LOWEST, ZERO, HIGHEST]
    assert all(stands_for(label, number) for label, number in FILLS)


@pytest.mark.parametrize(
    ("expression", "positive"),
    [
        (Constant(0.25), True),
        (Constant(0), False),
        (Constant(-1.0), False),
        (Constant(inf), False),
        (Size("e"), True),
        (Parameter("scale"), False),
        (X, False),
        (Apply("sqrt", (Size("e"),)), True),
        (Apply("rsqrt", (Size("e"),)), True),
        (Apply("sqrt", (X,)), False),
        (Apply("exp", (Constant(-3.0),)), True),
        (Apply("/", (Constant(1.0), Apply("sqrt", (Size("e"),)))), True),
        (Apply("+", (Size("e"), Parameter("scale"))), False),
        (Apply("-", (Size("e"), Constant(1))), False),
    ],
)
def test_obviously_positive(expression: Expression, positive: bool) -> None:
    assert obviously_positive(expression) is positive
