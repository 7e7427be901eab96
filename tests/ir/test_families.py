"""Rank families: what a split is, what is a stride, and what keeps step."""

from __future__ import annotations

import pytest

from einfall.ir.expression import Access, Expression, RankVariable
from einfall.ir.families import RankFamily, families, follows
from einfall.ir.notation import cascade

SPLIT = RankFamily("m0", ("m1",), ("m",))


def coordinate(text: str) -> Expression:
    """Read a coordinate in which m, m0, m1 and p are ranks."""
    c = cascade(
        f"""
        def f(X, Y, I, *, W=1, M0=4):
            T[m, m0, m1, p] = X[{text}] * Y[m, m0, m1, p] * I[m] + W + M0
            return T
        """
    )
    return next(
        x.coordinates[0]
        for x in c.einsums[0].expressions()
        if isinstance(x, Access) and x.tensor == "X"
    )


def test_a_mixed_radix_is_a_family() -> None:
    assert families(cascade("S[p, m] = Q[p, e] * K[m, e]")) == ()
    view = "BK[e, m1, m0] = K[e, m1 * M0 + m0]"
    assert families(cascade(view)) == (RankFamily("m0", ("m1",)),)
    deep = "O[p] = sum[a, b, c](X[p, a * 64 + b * 8 + c] * Y[p, a * 64 + b * 8 + c])"
    assert families(cascade(deep)) == (RankFamily("c", ("a", "b")),)
    # A stride and a shift: the digit of weight 1 is another tensor's own rank.
    assert families(cascade("O[p] = X[2 * p + s] * W[s]")) == ()
    assert families(cascade("O[p] = X[p + s] * W[s]")) == ()
    # Queries and keys are one sequence; only the keys are split.
    split = """
    def f(X, *, B=4):
        S[p, j, r] = X[p, e] * X[j * B + r, e]
        C[m] = sum[e](X[m, e])
        O[p] = S[p, j, r] + C[p]
        return O
    """
    assert families(cascade(split)) == (RankFamily("r", ("j",), ("m",)),)


def test_a_concatenation_is_a_family_with_what_splits_a_part() -> None:
    text = """
    def f(X, Y, *, B=4):
        S[m] = sum[e](X[m, e])
        C[n] = concat[n](S[m], Y[c])
        G[j] = max[r](S[j * B + r])
        O[j] = G[j] * sum[n](C[n])
        return O
    """
    (found,) = families(cascade(text))
    assert (found.element, found.outer, set(found.also)) == ("r", ("j",), {"m", "n", "c"})
    assert str(found) == "j, r"


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("m", "m", True),
        ("m0", "m", True),
        ("p", "m", False),
        ("m + 1", "m", True),
        ("m - W", "m", True),
        ("W - m", "m", False),
        ("m1 * M0 + m0", "m", True),
        ("m1 * M0", "m", False),
        ("m1 + p", "m", False),
        ("2 * m", "m", False),
        ("m * m", "m", False),
        ("I[m]", "m", False),
        ("0 * m", "m", False),
        ("m // M0", "m", False),
        ("m // M0", "m1", True),
        ("p // M0", "m1", False),
        ("m1", "m1", True),
    ],
)
def test_what_keeps_step(text: str, place: str, expected: bool) -> None:
    assert follows(coordinate(text), RankVariable(place), SPLIT) is expected
