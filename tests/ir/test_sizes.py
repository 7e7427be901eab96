"""Sizes from shapes: every rule, its order, and what the errors say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from einfall.ir.axes import ranks_of
from einfall.ir.cascade import Scalar
from einfall.ir.errors import RankError, ShapeError
from einfall.ir.expression import Access, Concatenate, RankVariable
from einfall.ir.notation import cascade
from einfall.ir.size_rules import part_rank
from einfall.ir.sizes import bind_parameters, rank_sizes, tensor_shape

ATTENTION = cascade("""
def attention(Q, K, V, *, scale=1.0):
    S[b, h, p, m: m <= p] = sum[e](Q[b, h, p, e] * K[b, h, m, e]) * scale
    G[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - G[b, h, p])
    D[b, h, p] = sum[m](N[b, h, p, m])
    O[b, h, p, f] = sum[m](N[b, h, p, m] * V[b, h, m, f]) / D[b, h, p]
    return O
""")


def sizes_of(
    text: str,
    parameters: Mapping[str, Scalar] | None = None,
    given: Mapping[str, int] | None = None,
    **shapes: tuple[int, ...],
) -> dict[str, int]:
    return rank_sizes(cascade(text), shapes, parameters or {}, given)


def test_plain_coordinates_give_sizes() -> None:
    shapes = {"Q": (2, 3, 5, 8), "K": (2, 3, 7, 8), "V": (2, 3, 7, 4)}
    got = rank_sizes(ATTENTION, shapes, {})
    assert got == {"b": 2, "h": 3, "p": 5, "m": 7, "e": 8, "f": 4}
    assert tuple(got) == ATTENTION.ranks
    assert tensor_shape(ATTENTION, "S", got) == (2, 3, 5, 7)
    assert tensor_shape(ATTENTION, "V", got) == (2, 3, 7, 4)
    assert ranks_of(ATTENTION, "K") == ("b", "h", "m", "e")
    assert ranks_of(ATTENTION, "O") == ("b", "h", "p", "f")


def test_a_disagreement_names_the_rank_both_sizes_and_both_tensors() -> None:
    shapes = {"Q": (2, 3, 5, 8), "K": (2, 3, 7, 9), "V": (2, 3, 7, 4)}
    with pytest.raises(ShapeError) as caught:
        rank_sizes(ATTENTION, shapes, {})
    for part in ("'e'", "size 8 in Q (2, 3, 5, 8)", "9 in K (2, 3, 7, 9)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({"Q": (3, 5, 8), "K": (2, 3, 7, 8), "V": (2, 3, 7, 4)}, "Q has 4 ranks"),
        ({"Q": (2, 3, 5, 8), "K": (2, 3, 7, 8)}, "reads V, which is missing"),
        ({"Q": (1,) * 4, "K": (1,) * 4, "V": (1,) * 4, "W": (1,)}, "no input 'W'"),
    ],
)
def test_arguments_that_do_not_fit(shapes: dict[str, tuple[int, ...]], part: str) -> None:
    with pytest.raises(ShapeError, match=part):
        rank_sizes(ATTENTION, shapes, {})


def test_parameters() -> None:
    c = cascade("def f(X, *, W, G=2):\n    Y[p: p < W] = X[p // G]\n    return Y")
    assert bind_parameters(c, {"W": 3}) == {"W": 3, "G": 2}
    assert bind_parameters(c, {"W": 3, "G": 5}) == {"W": 3, "G": 5}
    with pytest.raises(ShapeError, match="'W' of f has no value: pass W="):
        bind_parameters(c, {})
    with pytest.raises(ShapeError, match="no parameter 'V'"):
        bind_parameters(c, {"W": 3, "V": 1})
    with pytest.raises(ShapeError, match="is a number"):
        bind_parameters(c, {"W": "three"})  # type: ignore[dict-item]


def test_given_sizes() -> None:
    text = "Y[p, c] = X[p + c]"
    with pytest.raises(ShapeError, match=r'rank \'p\' .* sizes=\{"p": 64\}'):
        sizes_of(text, X=(9,))
    assert sizes_of(text, given={"p": 7, "c": 3}, X=(9,)) == {"p": 7, "c": 3}
    with pytest.raises(ShapeError, match="no rank"):
        sizes_of(text, given={"p": 7, "c": 3, "q": 1}, X=(9,))
    with pytest.raises(ShapeError, match="cannot have size -1"):
        sizes_of(text, given={"p": 7, "c": -1}, X=(9,))
    with pytest.raises(ShapeError, match=r"sizes=\{'p': 4\} and 9 in X \(9,\)"):
        sizes_of("Y[p] = X[p]", given={"p": 4}, X=(9,))


@pytest.mark.parametrize(
    ("selection", "size"),
    [("topk[m, k](S[p, m])", 3), ("threshold[m, 0.5](S[p, m])", 9), ("cover[m, 0.9](S[p, m])", 9)],
)
def test_list_ranks(selection: str, size: int) -> None:
    c = cascade(f"def f(S, *, k=3):\n    T[p, j] = {selection}\n    return T")
    assert rank_sizes(c, {"S": (4, 9)}, {})["j"] == size


def test_a_list_rank_and_an_argument_must_agree() -> None:
    text = (
        "def f(S, X):\n    T[p, j] = topk[m, 4](S[p, m])\n    Y[p, j] = X[T[p, j], j]\n    return Y"
    )
    with pytest.raises(ShapeError, match="selection that writes T"):
        sizes_of(text, S=(4, 9), X=(9, 5))


def test_concatenated_ranks() -> None:
    text = "C[p, n] = concat[n](A[p, m], B[p, c], D[p, d])"
    assert sizes_of(text, A=(4, 9), B=(4, 2), D=(4, 9))["n"] == 20
    body = Concatenate("n", (Access("A", (RankVariable("p"), RankVariable("m"))),))
    assert part_rank(body.parts[0], frozenset({"p", "n"})) == "m"
    with pytest.raises(RankError):
        part_rank(body.parts[0], frozenset({"p", "m"}))


@pytest.mark.parametrize(
    ("coordinate", "expected"),
    [
        ("m1 * M0 + m0", {"m0": 4, "m1": 3}),
        ("m0 + m1 * M0", {"m0": 4, "m1": 3}),
        ("m1 * 1 + m0", {"m0": 1, "m1": 10}),
        ("(m2 * 2 + m1) * 2 + m0", {"m0": 2, "m1": 2, "m2": 3}),
        ("2 * m1", {"m1": 5}),
    ],
)
def test_mixed_radix_views(coordinate: str, expected: dict[str, int]) -> None:
    ranks = ", ".join(expected)
    c = cascade(f"def f(X, *, M0=4):\n    Y[{ranks}] = X[{coordinate}] * M0\n    return Y")
    assert rank_sizes(c, {"X": (10,)}, {}) == expected


def test_a_known_digit_is_left_alone() -> None:
    text = "Y[m1, m0] = X[m1 * 4 + m0] * Z[m0]"
    assert sizes_of(text, X=(10,), Z=(4,)) == {"m1": 3, "m0": 4}


def test_a_shift_is_no_mixed_radix() -> None:
    with pytest.raises(ShapeError, match="has no size"):
        sizes_of("Y[p] = sum[s](X[p + s] * 2)", X=(9,))


def test_sizes_flow_through_computed_tensors() -> None:
    text = "def f(X):\n    A[p] = X[p] * 2\n    B[q] = A[q] + 1\n    return B"
    assert sizes_of(text, X=(5,)) == {"p": 5, "q": 5}


ITERATIVE = """
def f(X):
    H[0, e] = 0
    H[i + 1, e] = H[i, e] + X[i, e]
    O[e] = H[size(i), e]
    P[j, e] = H[j, e] * 2
    return O, P
