"""Errors: every kind of fault in a text, its class, and the characters that it points at.

Lines and columns count from 1; the last number is one past the last character.
"""

from __future__ import annotations

import importlib.util
import random
import re
import traceback
from pathlib import Path

import pytest

from einfall.ir.errors import (
    EinfallError,
    LocatedError,
    NotationError,
    RankError,
    SparsityError,
)
from einfall.ir.notation import cascade

FAULTS: dict[str, tuple[str, type[LocatedError], int, int, int]] = {
    "not python": ("S[p, m] = Q[p, e] * * K[m, e]", NotationError, 1, 21, 22),
    "bracket left open": ("S[p] = exp(Q[p]\nT[p] = S[p]", NotationError, 1, 11, 12),
    "statement below the def's column": ("  S[p] = Q[p]\nT[p] = S[p]", NotationError, 2, 1, 12),
    "nothing": ("# only a comment\n", NotationError, 0, 0, 0),
    "def without einsum": ("def f(Q):\n    return Q", NotationError, 1, 1, 10),
    "line without =": ("S[p] = Q[p]\nS[p] == Q[p]", NotationError, 2, 1, 13),
    "two =": ("A[p] = B[p] = Q[p]", NotationError, 1, 1, 19),
    "augmented": ("S[p] += Q[p, e]", NotationError, 1, 1, 16),
    "filter behind the brackets": ("S[p, m]: m <= p = Q[p, m]", NotationError, 1, 1, 26),
    "left no tensor": ("Q.x = K[m]", NotationError, 1, 1, 4),
    "tuple on left": ("A[p], B[p] = Q[p], K[p]", NotationError, 1, 1, 11),
    "loop": ("for p in Q:\n    S[p] = Q[p]", NotationError, 1, 1, 16),
    "branch": ("if W: S[p] = Q[p]", NotationError, 1, 1, 18),
    "star arguments": ("def f(*Q):\n    S[p] = Q[p]", NotationError, 1, 8, 9),
    "default of no number": (
        "def f(Q, *, W='x'):\n    S[p] = Q[p] * W\n    return S",
        NotationError,
        1,
        15,
        18,
    ),
    "default of a tensor": ("def f(Q=1):\n    S[p] = Q[p]\n    return S", NotationError, 1, 7, 8),
    "decorator": ("@magic\ndef f(Q):\n    S[p] = Q[p]", NotationError, 1, 2, 7),
    "return of an expression": ("S[p] = Q[p]\nreturn S[p]", NotationError, 2, 8, 12),
    "return of nothing": ("S[p] = Q[p]\nreturn", NotationError, 2, 1, 7),
    "line behind return": ("S[p] = Q[p]\nreturn S\nT[p] = Q[p]", NotationError, 3, 1, 12),
    "return unknown": ("def f(Q):\n    S[p] = Q[p]\n    return Sx", RankError, 3, 12, 14),
    "return twice": ("S[p] = Q[p]\nreturn S, S", RankError, 2, 11, 12),
    "two loose ends": ("S[p] = Q[p]\nT[p] = K[p]", RankError, 2, 1, 12),
    "unknown function": ("S[p] = expp(Q[p])", NotationError, 1, 8, 12),
    "unknown reduction": ("S[p] = mux[m](Q[p, m])", NotationError, 1, 8, 14),
    "arity": ("S[p] = exp(Q[p], K[p])", NotationError, 1, 8, 23),
    "max of one": ("S[p] = max(Q[p])", NotationError, 1, 8, 17),
    "two operands reduced": ("S[p] = max[m](Q[p, m], K[p, m])", NotationError, 1, 8, 32),
    "reduction without rank": ("S[p] = sum(Q[p, m])", NotationError, 1, 8, 11),
    "reduction without parentheses": ("S[p] = max[m]", NotationError, 1, 8, 14),
    "function as value": ("S[p] = Q[p] * exp", NotationError, 1, 15, 18),
    "function in brackets": ("S[p] = exp[m](Q[p, m])", NotationError, 1, 8, 14),
    "keyword to a function": ("S[p] = exp(Q[p], base=2)", NotationError, 1, 18, 24),
    "ampersand": ("S[p, m: m <= p & m > 3] = Q[p, m]", NotationError, 1, 14, 19),
    "at": ("S[p, m] = Q[p] @ K[m]", NotationError, 1, 11, 22),
    "invert": ("S[p, m: ~keep[m]] = Q[p, m]", NotationError, 1, 9, 17),
    "is": ("S[p, m: m is p] = Q[p, m]", NotationError, 1, 9, 15),
    "text": ("S[p] = Q[p] * 'a'", NotationError, 1, 15, 18),
    "attribute": ("S[p] = Q.T[p]", NotationError, 1, 8, 14),
    "call of a call": ("S[p] = exp(Q)(p)", NotationError, 1, 8, 14),
    "lambda": ("S[p] = lambda x: x", NotationError, 1, 8, 19),
    "list": ("S[p] = [Q[p]]", NotationError, 1, 8, 14),
    "filter on the right": ("S[p] = Q[p, m: m <= p]", NotationError, 1, 13, 22),
    "dots": ("S[p] = Q[..., p]", NotationError, 1, 10, 13),
    "half a filter": ("S[p, m:] = Q[p, m]", NotationError, 1, 6, 8),
    "step": ("S[p, m: m <= p: 2] = Q[p, m]", NotationError, 1, 6, 18),
    "size of expression": ("S[p] = Q[p] / size(p + 1)", NotationError, 1, 15, 26),
    "reserved tensor": ("max[p] = Q[p]\nS[p] = Q[p]", NotationError, 1, 1, 7),
    "reserved rank": ("S[min] = Q[min]", NotationError, 1, 3, 6),
    "reserved argument": ("def f(sum):\n    S[p] = sum[p]", NotationError, 1, 7, 10),
    "unicode column": ("σ[p] = α[p] * bogus(β[p])", NotationError, 1, 15, 20),
    "selection nested": ("T[p, j] = 1 + topk[m, 4](S[p, m])", NotationError, 1, 15, 34),
    "selection without number": ("T[p, j] = topk[m](S[p, m])", NotationError, 1, 11, 18),
    "selection's keyword": ("T[p, j] = topk[m, 4](S[p, m], must=m < 4)", NotationError, 1, 31, 41),
    "concatenation nested": ("C[n] = 2 * concat[n](A[m], B[c])", NotationError, 1, 12, 33),
    "concatenation of one": ("C[n] = concat[n](A[m])", NotationError, 1, 8, 23),
    "unknown tensor": (
        "def f(Queries, K):\n    S[p, m] = Querys[p, e] * K[m, e]\n    return S",
        RankError,
        2,
        15,
        27,
    ),
    "read before written": (
        "def f(Q):\n    D[p] = N[p, m]\n    N[p, m] = Q[p, m]\n    return D",
        RankError,
        2,
        12,
        19,
    ),
    "itself": ("def f(Q):\n    D[p] = D[p] + Q[p]\n    return D", RankError, 2, 12, 16),
    "cycle": (
        "def f(Q):\n    A[p] = B[p] + Q[p]\n    B[p] = A[p]\n    return B",
        RankError,
        2,
        12,
        16,
    ),
    "without first": ("H[i + 1] = H[i] + Q[i]", RankError, 1, 3, 8),
    "only first": ("H[0, e] = Q[e]\nO[e] = H[0, e]", RankError, 1, 1, 8),
    "first not zero": ("H[1] = 0\nH[i + 1] = H[i] + Q[i]", RankError, 1, 3, 4),
    "both ways": (
        "H[0] = 0\nH[i + 1] = H[i] + G[i]\nG[i] = H[i + 2] + Q[i]\nreturn G",
        RankError,
        3,
        8,
        16,
    ),
    "written twice": ("S[p] = Q[p]\nS[p] = K[p]", RankError, 2, 1, 5),
    "argument written": ("def f(Q):\n    Q[p] = Q[p]\n    return Q", RankError, 2, 5, 9),
    "unused": ("def f(Q, K):\n    S[p] = Q[p]\n    return S", RankError, 1, 10, 11),
    "declared twice": (
        "def f(Q, K, Q):\n    S[p] = Q[p] * K[p]\n    return S",
        RankError,
        1,
        13,
        14,
    ),
    "rank twice": ("S[p, p] = Q[p]", RankError, 1, 6, 7),
    "left expression": ("S[p // 2] = Q[p]", RankError, 1, 3, 9),
    "kept": ("A[p, m] = exp(S[p, m]) / sum[m](exp(S[p, m]))", RankError, 1, 26, 46),
    "occurs nowhere": ("D[p] = sum[n](N[p, m])", RankError, 1, 8, 23),
    "taken twice": ("D[p] = sum[m](N[p, m] * max[m](N[p, m]))", RankError, 1, 25, 40),
    "rank twice in reduction": ("D[p] = sum[m, m](N[p, m])", RankError, 1, 8, 26),
    "rank absent here": (
        "S[p, m] = Q[p, e] * K[m, e]\nD[p] = sum[m](S[p, m]) + e",
        RankError,
        2,
        26,
        27,
    ),
    "reduced rank outside": ("D[p] = sum[m](S[p, m]) * m", RankError, 1, 26, 27),
    "doubtful product": ("S[p, m] = 2 * (Q[p, e] * K[m, e] + c)", RankError, 1, 16, 37),
    "doubtful quotient": ("S[p, m] = (Q[p, e] * K[m, e] - B[p, m]) / 8", RankError, 1, 12, 39),
    "doubtful maximum": ("G[p] = max[m](Q[p, e] * K[m, e])", RankError, 1, 8, 33),
    "doubtful shorthand": ("A[p, m] = softmax[m](Q[p, e] * K[m, e])", RankError, 1, 11, 40),
    "wrong number of ranks": (
        "S[p, m] = Q[p, e] * K[m, e]\nG[p] = max[m](S[p, m, e])",
        RankError,
        2,
        15,
        25,
    ),
    "bare tensor": ("S[p, m] = Q[p, m]\nG[p] = Q[p, m] * S", RankError, 2, 18, 19),
    "rank like a tensor": ("S[p] = Q[p]\nT[S] = K[S] * S[p]", RankError, 2, 3, 4),
    "rank like a parameter": (
        "def f(Q, *, m=4):\n    S[m] = Q[m] * m\n    return S",
        RankError,
        2,
        7,
        8,
    ),
    "parameter with ranks": (
        "def f(Q, *, W):\n    S[p] = Q[p] * W[p]\n    return S",
        RankError,
        2,
        19,
        23,
    ),
    "size of nothing": ("S[p] = Q[p] / size(e)", RankError, 1, 20, 21),
    "membership in a number": ("R[p, m: m in W] = S[p, m]", RankError, 1, 14, 15),
    "membership with every rank": (
        "T[p, j] = topk[m, 4](S[p, m])\nR[p, m: m in T[p, j]] = S[p, m]",
        RankError,
        2,
        14,
        21,
    ),
    "no list": ("T[p] = topk[m, 4](S[p, m])", RankError, 1, 1, 5),
    "two lists": ("T[p, j, k] = topk[m, 4](S[p, m])", RankError, 1, 1, 11),
    "selected kept": ("T[p, m] = topk[m, 4](S[p, m])", RankError, 1, 11, 30),
    "part with two": ("C[n] = concat[n](A[m, x], B[c])", RankError, 1, 18, 25),
    "part shared": ("C[n] = concat[n](A[m], B[m])", RankError, 1, 24, 28),
    "softmax lacks": ("A[p, m] = softmax[c](S[p, m])", RankError, 1, 11, 30),
    "softmax without rank": ("A[p, m] = softmax(S[p, m])", NotationError, 1, 11, 27),
    "silu with rank": ("A[p, m] = silu[m](S[p, m])", NotationError, 1, 11, 27),
    "rmsnorm args": ("A[p, e] = rmsnorm[e](S[p, e], 1, 2)", NotationError, 1, 11, 36),
    "rmsnorm keyword": ("A[p, e] = rmsnorm[e](S[p, e], epsilon=1)", NotationError, 1, 31, 40),
    "shorthand misspelt": ("A[p, m] = softmx[m](S[p, m])", NotationError, 1, 11, 20),
    "filter on absent": (
        "def f(Q, K, V):\n    S[p, m] = Q[p, e] * K[m, e]\n    O[p, f: m <= p] = S[p, m] * V[m, f]",
        SparsityError,
        3,
        13,
        14,
    ),
    "filter on elsewhere": (
        "S[p, m] = Q[p, e] * K[m, e]\nD[p: e < 3] = sum[m](S[p, m])",
        SparsityError,
        2,
        6,
        7,
    ),
    "number filter": ("S[p, m: m - p] = Q[p, m]", SparsityError, 1, 9, 14),
    "number in and": ("S[p, m: m <= p and m] = Q[p, m]", SparsityError, 1, 20, 21),
    "number in reduction's": ("S[p] = sum[m: m + 1](Q[p, m])", SparsityError, 1, 15, 20),
    "forced number": ("T[p, j] = topk[m, 4](S[p, m], forced=4)", SparsityError, 1, 38, 39),
    "filter around shorthand": ("A[p, m: m <= p] = softmax[m](S[p, m])", SparsityError, 1, 19, 38),
    "reduction filter absent": (
        "D[p] = sum[m: e <= m](S[p, m])\nU[p] = Q[p, e] * D[p]",
        SparsityError,
        1,
        15,
        16,
    ),
    "local shorthand": (
        "def half(X):\n    return X[...] / W\ndef f(Q):\n    S[p] = half(Q[p])\n    return S",
        RankError,
        2,
        21,
        22,
    ),
    "shorthand rank": (
        "def total(X, *, m):\n    return sum[n](X[..., m])\nS[p] = total[m](Q[p, m])",
        RankError,
        2,
        16,
        17,
    ),
    "shorthand no dots": (
        "def total(X, *, m):\n    T[m] = X[..., m]\n    return T\nS[p] = total[m](Q[p, m])",
        RankError,
        2,
        5,
        9,
    ),
    "list's rank as number": ("T[p, j] = topk[m, j](S[p, m])", RankError, 1, 19, 20),
    "generation with no rank": (
        "S[p] = Q[p, e]\nH[size(S), p] = 0\nH[i, p] = H[i + 1, p] + S[p]",
        RankError,
        2,
        8,
        9,
    ),
    "one fault in indented text": (
        "\n    S[p] = Q[p]\n    T[p] = S[p] * wild(S[p])\n",
        NotationError,
        3,
        19,
        23,
    ),
    "two first generations": ("H[0] = 0\nH[0] = 1\nH[i + 1] = H[i] + Q[i]", RankError, 2, 1, 5),
    "first beside no step": ("H[0, e] = 0\nH[i, e] = Q[i, e]", RankError, 1, 3, 4),
    "generation that it writes": ("H[0] = 0\nH[i + 1] = H[i + 1] + Q[i]", RankError, 2, 12, 20),
}


