"""Shorthands: what they expand to, and that the built-in ones compute what their names say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import erf, inf
from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import interpret
from einfall.ir import shorthand
from einfall.ir.errors import NotationError, RankError, SparsityError
from einfall.ir.notation import cascade

Array = numpy.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test defines."""
    monkeypatch.setattr(shorthand, "_known", dict(shorthand.known()))
    yield


def lines(text: str) -> list[str]:
    return [str(einsum) for einsum in cascade(text).einsums]


def test_softmax_is_four_einsums_of_which_the_last_is_the_callers() -> None:
    assert lines("A[b, p, m] = softmax[m](S[b, p, m])") == [
        "A_G[b, p] = max[m](S[b, p, m])",
        "A_N[b, p, m] = exp(S[b, p, m] - A_G[b, p])",
        "A_D[b, p] = sum[m](A_N[b, p, m])",
        "A[b, p, m] = A_N[b, p, m] / A_D[b, p]",
    ]


def test_inside_an_expression_the_quotient_is_a_tensor_too() -> None:
    assert lines("O[p, f] = softmax[m](S[p, m]) * V[m, f]")[3:] == [
        "O_A[p, m] = O_N[p, m] / O_D[p]",
        "O[p, f] = sum[m](O_A[p, m] * V[m, f])",
    ]


def test_an_argument_that_is_more_than_a_tensor_is_written_first() -> None:
    assert lines("L[p] = logsumexp[m](sum[e](Q[p, e] * K[m, e]) / 8)") == [
        "L_X[p, m] = sum[e](Q[p, e] * K[m, e]) / 8",
        "L_G[p] = max[m](L_X[p, m])",
        "L_D[p] = sum[m](exp(L_X[p, m] - L_G[p]))",
        "L[p] = L_G[p] + log(L_D[p])",
    ]


def test_a_filter_in_the_brackets_filters_the_argument() -> None:
    assert lines("A[p, m] = softmax[m: m <= p](S[p, m])")[0] == "A_X[p, m: m <= p] = S[p, m]"
    # p is not the argument's, and comes in with the filter.
    assert lines("L[p] = logsumexp[m: m <= p](B[m])")[0] == "L_X[m, p: m <= p] = B[m]"


def test_names_never_clash() -> None:
    found = cascade(
        "A_G[p] = S[p, m]\nA[p, m] = softmax[m](S[p, m]) * softmax[m](T[p, m]) * A_G[p]"
    )
    names = [e.name for e in found.einsums]
    assert len(set(names)) == len(names) == 10
    assert names[1] == "A_G2"
    found = cascade("A[p, m] = softmax[m](S[p, m]) * A_G * A_D3[m]\nreturn A")
    assert dict(found.parameters) == {"A_G": None}
    assert "A_G" not in [e.name for e in found.einsums]


def test_several_ranks_go_together() -> None:
    assert lines("A[p, m, c] = softmax[m, c](S[p, m, c])")[:2] == [
        "A_G[p] = max[m, c](S[p, m, c])",
        "A_N[p, m, c] = exp(S[p, m, c] - A_G[p])",
    ]


def test_a_mean_may_keep_the_rank_on_the_left() -> None:
    assert lines("C[p, m] = X[p, m] - mean[m](X[p, m])")[-1] == (
        "C[p, m] = X[p, m] - C_T[p] / C_C[p]"
    )


def test_a_result_is_one_term_of_an_implicit_sum() -> None:
    text = "def shifted(X):\n    return X[...] + 1\nD[p] = shifted(S[p, m])"
    assert lines(text) == ["D[p] = sum[m](S[p, m] + 1)"]


def test_shorthands_use_shorthands() -> None:
    assert lines("A[p, e] = rmsnorm[e](silu(X[p, e]), eps=0.5)") == [
        "A_X[p, e] = X[p, e] * sigmoid(X[p, e])",
        "A_X2[p, e] = A_X[p, e] * A_X[p, e]",
        "A_T[p] = sum[e](A_X2[p, e])",
        "A_C[p] = sum[e](where(A_X2[p, e] == A_X2[p, e], 1, 1))",
        "A_R[p] = A_T[p] / A_C[p]",
        "A[p, e] = A_X[p, e] / sqrt(A_R[p] + 0.5)",
    ]


