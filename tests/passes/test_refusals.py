"""What has no kernel is refused: the reason, the characters, and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

import einfall
from einfall import examples
from einfall.ir.errors import BackendError, EinfallError, PassError
from einfall.ir.expression import Access, Apply, RankVariable, Reduce
from einfall.ir.notation import cascade
from einfall.passes.walk_lists import split_lists

REFUSED: dict[str, tuple[str, dict[str, Any], type[EinfallError], str, str]] = {
    "a recurrence": (
        "def f(X, a):\n    H[i + 1, e] = H[i, e] * a[i] + X[i, e]\n    H[0, e] = 0\n    return H",
        {},
        BackendError,
        "H is iterative in i",
        "H[i + 1, e] = H[i, e] * a[i] + X[i, e]",
    ),
    "tensors end to end, to be stored": (
        "def f(K, L):\n    T[n, e] = concat[n](K[a, e], L[c, e])\n    return T",
        {},
        BackendError,
        "return its parts",
        "T[n, e] = concat[n](K[a, e], L[c, e])",
    ),
    "a point in two lists": (
        "def f(Q, K, A: unique, C: unique):\n"
        "    S[p, m: m in A[p] or m in C[p]] = Q[p, e] * K[m, e]\n"
        "    O[p] = sum[m](S[p, m])\n    return O",
        {},
        BackendError,
        "visited twice, and count twice: A and C; select into one list",
        "A[p]",
    ),
    "in no list": (
        "def f(Q, K, A: unique):\n"
        "    S[p, m: m not in A[p]] = Q[p, e] * K[m, e]\n"
        "    O[p] = sum[m](S[p, m])\n    return O",
        {},
        BackendError,
        "A stands under a not",
        "A[p]",
    ),
    "a long list in order of value": (
        "def f(S):\n    I[p, k] = topk[m, 20000](S[p, m])\n    return I",
        {"sizes": {"m": 40000}},
        BackendError,
        "ascending=True",
        "I[p, k] = topk[m, 20000](S[p, m])",
    ),
    "another order end to end": (
        "def f(K, L):\n"
        "    T[n] = concat[n](K[a], L[c])\n"
        "    R[n] = concat[n](L[c], K[a])\n"
        "    O[()] = sum[n](T[n] * R[n])\n    return O",
        {},
        BackendError,
        "the same ranks in the same order",
        "R[n] = concat[n](L[c], K[a])",
    ),
    "a tile of no power": ("causal", {"tiles": {"p": 48}}, BackendError, "power of two", ""),
    "a tile that several lists rule": (
        "block_lists",
        {"tiles": {"p": 128}},
        PassError,
        "one list for every 16, .* at most that many; 128 given",
        "",
    ),
    "a median": ("median", {}, BackendError, "in order of value", ""),
    "sparsemax": ("sparsemax", {}, BackendError, "in order of value", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, options, kind, words, marked = REFUSED[name]
    c = cascade(text) if "\n" in text else getattr(examples, text)
    sizes = {"e": 16, "f": 16, **options.get("sizes", {})}
    with pytest.raises(kind, match=words) as error:
        einfall.compile(c, tiles=options.get("tiles")).lower(
            sizes=sizes, dtypes={"A": "int32", "C": "int32"} if "\n" in text else None
        )
    if marked:
        *_, line, carets = str(error.value).split("\n")
        start = carets.index("^")
        assert line[start : start + carets.count("^")] == marked


def test_the_second_walk_of_a_refused_example_is_explained() -> None:
    """No single walk over the keys exists: two are made, and the reason is said."""
    found = einfall.compile(examples.sigmoid_of_max).lower(sizes={"e": 64, "f": 64}).explain()
    assert any(w.rank == "m" and w.walked == 2 for w in found.walks)
    assert any("no short sum of products" in x for x in found.refusals)


def test_an_order_that_matters_is_kept() -> None:
    """Lists are walked in their own order, so what is kept must not depend on the order."""
    place = RankVariable("j")
    member = Reduce("any", ("j",), Apply("==", (Access("A", (place,)), RankVariable("m"))))
    given: dict[str, Any] = {"streamed": "m", "tiled": ("p",), "parameters": {}, "sizes": {}}
    with pytest.raises(BackendError, match="depends on the order"):
        split_lists([member], inputs={"A": (4,)}, commutative=False, **given)
