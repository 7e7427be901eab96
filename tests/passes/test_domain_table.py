"""A tile's truth, the one that decides what a table lists, against every point of the tile."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest

from einfall.ir.domain import Domain, Table
from einfall.ir.expression import Constant
from einfall.passes.domain_density import TilePoints, executed_density, truths
from einfall.passes.domain_table import tabled
from einfall.passes.domain_values import Names
from einfall.passes.domains import domain

from .domain_cases import CASES, TENSORS, Case, evaluator
from .test_domains import filter_of, listed, read

ARRAYS: dict[str, Any] = {
    **{name: np.array(listed(array)) for name, array in TENSORS.items()},
    "Keep": np.random.default_rng(5).random((20, 20)) < 0.4,
}


def tabled_domain(text: str, **options: Any) -> Domain:
    filter = read(text) if "Keep" not in text else read(text.replace("Keep", "Sel"))
    if "Keep" in text:
        from dataclasses import replace

        from einfall.ir.expression import Access, rewrite

        def named(x: Any) -> Any:
            return (
                replace(x, tensor="Keep") if isinstance(x, Access) and x.tensor == "Sel" else None
            )

        filter = rewrite(filter, named)
    given = {"held": (), "readable": tuple(ARRAYS), "sizes": {}, **options}
    found = domain(filter, streamed="m", tiled=("p",))
    return tabled(found, filter, streamed="m", tiled=("p",), **given)


MORE = (
    "Keep[p // 3, m // 5]",
    "not Keep[p // 8, m // 8] and m <= p",
    "Keep[abs(p // 8 - m // 8), m % 8]",
    "doc[b, p] == doc[b, m] and (p - m) % 3 == 0",
    "doc[b, p] < doc[b, m] or row[p] == row[m]",
    "m < size(m) // 2 ** bit_length(abs(p // 4 - m // 4))",
    "abs(p // 4 - m // 4) % max(1, 8 // (1 + p % 4)) == 0",
    "where(p % 2 == 0, m, p) < 9",
)
"""Filters that no loop bound says."""


def check(text: str, names: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
    """Compare a table's conditions, and the tiles that are counted, with every point."""
    found = tabled_domain(text)
    if found.table is None:
        assert found.exact, text
        return
    P, M, P0, M0 = shape
    live_at = evaluator(text)
    arrays = {**TENSORS, "Keep": Grid(ARRAYS["Keep"])}
    known = {**names, **arrays, "size_p": P, "size_m": M}
    points = np.array(
        [[bool(live_at({**known, "p": p, "m": m})) for m in range(M)] for p in range(P)]
    )
    rows, columns = -(-P // P0), -(-M // M0)
    pairs = np.array(list(product(range(rows), range(columns))))
    first = np.arange(0, P, P0)[:, None]
    ends = {"p_first": first[:, 0], "p_last": np.minimum(first[:, 0] + P0, P) - 1}
    numbers = {k: v for k, v in names.items() if k != "b"} | {"Keep_size_0": 20, "Keep_size_1": 20}
    at = {k: v for k, v in names.items() if k == "b"}
    sizes = {"p": P, "m": M}
    inside = Names(at, {**numbers, **ends}, sizes, ARRAYS)
    layout = TilePoints(None, first, {"p": P0}, "m", M0, Names(at, numbers, sizes, ARRAYS))
    some, every = truths(found.table, pairs, layout, inside)
    full = partial = 0
    for (i, j), may, must in zip(pairs, some, every, strict=True):
        block = points[i * P0 : (i + 1) * P0, j * M0 : (j + 1) * M0]
        assert may or not block.any(), (text, names, i, j)
        assert not must or (block.all() and block.shape[1] == M0), (text, names, i, j)
        whole = block.all() and block.shape[1] == M0
        full, partial = full + bool(whole), partial + bool(block.any() and not whole)
    counted = executed_density(
        found,
        streamed="m",
        tiles={"p": P0, "m": M0},
        sizes=sizes,
        parameters=numbers,
        coordinates=at,
        tensors=ARRAYS,
    )
    assert counted == (full + partial, full, partial, int(points.sum())), (text, names)


class Grid:
    """An array that Python indexes with numbers only."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __getitem__(self, at: Any) -> Any:
        assert all(0 <= i < n for i, n in zip(at, self.array.shape, strict=True))
        return self.array[at]


LISTED = [c for c in CASES if not c.exact and not c.real]


@pytest.mark.parametrize("case", LISTED, ids=lambda c: c.text)
def test_declared_filters(case: Case) -> None:
    for names in case.bindings():
        for shape in ((24, 24, 8, 4), (23, 29, 4, 8)):
            check(case.text, names, shape)


@pytest.mark.parametrize("text", MORE)
def test_filters_of_blocks_and_labels(text: str) -> None:
    for b in (0, 1):
        for shape in ((24, 24, 8, 4), (23, 29, 5, 8)):
            check(text, {"b": b}, shape)


@pytest.mark.parametrize("seed", range(4))
def test_random_filters(seed: int) -> None:
    random_ = random.Random(100 + seed)
    made = 0
    for _ in range(25):
        text = filter_of(random_, random_.choice([1, 2]))
        if random_.random() < 0.5:
            text = f"({text}) and (p - 2 * m) % 4 < 2"
        names = {"W": random_.choice([-2, 0, 5]), "B": random_.choice([1, 3, 4])}
        made += tabled_domain(text).table is not None
        check(text, names, random_.choice([(13, 11, 4, 3), (9, 17, 8, 4)]))
    assert made > 5


def test_blocks_that_tiles_lie_in_are_read_once_a_tile() -> None:
    """A mask of 8 by 8 blocks, in tiles that lie inside: no tile is left in doubt."""
    table = tabled_domain("Keep[p // 8, m // 8]").table
    assert isinstance(table, Table) and not table.fixed
    pairs = np.array(list(product(range(8), range(8))))
    first = np.arange(0, 64, 8)[:, None]
    ends = {"p_first": first[:, 0], "p_last": first[:, 0] + 7}
    sizes = {"p": 64, "m": 64}
    layout = TilePoints(None, first, {"p": 8}, "m", 8, Names({}, {}, sizes, ARRAYS))
    some, every = truths(table, pairs, layout, Names({}, ends, sizes, ARRAYS))
    assert (some == every).all()
    assert (some.reshape(8, 8) == ARRAYS["Keep"][:8, :8]).all()


def test_when_no_table_is_made() -> None:
    assert tabled_domain("m <= p").table is None
    assert tabled_domain("(p - m) % 3 == 0", sizes={"m": 128}).table is None
    short = {"m": 1 << 20, "p": 1}
    assert tabled_domain("doc[b, p] == doc[b, m]", sizes=short).table is None
    assert tabled_domain("(p - m) % 3 == 0", sizes=short).table is not None
    assert tabled_domain("doc[b, p] == doc[b, m]", readable=()).table is None
    assert tabled_domain("(p - b) % 3 == m % 3", held=("b",)).table is None


def test_what_is_not_in_memory_counts_as_unknown() -> None:
    """The part that can be looked at still leaves tiles out, and none is taken to be full."""
    table = tabled_domain("doc[b, m] == 1 and (p // 8 - m // 8) % 2 == 0", readable=()).table
    assert table is not None and table.test is None and table.every == Constant(False)


def test_between_ends_that_are_not_in_memory_no_table_is_made() -> None:
    filter = "doc[b, p] == 1 and (p // 8 - m // 8) % 2 == 0"
    assert tabled_domain(filter).table is not None
    assert tabled_domain(filter, readable=()).table is None


def test_two_ranges_in_an_open_order_are_listed() -> None:
    found = tabled_domain("a <= m < a + 3 or c <= m < d")
    assert found.hulled and found.table is not None and found.table.fixed
    check("a <= m < a + 3 or c <= m < d", {"a": 14, "c": 2, "d": 5}, (24, 24, 8, 4))
