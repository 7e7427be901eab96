"""Flatten: the form that comes out, the names, and that values and presence stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import pytest

from einfall import examples
from einfall.backends.interpreter import evaluate, interpret
from einfall.examples.inputs import RECIPES, make
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.errors import PassError
from einfall.ir.expression import Access, Apply, Concatenate, Populate, RankVariable, Reduce
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.flatten import flatten
from tests.random_cascades import random_cascade

Arrays = Mapping[str, Any]


def lines(text: str) -> list[str]:
    return [str(e) for e in flatten(cascade(text)).einsums]


def is_flat(einsum: Einsum) -> bool:
    """Say whether nothing but the outermost node of the body is more than pointwise."""
    outermost = isinstance(einsum.body, Reduce | Populate | Concatenate)
    below = [x for x in einsum.expressions() if not (outermost and x is einsum.body)]
    return not any(isinstance(x, Reduce | Populate | Concatenate) for x in below)


def assert_kept(before: Cascade, arrays: Arrays, parameters: Mapping[str, Any]) -> Cascade:
    """Flatten; compare every tensor of the cascade before, values and points that exist."""
    after = flatten(before)
    verify(after)
    assert all(is_flat(e) for e in after.einsums)
    assert flatten(after) is after
    old, new = (evaluate(c, arrays, parameters) for c in (before, after))
    for tensor, expected in old.items():
        found = new[tensor]
        numpy.testing.assert_array_equal(found.mask(), expected.mask(), err_msg=tensor)
        numpy.testing.assert_allclose(
            found.filled(), expected.filled(), rtol=1e-12, atol=1e-12, err_msg=f"{tensor} {before}"
        )
    return after


def draw(**shapes: tuple[int, ...]) -> dict[str, numpy.ndarray[Any, Any]]:
    random = numpy.random.default_rng(0)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def test_a_scaled_sum_becomes_a_dot_and_a_pointwise_einsum() -> None:
    assert lines(
        """
        def scores(Q, K, *, slope=0.5):
            S[b, p, m: m <= p] = Q[b, p, e] * K[b, m, e] / sqrt(size(e)) + slope * (p - m)
            return S
        """
    ) == [
        "S_dot[b, p, m] = sum[e](Q[b, p, e] * K[b, m, e] / sqrt(size(e)))",
        "S[b, p, m: m <= p] = S_dot[b, p, m] + slope * (p - m)",
    ]


def test_ranks_keep_the_order_of_the_output_and_others_follow() -> None:
    assert lines(
        """
        def f(Q, K, X):
            O[m, p] = sum[n](exp(sum[e](Q[p, e] * K[n, e] * X[m, n])))
            return O
        """
    ) == [
        "O_dot[m, p, n] = sum[e](Q[p, e] * K[n, e] * X[m, n])",
        "O[m, p] = sum[n](exp(O_dot[m, p, n]))",
    ]


def test_inner_reductions_come_first_and_filters_stay_with_their_reduction() -> None:
    assert lines(
        """
        def f(X):
            O[p] = 1 + max[m: m <= p](X[p, m] - min[n: n > m](X[p, n]))
            return O
        """
    ) == [
        "O_min[p, m] = min[n: n > m](X[p, n])",
        "O_max[p] = max[m: m <= p](X[p, m] - O_min[p, m])",
        "O[p] = 1 + O_max[p]",
    ]


def test_what_is_equal_within_an_einsum_gets_one_name() -> None:
    assert lines(
        """
        def f(X):
            A[p] = sum[m](X[p, m]) / (1 + abs(sum[m](X[p, m])))
            B[p] = sum[m](1 * X[p, m]) + sum[m](1.0 * X[p, m])
            return A, B
        """
    ) == [
        "A_sum[p] = sum[m](X[p, m])",
        "A[p] = A_sum[p] / (1 + abs(A_sum[p]))",
        "B_sum[p] = sum[m](1 * X[p, m])",
        "B_sum_2[p] = sum[m](1.0 * X[p, m])",
        "B[p] = B_sum[p] + B_sum_2[p]",
    ]


def test_names_meet_no_tensor_rank_or_parameter() -> None:
    text = """
    def O_sum_5(X, O_sum, *, O_sum_2=1.0):
        O_sum_4[p] = sum[O_sum_3](O_sum[p, O_sum_3] * O_sum_2)
        O[p] = 2 * sum[m](X[p, m]) + O_sum_4[p]
        return O
    """
    after = flatten(cascade(text))
    assert [e.name for e in after.einsums] == ["O_sum_4", "O_sum_6", "O"]
    verify(after)


def test_flat_stays_the_same_object() -> None:
    flat = cascade(
        """
        def f(X, Y, I):
            S[p, m: m <= p] = sum[e](X[p, e] * Y[m, e])
            T[p, j] = topk[m, 3](S[p, m], forced=m < 1)
            C[p, n] = concat[n](S[p, m], Y[p, e])
            O[p] = max[n: n in T[p]](C[p, n] + S[I[p], p])
            return O
        """
    )
    assert flatten(flat) is flat
    mixed = cascade(
        """
        def f(X):
            A[p] = sum[m](X[p, m])
            B[p] = A[p] + sum[m](X[p, m] * X[p, m])
            return B
        """
    )
    assert flatten(mixed).einsums[0] is mixed.einsums[0]


def test_a_selection_inside_an_expression_is_refused() -> None:
    x = Access("X", (RankVariable("m"),))
    inside = Apply("+", (x, Populate("threshold", "m", x, x)))
    bad = Cascade("f", ("X",), (), (Einsum(Access("T", (RankVariable("j"),)), inside),), ("T",))
    with pytest.raises(PassError, match=r"T holds threshold\[\.\.\.\]"):
        flatten(bad)


KEPT = {
    "empty rows are an identity, not an absence": """
        def f(Q, K):
            S[p, m: m < p] = 2 * sum[e](Q[p, e] * K[m, e])
            G[p] = 1 + max[m](S[p, m]) - 1
            D[p] = 1 / sum[m: m > p + 1](S[p, m])
            P[p] = 3 * prod[m: m + 2 < p](S[p, m])
            return S, G, D, P
    """,
    "default takes the identity of an empty sum, not its second operand": """
        def f(Q, K):
            S[p, m: m < p] = sum[e](Q[p, e] * K[m, e]) + 1
            O[p] = default(sum[m](S[p, m]), 7) + default(S[p, p + 0], 5)
            return O
    """,
    "a branch that is not taken": """
        def f(Q, K):
            S[p, m: m < p] = where(m == 0, sum[e](Q[p, e]), sum[e](Q[p, e] * K[m, e])) + K[m, 0]
            O[p, m] = where(m < p, S[p, m], sum[e](K[m, e]))
            return O
    """,
    "a reduction in a filter": """
        def f(Q, K):
            S[p, m: sum[e](Q[p, e] * K[m, e]) > 0 and m <= p] = Q[p, 0] - K[m, 1]
            O[p] = sum[m: Q[p, 0] + K[m, 0] > sum[e](K[m, e]) / 2](K[m, 0])
            return S, O
    """,
    "a reduction in a coordinate, outside the shape for an empty row": """
        def f(Q, K):
            O[p, e] = Q[p, e] + K[argmax[m: m < p](K[m, p % 3]), e]
            N[p] = sum[e](K[argmin[m: m < p](K[m, p % 3]), e]) * 2
            return O, N
    """,
    "reductions under selections and in their marks": """
        def f(Q, K):
            T[p, j] = topk[m, 2](sum[e](Q[p, e] * K[m, e]), forced=sum[e](K[m, e]) > 1)
            U[p, k] = threshold[m, sum[e](Q[p, e]) / 4](sum[e](Q[p, e] * K[m, e]), forbidden=m == p)
            O[p] = sum[m: m in T[p]](K[m, 0])
            return T, U, O
    """,
    "coordinates in the parts of a concatenation": """
        def f(Q, K):
            C[n] = concat[n](K[m, argmax[e](Q[0, e])], Q[c, argmin[m](K[m, 0])])
            G[p] = 2 * max[n](C[n] * Q[p, 0])
            return C, G
    """,
    "a reduction over a rank of its own, of an absent tensor": """
        def f(Q, K):
            S[p, m: m < 0] = Q[p, 0] * K[m, 0]
            O[p] = any[m](S[p, m] > 0) + all[m](S[p, m] > 0) + argmax[m](S[p, m])
            return O
    """,
    "a recurrence that mixes its ranks": """
        def f(Q, K, W):
            H[0, e] = K[0, e] + sum[m](K[m, e])
            H[p + 1, e] = Q[p, e] + tanh(sum[f](H[p, f] * W[f, e])) / 2
            O[e] = H[size(p), e]
            return O, H
    """,
    "a recurrence that reads a fixed generation": """
        def f(Q, K):
            H[0, e] = K[0, e]
            H[p + 1, e] = Q[p, e] + sum[f](H[p, f]) / 4 + sum[f](H[2, f]) + sum[f](H[0, f])
            return H
    """,
    "a recurrence from the end": """
        def f(Q, K):
            G[size(p), e] = K[0, e]
            G[p, e] = Q[p, e] + sum[f](G[p + 1, f]) / 4
            return G
    """,
    "a recurrence that reads its past": """
        def f(Q, K, W):
            H[0, e] = K[0, e]
            B[p, e] = tanh(H[p, e])
            H[p + 1, e] = Q[p, e] + sum[f](B[p, f] * W[f, e]) + default(sum[f](H[p - 1, f]), 9)
            return H
    """,
    "two iterations, one inside the other": """
        def f(Q, K):
            H[0, m, e] = K[m, e]
            H[p + 1, m, e] = Q[p, e] + tanh(H[p, m, e]) + L[p, size(m), e] / 2
            L[p, 0, e] = Q[p, e]
            L[p, m + 1, e] = L[p, m, e] / 2 + sum[f](H[p, m, f] * L[p, m, f]) / 8
            return H
    """,
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_values_and_presence_stay(text: str) -> None:
    before = cascade(text)
    arrays = draw(Q=(5, 3), K=(6, 3), W=(3, 3))
    after = assert_kept(before, {name: arrays[name] for name in before.inputs}, {})
    assert after is not before


def test_empty_rows_have_the_values_of_the_language() -> None:
    before = cascade(KEPT["default takes the identity of an empty sum, not its second operand"])
    Q, K = numpy.ones((2, 3)), numpy.ones((2, 3))
    found = interpret(flatten(before), Q, K)
    # Row 0 has no point: its sum is 0. S[p, p] never exists.
    numpy.testing.assert_array_equal(found, [0 + 5, 4 + 5])


def test_an_iterative_reduction_keeps_the_iterative_rank() -> None:
    after = flatten(cascade(KEPT["a recurrence that reads a fixed generation"]))
    assert {e.name: e.ranks for e in after.einsums if e.name != "H"} == {
        "H_sum": ("p",),
        "H_sum_2": ("p",),  # how much of H[2] there is depends on the generation
        "H_sum_3": (),
    }


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_examples_keep_their_meaning(name: str) -> None:
    before = getattr(examples, name)
    tensors, parameters = make(name, seed=0, scale="tiny")
    assert_kept(before, dict(zip(before.inputs, tensors, strict=True)), parameters)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_cascades_keep_their_meaning(first: int) -> None:
    nested = 0
    for seed in range(first, first + 50):
        before, arrays, parameters = random_cascade(seed)
        after = assert_kept(before, arrays, parameters)
        nested += after is not before
        assert (after is before) == all(is_flat(e) for e in before.einsums)
    assert nested > 3
