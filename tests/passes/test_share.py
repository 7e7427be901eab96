from __future__ import annotations

import pytest

from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.share import share
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import assert_same_meaning


def lines(text: str) -> list[str]:
    c = cascade(text)
    after = share(c)
    assert_same_meaning(c, verify(after), tolerance=0.0)
    return [str(e) for e in after.einsums]


def test_equal_sums_of_other_rank_names_become_one() -> None:
    assert lines("""
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        G[p] = max[m](S[p, m])
        T[q, n] = sum[d](Q[q, d] * K[n, d])
        H[q] = max[n](T[q, n])
        O[p] = G[p] + 2 * H[p]
    """) == [
        "S[p, m] = sum[e](Q[p, e] * K[m, e])",
        "G[p] = max[m](S[p, m])",
        "O[p] = G[p] + 2 * G[p]",
    ]


def test_a_rank_that_meets_its_partner_keeps_its_name() -> None:
    c = cascade("""
        S[p, m] = exp(X[p, m])
        T[q, n] = exp(X[q, n])
        O[p, q] = sum[m, n](S[p, m] * T[q, n])
    """)
    assert share(c) is c


def test_what_becomes_equal_is_shared_in_the_same_run() -> None:
    assert len(lines("""
        S[p, m] = X[p, m] * 2
        T[p, m] = X[p, m] * 2
        U[p] = max[m](S[p, m])
        V[p] = max[m](T[p, m])
        W[p] = U[p] + V[p]
    """)) == 3  # fmt: skip


def test_ranks_without_an_input_of_their_own_keep_their_names() -> None:
    text = "def f(X):\n S[p] = X[p] * 2\n T[a] = exp(a)\n U[b] = exp(b)\n return S, T, U"
    c = cascade(text)
    assert share(c) is c


def test_the_name_that_is_returned_survives() -> None:
    text = """
        S[p, m] = X[p, m] * X[p, m]
        G[p] = max[m](S[p, m])
        T[n, q] = X[q, n] * X[q, n]
        return G, T
    """
    assert lines(text) == ["T[m, p] = X[p, m] * X[p, m]", "G[p] = max[m](T[m, p])"]


def test_of_two_outputs_both_stay() -> None:
    c = cascade("S[p] = exp(X[p])\nT[p] = exp(X[p])\nreturn S, T")
    assert share(c) is c


def test_names_that_moved_twice_are_followed() -> None:
    text = """
        A[p] = exp(X[p])
        B[p] = exp(X[p])
        C[p] = exp(X[p])
        D[p] = A[p] + B[p]
        E[p] = B[p] * C[p]
        return C, D, E
    """
    assert lines(text) == [
        "C[p] = exp(X[p])",
        "D[p] = C[p] + C[p]",
        "E[p] = C[p] * C[p]",
    ]


def test_other_filters_and_kinds_of_constants_are_other_einsums() -> None:
    for text in (
        "S[p, m: m <= p] = exp(X[p, m])\nT[p, m: m < p] = exp(X[p, m])",
        "S[p, m] = X[p, m] * 2\nT[p, m] = X[p, m] * 2.0",
        "S[p, m] = X[p, m] * X[p, 0]\nT[p, m] = X[p, m] * X[0, m]",
    ):
        c = cascade(f"{text}\nO[p] = sum[m](S[p, m] - T[p, m])")
        assert share(c) is c


def test_a_size_follows_the_rank_that_stays() -> None:
    assert (
        lines("""
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        U[p, m] = exp(S[p, m])
        T[p, m] = sum[d](Q[p, d] * K[m, d])
        O[p] = sum[m](U[p, m] / sqrt(size(d)) - T[p, m])
    """)[-1]
        == "O[p] = sum[m](U[p, m] / sqrt(size(e)) - S[p, m])"
    )


def test_iterative_tensors_stay() -> None:
    c = cascade("""
    def f(X, Y):
        H[0, e] = Y[e]
        H[i + 1, e] = H[i, e] * X[i, e]
        J[0, e] = Y[e]
        J[i + 1, e] = J[i, e] * X[i, e]
        O[e] = H[size(i), e] - J[size(i), e]
        return O
    """)
    assert share(c) is c


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_hold_nothing_twice(name: str) -> None:
    c = cascade(DECLARED[name])
    assert share(c) is c
    twice = cascade(DECLARED[name].replace("attention(", "twice("))
    assert_same_meaning(c, share(twice), given=GIVEN.get(name), tolerance=0.0)
