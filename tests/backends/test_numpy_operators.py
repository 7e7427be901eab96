"""Every operator and reducer against numpy or Python, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from einfall.backends.numpy_operators import Array, pointwise, reduction, unify
from einfall.ir.errors import BackendError
from einfall.ir.operators import OPERATORS, REDUCERS

from ..dense_oracles import hashed

REAL = numpy.dtype(numpy.float64)
X = numpy.array([-2.5, -1.0, -0.0, 0.25, 1.0, 3.0])
Y = numpy.array([2.0, -0.5, 1.0, 0.0, 4.0, -3.0])
I = numpy.array([-7, -1, 0, 1, 6, 8])  # noqa: E741
J = numpy.array([2, 3, -4, 0, 5, 8])
POSITIVE = numpy.array([0.25, 1.0, 2.0, 9.0])

CASES: dict[str, tuple[list[Array], Any]] = {
    "or": ([X > 0, Y > 0], [True, False, True, True, True, True]),
    "and": ([X > 0, Y > 0], [False, False, False, False, True, False]),
    "not": ([X > 0], [True, True, True, False, False, False]),
    "==": ([I, J], [False, False, False, False, False, True]),
    "!=": ([I, J], [True, True, True, True, True, False]),
    "<": ([I, J], [True, True, False, False, False, False]),
    "<=": ([I, J], [True, True, False, False, False, True]),
    ">": ([I, J], [False, False, True, True, True, False]),
    ">=": ([I, J], [False, False, True, True, True, True]),
    "+": ([X, Y], [-0.5, -1.5, 1.0, 0.25, 5.0, 0.0]),
    "-": ([X, Y], [-4.5, -0.5, -1.0, 0.25, -3.0, 6.0]),
    "*": ([X, Y], [-5.0, 0.5, 0.0, 0.0, 4.0, -9.0]),
    "/": ([X, Y], [-1.25, 2.0, 0.0, 0.0, 0.25, -1.0]),
    "//": ([I, J], [-4, -1, 0, 0, 1, 1]),
    "%": ([I, J], [1, 2, 0, 0, 1, 0]),
    "neg": ([I], [7, 1, 0, -1, -6, -8]),
    "**": ([POSITIVE, numpy.array([2.0, -1.0, 0.5, 0.0])], [0.0625, 1.0, math.sqrt(2), 1.0]),
    "exp": ([X], [math.exp(x) for x in X]),
    "exp2": ([X], [2.0**x for x in X]),
    "log": ([POSITIVE], [math.log(x) for x in POSITIVE]),
    "log2": ([POSITIVE], [math.log2(x) for x in POSITIVE]),
    "sqrt": ([POSITIVE], [math.sqrt(x) for x in POSITIVE]),
    "rsqrt": ([POSITIVE], [1 / math.sqrt(x) for x in POSITIVE]),
    "tanh": ([X], [math.tanh(x) for x in X]),
    "sigmoid": ([X], [1 / (1 + math.exp(-x)) for x in X]),
    "relu": ([X], [0.0, 0.0, 0.0, 0.25, 1.0, 3.0]),
    "erf": ([X], [math.erf(x) for x in X]),
    "sin": ([X], [math.sin(x) for x in X]),
    "cos": ([X], [math.cos(x) for x in X]),
    "abs": ([I], [7, 1, 0, 1, 6, 8]),
    "floor": ([X], [-3.0, -1.0, 0.0, 0.0, 1.0, 3.0]),
    "ceil": ([X], [-2.0, -1.0, 0.0, 1.0, 1.0, 3.0]),
    "bit_length": ([I], [3, 1, 0, 1, 3, 4]),
    "min": ([X, Y, numpy.full(6, 0.5)], [-2.5, -1.0, -0.0, 0.0, 0.5, -3.0]),
    "max": ([X, Y, numpy.full(6, 0.5)], [2.0, 0.5, 1.0, 0.5, 4.0, 3.0]),
    "where": ([X > 0, I, J], [2, 3, -4, 1, 6, 8]),
    "stop_gradient": ([X], list(X)),
    "random": ([I, J], [hashed(int(i), int(j)) for i, j in zip(I, J, strict=True)]),
}


def test_every_operator_has_a_case() -> None:
    # These two ask for presence, and are tested with the interpreter.
    assert set(CASES) == set(OPERATORS) - {"in", "default"}


@pytest.mark.parametrize("operator", CASES)
def test_operator(operator: str) -> None:
    operands, expected = CASES[operator]
    with numpy.errstate(all="ignore"):
        got = pointwise(operator, operands, REAL)
    numpy.testing.assert_allclose(got, expected, rtol=4e-16, atol=0)
    assert (got.dtype == bool) == OPERATORS[operator].boolean
    low, high = OPERATORS[operator].bounds
    assert (got >= low).all()
    assert (got <= high).all()


@pytest.mark.parametrize("operator", ["/", "//", "%"])
@pytest.mark.parametrize("dtype", [numpy.int64, numpy.float64])
def test_a_quotient_by_zero_is_zero(operator: str, dtype: type) -> None:
    x: Array = numpy.array([5, 0, -3], dtype)
    got = pointwise(operator, [x, numpy.zeros(1, dtype)], REAL)
    assert got.tolist() == [0, 0, 0]


def test_infinity_over_zero_is_zero() -> None:
    assert pointwise("/", [numpy.array([numpy.inf]), numpy.zeros(1)], REAL).tolist() == [0.0]


def test_integers_stay_integers_where_they_can() -> None:
    for operator in ("+", "-", "*", "//", "%", "min", "max", "neg", "abs", "relu", "floor", "**"):
        operands = [I] if operator in ("neg", "abs", "relu", "floor") else [I, numpy.array([3])]
        assert pointwise(operator, operands, REAL).dtype == numpy.int64, operator
    assert pointwise("/", [I, numpy.array([3])], REAL).dtype == REAL
    assert pointwise("+", [I, X], REAL).dtype == REAL


def test_comparing_large_integers_is_exact() -> None:
    x = numpy.array([2**62])
    assert pointwise("<", [x, x + 1], REAL).all()
    assert not pointwise("==", [x, x + 1], REAL).any()


def test_truth_values_count() -> None:
    true = numpy.array([True])
    assert pointwise("+", [true, true], REAL).tolist() == [2]
    assert pointwise("neg", [true], REAL).tolist() == [-1]
    assert pointwise("*", [true, X], REAL).tolist() == X.tolist()


def test_an_integer_power_is_real_unless_its_exponent_is_one_natural_number() -> None:
    assert pointwise("**", [I, numpy.array([2])], REAL).tolist() == [49, 1, 0, 1, 36, 64]
    halves = pointwise("**", [numpy.array([2]), numpy.array([-1])], REAL)
    assert halves.tolist() == [0.5]


def test_bit_length_is_exact_at_every_power() -> None:
    x = numpy.array([2**k + d for k in range(1, 62) for d in (-1, 0)])
    assert pointwise("bit_length", [x], REAL).tolist() == [int(v).bit_length() for v in x]


def test_sigmoid_keeps_its_digits_in_both_tails() -> None:
    got = pointwise("sigmoid", [numpy.array([-700.0, 40.0])], REAL)
    numpy.testing.assert_allclose(got, [math.exp(-700), 1 / (1 + math.exp(-40))], rtol=1e-15)


def test_float32_stays_float32() -> None:
    single = numpy.dtype(numpy.float32)
    for operator in ("exp", "rsqrt", "erf", "sigmoid", "tanh", "relu", "+", "/"):
        operands = [POSITIVE.astype(single)] * (OPERATORS[operator].arity or 2)
        assert pointwise(operator, operands, single).dtype == single, operator
    assert unify([POSITIVE.astype(single), numpy.arange(4)], single)[1].dtype == single


T = numpy.array([[3.0, -1.0, 3.0], [2.0, 5.0, -4.0], [1.0, 1.0, 1.0]])
LIVE = numpy.array([[True, True, False], [False, True, True], [False, False, False]])

REDUCED: dict[str, tuple[list[Any], list[Any]]] = {
    # over everything, over the live points
    "sum": ([5.0, 3.0, 3.0], [2.0, 1.0, 0.0]),
    "prod": ([-9.0, -40.0, 1.0], [-3.0, -20.0, 1.0]),
    "max": ([3.0, 5.0, 1.0], [3.0, 5.0, -math.inf]),
    "min": ([-1.0, -4.0, 1.0], [-1.0, -4.0, math.inf]),
    "any": ([True, True, True], [True, True, False]),
    "all": ([True, True, True], [True, True, True]),
    "argmax": ([0, 1, 0], [0, 1, -1]),
    "argmin": ([1, 2, 0], [1, 2, -1]),
}


def test_every_reducer_has_a_case() -> None:
    assert set(REDUCED) == set(REDUCERS)


@pytest.mark.parametrize("reducer", REDUCED)
def test_reducer(reducer: str) -> None:
    dense, sparse = REDUCED[reducer]
    assert reduction(reducer, T, None, (1,), REAL).ravel().tolist() == dense
    assert reduction(reducer, T, LIVE, (1,), REAL).ravel().tolist() == sparse
    assert reduction(reducer, T, LIVE, (1,), REAL)[2, 0] == REDUCERS[reducer].identity


@pytest.mark.parametrize("reducer", REDUCED)
def test_a_reduction_over_a_rank_of_size_zero_is_the_identity(reducer: str) -> None:
    got = reduction(reducer, numpy.zeros((2, 0)), None, (1,), REAL)
    assert got.ravel().tolist() == [REDUCERS[reducer].identity] * 2


@pytest.mark.parametrize("reducer", ["sum", "prod", "max", "min", "any", "all"])
def test_a_reduction_over_several_ranks(reducer: str) -> None:
    got = reduction(reducer, T, LIVE, (0, 1), REAL)
    assert got.shape == (1, 1)
    fold = {"any": numpy.any, "all": numpy.all}.get(reducer, getattr(numpy, reducer))
    assert got[0, 0] == fold(T[LIVE])


def test_absent_points_may_hold_anything() -> None:
    poisoned = numpy.where(LIVE, T, numpy.nan)
    for reducer, (_, sparse) in REDUCED.items():
        assert reduction(reducer, poisoned, LIVE, (1,), REAL).ravel().tolist() == sparse


def test_the_maximum_of_integers_is_an_integer_unless_it_is_of_nothing() -> None:
    whole = numpy.array([[2**60, 2**60 + 1]])
    got = reduction("max", whole, None, (1,), REAL)
    assert got.tolist() == [[2**60 + 1]]
    nothing = reduction("min", whole, numpy.zeros((1, 2), bool), (1,), REAL)
    assert nothing.tolist() == [[math.inf]]


def test_the_sum_of_truth_values_counts_them() -> None:
    assert reduction("sum", LIVE, None, (1,), REAL).ravel().tolist() == [2, 2, 0]


def test_position_over_minus_infinity_is_still_a_position() -> None:
    lowest = numpy.full((1, 3), -numpy.inf)
    live = numpy.array([[False, True, True]])
    assert reduction("argmax", lowest, live, (1,), REAL).tolist() == [[1]]


def test_position_over_two_ranks_is_refused() -> None:
    with pytest.raises(BackendError, match="reduce one rank"):
        reduction("argmax", T, None, (0, 1), REAL)
