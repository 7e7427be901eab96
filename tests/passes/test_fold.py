from __future__ import annotations

import math

import pytest

from einfall.ir.cascade import Scalar
from einfall.ir.expression import Access, Apply, Constant, Expression, Parameter, RankVariable, Size
from einfall.ir.notation import cascade
from einfall.ir.show import show_expression
from einfall.passes.fold import fold, fold_cascade
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import assert_same_meaning


def read(text: str) -> Expression:
    """Read a pointwise expression over ranks p, m and h; X, Y, D, K, slope are tensors."""
    ranks = [r for r in "hpm" if any(x in text for x in (f"[{r}", f", {r}", f"({r} ", f" {r})"))]
    return cascade(f"T[{', '.join(ranks)}] = {text}").einsums[0].body


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("X[p] * 1", "X[p]"),
        ("1 * X[p] + 0", "X[p]"),
        ("0 - X[p]", "-X[p]"),
        ("-(-X[p])", "X[p]"),
        ("X[p] - -Y[p]", "X[p] + Y[p]"),
        ("-X[p] + Y[p]", "Y[p] - X[p]"),
        ("X[p] + 1 + 2", "X[p] + 3"),
        ("X[p] + 1 - 3", "X[p] - 2"),
        ("X[p] * 2 * 3", "X[p] * 6"),
        ("X[p] * 2 / 4", "X[p] * 0.5"),
        ("exp(X[p]) * 1.0", "exp(X[p])"),
        ("a * X[p] * b", "X[p] * (a * b)"),
        ("2 * X[p] * W", "X[p] * (W * 2)"),
        ("X[p] * a / c", "X[p] * (a / c)"),
        ("X[p] / c * 2", "X[p] * (2 / c)"),
        ("X[p] / a / b", "X[p] / (a * b)"),
        ("-X[p] * -2.0", "X[p] * 2.0"),
        ("c * tanh(X[p] / c)", "tanh(X[p] / c) * c"),
        ("-slope[h] * (p - m) * 1.5", "slope[h] * (p - m) * -1.5"),
        ("1 / D[p] * 2", "2 / D[p]"),
        ("X[p] / D[p] * 2 * a", "X[p] / D[p] * (a * 2)"),
        ("where(1 < 2, exp(X[p]), 0)", "exp(X[p])"),
        ("K[p * 1 + 0]", "K[p]"),
        ("X[p] * (3 * 4 + 1)", "X[p] * 13"),
    ],
)
def test_what_folds(before: str, after: str) -> None:
    found = fold(read(before))
    assert show_expression(found) == after
    assert fold(found) is found


def test_scalars_of_a_score_become_one_number() -> None:
    x, root = Access("X", (RankVariable("p"),)), Apply("sqrt", (Size("e"),))
    score = Apply("*", (Apply("/", (x, root)), Constant(1.5)))
    assert show_expression(fold(score)) == "X[p] * (1.5 / sqrt(size(e)))"
    assert fold(score, sizes={"e": 64}) == Apply("*", (x, Constant(0.1875)))


def test_sizes_and_parameters_are_put_in() -> None:
    assert fold(Parameter("W"), parameters={"W": 3}) == Constant(3)
    half = Apply("//", (Size("m"), Constant(2)))
    assert fold(half, sizes={"m": 7}) == Constant(3)
    assert fold(half) is half


@pytest.mark.parametrize(
    "text",
    [
        "X[p] * 1.0",  # X may be of integers: times 1.0 makes it real
        "X[p] + 0.0",
        "X[p] / 1",
        "X[p] * 0",  # what is absent stays absent, inf * 0 is not a number
        "X[p] / 2",
        "floor(m * 2 / 3)",  # rounding would show
        "(p - m) * 2 / 3",
        "(slope[h] * 1.5) * (p - m)",  # computed once for each h
        "X[p] / D[p] / Y[p]",
        "X[p] - X[p]",
        "where(X[p] < 1, X[p], Y[p])",
    ],
)
def test_what_stays_is_the_same_object(text: str) -> None:
    x = read(text)
    assert fold(x) is x


