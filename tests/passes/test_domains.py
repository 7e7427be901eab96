from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from einfall.ir.notation import cascade

from einfall.ir.domain import Domain
from einfall.ir.expression import Expression
from einfall.ir.show import show_expression as show
from einfall.passes.domains import domain
from tests.passes.domain_cases import CASES, TENSORS, Case, evaluator

# (P, M, P0, M0): tiles that divide the sizes, tiles that do not, one row, more rows than columns.
SHAPES = [(24, 24, 8, 4), (23, 29, 4, 8), (37, 18, 16, 5), (1, 33, 4, 8), (9, 40, 1, 8)]


def read(text: str) -> Expression:
    """Parse a filter; every tensor that it names is an input."""
    inputs = ["X", *(t for t in (*TENSORS, "Sel") if f"{t}[" in text)]
    more = [
        r
        for r in "bh"
        if any(n.id == r for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name))
    ]
    ranks = ", ".join([*more, "p", "m"])
    source = f"def f({', '.join(inputs)}):\n    S[{ranks}: {text}] = X[{ranks}]\n    return S\n"
    filter = cascade(source).einsums[0].filter
    assert filter is not None
    return filter


def tiles_of(
    found: Domain, names: dict[str, Any], sizes: dict[str, int], tile: int, streamed: str
) -> Iterator[tuple[int, bool]]:
    """Yield (tile, known to be full) as a kernel walks them: ranges in order, none twice."""
    reached = 0
    for x in found.ranges:
        begin, end, full_begin, full_end = (
            evaluator(show(b))(names) for b in (x.begin, x.end, x.full_begin, x.full_end)
        )
        assert all(isinstance(b, int) for b in (begin, end, full_begin, full_end))
        assert begin >= 0 and end <= sizes[streamed] and full_begin >= 0
        assert full_end <= max(full_begin, sizes[streamed])
        for t in range(max(reached, begin // tile), -(-end // tile)):
            if begin < end:
                yield t, full_begin <= t * tile and (t + 1) * tile <= full_end
                reached = t + 1


def check(case: Case, streamed: str, row: str, shape: tuple[int, int, int, int]) -> None:
    found = domain(read(case.text), streamed=streamed, tiled=(row,), real=case.real)
    assert found.exact is case.exact
    live_at = evaluator(case.text)
    tested = None if found.test is None else evaluator(show(found.test))
    P, M, P0, M0 = shape
    sizes = {row: P, streamed: M}
    for bound in case.bindings():
        names = {**bound, f"size_{row}": P, f"size_{streamed}": M}
        points = np.array(
            [[bool(live_at({**names, row: p, streamed: m})) for m in range(M)] for p in range(P)]
        )
        for p_first in range(0, P, P0):
            p_last = min(P, p_first + P0) - 1
            ends = {f"{row}_first": p_first, f"{row}_last": p_last}
            visited = dict(tiles_of(found, {**names, **ends}, sizes, M0, streamed))
            for t in range(-(-M // M0)):
                block = points[p_first : p_last + 1, t * M0 : (t + 1) * M0]
                where = (case.text, bound, shape, p_first, t)
                if t not in visited:
                    assert not block.any(), where
                elif visited[t]:
                    assert block.all() and block.shape[1] == M0, where
                elif tested is None:
                    assert block.all(), where
                else:
                    for (i, j), live in np.ndenumerate(block):
                        at = {row: p_first + i, streamed: t * M0 + j}
                        assert bool(tested({**names, **at})) == live, (*where, at)
                if case.tight:
                    assert (t in visited) == block.any(), where
                if case.tight and case.full:
                    whole = block.shape[1] == M0 and bool(block.all())
                    assert visited.get(t, False) == whole, where


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.text)
def test_tiles_cover_what_is_live_and_full_tiles_are_full(case: Case) -> None:
    for shape in SHAPES:
        check(case, "m", "p", shape)


@pytest.mark.parametrize("case", CASES[:24], ids=lambda c: c.text)
def test_roles_exchanged(case: Case) -> None:
    """Columns in tiles and rows streamed: the same function, the other way round."""
    for shape in ((24, 24, 8, 4), (29, 23, 4, 8)):
        check(case, "p", "m", shape)


def bounds(text: str, streamed: str = "m", tiled: tuple[str, ...] = ("p",)) -> list[str]:
    found = domain(read(text), streamed=streamed, tiled=tiled)
    lines = [
        f"[{show(x.begin)}, {show(x.end)}) full [{show(x.full_begin)}, {show(x.full_end)})"
        for x in found.ranges
    ]
    return [*lines, "always" if found.test is None else show(found.test)]
