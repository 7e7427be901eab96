"""Selections and membership."""

from __future__ import annotations

import numpy
import pytest

from einfall.backends.interpreter import evaluate, interpret
from einfall.ir.notation import cascade

S = numpy.array([[3.0, 1.0, 4.0, 1.0, 5.0], [9.0, 2.0, 6.0, 5.0, 3.0]])


def lists(selection: str, scores: numpy.ndarray = S, **parameters: float) -> list[list[int]]:
    """Return the chosen coordinates of each row."""
    keywords = ", *" * bool(parameters) + "".join(f", {name}" for name in parameters)
    c = cascade(f"def f(S{keywords}):\n    T[p, j] = {selection}\n    return T")
    t = evaluate(c, {"S": scores}, parameters)["T"]
    assert t.values.dtype == numpy.int64
    rows = zip(t.values, t.mask(), strict=True)
    found = []
    for row, live in rows:
        count = int(live.sum())
        assert live[:count].all()  # present up to the occupancy, absent beyond
        assert (row[count:] == 0).all()
        found.append(row[:count].tolist())
    return found


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("topk[m, 2](S[p, m])", [[4, 2], [0, 2]]),
        ("topk[m, 5](S[p, m])", [[4, 2, 0, 1, 3], [0, 2, 3, 4, 1]]),  # 1 before 3: lowest first
        ("topk[m, 7](S[p, m])", [[4, 2, 0, 1, 3], [0, 2, 3, 4, 1]]),
        ("topk[m, 0](S[p, m])", [[], []]),
        ("topk[m, 2](S[p, m], forced=m == 1)", [[1, 4], [1, 0]]),
        ("topk[m, 2](S[p, m], forced=m < 3)", [[2, 0], [0, 2]]),  # forced members use the budget
        ("topk[m, 2](S[p, m], forbidden=m % 2 == 0)", [[1, 3], [3, 1]]),
        ("topk[m, 3](S[p, m], forced=m < 2, forbidden=m == p)", [[1, 4, 2], [0, 2, 3]]),
        ("topk[m, 4](S[p, m], forbidden=m > p)", [[0], [0, 1]]),
        ("threshold[m, 3](S[p, m])", [[2, 4], [0, 2, 3]]),  # strictly above, by coordinate
        ("threshold[m, 3](S[p, m], forced=m == 1)", [[1, 2, 4], [0, 1, 2, 3]]),
        ("threshold[m, 3](S[p, m], forbidden=m == 2)", [[4], [0, 3]]),
        ("cover[m, 9](S[p, m])", [[4, 2], [0]]),  # reaching the mass is enough
        ("cover[m, 9.5](S[p, m])", [[4, 2, 0], [0, 2]]),
        ("cover[m, 0](S[p, m])", [[], []]),
        ("cover[m, 99](S[p, m])", [[4, 2, 0, 1, 3], [0, 2, 3, 4, 1]]),
        ("cover[m, 6](S[p, m], forced=m == 1)", [[1, 4], [1, 0]]),
        ("cover[m, 0](S[p, m], forced=m < 2)", [[0, 1], [0, 1]]),
        ("cover[m, 6](S[p, m], forbidden=m == 4)", [[2, 0], [0]]),
    ],
)
def test_what_is_chosen(selection: str, expected: list[list[int]]) -> None:
    assert lists(selection) == expected


def test_an_argument_may_be_a_parameter() -> None:
    assert lists("topk[m, k](S[p, m])", k=1) == [[4], [0]]
    assert lists("threshold[m, tau](S[p, m])", tau=4.5) == [[4], [0, 2, 3]]


def test_an_argument_may_vary() -> None:
    c = cascade("def f(S, n):\n    T[p, j] = topk[m, n[p]](S[p, m])\n    return T")
    t = evaluate(c, {"S": S, "n": numpy.array([1, 3])})["T"]
    assert t.mask().sum(axis=1).tolist() == [1, 3]
    assert t.values[:, :3].tolist() == [[4, 0, 0], [0, 2, 3]]