@pytest.mark.parametrize(("text", "kind", "line", "column", "end"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_where_it_stands(
    text: str, kind: type[LocatedError], line: int, column: int, end: int
) -> None:
    with pytest.raises(EinfallError) as caught:
        cascade(text)
    at = caught.value.at  # type: ignore[attr-defined]
    assert (type(caught.value), at.line, at.column, at.end_column) == (kind, line, column, end)
    if line:
        assert at.text == text.split("\n")[line - 1]


@pytest.mark.parametrize("text", [row[0] for row in FAULTS.values()], ids=FAULTS)
def test_a_message_is_one_paragraph_in_words(text: str) -> None:
    with pytest.raises(EinfallError) as caught:
        cascade(text)
    message = caught.value.msg  # type: ignore[attr-defined]
    assert "\n" not in message
    assert message[-1] in ".?"
    assert "ast." not in message and "object at" not in message


def message(text: str) -> str:
    with pytest.raises(LocatedError) as caught:
        cascade(text)
    assert caught.value.msg is not None
    return caught.value.msg


def test_python_underlines_the_characters() -> None:
    with pytest.raises(LocatedError) as caught:
        cascade("S[p] = Q[p]\nT[p] = expp(S[p])")
    shown = "".join(traceback.format_exception_only(caught.value))
    assert shown == (
        '  File "<cascade>", line 2\n'
        "    T[p] = expp(S[p])\n"
        "           ^^^^\n"
        "einfall.ir.errors.NotationError: 'expp' is no function of the notation; "
        "did you mean 'exp'?\n"
    )


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.einsum"
    path.write_text("# one line above\ndef f(Q):\n    S[p] = Q[p] * mux[m](Q[p])\n    return S\n")
    for source in (path, str(path)):
        with pytest.raises(NotationError) as caught:
            cascade(source)
        assert str(caught.value.at) == f"{path}:3:19"
        assert caught.value.filename == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotationError, match=r"absent\.einsum' cannot be read: No such file"):
        cascade(tmp_path / "absent.einsum")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.einsum"
    path.write_bytes(b"S[p] = \xff\xfe")
    with pytest.raises(NotationError, match="not UTF-8"):
        cascade(path)


def test_a_fault_in_a_function_has_the_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "declared.py"
    path.write_text("# a module\n\n\ndef wrong(Q):\n    S[p] = Q[p] * mux[m](Q[p])\n    return S\n")
    spec = importlib.util.spec_from_file_location("declared", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(NotationError) as caught:
        cascade(module.wrong)
    assert str(caught.value.at) == f"{path}:5:19"
    assert caught.value.at.text == "    S[p] = Q[p] * mux[m](Q[p])"


def test_what_is_no_cascade_source_is_refused() -> None:
    with pytest.raises(NotationError, match="int given"):
        cascade(3)  # type: ignore[arg-type]
    with pytest.raises(NotationError, match="no"):
        cascade(len)
    with pytest.raises(NotationError, match="def"):
        cascade(lambda Q: Q)


def test_the_other_place_is_noted() -> None:
    with pytest.raises(RankError) as caught:
        cascade("S[p, m] = Q[p, e] * K[m, e]\nG[p] = max[m](S[p, m, e])")
    assert caught.value.msg == "S has 2 ranks; 3 given."
    assert caught.value.__notes__ == ["S has 2 ranks here: <cascade>:1:1"]


DOUBTS = (
    "S[p, m] = 2 * (Q[p, e] * K[m, e] + c)",
    "S[p, m] = B[p, m] - (Q[p, e] * K[m, e] - B[p, m]) / 8",
    "G[p] = max[m](Q[p, e] * K[m, e])",
    "A[p, m] = softmax[m](Q[p, e] * K[m, e])",
)


@pytest.mark.parametrize("text", DOUBTS)
def test_a_doubtful_sum_shows_two_ways_that_are_notation(text: str) -> None:
    left = text.split(" = ")[0]
    said = message(text)
    first, second = said[said.index("written out: ") + 13 : -1].split(" or ")
    meanings = {str(cascade(f"{left} = {way}")) for way in (first, second)}
    assert len(meanings) == 2


@pytest.mark.parametrize(
    "text",
    [
        "D[p] = exp(S[p, m] - G[p])",  # a function is no product
        "S[p, m] = Q[p, e] * K[m, e] - slope * (p - m)",  # the other term has no e at all
        "D[p] = 2 * (A[p, m] + B[p, m])",  # both summands have it
        "S[p, m] = sum[e](2 * (Q[p, e] * K[m, e] + c))",
    ],
)
def test_what_has_one_reading_is_read(text: str) -> None:
    assert cascade(text).einsums


@pytest.mark.parametrize("expression", ["-" * 5000 + "X[p]", " + ".join(["X[p]"] * 3000)])
def test_an_expression_without_end_is_refused(expression: str) -> None:
    with pytest.raises(NotationError, match="too deep"):
        cascade(f"S[p] = {expression}")


GOOD = (
    "S[p, m: m <= p] = Q[p, e] * K[m, e] / sqrt(size(e)) - s * (p - m)\nG[p] = max[m](S[p, m])",
    "A[p, m] = softmax[m: p - W < m <= p](S[p, m])\nO[p, f] = A[p, m] * V[m, f]",
    "H[0, e] = 0\nH[i + 1, e] = a[i] * H[i, e] + K[i, e] ** 2\nO[i] = sum[e](H[i, e])",
    "T[p, j] = topk[m, 4](S[p, m], forced=m < 2)\nR[p, m: m in T[p]] = -exp(S[p, m])",
    "def f(X, Z, *, n=3):\n    C[p, k] = concat[k](X[p, m], Z[p, c])\n    return C",
)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_any_text_is_read_or_refused_at_a_place_of_it() -> None:
    """Texts with a few tokens replaced, added, dropped or turned around."""
    token = re.compile(r"\w+|\*\*|//|[<>=!]=|\s+|.", re.DOTALL)
    texts = [*GOOD * 20, *(row[0] for row in FAULTS.values())]
    words = sorted({word for text in texts for word in token.findall(text)})
    draw = random.Random(0)
    read = 0
    for _ in range(2500):
        tokens = token.findall(draw.choice(texts))
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(tokens) + 1)
            stop = min(start + draw.randint(0, 3), len(tokens))
            middle = tokens[start:stop][::-1] if draw.random() < 0.3 else [draw.choice(words)]
            tokens[start:stop] = middle
        text = "".join(tokens)
        try:
            found = cascade(text)
        except LocatedError as error:
            if error.at.line:
                assert error.at.text == text.split("\n")[error.at.line - 1]
                assert 1 <= error.at.column <= len(error.at.text) + 1
        else:
            assert cascade(str(found)) == found
            read += 1
    assert read > 100
