from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from einfall.ir.domain import Domain
from einfall.ir.errors import PassError
from einfall.ir.expression import Constant, Expression, Reduce, rewrite
from einfall.ir.notation import cascade
from einfall.ir.show import show_expression as show
from einfall.passes.domains import domain, executed_density, positive_parameters
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


def looked_up(bound: Expression, names: dict[str, Any]) -> Expression:
    """Replace the extremum of what a tile's rows hold by its value."""

    def rule(x: Expression) -> Expression | None:
        if not isinstance(x, Reduce):
            return None
        (rank,) = x.ranks
        body = evaluator(show(x.body))
        rows = range(names[f"{rank}_first"], names[f"{rank}_last"] + 1)
        pick = {"min": min, "max": max}[x.reducer]
        return Constant(pick(body({**names, rank: p}) for p in rows))

    return rewrite(bound, rule)


def tiles_of(
    found: Domain, names: dict[str, Any], sizes: dict[str, int], tile: int, streamed: str
) -> Iterator[tuple[int, bool]]:
    """Yield (tile, known to be full) as a kernel walks them: ranges in order, none twice."""
    reached = 0
    for x in found.ranges:
        begin, end, full_begin, full_end = (
            evaluator(show(looked_up(b, names)))(names)
            for b in (x.begin, x.end, x.full_begin, x.full_end)
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


def written(text: str, streamed: str = "m", tiled: tuple[str, ...] = ("p",)) -> list[str]:
    """Return ``[begin, end) full [begin, end)`` of each range, and the test."""
    found = domain(read(text), streamed=streamed, tiled=tiled)
    lines = [
        f"[{show(x.begin)}, {show(x.end)}) full [{show(x.full_begin)}, {show(x.full_end)})"
        for x in found.ranges
    ]
    return [*lines, "always" if found.test is None else show(found.test)]


def test_bounds_read_well() -> None:
    assert written("m <= p") == [
        "[0, min(size(m), p_last + 1)) full [0, min(size(m), p_first + 1))",
        "m <= p",
    ]
    assert written("m <= p and p - m < W") == [
        "[max(0, p_first - W + 1), min(size(m), p_last + 1))"
        " full [max(0, p_last - W + 1), min(size(m), p_first + 1))",
        "m <= p and m >= p - W + 1",
    ]
    assert written("m <= p", "p", ("m",)) == [
        "[m_first, size(p)) full [m_last, size(p))",
        "p >= m",
    ]
    assert written("p // B == m // B") == [
        "[p_first // B * B, min(size(m), p_last // B * B + B))"
        " full [p_last // B * B, min(size(m), p_first // B * B + B))",
        "m < p // B * B + B and m >= p // B * B",
    ]
    assert written("m <= p or m < L") == [
        "[0, min(size(m), max(p_last + 1, L))) full [0, min(size(m), max(p_first + 1, L)))",
        "m < max(p + 1, L)",
    ]
    assert written("m <= p and (p - m < W or m < 4)")[0] == (
        "[0, min(size(m), p_last + 1, 4)) full [0, min(size(m), p_first + 1, 4))"
    )
    assert written("retrieval[h]") == [
        "[0, where(retrieval[h], size(m), 0)) full [0, where(retrieval[h], size(m), 0))",
        "always",
    ]
    assert written("m < 0") == ["False"]


def test_no_filter_and_one_that_always_holds() -> None:
    whole = ["[0, size(m)) full [0, size(m))", "always"]
    assert written("m <= p or m > p - 3 or True") == whole
    found = domain(None, streamed="m", tiled=("p",))
    assert found == domain(Constant(True), streamed="m", tiled=("p",))


def test_what_is_not_solved_is_said() -> None:
    found = domain(read("(p - m) % d == 0 and m <= p"), streamed="m", tiled=("p",))
    assert found.notes == (
        "taken to be positive: d",
        "not solved for m, tested on every tile: (p - m) % d == 0",
    )
    chosen = domain(read("m // 64 in Sel[p // 64] and m <= p"), streamed="m", tiled=("p",))
    assert not chosen.exact and show(chosen.ranges[0].end) == "min(size(m), p_last + 1)"
    assert chosen.ranges[0].full_begin == chosen.ranges[0].full_end
    hull = domain(read("a <= m < a + 3 or e <= m < f"), streamed="m", tiled=("p",))
    assert len(hull.ranges) == 1 and "joined" in hull.notes[0] and hull.exact


def test_a_read_that_may_miss_its_shape_makes_no_tile_full() -> None:
    """Where doc[p - 1] is no point the filter keeps nothing, whatever its other side says."""
    found = domain(read("doc[h, p - 1] == 3 or m <= p"), streamed="m", tiled=("p",))
    assert not found.exact and all(x.full_begin == x.full_end for x in found.ranges)
    alone = domain(read("not retrieval[h - 1]"), streamed="m", tiled=("p",))
    assert alone.test is not None and show(alone.ranges[0].end) == "size(m)"


def test_parameters_that_are_taken_to_be_positive() -> None:
    assert positive_parameters(read("p // B == m // B and m <= p + c"), streamed="m") == ("B",)
    assert positive_parameters(read("m * d + l - 1 <= p * k"), streamed="m") == ("d",)
    assert positive_parameters(read("p * k - m < W"), streamed="m") == ()


def test_two_ranks_in_tiles() -> None:
    """Rows of several ranks side by side: each has its own first and last coordinate."""
    found = domain(read("m <= p + 2 * h"), streamed="m", tiled=("h", "p"))
    assert show(found.ranges[0].end) == "min(size(m), p_last + 2 * h_last + 1)"
    assert show(found.ranges[0].full_end) == "min(size(m), p_first + 2 * h_first + 1)"


def test_one_row_in_a_program() -> None:
    """Without tiled ranks a bound is the limit itself."""
    text = "m <= p and p - m < W"
    assert written(text, "m", ())[0] == (
        "[max(0, p - W + 1), min(size(m), p + 1)) full [max(0, p - W + 1), min(size(m), p + 1))"
    )
    found = domain(read(text), streamed="m", tiled=())
    counted = executed_density(
        found,
        streamed="m",
        tiles={"m": 8},
        sizes={"p": 64, "m": 64},
        parameters={"W": 20},
        coordinates={"p": 41},
    )
    assert counted == (4, 2, 2, 20)


def test_many_pieces_fall_back_to_a_test() -> None:
    text = " and ".join(f"(m < {i} or m > p + {i})" for i in range(2, 8))
    found = domain(read(text), streamed="m", tiled=("p",))
    assert not found.exact and len(found.ranges) == 1
    check(Case(text, {}, False, False), "m", "p", (24, 24, 8, 4))


COUNTED = [c for c in CASES if not c.real]


@pytest.mark.parametrize("case", COUNTED[::3], ids=lambda c: c.text)
def test_density_counts_what_a_kernel_walks(case: Case) -> None:
    P, M, P0, M0 = shape = (23, 29, 4, 8)
    found = domain(read(case.text), streamed="m", tiled=("p",))
    tensors = {name: np.array(listed(array)) for name, array in TENSORS.items()}
    for bound in case.bindings():
        names = {**bound, "size_p": P, "size_m": M}
        live_at = evaluator(case.text)
        live = sum(bool(live_at({**names, "p": p, "m": m})) for p in range(P) for m in range(M))
        walked: list[bool] = []
        for p_first in range(0, P, P0):
            ends = {"p_first": p_first, "p_last": min(P, p_first + P0) - 1}
            walk = tiles_of(found, {**names, **ends}, {"p": P, "m": M}, M0, "m")
            walked += [full for _, full in walk]
        counted = executed_density(
            found,
            streamed="m",
            tiles={"p": P0, "m": M0},
            sizes={"p": P, "m": M},
            parameters={k: v for k, v in bound.items() if k not in "bh"},
            coordinates={k: v for k, v in bound.items() if k in "bh"},
            tensors=tensors,
        )
        full = sum(walked)
        assert counted == (len(walked), full, len(walked) - full, live), (case.text, bound, shape)


def listed(x: Any) -> Any:
    return [listed(v) for v in x.values] if hasattr(x, "values") else x


def test_density_at_a_length_where_points_could_not_be_listed() -> None:
    n, tile = 1 << 17, 128
    triangle = domain(read("m <= p"), streamed="m", tiled=("p",))
    sizes, tiles = {"p": n, "m": n}, {"p": tile, "m": tile}
    counted = executed_density(triangle, streamed="m", tiles=tiles, sizes=sizes)
    rows = n // tile
    assert counted == (rows * (rows + 1) // 2, rows * (rows - 1) // 2, rows, n * (n + 1) // 2)
    spaced = domain(read("m <= p and (p - m) % d == 0"), streamed="m", tiled=("p",))
    known = {"d": 2}
    costly = executed_density(spaced, streamed="m", tiles=tiles, sizes=sizes, parameters=known)
    assert costly == (rows * (rows + 1) // 2, 0, rows * (rows + 1) // 2, None)


def test_density_without_a_tensor() -> None:
    same = domain(read("doc[b, p] == doc[b, m] and m < length[b]"), streamed="m", tiled=("p",))
    given: dict[str, Any] = {"tiles": {"p": 8, "m": 8}, "sizes": {"p": 16, "m": 16}}
    lengths = {"length": np.array([11])}
    with pytest.raises(PassError, match="length"):
        executed_density(same, streamed="m", coordinates={"b": 0}, **given)
    counted = executed_density(same, streamed="m", coordinates={"b": 0}, tensors=lengths, **given)
    assert counted == (4, 0, 4, None)
    nothing = executed_density(same, streamed="m", tiles={"p": 8, "m": 8}, sizes={"p": 0, "m": 9})
    assert nothing == (0, 0, 0, 0)


def sum_of(random_: random.Random) -> str:
    """Draw a linear form, or a quotient, remainder or size of one, as text."""
    form = " + ".join(random_.choice(["p", "m", "W", "2 * m", "3", "-p", "-4"]) for _ in range(2))
    return random_.choice(
        [form, form, form, f"({form}) // B", f"abs({form})", f"({form}) % 5", f"min({form}, p)"]
    )


def filter_of(random_: random.Random, depth: int) -> str:
    if depth == 0:
        symbol = random_.choice(["<", "<=", ">", ">=", "==", "!="])
        return f"{sum_of(random_)} {symbol} {sum_of(random_)}"
    parts = [filter_of(random_, depth - 1) for _ in range(2)]
    joined = random_.choice([" and ", " and ", " or "]).join(f"({x})" for x in parts)
    return random_.choice(["({})", "({})", "not ({})"]).format(joined)


@pytest.mark.parametrize("seed", range(6))
def test_random_filters(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(25):
        text = filter_of(random_, random_.choice([0, 1, 2]))
        names = {"W": (random_.choice([-2, 0, 5]),), "B": (random_.choice([1, 3, 4]),)}
        exact = domain(read(text), streamed="m", tiled=("p",)).exact
        shape = random_.choice([(13, 11, 4, 3), (9, 17, 8, 4)])
        check(Case(text, names, tight=False, exact=exact), "m", "p", shape)
