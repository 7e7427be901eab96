"""Dead einsums: what goes, what has to stay, and that values stay."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from einfall.backends.interpreter import evaluate, interpret
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.dead import remove_dead
from tests.random_cascades import random_cascade


def names(found: Cascade) -> list[str]:
    return [e.name for e in found.einsums]


def test_chains_that_lead_nowhere_go() -> None:
    before = cascade(
        """
        def f(X, Y):
            A[p] = sum[m](X[p, m])
            B[p] = A[p] * Y[p]
            C[p] = B[p] + 1
            O[p] = A[p] - Y[p]
            return O
        """
    )
    assert names(remove_dead(before)) == ["A", "O"]


def test_what_only_filters_and_coordinates_read_stays() -> None:
    before = cascade(
        """
        def f(X):
            A[p] = argmax[m](X[p, m])
            B[p] = sum[m](X[p, m])
            D[p] = B[p]
            O[p, m: X[p, m] > B[p]] = X[A[p], m]
            return O
        """
    )
    assert names(remove_dead(before)) == ["A", "B", "O"]


def test_every_writer_of_an_iterative_tensor_stays_or_goes() -> None:
    text = """
    def f(X):
        H[0, e] = 0
        B[i, e] = tanh(H[i, e])
        H[i + 1, e] = B[i, e] + X[i, e]
        G[0] = 1
        G[i + 1] = G[i] * 2
        O[e] = H[size(i), e]
        return O
    """
    assert names(remove_dead(cascade(text))) == ["H", "B", "H", "O"]


def test_nothing_dead_is_the_same_object() -> None:
    alive = cascade("O[p] = sum[m](X[p, m])")
    assert remove_dead(alive) is alive


def test_an_argument_stays_read() -> None:
    before = cascade(
        """
        def f(X, Y):
            A[p] = sum[m](Y[p, m])
            B[p] = A[p] + X[p]
            C[p] = B[p] * Y[p, 0]
            O[p] = X[p] + 1
            return O
        """
    )
    after = remove_dead(before)
    assert names(after) == ["A", "O"]
    verify(after)


@pytest.mark.parametrize(
    "dead",
    [
        "T[p, j] = topk[m, 4](X[p, m])",
        "T[p, j] = concat[j](X[p, m], X[p, k])",
        "T[p] = sum[j](X[p, 4 * j])",
    ],
    ids=["a list", "a concatenation", "a stride"],
)
def test_a_rank_keeps_its_size(dead: str) -> None:
    before = cascade(
        f"""
        def f(X):
            {dead}
            N[p] = sum[m](X[p, m])
            U[p] = N[p] * 2
            O[p] = sum[m](X[p, m]) * size(j)
            return O
        """
    )
    after = remove_dead(before)
    assert names(after) == ["T", "O"]
    X = numpy.arange(12.0).reshape(3, 4)
    numpy.testing.assert_array_equal(interpret(after, X), interpret(before, X))


def test_a_plain_reading_gives_a_size() -> None:
    before = cascade(
        """
        def f(X, Y):
            A[p, n] = X[p, n] * Y[n]
            B[p] = sum[n](A[p, n])
            O[p] = sum[n](Y[n]) + X[p, 0]
            U[p] = O[p] / sqrt(size(n))
            return O
        """
    )
    assert names(remove_dead(before)) == ["O"]


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_random_cascades_keep_their_first_output(first: int) -> None:
    shorter = 0
    for seed in range(first, first + 40):
        whole, arrays, parameters = random_cascade(seed)
        before = replace(whole, outputs=whole.outputs[:1])
        after = remove_dead(before)
        verify(after)
        shorter += len(after.einsums) < len(before.einsums)
        assert remove_dead(after) is after
        (name,) = after.outputs
        found, expected = (evaluate(c, arrays, parameters)[name] for c in (after, before))
        numpy.testing.assert_array_equal(found.filled(), expected.filled())
        numpy.testing.assert_array_equal(found.mask(), expected.mask())
    assert shorter > 10
