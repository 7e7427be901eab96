"""Filters, with names bound, to check loop bounds by brute force.

A filter is evaluated here by Python itself, point by point, from its text: nothing is shared with
what is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import ceil, floor
from typing import Any

Names = Mapping[str, Any]


class Array:
    """A tensor that refuses a coordinate outside its shape, so that no bound reads one."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __getitem__(self, at: int | tuple[int, ...]) -> Any:
        first, *rest = at if isinstance(at, tuple) else (at,)
        if not 0 <= first < len(self.values):
            raise IndexError(f"{first} is outside {len(self.values)}")
        value = self.values[first]
        return value[tuple(rest)] if rest else value


@dataclass(frozen=True)
class Case:
    """A filter and the names that it reads.

    tight : every visited tile has a live point.
    exact : what the domain should say of itself.
    full : every tile whose points are all live is known to be full (asked where ``tight``). Where
        two ranges share a tile that only their union fills, it is not.
    """

    text: str
    names: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tight: bool = True
    exact: bool = True
    real: tuple[str, ...] = ()
    full: bool = True

    def bindings(self) -> list[dict[str, Any]]:
        """List every combination of the names' values."""
        return [dict(zip(self.names, v, strict=True)) for v in product(*self.names.values())]


DOC = Array(Array(*(i // 5 for i in range(60))), Array(*(i * i % 3 for i in range(60))))
ROW = Array(*((7 * i) % 23 for i in range(60)))

CASES = [
    Case("m <= p"),
    Case("m < p"),
    Case("p <= m"),
    Case("not (m <= p)"),
    Case("m <= p + c", {"c": (-9, -1, 3, 30)}),
    Case("m <= p + size(m) - size(p)"),
    Case("m <= p and p - m < W", {"W": (1, 4, 9, 100)}),
    Case("0 <= p - m < W", {"W": (1, 5, 16)}),
    Case("abs(p - m) < W", {"W": (1, 3, 11)}),
    Case("abs(p - m) >= W", {"W": (1, 3, 11)}),
    Case("m <= p and (p - m < W or m < 4)", {"W": (1, 6, 19)}, full=False),
    Case("m <= p and (p - m < W or m < L)", {"W": (1, 6), "L": (0, 3, 40)}, full=False),
    Case("m < L or m >= p - W + 1 and m <= p", {"W": (2, 9), "L": (0, 3, 17)}, full=False),
    Case("m <= p or m < L", {"L": (0, 1, 13, 80)}, full=False),
    Case("m < L and m <= p", {"L": (0, 1, 13, 80)}),
    Case("m < L", {"L": (0, 5, 8, 99)}),
    Case(
        "a <= m < a + w or e <= m < f",
        {"a": (0, 20), "w": (0, 5), "e": (3, 30), "f": (9, 35)},
        False,
    ),
    Case("p // B == m // B", {"B": (1, 4, 7)}),
    Case("p // 6 == m // 6"),
    Case("(p + s) // B == (m + s) // B", {"B": (4, 7), "s": (-3, 2, 5)}),
    Case("p // B != m // B", {"B": (4, 7)}),
    Case("p // B == m // B and m <= p", {"B": (4, 7)}),
    Case("m // B <= p // B - c", {"B": (4, 7), "c": (0, 2)}),
    Case("abs(p // B - m // B) <= 1", {"B": (3, 8)}),
    Case("m // B == p // B - 1 or m // B == p // B", {"B": (3, 8)}, full=False),
    Case("m != p", {}, False),
    Case("m == p"),
    Case("m == p or m == p + 9"),
    Case("p < 5 and m <= p", {}, False),
    Case("p < 5 or m <= p", {}, False),
    Case("m * d + l - 1 <= p", {"d": (1, 3), "l": (1, 5)}),
    Case("2 * m <= p"),
    Case("3 * m > p", {}, False),
    Case("2 * m == p", {}, False),
    Case("m <= 2 * p - 3"),
    Case("m <= p * W", {"W": (-1, 0, 2)}),
    Case("m <= c - p", {"c": (5, 30)}),
    Case("bit_length(p - m) <= 3"),
    Case("bit_length(abs(p // 4 - m // 4)) <= 1"),
    Case("bit_length(p - m) > 2"),
    Case("bit_length(p - m) == 3", {}, False),
    Case("m < size(m) // 2"),
    Case("floor(p / 4) <= m"),
    Case("min(m, L) < p", {"L": (3, 20)}, False),
    Case("max(m, L) < p", {"L": (3, 20)}, False),
    Case("m < max(p - 3, L) and m >= min(p, L)", {"L": (0, 9)}, False),
    Case("where(h < 2, m <= p, p <= m)", {"h": (0, 3)}),
    Case("where(m < 8, m <= p, p - m < 3)", {}, False),
    Case("(m <= p) == (h < 2)", {"h": (0, 3)}),
    Case("retrieval[h]", {"h": (0, 1)}),
    Case(
        "m <= p and (retrieval[h] or p - m < W or m < 4)",
        {"h": (0, 1), "W": (1, 6, 19)},
        full=False,
    ),
    Case("not retrieval[h] and m <= p or p - m < width[h] and m <= p", {"h": (0, 1)}),
    Case("0 <= p - m < width[h // 2]", {"h": (0, 1, 2, 3)}),
    Case("m < length[b]", {"b": (0, 1)}),
    Case("m <= p and m < length[b] and p < length[b]", {"b": (0, 1)}, False),
    Case("p - m < F and m <= p", {"F": (2.5, 7.0)}, True, True, ("F",)),
    Case("m * 2 <= p + F", {"F": (2.5, -4.25)}, True, True, ("F",)),
    # What cannot be solved for m: tested on every tile that the rest leaves.
    Case("(p - m) % d == 0 and m <= p", {"d": (1, 3)}, False, False),
    Case("(p - m) % d == 0 and 0 <= p - m < W", {"d": (2, 3), "W": (4, 12)}, False, False),
    Case("m % 4 == 0 or m < p", {}, False, False),
    Case("m % 4 != 0", {}, False, False),
    Case("p % 2 == 0 and m <= p", {}, False, False),
    Case("p % B < 2 and m <= p", {"B": (1, 4)}, False, True),
    Case("doc[b, p] == doc[b, m]", {"b": (0, 1)}, False, False),
    Case("doc[b, p] == doc[b, m] and m <= p and p - m < W", {"b": (0, 1), "W": (6,)}, False, False),
    Case("m <= row[p]", {}),
    Case("m < row[p] or m <= p", {}),
    Case("m >= row[p] - c and m <= p + row[p]", {"c": (0, 5)}, False),
    Case("bit_length(m) <= k", {"k": (0, 3)}, False, False),
    Case("m * (m - 1) <= p", {}, False, False),
    Case(
        "abs(p // s - m // s) <= 1 and abs(p % s - m % s) <= w",
        {"s": (4, 7), "w": (0, 2)},
        False,
        False,
    ),
    Case(
        "m // s == 0 or abs(p % s - m % s) <= max(2, s // 2 ** bit_length(abs(p // s - m // s)))",
        {"s": (4, 7)},
        False,
        False,
    ),
    Case(
        "abs(p // s - m // s) % 2 ** bit_length(abs(p // s - m // s)) == 0 or p // s == m // s",
        {"s": (4,)},
        False,
        False,
    ),
]

TENSORS = {
    "doc": DOC,
    "row": ROW,
    "retrieval": Array(True, False),
    "width": Array(3, 11),
    "length": Array(13, 26),
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "bit_length": lambda x: x.bit_length(),
    "where": lambda c, x, y: x if c else y,
    "floor": floor,
    "ceil": ceil,
}


def evaluator(text: str) -> Callable[[Names], Any]:
    """Return a function that evaluates the text with names bound; ``size(m)`` is ``size_m``."""
    code = compile(re.sub(r"size\((\w+)\)", r"size_\1", text), text, "eval")
    fixed = {**TENSORS, **FUNCTIONS}
    return lambda names: eval(code, {**fixed, **names})
