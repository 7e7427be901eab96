"""Every operator that a filter may hold, on tiles: what is decided from their ends is so."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einfall.ir.errors import PassError
from einfall.passes.domain_density import TilePoints, truths
from einfall.passes.domain_values import Names
from einfall.passes.domains import domain
from einfall.passes.tile_classes import EMPTY, FULL, PARTIAL, table_of, tile_classes

from .domain_cases import TENSORS, Case, evaluator
from .test_domains import check, listed, read

ARRAYS: dict[str, Any] = {name: np.array(listed(array)) for name, array in TENSORS.items()}

TERMS = ("p", "m", "W", "2 * m", "-p", "3", "size(m)", "row[p]", "row[m]", "width[h]", "length[b]",
         "doc[b, p]", "doc[b, m]", "p * m", "p - m")  # fmt: skip
AROUND: dict[str, Callable[[str, str], str]] = {
    "+": lambda x, y: f"{x} + {y}",
    "-": lambda x, y: f"{x} - ({y})",
    "*": lambda x, y: f"({x}) * ({y})",
    "//": lambda x, y: f"({x}) // B",
    "%": lambda x, y: f"({x}) % B",
    "// varying": lambda x, y: f"({x}) // (1 + p % 3)",
    "% varying": lambda x, y: f"({x}) % (1 + m % 4)",
    "abs": lambda x, y: f"abs({x})",
    "min": lambda x, y: f"min({x}, {y})",
    "max": lambda x, y: f"max({x}, {y}, 2)",
    "bit_length": lambda x, y: f"bit_length({x})",
    "** of bits": lambda x, y: f"size(m) // 2 ** bit_length({x})",
    "where": lambda x, y: f"where({x} < {y}, {x}, {y} + 1)",
}
SHAPES = ((13, 11, 4, 3), (9, 17, 8, 4), (12, 12, 3, 6))


def atom(draw: random.Random, operator: str) -> str:
    """Draw a comparison that has the operator on at least one side."""
    term = [draw.choice(TERMS) for _ in range(3)]
    symbol = draw.choice(["<", "<=", ">", ">=", "==", "!="])
    return f"{AROUND[operator](term[0], term[1])} {symbol} {term[2]}"


def drawn(draw: random.Random, operator: str) -> str:
    """Draw a filter of one to three conditions with the operator in it."""
    text = atom(draw, operator)
    for _ in range(draw.choice([0, 1, 2])):
        other = draw.choice([atom(draw, draw.choice([*AROUND])), "m <= p", "retrieval[h]"])
        text = f"({text}) {draw.choice(['and', 'or'])} ({other})"
        if draw.random() < 0.3:
            text = f"not ({text})"
    return text


def points(text: str, names: dict[str, Any], shape: tuple[int, int, int, int]) -> Any:
    live_at, (P, M, _, _) = evaluator(text), shape
    known = {**names, "size_p": P, "size_m": M}
    return np.array(
        [[bool(live_at({**known, "p": p, "m": m})) for m in range(M)] for p in range(P)]
    )


def by_hand(kept: Any, shape: tuple[int, int, int, int]) -> Any:
    P, M, P0, M0 = shape
    found = np.zeros((-(-P // P0), -(-M // M0)), np.int8)
    for i, j in np.ndindex(found.shape):
        own = kept[i * P0 : (i + 1) * P0, j * M0 : (j + 1) * M0]
        whole = own.all() and own.shape == (P0, M0)
        found[i, j] = FULL if whole else PARTIAL if own.any() else EMPTY
    return found


@pytest.mark.parametrize("operator", AROUND)
def test_truth_on_tiles_and_bounds_of_loops(operator: str) -> None:
    draw = random.Random(operator)
    decided = 0
    for _ in range(9):
        text = drawn(draw, operator)
        filter = read(text)
        names = {"W": draw.choice([-2, 0, 5]), "B": draw.choice([1, 3, 4])}
        at = {"b": draw.choice([0, 1]), "h": draw.choice([0, 1])}
        shape = draw.choice(SHAPES)
        P, M, P0, M0 = shape
        sizes, tiles = {"p": P, "m": M}, {"p": P0, "m": M0}
        wanted = by_hand(points(text, {**names, **at}, shape), shape)
        found = tile_classes(
            filter, tiles=tiles, sizes=sizes, parameters=names, coordinates=at, tensors=ARRAYS
        )
        assert (found == wanted).all(), text
        # the ends of a tile alone may leave a doubt, and are never wrong
        table = table_of(filter, ("p", "m"), (), Names(at, names, sizes, ARRAYS))
        first = np.arange(0, P, P0)[:, None]
        ends = {"p_first": first[:, 0], "p_last": np.minimum(first[:, 0] + P0, P) - 1}
        pairs = np.array([*np.ndindex(wanted.shape)])
        layout = TilePoints(None, first, {"p": P0}, "m", M0, Names(at, names, sizes, ARRAYS))
        some, every = truths(table, pairs, layout, Names(at, {**names, **ends}, sizes, ARRAYS))
        flat = wanted.reshape(-1)
        assert (some | (flat == EMPTY)).all(), text
        cut = (pairs[:, 0] + 1) * P0 > P  # full but for the end of the rows
        assert (~every | cut | (flat == FULL)).all(), text
        decided += int((~some).sum() + every.sum())
        exact = domain(filter, streamed="m", tiled=("p",)).exact
        bound = {k: (v,) for k, v in (names | at).items()}
        check(Case(text, bound, tight=False, exact=exact), "m", "p", shape)
    assert decided > 0


def test_all_and_nothing_and_what_is_missing() -> None:
    tiles, sizes = {"p": 4, "m": 4}, {"p": 8, "m": 6}
    assert tile_classes(None, tiles=tiles, sizes=sizes).tolist() == [[2, 1], [2, 1]]
    nothing = read("m < 0")
    assert tile_classes(nothing, tiles=tiles, sizes=sizes).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(PassError, match="follow W, which is not given"):
        tile_classes(read("m < W"), tiles=tiles, sizes=sizes)