"""


def test_an_iterative_rank_has_one_generation_more() -> None:
    c = cascade(ITERATIVE)
    got = rank_sizes(c, {"X": (4, 3)}, {})
    assert got == {"i": 4, "e": 3, "j": 5}
    assert tensor_shape(c, "H", got) == (5, 3)
    assert tensor_shape(c, "P", got) == (5, 3)
    assert ranks_of(c, "H") == ("i", "e")


def test_an_iterative_rank_may_run_backward() -> None:
    c = cascade("""
def f(X):
    H[size(i), e] = 0
    H[i, e] = H[i + 1, e] + X[i, e]
    P[j, e] = H[j, e] * 2
    return P
""")
    for size in (4, 0):
        got = rank_sizes(c, {"X": (size, 3)}, {})
        assert got == {"i": size, "e": 3, "j": size + 1}
        assert tensor_shape(c, "H", got) == (size + 1, 3)
    assert ranks_of(c, "H") == ("i", "e")


def test_a_quotient_bounds_a_rank_that_nothing_else_shows() -> None:
    text = "def f(page, X):\n    Y[m] = X[page[m // 4], m % 4]\n    return Y"
    assert sizes_of(text, page=(3,), X=(7, 4)) == {"m": 12}


@pytest.mark.parametrize(
    ("filter", "size"),
    [("m < W", 5), ("m <= W", 6), ("W > m", 5), ("W >= m", 6), ("m % 2 == 0 and m < W / 2", 3),
     ("m <= p", 3), ("m < 4 - p", 4)],
)  # fmt: skip
def test_a_filter_is_the_last_resort(filter: str, size: int) -> None:
    c = cascade(f"def f(X, *, W=5):\n    Y[p, m: {filter}] = X[p] + m * W\n    return Y")
    assert rank_sizes(c, {"X": (3,)}, {}) == {"p": 3, "m": size}


def test_a_filter_never_overrules_an_argument() -> None:
    assert sizes_of("Y[m: m < 3] = X[m]", X=(8,)) == {"m": 8}
    text = "def f(X):\n    Y[p] = sum[m: m < 3](X[m] * X[p])\n    return Y"
    assert sizes_of(text, X=(8,)) == {"m": 8, "p": 8}


def test_membership_counts_the_list_rank() -> None:
    text = "def f(X, L):\n    Y[m: m in L[p // 2], p] = X[p, m]\n    return Y"
    assert sizes_of(text, X=(4, 5), L=(2, 3)) == {"m": 5, "p": 4}
    with pytest.raises(ShapeError, match="L has 2 ranks"):
        sizes_of(text, X=(4, 5), L=(2,))