def test_expanded_lines_point_at_the_call() -> None:
    found = cascade("S[p, m] = Q[p] * K[m]\nA[p, m] = softmax[m](S[p, m])")
    for einsum in found.einsums[1:-1]:
        for x in (einsum, einsum.output, *einsum.expressions()):
            assert x.at.line == 2
        assert (einsum.at.column, einsum.at.end_column) == (11, 30)


def test_a_user_defines_shorthands_for_all_texts() -> None:
    shorthand.define(
        """
        def scores(Q, K, scale=1.0, *, e):
            return sum[e](Q[..., e] * K[..., e]) * scale

        def best(X, k, *, m, j):
            T[..., j] = topk[m, k](X[..., m])
            return T

        def before(X, *, m):
            return X[..., m] - X[..., m - 1]
        """
    )
    assert lines("S[b, p, m] = scores[e](Q[b, p, e], K[b, m, e], scale=W)") == [
        "S[b, p, m] = sum[e](Q[b, p, e] * K[b, m, e]) * W",
    ]
    assert lines("Y[p, m] = before[m](X[p, m])") == ["Y[p, m] = X[p, m] - X[p, m - 1]"]
    assert lines("T[p, j] = best[m, j](S[p, m], 4)") == ["T[p, j] = topk[m, 4](S[p, m])"]


def test_a_new_meaning_replaces_the_old_and_may_use_it() -> None:
    shorthand.define(
        "def softmax(X, *, m):\n    S[..., m] = 2 * X[..., m]\n    return softmax[m](S[..., m])"
    )
    assert lines("A[p, m] = softmax[m](X[p, m])")[0] == "A_S[p, m] = 2 * X[p, m]"
    assert len(lines("A[p, m] = softmax[m](X[p, m])")) == 6


def test_a_shorthand_above_a_cascade_is_local_to_its_text() -> None:
    text = """
        def half(X):
            return X[...] / 2

        def f(Q):
            S[p] = half(Q[p]) + half(1)
            return S
    """
    assert str(cascade(text)) == "def f(Q):\n    S[p] = Q[p] / 2 + 1 / 2\n    return S"
    with pytest.raises(NotationError, match="half"):
        cascade("S[p] = half(Q[p])")


@pytest.mark.parametrize(
    ("text", "kind", "line", "column"),
    [
        ("S[p] = Q[p]", NotationError, 1, 1),
        ("def max(X):\n    return X[...]", NotationError, 1, 1),
        ("def f(X):\n    Y[...] = X[...]", NotationError, 1, 1),
        ("def f(X):\n    return X[...] * y", RankError, 2, 21),
        ("def f(X):\n    return X[...] * Y[...]", RankError, 2, 21),
        ("def f(X):\n    return X[...] * X", RankError, 2, 21),
        ("def f(X, *, m):\n    return sum[n](X[..., m])", RankError, 2, 16),
        ("def f(X, *, m):\n    return X[...] * X[..., m]", RankError, 2, 21),
        ("def f(X, *, m=3):\n    return X[..., m]", NotationError, 1, 13),
        ("def f(X, *, m):\n    Y[m] = X[..., m]\n    return Y", RankError, 2, 5),
        ("def f(X):\n    X[...] = 2\n    return X", RankError, 2, 5),
        (
            "def f(X, *, m):\n    Y[..., m] = X[..., m]\n    return Y[m, ...]",
            RankError,
            3,
            12,
        ),
        ("def f(X):\n    return exp(X[...], 2)", NotationError, 2, 12),
        ("def f(X):\n    return f(X[...])", NotationError, 2, 12),
        ("def f(X, *, m):\n    return max[m](X[..., m]) + m", RankError, 2, 12),
        ("def f(X, Y):\n    return X[...]", None, 0, 0),
    ],
)
def test_a_wrong_definition_is_refused_where_it_is_wrong(
    text: str, kind: type[NotationError | RankError] | None, line: int, column: int
) -> None:
    if kind is None:  # an argument without brackets is a scalar, and may stay unused
        shorthand.define(text)
        return
    with pytest.raises(kind) as caught:
        shorthand.define(text)
    assert (caught.value.at.line, caught.value.at.column) == (line, column)
    assert type(caught.value) is kind


