from __future__ import annotations

from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import interpret
from einfall.ir.cascade import Cascade
from einfall.ir.expression import Apply, walk
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.base_two import base_two
from einfall.passes.defer import defer
from einfall.passes.scaling import LN_2, LOG2_E, cost
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import SIZES, assert_same_meaning


def lines(text: str, **parameters: Any) -> list[str]:
    c = cascade(text)
    after = base_two(c)
    assert base_two(after) is after
    assert_same_meaning(c, verify(after), **parameters)
    return [str(e) for e in after.einsums]


def operators(c: Cascade) -> set[str]:
    return {x.operator for e in c.einsums for x in walk(e.body) if isinstance(x, Apply)}


def total(c: Cascade) -> float:
    return sum(cost(e.body, SIZES) for e in c.einsums)


def test_the_constants_are_each_others_inverse() -> None:
    assert LOG2_E == numpy.log2(numpy.e) and LN_2 == numpy.log(2) and LOG2_E * LN_2 == 1


def test_the_factor_joins_the_scale() -> None:
    assert lines("""
        S[p, m] = X[p, m] / sqrt(size(m))
        G[p] = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D[p] = sum[m](N[p, m])
        O[p] = G[p] + log(D[p])
    """) == [
        "S[p, m] = X[p, m] * (1.4426950408889634 / sqrt(size(m)))",
        "G[p] = max[m](S[p, m])",
        "N[p, m] = exp2(S[p, m] - G[p])",
        "D[p] = sum[m](N[p, m])",
        "O[p] = G[p] * 0.6931471805599453 + log(D[p])",
    ]


def test_the_factor_goes_outside_a_bounded_function() -> None:
    assert lines(
        """
        S[p, m] = tanh(X[p, m] / c) * c
        G[p] = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        """,
        c=3.0,
    ) == [
        "S[p, m] = tanh(X[p, m] / c) * (c * 1.4426950408889634)",
        "G[p] = max[m](S[p, m])",
        "N[p, m] = exp2(S[p, m] - G[p])",
    ]


def test_a_slope_takes_the_factor_once_a_head() -> None:
    found = lines(
        """
        S[h, p, m] = X[h, p, m] * scale - slope[h] * (p - m)
        N[h, p, m] = exp(S[h, p, m])
        """,
        scale=0.5,
    )
    assert found[0] == (
        "S[h, p, m] = X[h, p, m] * (scale * 1.4426950408889634)"
        " - slope[h] * 1.4426950408889634 * (p - m)"
    )
    assert found[1] == "N[h, p, m] = exp2(S[h, p, m])"


def test_choices_and_extrema_carry_the_factor() -> None:
    found = lines(
        """
        S[p, m] = where(m <= p, X[p, m] * a, max(Y[p, m] * b, 0.5))
        N[p, m] = exp(S[p, m])
        """,
        a=0.5,
        b=2.0,
    )
    assert found == [
        "S[p, m] = where(m <= p, X[p, m] * (a * 1.4426950408889634),"
        " max(Y[p, m] * (b * 1.4426950408889634), 0.7213475204444817))",
        "N[p, m] = exp2(S[p, m])",
    ]


def test_other_readings_are_repaired() -> None:
    found = lines("""
        S[p, m] = X[p, m] * 0.5
        N[p, m] = exp(S[p, m])
        E[p] = sum[m](N[p, m] * S[p, m])
        return N, E
    """)  # the repairing factor can leave the sum
    assert found[0] == "S[p, m] = X[p, m] * 0.7213475204444817"
    assert found[2] == "E[p] = sum[m](N[p, m] * S[p, m] * 0.6931471805599453)"


def test_an_output_keeps_its_value_and_pays_for_no_twin_in_vain() -> None:
    found = lines("""
        S[p, m] = X[p, m] * 0.5
        G[p] = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        return N, S
    """)
    assert found[:2] == ["S[p, m] = X[p, m] * 0.5", "G[p] = max[m](S[p, m])"]
    assert "exp2(S[p, m] * 1.4426950408889634 - G[p] * 1.4426950408889634)" in found[2]


def test_a_small_output_is_made_from_its_scaled_twin() -> None:
    found = lines("""
        S[p, m] = X[p, m] * 0.5
        L[p] = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - L[p])
        M[m] = sum[p](exp(Y[p, m] - L[p]))
        R[m] = sum[p](exp(Z[p, m] - L[p]))
        return N, M, R, L
    """)
    assert found[1:3] == ["L_two[p] = max[m](S[p, m])", "L[p] = L_two[p] * 0.6931471805599453"]


def test_nothing_to_gain_changes_nothing() -> None:
    for text in (
        "N[p] = exp(X[p])",
        "N[p] = X[p] * 2",
        "D[p] = sum[m](X[p, m])\nL[p] = log(D[p])",
        "N[p] = exp2(X[p] * 3)",
    ):
        c = cascade(text)
        assert base_two(c) is c


def test_tensors_that_decide_keep_their_value() -> None:
    text = """
        S[p, m] = X[p, m] * 0.5
        T[p, m: S[p, m] > 0.25] = exp(S[p, m] * 3.0)
        O[p] = sum[m](T[p, m])
    """
    found = lines(text)
    assert found[0] == "S[p, m] = X[p, m] * 0.5"
    assert "exp2(S[p, m] * 4.32808512266689)" in found[1]


def test_concatenated_tensors_keep_their_value() -> None:
    c = cascade("""
    def f(X, Y):
        S[p, m] = X[p, m] * 0.5
        T[p, c] = Y[p, c] * 0.5
        U[p, n] = concat[n](S[p, m], T[p, c])
        G[p] = max[n](U[p, n])
        N[p, n] = exp(U[p, n] - G[p])
        return N
    """)
    after = base_two(c)
    assert str(after.einsum("S")) == "S[p, m] = X[p, m] * 0.5"
    random = numpy.random.default_rng(0)
    x, y = random.normal(size=(5, 7)), random.normal(size=(5, 3))
    numpy.testing.assert_allclose(interpret(after, x, y), interpret(c, x, y), rtol=1e-13)


def test_iterative_tensors_keep_their_value() -> None:
    c = cascade("""
    def f(X, Y):
        H[0, e] = Y[e] * 0.5
        H[i + 1, e] = H[i, e] * 0.5 + X[i, e]
        O[e] = exp(H[size(i), e])
        return O
    """)
    after = base_two(c)
    random = numpy.random.default_rng(0)
    x, y = random.normal(size=(5, 3)), random.normal(size=3)
    numpy.testing.assert_allclose(interpret(after, x, y), interpret(c, x, y), rtol=1e-13)


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_keep_their_meaning_and_cost_less(name: str) -> None:
    c = cascade(DECLARED[name])
    after = base_two(defer(c))
    assert base_two(after) is after
    assert_same_meaning(c, verify(after), given=GIVEN.get(name))
    if name == "linear":
        assert after == defer(c)
    else:
        assert "exp" not in operators(after)
        assert total(after) < total(c)
