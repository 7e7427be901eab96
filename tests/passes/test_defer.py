from __future__ import annotations

import numpy
import pytest

from einfall.backends.interpreter import interpret
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.defer import defer
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import SIZES, assert_same_meaning


def deferred(text: str) -> Cascade:
    c = cascade(text)
    after = defer(c)
    assert defer(after) is after
    assert_same_meaning(c, verify(after))
    return after


def lines(text: str) -> list[str]:
    return [str(e) for e in deferred(text).einsums]


def test_scalars_and_signs_leave_a_sum() -> None:
    assert lines("O[p] = sum[m](-X[p, m] * 3 * Y[m])") == [
        "O_sum[p] = sum[m](X[p, m] * Y[m])",
        "O[p] = -(O_sum[p] * 3)",
    ]


def test_a_factor_takes_its_ranks_along() -> None:
    assert lines("O[p, f] = sum[m](X[p, m] * g[f] * Y[m])") == [
        "O_sum[p] = sum[m](X[p, m] * Y[m])",
        "O[p, f] = O_sum[p] * g[f]",
    ]


def test_divisions_leave_a_sum_through_the_tensor_that_divides() -> None:
    text = """
        N[p, m] = exp(X[p, m])
        D[p] = sum[m](N[p, m])
        A[p, m: m <= p] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * V[m, f])
    """
    assert lines(text)[2:] == [
        "O_sum[p, f] = sum[m: m <= p](N[p, m] * V[m, f])",
        "O[p, f] = O_sum[p, f] / D[p]",
    ]


def test_a_filter_that_the_numerator_has_too_is_not_repeated() -> None:
    text = """
        N[p, m: m <= p] = exp(X[p, m])
        D[p] = sum[m](N[p, m])
        A[p, m: m <= p] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * V[m, f])
    """
    assert lines(text)[2] == "O_sum[p, f] = sum[m](N[p, m] * V[m, f])"


def test_what_is_left_of_an_opened_tensor_gets_a_name() -> None:
    text = """
        D[p] = sum[m](exp(X[p, m]))
        A[p, m: m <= p] = exp(X[p, m]) / D[p]
        O[p, f] = sum[m](A[p, m] * A[p, m] * V[m, f])
        return A, O
    """
    assert lines(text)[1:] == [
        "A_part[p, m: m <= p] = exp(X[p, m])",
        "A[p, m] = A_part[p, m] / D[p]",
        "O_sum[p, f] = sum[m](A_part[p, m] * A_part[p, m] * V[m, f])",
        "O[p, f] = O_sum[p, f] / D[p] / D[p]",
    ]


def test_only_finite_factors_leave_a_sum() -> None:
    # A maximum over nothing is infinite, and 0 * inf is no number: the row p = 0 is empty.
    text = """
        G[p] = max[m: m < p](X[p, m])
        O[p] = sum[m: m < p](X[p, m] * G[p])
    """
    c = cascade(text)
    assert defer(c) is c
    assert lines(text.replace("max[", "sum["))[-1] == "O[p] = O_sum[p] * G[p]"


def test_a_division_by_what_may_be_infinite_or_0_leaves() -> None:
    text = """
        D[p] = sum[m: m < p](X[p, m])
        O[p] = sum[m: m <= p](X[p, m] / D[p])
    """
    assert lines(text)[-1] == "O[p] = O_sum[p] / D[p]"


def test_a_factor_that_is_absent_somewhere_stays() -> None:
    c = cascade("""
        D[p: p > 1] = sum[m](X[p, m])
        O[p] = sum[m](X[p, m] * D[p])
    """)
    assert defer(c) is c
    c = cascade("O[p] = sum[m](X[p, m] * Y[p + 1])")
    assert defer(c) is c


def test_an_extremum_gives_up_positive_factors_and_terms() -> None:
    assert lines("G[p] = max[m](X[p, m] * 0.5 / sqrt(size(p)) - b[p])") == [
        "G_max[p] = max[m](X[p, m])",
        "G[p] = G_max[p] * 0.5 / sqrt(size(p)) - b[p]",
    ]
    assert lines("G[p] = min[m](X[p, m] * exp(b[p]))")[-1] == "G[p] = G_min[p] * exp(b[p])"


def test_an_empty_extremum_stays_infinite() -> None:
    c = cascade("G[p] = max[m: m < p](X[p, m] * 2 + b[p])")
    after = defer(c)
    assert after is not c
    assert_same_meaning(c, after)  # p = 0 is -inf on both sides
    assert_same_meaning(c, after, sizes={**SIZES, "m": 0})


@pytest.mark.parametrize(
    "body",
    ["X[p, m] * scale", "X[p, m] * -2", "X[p, m] * b[p]", "X[p, m] / sqrt(size(m))", "-X[p, m]"],
)
def test_what_may_be_negative_or_empty_stays_in_an_extremum(body: str) -> None:
    c = cascade(f"G[p] = max[m](X[p, m] + {body})")
    assert defer(c) is c
    c = cascade(f"G[p] = max[m]({body})")
    assert defer(c) is c


def test_a_parameter_of_known_sign_leaves_an_extremum() -> None:
    c = cascade("G[p] = max[m](X[p, m] * scale)")
    after = defer(c, parameters={"scale": 0.5})
    assert str(after.einsums[-1]) == "G[p] = G_max[p] * scale"
    assert_same_meaning(c, after, scale=0.5)
    assert defer(c, parameters={"scale": -0.5}) is c


def test_tensors_that_decide_stay() -> None:
    c = cascade("""
        D[p] = sum[m](X[p, m] * 0.1)
        O[p: D[p] > 0] = exp(Y[p])
    """)
    assert defer(c) is c


def test_filters_of_the_reduction_and_of_the_einsum_stay_with_it() -> None:
    assert lines("O[p, f: p <= f] = sum[m: m <= p](X[p, m] * 2 * g[f])") == [
        "O_sum[p] = sum[m: m <= p](X[p, m])",
        "O[p, f: p <= f] = O_sum[p] * 2 * g[f]",
    ]


def test_new_names_avoid_those_that_are_taken() -> None:
    found = deferred("O_sum[p] = sum[m](X[p, m])\nO[p] = sum[m](X[p, m] * 2)\nreturn O_sum, O")
    assert [e.name for e in found.einsums] == ["O_sum", "O_sum_2", "O"]


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_keep_their_meaning(name: str) -> None:
    c = cascade(DECLARED[name])
    after = defer(c)
    assert defer(after) is after
    assert_same_meaning(c, verify(after), given=GIVEN.get(name))


@pytest.mark.parametrize("name", ["three_traversals", "unstabilised", "empty_rows", "linear"])
def test_the_weighted_sum_is_divided_at_the_end(name: str) -> None:
    after = defer(cascade(DECLARED[name]))
    assert "A" not in {e.name for e in after.einsums}
    assert "O_sum" in after.einsum("O").reads
    assert after.einsum("O").reads[-1] == "D"


def test_empty_rows_give_zero() -> None:
    after = defer(cascade(DECLARED["three_traversals"].replace("m <= p + 1", "m < p")))
    random = numpy.random.default_rng(0)
    weighted, L = interpret(after, *(random.normal(size=s) for s in ((5, 3), (7, 3), (7, 4))))
    assert (weighted[0] == 0).all() and L[0] == -numpy.inf and numpy.isfinite(L[1:]).all()