def test_a_filter_outside_would_come_too_late() -> None:
    with pytest.raises(SparsityError, match=r"softmax\[m: ...\]"):
        cascade("A[p, m: m <= p] = softmax[m](S[p, m])")
    with pytest.raises(SparsityError):
        cascade("A[p] = sum[m: m <= p](softmax[m](S[p, m]))")
    assert lines("A[p, m: p < 3] = softmax[m](S[p, m])")[-1].startswith("A[p, m: p < 3] = ")


P, M = 4, 5
KEPT = numpy.arange(M) <= numpy.arange(P)[:, None] - 1  # the first row is empty


def masked(x: Array) -> list[Array]:
    return [row[kept] for row, kept in zip(x, KEPT, strict=True)]


def each(x: Array, function: Any) -> Array:
    """Apply ``function`` to the kept part of each row, and leave 0 elsewhere."""
    result = numpy.zeros_like(x)
    for row, out, kept in zip(x, result, KEPT, strict=True):
        if kept.any():
            out[kept] = function(row[kept])
    return result


KEEPING: dict[str, Callable[[Array], Array]] = {
    "softmax": lambda v: numpy.exp(v) / numpy.exp(v).sum(),
    "logsoftmax": lambda v: v - numpy.log(numpy.exp(v).sum()),
    "rmsnorm": lambda v: v / numpy.sqrt((v**2).mean() + 1e-6),
    "layernorm": lambda v: (v - v.mean()) / numpy.sqrt(v.var() + 1e-5),
    "l2norm": lambda v: v / numpy.linalg.norm(v),
}
TAKING: dict[str, tuple[Callable[[Array], float], float]] = {
    "logsumexp": (lambda v: numpy.log(numpy.exp(v).sum()), -inf),
    "mean": (lambda v: v.mean(), 0.0),
    "var": (lambda v: v.var(), 0.0),
}
POINTWISE: dict[str, Callable[[Array], Array]] = {
    "square": lambda v: v * v,
    "silu": lambda v: v / (1 + numpy.exp(-v)),
    "gelu": lambda v: v * 0.5 * (1 + numpy.vectorize(erf)(v / 2**0.5)),
    "softplus": lambda v: numpy.log1p(numpy.exp(v)),
}


def test_every_built_in_shorthand_is_tried_below() -> None:
    assert set(shorthand.known()) == {*KEEPING, *TAKING, *POINTWISE}


@pytest.fixture
def scores() -> Array:
    return numpy.random.default_rng(7).normal(size=(P, M)) * 3


@pytest.mark.parametrize("name", KEEPING)
def test_what_keeps_its_rank(name: str, scores: Array) -> None:
    found = interpret(cascade(f"A[p, m] = {name}[m: m < p](S[p, m])"), scores)
    numpy.testing.assert_allclose(found, each(scores, KEEPING[name]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TAKING)
def test_what_takes_its_rank(name: str, scores: Array) -> None:
    function, nothing = TAKING[name]
    expected = [function(row) if len(row) else nothing for row in masked(scores)]
    found = interpret(cascade(f"L[p] = {name}[m: m < p](S[p, m])"), scores)
    numpy.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", POINTWISE)
def test_what_works_point_by_point(name: str, scores: Array) -> None:
    found = interpret(cascade(f"Y[p, m] = {name}(S[p, m])"), scores)
    numpy.testing.assert_allclose(found, POINTWISE[name](scores), rtol=1e-12, atol=1e-14)


def test_softmax_and_softplus_do_not_overflow() -> None:
    large = numpy.array([[1e4, 1e4 - 1.0, -1e4]])
    expected = KEEPING["softmax"](large[0] - 1e4)
    found = interpret(cascade("A[p, m] = softmax[m](S[p, m])"), large)
    numpy.testing.assert_allclose(found[0], expected, rtol=1e-12)
    found = interpret(cascade("Y[p, m] = softplus(S[p, m])"), large)
    numpy.testing.assert_allclose(found[0], [1e4, 1e4 - 1.0, 0.0], rtol=1e-15)