def test_absent_points_cannot_be_chosen() -> None:
    c = cascade("""
def f(X):
    S[p, m: m <= p] = X[p, m]
    T[p, j] = topk[m, 2](S[p, m], forced=m == 1)
    return T
""")
    t = evaluate(c, {"X": S})["T"]
    assert t.mask().tolist() == [[True, False], [True, True]]
    assert t.values.tolist() == [[0, 0], [1, 0]]


def test_minus_infinity_can_be_chosen() -> None:
    assert lists("topk[m, 2](S[p, m])", numpy.array([[-numpy.inf, -numpy.inf, 0.0]])) == [[2, 0]]


def test_truth_values_and_integers_are_scores_too() -> None:
    assert lists("topk[m, 2](S[p, m])", numpy.array([[0, 7, 7, 9]])) == [[3, 1]]
    assert lists("topk[m, 1](S[p, m] > 3)") == [[2], [0]]


def test_a_selection_from_nothing_is_empty() -> None:
    for selection in ("topk[m, 2]", "threshold[m, 0]", "cover[m, 1]"):
        assert lists(f"{selection}(S[p, m])", numpy.zeros((2, 0))) == [[], []]
        assert lists(f"{selection}(S[p, m])", numpy.zeros((0, 3))) == []


def test_a_returned_list_holds_zero_beyond_its_occupancy() -> None:
    c = cascade("def f(S):\n    T[p, j] = threshold[m, 4](S[p, m])\n    return T")
    assert interpret(c, S).tolist() == [[4, 0, 0, 0, 0], [0, 2, 3, 0, 0]]


def test_membership_ignores_what_lies_beyond_the_occupancy() -> None:
    c = cascade("""
def f(S, X):
    T[p, j] = threshold[m, 4](S[p, m])
    Y[q, m: m in T[q // 2]] = X[q, m]
    Z[q, m: m not in T[q // 2]] = X[q, m]
    return Y, Z
""")
    x = numpy.arange(1.0, 16.0).reshape(3, 5)  # row 2 asks for T's row 1
    y, z = interpret(c, S, x)
    member = numpy.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 0, 1, 1, 0]], bool)
    assert (y == numpy.where(member, x, 0)).all()
    assert (z == numpy.where(member, 0, x)).all()


def test_membership_in_an_argument() -> None:
    c = cascade("def f(L, X):\n    Y[p, m: m // 2 in L[p]] = X[m] + p\n    return Y")
    listed = numpy.array([[-1, 2, 2], [7, 0, -1]])
    x = numpy.arange(1.0, 8.0)
    got = interpret(c, listed, x)
    assert got.tolist() == [[0, 0, 0, 0, 5, 6, 0], [2, 3, 0, 0, 0, 0, 0]]


def test_membership_outside_the_lists_exists_nowhere() -> None:
    c = cascade("def f(L, X):\n    Y[p, m: m not in L[p + 1]] = X[p, m]\n    return Y")
    got = interpret(c, numpy.array([[0], [1]]), numpy.ones((2, 2)))
    assert got.tolist() == [[1, 0], [0, 0]]  # row 1 asks for L's row 2, which is not there


def test_gathering_by_a_list() -> None:
    c = cascade("""
def f(S, K):
    T[p, j] = topk[m, 2](S[p, m])
    Y[p, j, e] = K[T[p, j], e]
    return Y
""")
    k = numpy.arange(10.0).reshape(5, 2)
    assert (interpret(c, S, k) == k[numpy.array([[4, 2], [0, 2]])]).all()


def test_selections_in_blocks_equal_selections_at_once() -> None:
    c = cascade("""
def f(S):
    T[h, p, j] = topk[m, 3](S[h, p, m], forced=m == p, forbidden=m > p + h)
    M[h, p, m: m in T[h, p]] = S[h, p, m]
    return T, M
""")
    s = numpy.random.default_rng(0).standard_normal((3, 7, 11))
    whole, parts = evaluate(c, {"S": s}), evaluate(c, {"S": s}, block=20)
    for name in whole:
        assert numpy.array_equal(whole[name].values, parts[name].values)
        assert numpy.array_equal(whole[name].mask(), parts[name].mask())