@pytest.mark.parametrize(
    ("operator", "operands", "value"),
    [
        ("/", (1, 0), 0.0),
        ("//", (7, 0), 0),
        ("%", (7, 0), 0),
        ("//", (-7, 2), -4),
        ("%", (-7, 3), 2),
        ("/", (6, 3), 2.0),
        ("*", (2, 3), 6),
        ("**", (2, 3), 8),
        ("**", (2, -1), 0.5),
        ("+", (True, True), 2),
        ("min", (1, 2.5), 1.0),
        ("where", (True, 1, 2.5), 1.0),
        ("sqrt", (4,), 2.0),
        ("log", (0,), -math.inf),
        ("rsqrt", (0,), math.inf),
        ("bit_length", (8,), 4),
        ("==", (1, 1.0), True),
        ("and", (True, 2), True),
        ("not", (0,), True),
    ],
)
def test_constants_keep_the_rules_and_the_kind(
    operator: str, operands: tuple[Scalar, ...], value: Scalar
) -> None:
    found = fold(Apply(operator, tuple(Constant(x) for x in operands)))
    assert isinstance(found, Constant)
    assert (found.value, type(found.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("operator", "operands"),
    [("sqrt", (-1,)), ("log", (-1.0,)), ("*", (2**62, 4)), ("**", (-8, 0.5)), ("exp", (1000,))],
)
def test_what_is_no_number_stays_open(operator: str, operands: tuple[Scalar, ...]) -> None:
    x = Apply(operator, tuple(Constant(v) for v in operands))
    assert fold(x) is x


def test_exact_folding_rounds_nothing_anew() -> None:
    x = read("X[p] * 0.1 * 3.0")
    assert fold(x, exact=True) is x
    assert show_expression(fold(x)) == "X[p] * 0.30000000000000004"
    e = Apply("exp", (Constant(1.0),))
    assert fold(e, exact=True) is e
    assert fold(e) == Constant(math.e)


def test_a_divisor_that_may_be_0_stays_with_what_may_be_infinite() -> None:
    x = read("X[p] * a / c")
    assert fold(x, infinite=frozenset({"X"})) is x
    assert fold(x, infinite=frozenset({"X"}), parameters={"c": 4.0}) is not x


def test_filters_lose_conditions_that_always_hold_and_nothing_else() -> None:
    text = "S[p, m: m <= p and 1 < 2] = X[p, m] * 1\nT[p, m: 0 < 1] = S[p, m] * 2\nreturn T"
    found = fold_cascade(cascade(text))
    assert str(found.einsums[0]) == "S[p, m: m <= p] = X[p, m]"
    assert str(found.einsums[1]) == "T[p, m] = S[p, m] * 2"


def test_absence_is_not_lost_with_a_condition() -> None:
    # Where X is absent the truth value is absent too, so `False and X` is not False everywhere.
    x = Apply("and", (Constant(False), Apply("<", (read("X[p]"), Constant(1)))))
    assert fold(x) is x
    y = Apply("and", (Constant(False), Apply("<", (RankVariable("p"), Constant(1)))))
    assert fold(y) == Constant(False)


def test_tensors_that_decide_are_left_to_the_last_bit() -> None:
    text = """
    S[p, m] = X[p, m] * 0.1 * 3.0
    T[p, m: S[p, m] > 0.3] = X[p, m] * 0.1 * 3.0
    O[p] = sum[m](T[p, m])
    """
    found = fold_cascade(cascade(text))
    assert str(found.einsum("S")) == "S[p, m] = X[p, m] * 0.1 * 3.0"
    assert str(found.einsum("T").body) != str(found.einsum("S").body)


def test_a_rank_that_would_vanish_keeps_its_einsum() -> None:
    c = cascade("T[p, m] = where(1 < 2, exp(X[p]), Y[m])")
    assert str(fold_cascade(c).einsums[0]) == "T[p, m] = where(True, exp(X[p]), Y[m])"


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_keep_their_meaning(name: str) -> None:
    c = cascade(DECLARED[name])
    after = fold_cascade(c, sizes={"e": 3}, parameters={"scale": 0.5, "c": 2.0})
    assert fold_cascade(after) is after
    assert_same_meaning(c, after, given=GIVEN.get(name))
